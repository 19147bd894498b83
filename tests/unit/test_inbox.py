"""The mailbox: every message is read or answered, and the alarm wakes its reader."""

import queue
import threading

import pykka
import pytest

from actors.inbox import ALARM, Inbox
from tests.support.envelopes import asked, is_settled, told


class Clock:
    """A clock whose seconds pass only when a test says so, or by a step at each reading."""

    def __init__(self, *, step=0.0):
        self.now = 100.0
        self.step = step

    def __call__(self):
        self.now += self.step
        return self.now


# --- put and get --------------------------------------------------------------------------


def test_messages_are_read_in_the_order_in_which_they_came():
    inbox = Inbox()
    envelopes = [told(number) for number in range(5)]
    for envelope in envelopes:
        inbox.put(envelope)
    assert [inbox.get() for _ in envelopes] == envelopes


def test_an_inbox_says_whether_it_has_messages():
    inbox = Inbox()
    assert inbox.empty()
    inbox.put(told())
    assert not inbox.empty()
    inbox.get()
    assert inbox.empty()


def test_get_waits_for_a_message():
    inbox = Inbox()
    read = []
    reader = threading.Thread(target=lambda: read.append(inbox.get().message))
    reader.start()
    inbox.put(told("at last"))
    reader.join(10)
    assert read == ["at last"]


def test_an_answered_message_is_forgotten():
    inbox = Inbox()
    envelope = asked()
    inbox.put(envelope)
    inbox.answer(inbox.get(), "the answer")
    inbox.close()
    assert envelope.reply_to.get(timeout=0) == "the answer"
    assert inbox._unanswered == []


def test_a_message_that_wants_no_answer_gets_none():
    inbox = Inbox()
    inbox.answer(told(), "nobody listens")
    assert inbox._unanswered == []


def test_an_asker_that_settled_its_own_future_causes_no_error():
    inbox = Inbox()
    envelope = asked()
    inbox.put(envelope)
    envelope.reply_to.set("my own answer")
    inbox.answer(inbox.get(), "the actor's answer")
    assert envelope.reply_to.get(timeout=0) == "my own answer"
    assert inbox._unanswered == []


def test_an_answer_to_a_message_that_was_never_put_is_given():
    envelope = asked()
    Inbox().answer(envelope, 5)
    assert envelope.reply_to.get(timeout=0) == 5


# --- the alarm ----------------------------------------------------------------------------


def test_an_alarm_whose_time_has_come_is_returned():
    clock = Clock()
    inbox = Inbox(clock)
    inbox.alarm = clock.now
    assert inbox.get().message is ALARM


def test_an_alarm_that_is_always_due_does_not_keep_messages_from_being_read():
    clock = Clock()
    inbox = Inbox(clock)
    inbox.put(told("mail"))
    read = []
    for _ in range(3):
        inbox.alarm = clock.now
        read.append(inbox.get().message)
    assert "mail" in read
    assert ALARM in read


def test_an_alarm_goes_off_once():
    clock = Clock()
    inbox = Inbox(clock)
    inbox.alarm = clock.now - 5
    inbox.get()
    assert inbox.alarm is None


def test_a_message_comes_before_an_alarm_that_is_not_due():
    clock = Clock()
    inbox = Inbox(clock)
    inbox.alarm = clock.now + 3600
    inbox.put(told("mail"))
    assert inbox.get().message == "mail"
    assert inbox.alarm == clock.now + 3600


def test_get_waits_until_the_alarm_and_no_longer():
    clock = Clock(step=0.001)  # a millisecond passes at each reading
    inbox = Inbox(clock)
    inbox.alarm = 100.005
    assert inbox.get().message is ALARM
    assert clock.now >= 100.005


def test_an_alarm_in_a_thousand_years_does_not_overflow_the_wait():
    clock = Clock()
    inbox = Inbox(clock)
    inbox.alarm = 1e300
    waits = []

    class Mailbox:
        def get(self, timeout):
            waits.append(timeout)
            if len(waits) == 1:
                raise queue.Empty
            return told("mail")

    inbox._queue = Mailbox()
    assert inbox.get().message == "mail"
    assert waits == [threading.TIMEOUT_MAX] * 2


# --- forks and finalizers -----------------------------------------------------------------


def test_the_child_of_a_fork_gets_an_empty_closed_inbox_even_if_another_thread_held_the_lock():
    inbox = Inbox()
    envelope = asked()
    inbox.put(envelope)
    holding, let_go = threading.Event(), threading.Event()

    def hold():
        with inbox._lock:
            holding.set()
            let_go.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert holding.wait(10)
    inbox.forget_the_parent()
    with pytest.raises(pykka.ActorDeadError):
        inbox.put(told())
    inbox.close()
    assert is_settled(envelope)
    let_go.set()
    holder.join(10)


def test_a_finalizer_may_put_a_message_while_its_thread_is_inside_put():
    inbox = Inbox()
    with inbox._lock:
        inbox.put(told("from a finalizer"))
    assert inbox.get().message == "from a finalizer"
