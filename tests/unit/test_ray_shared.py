"""Large buffers of answers: in shared memory, and on their way from the gateway to a worker."""

import errno
import gc
import mmap
import os
import pickle
import socket
import threading
from random import Random

import pytest

from actors.databases.child.frames import BESIDE, COUNT, HEAD, PICKLED
from actors.databases.child.results_codec import answer_frames, load_pickled
from actors.databases.ray import driver, gateway
from actors.databases.ray import shared as memory
from actors.databases.ray.messages import Cluster, Messages
from actors.databases.ray.shared import SharedPool, mapped
from actors.values.errors import ChildProcessEnded
from supervisor import Query
from tests.support.common import PATIENCE

LARGE = os.urandom(100_000)
REQUEST = Query("SELECT 1")


class Holder:
    """A value with a buffer, as a column has one."""

    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        return Holder, (pickle.PickleBuffer(self.data),)


def framed(value, beside):
    frames = answer_frames(1, value, REQUEST, 0.0, plain=False, beside=beside)
    return b"".join(part for parts in frames for part in parts)


# --- buffers beside the frames ------------------------------------------------------------


def test_large_buffers_that_nobody_changes_stand_beside_the_frame():
    beside = ["an earlier one"]
    sent = framed([Holder(LARGE), Holder(b"small"), Holder(LARGE)], beside)
    assert HEAD.unpack_from(sent)[3] == BESIDE
    assert len(sent) < 1000
    assert len(beside) == 3
    body = memoryview(sent)[HEAD.size :]
    assert COUNT.unpack_from(body) == (2,)
    values = load_pickled(body[COUNT.size :], beside[1:])
    assert [bytes(value.data) for value in values] == [LARGE, b"small", LARGE]


@pytest.mark.parametrize("data", [bytearray(LARGE), b"small", LARGE[:1000]], ids=["may change", "small", "smaller"])
def test_other_buffers_travel_in_the_frame(data):
    beside = []
    sent = framed(Holder(data), beside)
    assert beside == []
    assert HEAD.unpack_from(sent)[3] == PICKLED
    assert bytes(load_pickled(sent[HEAD.size :]).data) == bytes(data)


def test_an_answer_that_cannot_be_sent_leaves_no_buffer():
    beside = []
    with pytest.raises(TypeError, match="cannot be sent"):
        framed([Holder(LARGE), threading.Lock()], beside)
    assert beside == []


# --- shared memory ------------------------------------------------------------------------


@pytest.fixture
def pool():
    pool = SharedPool()
    yield pool
    for piece in pool._pieces:
        piece.close()


def brought(pool, *buffers):
    """Return buffers as the program has them."""
    descriptor, places = pool.put(buffers)
    try:
        return mapped(descriptor, places)
    finally:
        os.close(descriptor)


def test_shared_memory_holds_the_buffers_and_nobody_can_change_them(pool):
    buffers = [LARGE, b"x", memoryview(LARGE)[1:50_000], pickle.PickleBuffer(b"yz")]
    descriptor, places = pool.put(buffers)
    views = mapped(descriptor, places)
    os.close(descriptor)
    assert [bytes(view) for view in views] == [bytes(buffer) for buffer in buffers]
    assert all(begin % 64 == 0 for begin, _ in places)
    assert all(view.readonly for view in views)


def test_memory_is_used_again_only_after_its_last_buffer_is_gone(pool):
    first, second = brought(pool, LARGE, LARGE)
    [piece] = pool._pieces
    del first
    others = brought(pool, b"other")
    assert len(pool._pieces) == 2
    assert bytes(second) == LARGE
    del second, others
    again = brought(pool, LARGE[::-1])
    assert piece in pool._pieces
    assert len(pool._pieces) == 2
    assert bytes(again[0]) == LARGE[::-1]


def test_much_more_memory_than_an_answer_needs_is_not_used_for_it(pool):
    del brought(pool, bytes(20 << 20))[:]
    small = brought(pool, LARGE)
    assert len(pool._pieces) == 2
    del small


