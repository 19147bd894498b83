"""Large buffers of answers: in shared memory, and on their way from the gateway to a worker."""

import errno
import os
import pickle
import socket
import threading

import pytest

from actors.databases.child.frames import BESIDE, COUNT, HEAD, PICKLED
from actors.databases.child.results_codec import answer_frames, load_pickled
from actors.databases.ray import driver, gateway
from actors.databases.ray.messages import Messages
from actors.databases.ray.shared import mapped, shared
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
    return b"".join(answer_frames(1, value, REQUEST, 0.0, plain=False, beside=beside))


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


def test_shared_memory_holds_the_buffers_and_nobody_can_change_them():
    buffers = [LARGE, b"x", memoryview(LARGE)[1:50_000], pickle.PickleBuffer(b"yz")]
    descriptor, places = shared(buffers)
    views = mapped(descriptor, places)
    os.close(descriptor)
    assert [bytes(view) for view in views] == [bytes(buffer) for buffer in buffers]
    assert all(begin % 64 == 0 for begin, _ in places)
    assert all(view.readonly for view in views)


def test_shared_memory_ends_with_the_last_view():
    descriptor, places = shared([LARGE, LARGE])
    views = mapped(descriptor, places)
    inode = os.fstat(descriptor).st_ino
    os.close(descriptor)
    assert is_mapped(inode)
    del views[0]
    assert is_mapped(inode)
    del views
    assert not is_mapped(inode)


def is_mapped(inode):
    with open("/proc/self/maps", encoding="utf-8") as maps:
        return any("memfd:querycrew" in line and f" {inode} " in line for line in maps)


@pytest.mark.parametrize("has_memfd", [True, False])
def test_without_memory_no_descriptor_is_left(monkeypatch, has_memfd):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space")

    if not has_memfd:
        monkeypatch.delattr(os, "memfd_create")
        descriptor, places = shared([LARGE])
        assert bytes(mapped(descriptor, places)[0]) == LARGE
        os.close(descriptor)
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="no space"):
        shared([LARGE])
    assert os.listdir("/proc/self/fd") == before


# --- from the gateway to the worker -------------------------------------------------------


class Ends:
    """Both ends of the socket, and a link that hears the gateway."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        self.sockets = ours, theirs
        self.program = driver._Program(theirs)
        self.messages = Messages(ours)
        self.link = gateway.Link(type("Gateway", (), {"add": lambda *_: 1, "release": lambda *_, **__: None})())
        self.link._open_pipes()

    def bring(self, *buffers):
        self.program.bring(1, list(buffers))
        kind, number, body, descriptors = self.messages.receive()
        assert number == 1
        self.link.note(kind, body, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


@pytest.fixture
def ends():
    ends = Ends()
    yield ends
    for end in ends.sockets:
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
    def full(*_):
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        ends.bring(b"1", b"2")
    with monkeypatch.context() as patch:
        patch.setattr(gateway, "mapped", full)
        ends.bring(b"3")
    ends.bring(b"4")
    for count in (2, 1):
        with pytest.raises(OSError, match="no space"):
            ends.link.buffers(count)
    assert bytes(ends.link.buffers(1)[0]) == b"4"
