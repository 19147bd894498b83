"""Closing the mailbox: each message that was put into it is read or answered."""

import threading
from contextlib import suppress

import pykka
import pytest

from actors.actor import CrewActor
from actors.inbox import Inbox
from actors.system.pykka_parts import ActorStop, Envelope
from tests.support.envelopes import asked, is_settled, told


def test_closing_answers_everything_unread():
    inbox = Inbox()
    questions = [asked(number) for number in range(3)]
    for envelope in [*questions, told()]:
        inbox.put(envelope)
    inbox.close()
    for envelope in questions:
        with pytest.raises(pykka.ActorDeadError, match="stopped before handling"):
            envelope.reply_to.get(timeout=0)


def test_closing_answers_messages_that_were_read_and_not_answered():
    inbox = Inbox()
    envelope = asked()
    inbox.put(envelope)
    assert inbox.get() is envelope
    inbox.close()
    with pytest.raises(pykka.ActorDeadError):
        envelope.reply_to.get(timeout=0)


def test_a_caller_that_asked_an_actor_to_stop_gets_an_answer():
    inbox = Inbox()
    before, after = asked(ActorStop()), asked(ActorStop())
    inbox.put(before)
    inbox.close()
    inbox.put(after)
    assert before.reply_to.get(timeout=0) is None
    assert after.reply_to.get(timeout=0) is None


def test_a_question_to_a_closed_inbox_is_answered_at_once():
    inbox = Inbox()
    inbox.close()
    envelope = asked()
    inbox.put(envelope)
    with pytest.raises(pykka.ActorDeadError):
        envelope.reply_to.get(timeout=0)


def test_a_message_without_a_reply_to_a_closed_inbox_is_refused():
    inbox = Inbox()
    inbox.close()
    with pytest.raises(pykka.ActorDeadError, match="stopped before handling"):
        inbox.put(told())


def test_closing_twice_is_closing_once():
    inbox = Inbox()
    envelope = asked()
    inbox.put(envelope)
    inbox.close()
    inbox.close()
    assert is_settled(envelope)


def test_closing_accepts_askers_that_settled_their_own_futures():
    inbox = Inbox()
    envelopes = [asked() for _ in range(3)]
    for envelope in envelopes:
        inbox.put(envelope)
    envelopes[1].reply_to.set("mine")
    inbox.close()
    assert all(map(is_settled, envelopes))


class ClosesAgain(pykka.ThreadingFuture):
    """An asker that closes the inbox again when the inbox answers, as a finalizer may."""

    def __init__(self, inbox):
        super().__init__()
        self.inbox = inbox

    def set_exception(self, exc_info=None):
        super().set_exception(exc_info)
        self.inbox.close()


def test_closing_again_in_the_middle_of_closing_answers_everything():
    inbox = Inbox()
    envelopes = [asked(), asked(), Envelope("a question", reply_to=ClosesAgain(inbox))]
    for envelope in envelopes:
        inbox.put(envelope)
    inbox.close()
    assert all(map(is_settled, envelopes))


class Meets(pykka.ThreadingFuture):
    """An asker whose answer makes two threads meet."""

    def __init__(self):
        super().__init__()
        self.both = threading.Barrier(2, timeout=0.5)

    def set_exception(self, exc_info=None):
        with suppress(threading.BrokenBarrierError):  # only one thread came, which is right too
            self.both.wait()
        super().set_exception(exc_info)


def test_two_threads_that_close_at_once_answer_everything():
    inbox = Inbox()
    envelopes = [asked(), Envelope("a question", reply_to=Meets())]
    for envelope in envelopes:
        inbox.put(envelope)
    errors = []

    def close():
        try:
            inbox.close()
        except Exception as error:
            errors.append(error)

    closers = [threading.Thread(target=close) for _ in range(2)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(10)
    assert errors == []
    assert all(map(is_settled, envelopes))


def test_an_asker_never_waits_for_an_inbox_that_closes_meanwhile():
    inbox = Inbox()
    envelopes = [asked() for _ in range(2_000)]
    ready = threading.Barrier(2, timeout=10)

    def ask_all():
        ready.wait()
        for envelope in envelopes:
            inbox.put(envelope)

    asker = threading.Thread(target=ask_all)
    asker.start()
    ready.wait()
    for _ in range(20):
        inbox.put(asked())
    inbox.close()
    asker.join(10)
    assert all(map(is_settled, envelopes))


class Idler(CrewActor):
    def __init__(self):
        super().__init__()
        self.handled = threading.Event()
        self.thread = None

    def on_receive(self, message):
        self.thread = threading.current_thread()
        self.handled.set()


def test_an_actor_that_another_thread_retires_ends_while_it_waits_for_messages():
    actor = Idler()
    actor.launch()
    mail = actor.actor_inbox._queue
    actor.actor_inbox.put(told())
    assert actor.handled.wait(10)
    actor.retire()
    actor.thread.join(1)
    ended = not actor.thread.is_alive()
    mail.put(told("lets it go, so that a failure leaves nothing behind"))
    assert ended
