"""Replies that derive from others: `map`, `filter`, `join`, `reduce`."""

import queue
import threading
from contextlib import suppress

import pykka
import pytest

from actors.dispatch.dispatcher import Dispatcher
from actors.replies.reply import Reply
from actors.values.errors import WouldDeadlock
from tests.conftest import eventually
from tests.support.waiters import is_waited_for, on_a_thread_of, waiter


def answered(value):
    reply = Reply()
    reply.settle(value)
    return reply


def rejected(error):
    reply = Reply()
    reply.reject(error)
    return reply


# --- values, before and after their source is settled -------------------------------------


@pytest.mark.parametrize(
    ("derive", "wanted"),
    [
        (lambda reply: reply.map(sum), 10),
        (lambda reply: reply.filter(lambda item: item > 2), [3, 4]),
        (lambda reply: reply.join(answered("more")), [[1, 2, 3, 4], "more"]),
        (lambda reply: reply.join(), [[1, 2, 3, 4]]),
        (lambda reply: reply.reduce(lambda total, item: total * item), 24),
        (lambda reply: reply.reduce(lambda total, item: total + item, 100), 110),
        (lambda reply: reply.map(len).map(str), "4"),
    ],
    ids=["map", "filter", "join", "join of one", "reduce", "reduce from", "map of map"],
)
@pytest.mark.parametrize("settled_before", [True, False])
def test_a_derived_reply_has_the_value_that_its_function_returns(derive, wanted, settled_before):
    source = answered([1, 2, 3, 4]) if settled_before else Reply()
    derived = derive(source)
    assert derived.done() is settled_before
    source.settle([1, 2, 3, 4])
    assert derived.done()
    assert derived.get() == derived.get(timeout=0) == wanted
    assert derived.exception() is None


def test_an_empty_value_is_reduced_to_its_beginning():
    assert answered([]).reduce(lambda total, item: total + item, 5).get() == 5
    with pytest.raises(TypeError, match="empty"):
        answered([]).reduce(lambda total, item: total + item).get()


def test_a_derived_reply_is_a_reply():
    derived = Reply().map(len)
    assert isinstance(derived, Reply)
    assert repr(derived) == "<Reply pending>"
    for value, shown in (("abc", "<Reply answered>"), (5, "<Reply rejected: TypeError>")):
        derived = answered(value).map(len)
        assert repr(derived) == "<Reply pending>", "done() must not run the caller's function"
        derived.exception()
        assert repr(derived) == shown


# --- errors -------------------------------------------------------------------------------


def test_the_error_of_a_source_is_the_error_of_the_derived_reply():
    error = ValueError("no")
    calls = []
    derived = rejected(error).map(calls.append)
    assert derived.exception() is error
    with pytest.raises(ValueError, match="no"):
        derived.get()
    assert calls == []


def test_the_error_of_the_function_is_the_outcome():
    with pytest.raises(ZeroDivisionError):
        answered(0).map(lambda value: 1 / value).get()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_every_exception_of_the_function_is_the_outcome(error):
    def explode(value):
        raise error("in a function")

    derived = answered(1).map(explode)
    for _ in range(2):
        with pytest.raises(error, match="in a function"):
            derived.get()


def test_a_join_fails_with_the_error_of_its_first_failed_source():
    joined = answered(1).join(rejected(KeyError("a")), rejected(ValueError("b")))
    assert type(joined.exception()) is KeyError


def test_a_value_that_cannot_be_iterated_raises_in_its_reader():
    for derived in (answered(5).filter(bool), answered(5).reduce(max)):
        with pytest.raises(TypeError, match=r"not iterable|must support iteration"):
            derived.get()


# --- once, and in whose thread ------------------------------------------------------------


def test_the_function_runs_once_and_only_when_its_value_is_read():
    calls = []
    derived = answered(1).map(calls.append)
    assert derived.done()
    assert calls == []
    derived.get()
    derived.get()
    derived.exception()
    assert calls == [1]


def test_two_threads_that_read_at_once_run_the_function_once():
    entered, let_go, calls = threading.Event(), threading.Event(), []

    def slow(value):
        calls.append(threading.get_ident())
        entered.set()
        assert let_go.wait(10)
        return value

    derived = answered(5).map(slow)
    with waiter(derived.get) as first:
        assert entered.wait(10)
        with waiter(derived.get) as second:
            let_go.set()
    assert (first, second) == ([5], [5])
    assert len(calls) == 1


def test_the_function_does_not_run_in_the_thread_that_settles():
    source, threads = Reply(), []
    derived = source.map(lambda value: threads.append(threading.get_ident()))
    with waiter(lambda: source.settle(1)):
        pass
    assert threads == []
    derived.get()
    assert threads == [threading.get_ident()]


# --- waiting ------------------------------------------------------------------------------


def test_a_wait_is_released_when_the_last_source_is_settled():
    first, second = Reply(), Reply()
    joined = first.join(second)
    with waiter(lambda: joined.get(timeout=30)) as seen:
        assert is_waited_for(first)
        first.settle(1)
        assert is_waited_for(second)
        assert seen == []
        second.settle(2)
    assert seen == [[1, 2]]


