"""The tracebacks of a reply's errors, and the callbacks of its callers."""

import asyncio
import gc
import weakref
from contextlib import suppress

import pytest

from actors.replies.reply import Reply
from actors.values.rejection import Rejection

# --- errors and their tracebacks ----------------------------------------------------------


def frames(error):
    count, trace = 0, error.__traceback__
    while trace is not None:
        count, trace = count + 1, trace.tb_next
    return count


def test_a_traceback_does_not_grow_with_each_get():
    reply = Reply()
    reply.reject(ValueError("no"))
    counts = set()
    for _ in range(5):
        with pytest.raises(ValueError, match="no") as caught:
            reply.get()
        counts.add(frames(caught.value))
    assert len(counts) == 1


def test_a_rejection_remembers_where_the_error_was_raised():
    try:
        raise ValueError("here")  # noqa: TRY301  # the point of the test
    except ValueError as error:
        rejection = Rejection(error)
    assert rejection.traceback.tb_frame.f_code.co_name == "test_a_rejection_remembers_where_the_error_was_raised"


class Ghost(ValueError):
    """An error that supports weak references."""


def test_an_error_is_freed_with_its_reply_without_a_garbage_collection():
    gc.disable()
    try:
        error = Ghost("no")
        reply, ghost = Reply(), weakref.ref(error)
        reply.reject(error)
        del error
        with suppress(ValueError):
            reply.get()
        del reply
        assert ghost() is None
    finally:
        gc.enable()


# --- callbacks ----------------------------------------------------------------------------


def test_callbacks_are_called_once_in_their_order_with_the_settled_reply():
    reply, calls = Reply(), []
    reply.add_done_callback(lambda done: calls.append(("first", done.get(timeout=0))))
    reply.add_done_callback(lambda done: calls.append(("second", done is reply)))
    assert calls == []
    reply.settle(7)
    reply.settle(8)
    assert calls == [("first", 7), ("second", True)]


def test_a_callback_of_a_settled_reply_is_called_at_once():
    reply, calls = Reply(), []
    reply.settle(7)
    reply.add_done_callback(calls.append)
    assert calls == [reply]


def test_a_callback_may_add_another():
    reply, calls = Reply(), []
    reply.add_done_callback(lambda done: done.add_done_callback(lambda _: calls.append("inner")))
    reply.settle(7)
    assert calls == ["inner"]


def test_waiters_are_released_before_the_callbacks_are_called():
    reply = Reply()
    order = []
    reply.add_done_callback(lambda done: order.append("callback"))
    reply._add_waker(lambda: order.append("waiter"))
    reply.settle(1)
    assert order == ["waiter", "callback"]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
@pytest.mark.parametrize("settled_before", [False, True])
def test_a_callback_that_raises_is_logged_and_does_no_harm(caplog, error, settled_before):
    reply, calls = Reply(), []

    def explode(done):
        raise error("in a callback")

    if settled_before:
        reply.settle(1)
    reply.add_done_callback(explode)
    reply.add_done_callback(calls.append)
    assert reply.settle(1) is not settled_before
    assert calls == [reply]
    (record,) = caplog.records
    assert record.message.startswith(f"callback_failed error={error.__name__}(test_reply_callbacks.py:")
    assert "explode" in record.message


def test_a_callback_without_a_name_is_logged_by_its_type(caplog):
    class Caller:
        def __call__(self, done):
            raise ValueError

    reply = Reply()
    reply.add_done_callback(Caller())
    reply.settle(1)
    assert "Caller" in caplog.text