def test_many_answers_that_a_program_keeps_take_few_descriptors_of_the_gateway(pool):
    kept = [brought(pool, number.to_bytes(4, "big")) for number in range(100)]
    assert len(pool._pieces) == 8
    assert [int.from_bytes(view, "big") for [view] in kept] == list(range(100))


def test_very_large_memory_is_not_kept(pool, monkeypatch):
    monkeypatch.setattr(memory, "_MOST", 1 << 20)
    assert bytes(brought(pool, bytes(3 << 20))[0]) == bytes(3 << 20)
    assert pool._pieces == []


def test_unused_memory_is_freed_and_used_memory_is_not(pool, monkeypatch):
    kept = brought(pool, LARGE)
    del brought(pool, LARGE)[:]
    pool.trim()
    assert len(pool._pieces) == 2
    monkeypatch.setattr(memory, "_IDLE", -1.0)
    pool.trim()
    assert len(pool._pieces) == 1
    assert bytes(kept[0]) == LARGE
    del kept
    pool.trim()
    assert pool._pieces == []


def test_memory_that_a_forked_process_still_sees_is_never_used_again(pool):
    [kept] = brought(pool, LARGE)
    [piece] = pool._pieces
    told, tell = os.pipe()
    gone, go = os.pipe()
    if not (child := os.fork()):
        os.read(gone, 1)
        os.write(tell, b"1" if bytes(kept) == LARGE else b"0")
        os._exit(0)
    del kept
    others = [brought(pool, bytes(len(LARGE))) for _ in range(3)]
    assert bytes(others[0][0]) == bytes(len(LARGE))
    os.write(go, b"1")
    assert os.read(told, 1) == b"1"
    os.waitpid(child, 0)
    pool.trim()
    assert piece not in pool._pieces
    for end in (told, tell, gone, go):
        os.close(end)


def test_a_forked_process_leaves_the_memory_of_its_parent_alone(pool):
    [kept] = brought(pool, LARGE)
    if not (child := os.fork()):
        del kept
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    other = brought(pool, bytes(len(LARGE)))
    assert bytes(kept) == LARGE
    del other


def test_a_fork_forgets_all_memory_while_threads_let_some_of_it_go(pool, monkeypatch):
    class Busy:
        """Stands for another thread that lets memory go in the middle of the fork."""

        def __setitem__(self, at, value):
            gone.clear()

    monkeypatch.setitem(memory._held, 0, Busy())
    gone = brought(pool, LARGE)
    kept = brought(pool, LARGE)
    piece = pool._pieces[-1]
    memory._before_fork()
    assert not gone
    del kept
    pool.trim()
    assert piece not in pool._pieces


class Saver:
    """Part of a cycle. It saves a buffer from the garbage collection."""

    saved = None

    def __init__(self, view):
        self.view = view
        self.itself = self

    def __del__(self):
        Saver.saved = self.view


def test_memory_that_is_saved_from_the_garbage_is_never_used_again(pool):
    Saver(brought(pool, LARGE)[0])
    [piece] = pool._pieces
    gc.collect()
    other = brought(pool, bytes(len(LARGE)))
    assert bytes(Saver.saved) == LARGE
    Saver.saved = None
    pool.trim()
    assert piece not in pool._pieces
    del other


def test_memory_that_nobody_wants_is_freed(pool):
    descriptor, _ = pool.put([LARGE])
    memory.forget(descriptor)
    os.close(descriptor)
    pool.trim()
    assert pool._pieces == []


def test_threads_get_their_own_buffers(pool):
    wrong = []

    def work(number):
        random = Random(number)
        kept = []
        for _ in range(300):
            data = bytes([random.randrange(256)]) * random.randrange(1, 3 << 20)
            kept.append((data[0], len(data), brought(pool, data)))
            pool.trim()
            while len(kept) > random.randrange(6):
                first, size, [view] = kept.pop(0)
                wrong.extend(
                    [number] * (len(view) != size or view[0] != first or bytes(view[-100:]).strip(view[:1]) != b"")
                )

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert wrong == []
    assert len(pool._pieces) <= 8