def test_a_time_limit_holds_for_all_sources_together():
    first, second = Reply(), Reply()
    joined = first.join(second)
    for _ in range(2):
        with pytest.raises(pykka.Timeout):
            joined.get(timeout=0.001)
        first.settle(1)
    assert not first._waiters
    assert not second._waiters


def test_a_crews_own_thread_is_refused_a_wait_for_a_derived_reply():
    crew = Dispatcher("app", "a database", 1, None)
    derived = Reply(crew).map(len)
    with on_a_thread_of(crew), pytest.raises(WouldDeadlock):
        derived.get()


# --- callbacks ----------------------------------------------------------------------------


def test_a_callback_is_called_once_when_the_last_source_is_settled():
    first, second, calls = Reply(), Reply(), []
    joined = first.join(second, answered(3))
    joined.add_done_callback(lambda done: calls.append(done.get(timeout=0)))
    second.settle(2)
    assert calls == []
    first.settle(1)
    assert calls == [[1, 2, 3]]


def test_a_callback_of_a_derived_reply_whose_sources_are_settled_is_called_at_once():
    calls = []
    derived = answered(1).map(str)
    derived.add_done_callback(calls.append)
    assert calls == [derived]


def test_a_callback_that_raises_harms_neither_the_next_nor_the_source(caplog):
    source, calls = Reply(), []
    derived = source.map(str)
    derived.add_done_callback(lambda done: 1 / 0)
    derived.add_done_callback(calls.append)
    assert source.settle(1) is True
    assert calls == [derived]
    assert "callback_failed error=ZeroDivisionError" in caplog.text


def test_a_reply_that_is_joined_with_itself_waits_once():
    source, calls = Reply(), []
    joined = source.join(source)
    joined.add_done_callback(calls.append)
    source.settle(1)
    assert calls == [joined]
    assert joined.get() == [1, 1]


def test_a_waiter_on_a_derived_reply_survives_a_settling_that_was_cut_off():
    source, calls = Reply(), []

    def killed():
        calls.append("waker")
        if len(calls) == 1:
            raise SystemExit  # like an asynchronous exception in the settling thread

    assert source.map(str)._add_waker(killed)
    for _ in range(2):  # a worker that is killed during its answer answers again at its end
        with suppress(SystemExit):
            source.settle(1)
    assert calls == ["waker", "waker"]


# --- settled by hand ----------------------------------------------------------------------


def test_a_derived_reply_that_is_settled_by_hand_is_settled_for_all():
    derived, calls = Reply().map(str), []
    derived.settle("by hand")
    assert derived.get(timeout=0) == "by hand"
    derived.add_done_callback(calls.append)
    assert calls == [derived]


def test_the_value_of_a_hooked_reply_comes_from_its_hook():
    hooked = Reply()
    hooked.set_get_hook(lambda timeout: [1, 2])
    assert hooked.map(len).get(timeout=0.1) == 2


# --- futures of plain Pykka among the sources ---------------------------------------------


def test_a_plain_pykka_future_is_a_source_like_any_other():
    foreign = pykka.ThreadingFuture()
    joined = answered(1).join(foreign)
    assert not joined.done()
    with pytest.raises(pykka.Timeout):
        joined.get(timeout=0.001)
    foreign.set(2)
    assert joined.done()
    assert joined.get() == [1, 2]


def test_the_error_of_a_plain_pykka_future_is_an_outcome_too():
    foreign = pykka.ThreadingFuture()
    foreign.set_exception((ValueError, ValueError("foreign"), None))
    joined = answered(1).join(foreign)
    assert joined.done()
    with pytest.raises(ValueError, match="foreign"):
        joined.get()


def test_a_plain_pykka_future_calls_callbacks_and_releases_waiters():
    foreign, called = pykka.ThreadingFuture(), threading.Event()
    joined = answered(1).join(foreign)
    joined.add_done_callback(lambda done: called.set())
    with waiter(lambda: joined.get(timeout=30)) as seen:
        foreign.set(2)
    assert called.wait(10)
    assert seen == [[1, 2]]


def test_done_does_not_block_while_a_thread_waits_for_a_plain_pykka_future():
    source = pykka.ThreadingFuture()
    mapped = source.map(str)  # Pykka holds the lock of the future while a thread waits for it
    joined = answered(1).join(mapped)
    joined.add_done_callback(lambda done: None)

    def is_locked():
        if mapped._condition.acquire(blocking=False):
            mapped._condition.release()
            return False
        return True

    assert eventually(is_locked)
    with waiter(joined.done) as seen:
        looked = eventually(lambda: seen, 0.5)
        source.set(2)
    assert looked, "done() waited for the answer"
    assert joined.get() == [1, "2"]


def test_a_pykka_future_takes_replies_as_its_own():
    foreign = pykka.ThreadingFuture()
    foreign.set(1)
    assert foreign.join(answered(2)).get() == [1, 2]


def test_setting_a_settled_derived_reply_raises_as_in_pykka():
    derived = answered(1).map(str)
    derived.get()
    with pytest.raises(queue.Full):
        derived.set("another")
