"""The fence of cancels that travel over a second connection."""

import threading

import pytest

from actors.databases.fence import CancelFence
from tests.conftest import eventually
from tests.support.common import PATIENCE


class Cancel:
    """A cancel that arrives when the test says so, and notes the job that it hits."""

    def __init__(self):
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.running = None
        self.hit = []

    def __call__(self, seconds):
        self.begun.set()
        assert self.may_end.wait(PATIENCE)
        self.hit.append(self.running)


@pytest.fixture
def cancel():
    cancel = Cancel()
    yield cancel
    cancel.may_end.set()


def test_a_late_cancel_never_hits_the_next_job(cancel):
    fence = CancelFence(cancel)
    fence.begin()
    cancel.running = "first"
    fence.request()
    assert cancel.begun.wait(PATIENCE)
    begun = threading.Event()

    def go_on():
        assert fence.end()
        fence.begin()
        cancel.running = "second"
        begun.set()

    thread = threading.Thread(target=go_on)
    thread.start()
    assert not begun.is_set()
    cancel.may_end.set()
    thread.join()
    assert begun.is_set()
    assert cancel.hit == ["first"]


def test_repeated_requests_make_one_cancel(cancel):
    fence = CancelFence(cancel)
    fence.begin()
    for _ in range(10):
        fence.request()
    cancel.may_end.set()
    assert fence.wait()
    assert (fence.sent, len(cancel.hit)) == (1, 1)
    assert fence.end()
    fence.request()
    assert fence.sent == 1, "nothing was running"


def test_a_job_that_the_server_does_not_run_is_not_cancelled(cancel):
    fence = CancelFence(cancel)
    running, waiting = object(), object()
    fence.begin([running])
    fence.request(waiting)
    assert fence.sent == 0
    fence.request(running)
    assert fence.sent == 1


def test_a_cancel_that_fails_can_be_repeated():
    failures = iter([OSError("first"), None])
    done = []

    def cancel(seconds):
        error = next(failures)
        if error is not None:
            raise error
        done.append(True)

    fence = CancelFence(cancel)
    fence.begin()
    fence.request()
    assert fence.wait()
    fence.request()
    assert eventually(lambda: done)


def test_a_cancel_that_hangs_is_reported(monkeypatch, cancel):
    monkeypatch.setattr("actors.databases.fence._LONGEST", -0.99)
    fence = CancelFence(cancel)
    fence.begin()
    fence.request()
    assert not fence.end()
