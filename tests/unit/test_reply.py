"""Reply: it is settled exactly once, and all its waiters are released."""

import queue
import threading

import pykka
import pytest

from actors.dispatch.dispatcher import Dispatcher
from actors.replies.reply import Reply
from actors.values.errors import WouldDeadlock
from tests.support.waiters import is_waited_for, on_a_thread_of, waiter
from tests.unit.dispatch.strikes import cut_off, in_the_middle

# --- settling -----------------------------------------------------------------------------


def test_the_first_answer_is_kept_and_every_later_one_is_dropped():
    reply = Reply()
    assert reply.settle("first") is True
    assert reply.settle("second") is False
    assert reply.reject(ValueError("third")) is False
    assert reply.get() == "first"
    assert reply.exception() is None


def test_a_rejected_reply_raises_the_same_error_object():
    reply, error = Reply(), ValueError("no")
    assert reply.reject(error) is True
    assert reply.settle("too late") is False
    with pytest.raises(ValueError, match="no") as caught:
        reply.get()
    assert caught.value is error
    assert reply.exception() is error


@pytest.mark.parametrize("value", [None, False, ValueError("a value"), ()])
def test_any_value_is_an_answer(value):
    reply = Reply()
    reply.settle(value)
    assert reply.get() is value
    assert reply.exception() is None
    assert reply.done()


def test_a_reply_shows_its_state():
    pending, answered, rejected = Reply(), Reply(), Reply()
    answered.settle(1)
    rejected.reject(KeyError("k"))
    assert repr(pending) == "<Reply pending>"
    assert repr(answered) == "<Reply answered>"
    assert repr(rejected) == "<Reply rejected: KeyError>"


def test_only_one_of_many_settling_threads_is_first():
    for _ in range(50):
        reply, start = Reply(), threading.Barrier(4)

        def settle(number, reply=reply, start=start):
            start.wait(10)
            return reply.settle(number)

        with (
            waiter(lambda settle=settle: settle(0)) as zero,
            waiter(lambda settle=settle: settle(1)) as one,
            waiter(lambda settle=settle: settle(2)) as two,
        ):
            start.wait(10)
            seen = reply.get(timeout=10)
        firsts = [*zero, *one, *two]
        assert sorted(firsts) == [False, False, True]
        assert firsts.index(True) == seen == reply.get()


# --- Pykka's way --------------------------------------------------------------------------


def test_a_reply_is_a_pykka_future():
    first, second = Reply(), Reply()
    first.set(1)
    second.set()
    assert isinstance(first, pykka.Future)
    assert pykka.get_all([first, second]) == [1, None]


def test_setting_twice_raises_as_in_pykka():
    for future in (Reply(), pykka.ThreadingFuture()):
        future.set(1)
        with pytest.raises(queue.Full):
            future.set(2)
        with pytest.raises(queue.Full):
            future.set_exception((ValueError, ValueError(), None))
        with pytest.raises(queue.Full):
            future.set_get_hook(lambda timeout: 3)
        assert future.get() == 1


def test_set_exception_takes_the_exception_being_handled():
    reply = Reply()
    try:
        raise ValueError("handled")  # noqa: TRY301  # the point of the test
    except ValueError:
        reply.set_exception()
    with pytest.raises(ValueError, match="handled"):
        reply.get()


def test_set_exception_takes_an_exc_info():
    reply, error = Reply(), ValueError("given")
    reply.set_exception((ValueError, error, None))
    assert reply.exception() is error


def test_set_exception_makes_the_exception_of_a_bare_type():
    reply = Reply()
    reply.set_exception((ZeroDivisionError, None, None))
    assert type(reply.exception()) is ZeroDivisionError


def test_set_exception_outside_of_a_handler_still_rejects():
    reply = Reply()
    reply.set_exception()
    with pytest.raises(RuntimeError, match="outside of an except block"):
        reply.get()


def test_a_get_hook_is_called_once_with_the_timeout():
    reply, timeouts = Reply(), []
    reply.set_get_hook(lambda timeout: timeouts.append(timeout) or "hooked")
    assert reply.get(timeout=3) == "hooked"
    assert reply.get() == "hooked"
    assert timeouts == [3]


@pytest.mark.parametrize("future", [Reply, pykka.ThreadingFuture])
def test_a_future_with_a_get_hook_cannot_be_set_by_hand(future):
    hooked = future()
    hooked.set_get_hook(lambda timeout: "hooked")
    for settle in (hooked.set, lambda: hooked.set_exception((ValueError, ValueError(), None))):
        with pytest.raises(queue.Full):
            settle()
    assert hooked.get() == "hooked"
    hooked.set_get_hook(lambda timeout: "another hook")
    assert hooked.get() == "hooked"


def test_a_hooked_reply_can_still_be_settled_and_keeps_answering_with_its_hook():
    reply = Reply()
    reply.set_get_hook(lambda timeout: "hooked")
    assert reply.settle("the crew's answer") is True
    assert reply.get() == "hooked"


# --- waiting ------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, -1, 0.001])
def test_a_wait_that_is_too_short_times_out_and_leaves_nothing_behind(timeout):
    reply = Reply()
    with pytest.raises(pykka.Timeout, match=f"^{timeout} seconds$"):
        reply.get(timeout=timeout)
    with pytest.raises(pykka.Timeout, match=f"^{timeout} seconds$"):
        reply.exception(timeout=timeout)
    assert not reply._waiters


def test_a_settled_reply_needs_no_time():
    reply = Reply()
    reply.settle(1)
    assert reply.get(timeout=0) == reply.get(timeout=-1) == 1