def full(*_, **__):
    raise OSError(errno.ENOSPC, "no space")


@pytest.mark.parametrize("missing", [(), ("memfd_create",), ("posix_fallocate", "memfd_create")], ids=str)
def test_without_memory_no_descriptor_is_left(pool, monkeypatch, missing):
    for name in missing:
        monkeypatch.delattr(os, name)
    assert bytes(brought(pool, LARGE)[0]) == LARGE
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "ftruncate" if "posix_fallocate" in missing else "posix_fallocate", full)
    with pytest.raises(OSError, match="no space"):
        pool.put([bytes(5 << 20)])
    assert os.listdir("/proc/self/fd") == before


def test_without_a_descriptor_no_memory_is_left(pool, monkeypatch):
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "dup", full)
    with pytest.raises(OSError, match="no space"):
        pool.put([LARGE])
    assert os.listdir("/proc/self/fd") == before


def test_memory_that_the_program_cannot_map_is_given_up(pool, monkeypatch):
    descriptor, places = pool.put([LARGE])
    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", full)
        with pytest.raises(OSError, match="no space"):
            mapped(descriptor, places)
    os.close(descriptor)
    pool.trim()
    assert pool._pieces == []


# --- from the gateway to the worker -------------------------------------------------------


class Ends:
    """Both ends of the socket, and a link that hears the gateway."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        self.sockets = ours, theirs
        self.gateway = driver.Gateway(Cluster("host:1", {}, 3.0), None, driver._Program(theirs))
        self.messages = Messages(ours)
        self.link = gateway.Link(type("Gateway", (), {"add": lambda *_: 1, "release": lambda *_, **__: None})())
        self.link._open_pipes()

    def bring(self, *buffers):
        self.gateway.bring(1, list(buffers))
        kind, number, body, descriptors = self.messages.receive()
        assert number == 1
        self.link.note(kind, body, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


@pytest.fixture
def ends():
    ends = Ends()
    yield ends
    for end in (*ends.sockets, *ends.gateway.pool._pieces):
        end.close()
    ends.link.note_end(ChildProcessEnded("the test is over"))
    ends.link.close()


def test_buffers_are_taken_in_their_order(ends):
    ends.bring(b"1", b"2")
    ends.bring(b"3")
    assert [bytes(view) for view in ends.link.buffers(1)] == [b"1"]
    assert [bytes(view) for view in ends.link.buffers(2)] == [b"2", b"3"]


def test_a_worker_waits_for_buffers_that_are_on_their_way(ends):
    taken = []
    thread = threading.Thread(target=lambda: taken.extend(ends.link.buffers(2)), daemon=True)
    thread.start()
    ends.bring(LARGE)
    ends.bring(b"2")
    thread.join(PATIENCE)
    assert [bytes(view) for view in taken] == [LARGE, b"2"]


def test_a_worker_that_waits_hears_of_the_end(ends):
    errors = []

    def take():
        try:
            ends.link.buffers(1)
        except ChildProcessEnded as error:
            errors.append(error)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    ends.link.note_end(ChildProcessEnded("the actor ended"))
    thread.join(PATIENCE)
    assert str(errors[0]) == "the actor ended"


def test_a_lack_of_memory_is_an_error_and_the_next_buffers_arrive(ends, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        ends.bring(b"1", b"2")
    with monkeypatch.context() as patch:
        patch.setattr(gateway, "mapped", full)
        ends.bring(b"3")
    ends.bring(b"4")
    for count in (2, 1):
        with pytest.raises(OSError, match="no space"):
            ends.link.buffers(count)
    assert bytes(ends.link.buffers(1)[0]) == b"4"
