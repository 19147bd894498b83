"""The answers of a Ray actor: another thread may take them in the middle of a job."""

import marshal
import pickle

from actors.databases.base import Connection
from actors.databases.child.frames import BESIDE, COUNT, HEAD, MAGIC, PICKLED, RETURNED
from actors.databases.child.host import RemoteBatch
from actors.databases.child.requests_codec import item_of
from actors.databases.ray.hosted import _ActorHost
from supervisor import Query

LARGE = bytes(100_000)


class Holder:
    """A value with a buffer that nobody can change."""

    def __reduce_ex__(self, protocol):
        return bytes, (pickle.PickleBuffer(LARGE),)


def frames_of(answers):
    """Return the kinds and bodies of the frames in all answers, as the program reads them."""
    data, found = b"".join(answer[:-1] for answer in answers), []
    while data:
        magic, length, _, kind, _ = HEAD.unpack_from(data)
        assert magic == MAGIC
        found.append((kind, data[HEAD.size : HEAD.size + length]))
        data = data[HEAD.size + length :]
    return found


def begun(host, count):
    """Begin the first of some jobs, which came in one frame."""
    host.claims.offer(list(range(count)))
    host._first = 1
    items = [item_of(Query("SELECT 1"))[0]] * count
    task = RemoteBatch(host, Connection(), 1, count, items).begin()
    assert task is not None
    return task


class Interrupted:
    """A lock behind which another thread comes first."""

    def __init__(self, lock, other):
        self.lock, self.other = lock, other

    def __enter__(self):
        self.lock.acquire()

    def __exit__(self, *_):
        self.lock.release()
        other, self.other = self.other, lambda: None
        other()


def test_no_frame_comes_between_the_parts_of_a_large_one():
    host, answers = _ActorHost(), []
    task = begun(host, 3)
    plain = host._writing

    def look():
        host._writing = plain
        answers.append(host.taken())

    host.flush()
    host.flush = lambda *_: None  # nothing small is there, so the first to write is the large answer
    host._writing = Interrupted(plain, look)
    host.answer(task, LARGE, 0.0)
    answers.append(host.taken())
    [(kind, body), (returned, tickets)] = frames_of(answers)
    assert (kind, pickle.loads(body)) == (PICKLED, LARGE)
    assert (returned, marshal.loads(tickets)) == (RETURNED, [2, 3])


class Growing(list):
    """A list that another thread makes longer while its content is copied."""

    def __getitem__(self, index):
        found = super().__getitem__(index)
        if isinstance(index, slice) and found == ["first"]:
            self.append("second")
        return found


def test_a_buffer_that_comes_while_others_are_taken_is_not_lost():
    host = _ActorHost()
    host._beside = Growing(["first"])
    assert host.taken()[1] == ["first"]
    assert host.taken()[1] == ["second"]


def test_large_buffers_stand_beside_the_frames():
    host = _ActorHost()
    host.answer(begun(host, 1), Holder(), 0.0)
    frames, buffers = host.taken()
    [(kind, body)] = frames_of([frames])
    assert (kind, COUNT.unpack_from(body)) == (BESIDE, (1,))
    assert bytes(pickle.loads(body[COUNT.size :], buffers=buffers)) == LARGE