@pytest.mark.parametrize("timeout", [None, 30, 1e300])
def test_settling_releases_all_waiters(timeout):
    reply = Reply()
    with (
        waiter(lambda: reply.get(timeout=timeout)) as first,
        waiter(lambda: reply.get(timeout=timeout)) as second,
        waiter(lambda: reply.exception(timeout)) as third,
    ):
        assert is_waited_for(reply, by=3)
        reply.settle("at last")
    assert (first, second, third) == (["at last"], ["at last"], [None])


def test_the_next_settle_completes_a_settle_that_was_cut_off_at_any_moment():
    def prepare():
        reply, gate, calls = Reply(), threading.Lock(), []
        gate.acquire()
        assert reply._add_waker(gate.release)
        reply.add_done_callback(lambda reply: calls.append(reply.get(timeout=0)))
        return (reply, gate, calls), lambda: reply.settle("first")

    answers = set()
    for (reply, gate, calls), where in cut_off(prepare):
        settled = reply.settle("second")
        answer = reply.get(timeout=0)
        answers.add(answer)
        assert settled is (answer == "second"), where
        assert not gate.locked(), where
        assert calls in ([answer], []), where  # the cut may have come as the callback began
    assert answers == {"first", "second"}


def test_one_of_two_simultaneous_settles_is_first_at_every_moment():
    def prepare():
        reply, said = Reply(), {}
        return (
            (reply, said),
            lambda: said.update(first=reply.settle("first")),
            [lambda: said.update(second=reply.settle("second"))],
        )

    for (reply, said), where in in_the_middle(prepare):
        assert sorted(said.values()) == [False, True], where
        assert said[reply.get(timeout=0)], where


def test_only_fulfil_settles_a_promised_reply():
    reply = Reply()
    assert reply.promise()
    assert reply.promise(), "the reply was promised before"
    assert not reply.done()
    assert reply.settle("too late") is False
    assert reply.reject(ValueError("too late")) is False
    reply.fulfil("as promised")
    reply.fulfil("again")
    assert reply.get(timeout=0) == "as promised"


def test_a_settled_reply_cannot_be_promised():
    def prepare():
        reply, said = Reply(), []
        return (reply, said), lambda: reply.settle("first"), [lambda: said.append((reply.promise(), reply.done()))]

    found = set()
    for (reply, said), where in in_the_middle(prepare):
        found.update(said)
        assert reply.done() is not said[0][0], where
    assert found == {(True, False), (False, True)}, "promise() is refused as soon as the reply is settled"


def test_the_next_settle_releases_the_waiters_of_a_settle_that_was_cut_off():
    reply, calls = Reply(), []

    def killed():
        calls.append("killed")
        if calls == ["killed"]:
            raise SystemExit  # like an asynchronous exception in the settling thread

    with waiter(reply.get) as first, waiter(reply.get) as second:
        assert is_waited_for(reply, by=2)
        reply._add_waker(killed)
        reply.add_done_callback(lambda reply: calls.append("callback"))
        with pytest.raises(SystemExit):
            reply.settle("the answer")
        assert reply.done()
        assert (first, second, calls) == ([], [], ["killed"])
        assert reply.settle("another") is False
    assert (first, second) == (["the answer"], ["the answer"])
    assert calls == ["killed", "killed", "callback"]


def test_a_waiter_that_was_released_already_does_no_harm():
    reply, gate, calls = Reply(), threading.Lock(), []
    reply._add_waker(lambda: calls.append("other"))
    reply._add_waker(gate.release)  # raises RuntimeError, since the gate is not locked
    reply.settle(1)
    assert calls == ["other"]
    assert reply._waiters == []


class SettledMeanwhile(Reply):
    """A reply whose answer comes just before a thread begins to wait for it."""

    def _add_waker(self, waker):
        self.settle("meanwhile")
        return super()._add_waker(waker)


def test_a_thread_does_not_wait_for_an_answer_that_comes_as_its_wait_begins():
    reply = SettledMeanwhile()
    assert reply.get() == "meanwhile"
    assert not reply._waiters


def test_a_waker_comes_too_late_for_a_settled_reply():
    reply, calls = Reply(), []
    reply.settle(1)
    assert reply._add_waker(lambda: calls.append(1)) is False
    assert calls == []


def test_a_waker_that_is_taken_back_is_not_called():
    reply, calls = Reply(), []
    waker = lambda: calls.append(1)  # noqa: E731  # the same object is added and removed
    reply._add_waker(waker)
    reply._remove_waker(waker)
    reply._remove_waker(waker)
    reply.settle(1)
    assert calls == []


# --- threads that would wait for themselves -----------------------------------------------


@pytest.mark.parametrize("timeout", [None, 5])
def test_a_crews_own_thread_gets_an_error_instead_of_waiting_for_itself(timeout):
    crew = Dispatcher("app", "a database", 1, None)
    reply = Reply(crew)
    with on_a_thread_of(crew):
        for wait in (reply.get, reply.exception):
            with pytest.raises(WouldDeadlock, match=r"Use add_done_callback\(\) here, or ask another crew"):
                wait(timeout=timeout)


def test_a_crews_own_thread_may_look_and_may_read_settled_replies():
    crew = Dispatcher("app", "a database", 1, None)
    reply = Reply(crew)
    with on_a_thread_of(crew):
        with pytest.raises(pykka.Timeout):
            reply.get(timeout=0)
        reply.settle(1)
        assert reply.get() == 1


def test_another_crews_thread_may_wait():
    with on_a_thread_of(object()), pytest.raises(pykka.Timeout):
        Reply(Dispatcher("app", "a database", 1, None)).get(timeout=0.001)
