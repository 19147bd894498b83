"""The behaviour of plain Pykka that the crew relies on, or works around.

If an upgrade of Pykka changes it, a test fails here first."""

import asyncio
import gc
import logging
import queue
import subprocess
import sys
import threading
import weakref

import pykka
import pytest
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from actors.system.pykka_parts import is_settled
from supervisor import Reply
from tests.conftest import eventually
from tests.support.common import PATIENCE

made = []
"""The actors of the test. The list keeps them alive, since a reference holds its actor weakly."""


class Plain(pykka.ThreadingActor):
    """An actor that calls each message as a function, and notes the hooks that were called."""

    use_daemon_thread = True

    def __init__(self, on_start=lambda: None, notes=None):
        super().__init__()
        self.starting = on_start
        self.notes = [] if notes is None else notes
        self.thread = None
        made.append(self)

    def on_start(self):
        self.thread = threading.current_thread()
        self.starting()

    def on_receive(self, message):
        return message()

    def on_stop(self):
        self.notes.append("stopped")

    def on_failure(self, *exc_info):
        self.notes.append("failed")


@pytest.fixture
def quiet(monkeypatch):
    """Hide the traceback of a thread that ends with an exception."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)


@pytest.fixture(autouse=True)
def _end_all():
    """Stop the actors, and unregister them, since some look alive for ever."""
    yield
    for actor in made:
        actor.actor_inbox.put(Envelope(_ActorStop()))
        if actor.thread not in (None, threading.current_thread()):
            actor.thread.join(PATIENCE)
        pykka.ActorRegistry.unregister(actor.actor_ref)
    made.clear()


def actor_of(ref):
    [actor] = [actor for actor in made if actor.actor_urn == ref.actor_urn]
    return actor


def fail_with(error):
    def fail():
        raise error

    return fail


def gone(ref):
    """Return whether the actor's thread has ended."""
    actor = actor_of(ref)
    return eventually(lambda: actor.thread is not None and not actor.thread.is_alive())


# --- errors -------------------------------------------------------------------------------


def test_an_exception_in_an_ask_is_the_answer_and_the_actor_lives():
    ref = Plain.start()
    with pytest.raises(ValueError, match="mine"):
        ref.ask(fail_with(ValueError("mine")), timeout=PATIENCE)
    assert ref.ask(lambda: "alive", timeout=PATIENCE) == "alive"


def test_an_exception_in_a_tell_kills_the_actor():
    ref = Plain.start()
    ref.tell(fail_with(ValueError("mine")))
    assert gone(ref)
    assert not ref.is_alive()
    assert actor_of(ref).notes == ["failed"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_a_base_exception_is_never_answered_and_stops_every_actor_of_the_process(kind):
    bystander, ref = Plain.start(), Plain.start()
    reply = ref.ask(fail_with(kind), block=False)
    assert gone(ref)
    assert gone(bystander)
    assert actor_of(bystander).notes == ["stopped"]
    with pytest.raises(pykka.Timeout):
        reply.get(timeout=0)


# --- starting -----------------------------------------------------------------------------


def test_an_actor_that_fails_to_start_fails_silently():
    ref = Plain.start(fail_with(OSError("no connection")))
    assert gone(ref)
    assert not ref.is_alive()
    assert actor_of(ref).notes == []


def test_an_actor_that_fails_to_start_with_a_base_exception_looks_alive_for_ever(quiet):
    ref = Plain.start(fail_with(SystemExit))
    assert gone(ref)
    assert ref.is_alive()
    assert ref in pykka.ActorRegistry.get_all()


def test_an_actor_whose_thread_cannot_be_started_stays_registered(monkeypatch):
    before = len(pykka.ActorRegistry.get_all())
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", lambda _: fail_with(RuntimeError("no thread"))())
        with pytest.raises(RuntimeError, match="no thread"):
            Plain.start()
    [left] = pykka.ActorRegistry.get_all()[before:]
    assert left.is_alive()


# --- ending -------------------------------------------------------------------------------


def test_a_message_put_after_the_end_of_the_actor_is_never_answered():
    ref = Plain.start()
    ref.stop(timeout=PATIENCE)
    assert gone(ref)
    # ask() does the same if the actor ends just after ask() has seen it alive.
    reply = pykka.ThreadingFuture()
    ref.actor_inbox.put(Envelope(lambda: 1, reply_to=reply))
    with pytest.raises(pykka.Timeout):
        reply.get(timeout=0)


def test_a_reply_that_is_already_set_ends_the_thread_silently(quiet):
    ref = Plain.start()
    hold = threading.Event()
    ref.tell(lambda: hold.wait(PATIENCE))
    reply = ref.ask(lambda: "the actor's", block=False)
    reply.set("somebody else's")
    hold.set()
    assert gone(ref)
    assert ref.is_alive()
    assert actor_of(ref).notes == []


def test_a_logging_handler_that_raises_ends_the_thread_silently(quiet):
    class Raises(logging.Handler):
        def emit(self, record):
            raise OSError(record)

    handler = Raises()
    logging.getLogger("pykka").addHandler(handler)
    try:
        ref = Plain.start()
        ref.tell(fail_with(ValueError("mine")))
        assert gone(ref)
    finally:
        logging.getLogger("pykka").removeHandler(handler)
    assert ref.is_alive()
    assert actor_of(ref).notes == []


def test_telling_a_dead_actor_raises_in_the_caller_and_kills_an_actor_that_does():
    dead, ref = Plain.start(), Plain.start()
    dead.stop(timeout=PATIENCE)
    with pytest.raises(pykka.ActorDeadError):
        dead.tell(print)
    ref.tell(lambda: dead.tell(print))
    assert gone(ref)
    assert not ref.is_alive()


def test_stop_all_stops_the_last_started_actor_first():
    notes = []

    class Noting(Plain):
        def on_stop(self):
            notes.append(self.notes)

    for name in ("first", "second", "third"):
        Noting.start(notes=name)
    pykka.ActorRegistry.stop_all(timeout=PATIENCE)
    assert notes == ["third", "second", "first"]


def test_stop_all_does_not_stop_an_actor_that_a_supervisor_starts_meanwhile():
    class Child(Plain):
        def on_stop(self):
            supervisor.tell(Child.start)

    supervisor = Plain.start()
    supervisor.ask(Child.start, timeout=PATIENCE)
    pykka.ActorRegistry.stop_all(timeout=PATIENCE)
    [child] = pykka.ActorRegistry.get_by_class(Child)
    assert child.is_alive()
    assert not supervisor.is_alive()
    with pytest.raises(pykka.ActorDeadError):  # the on_stop of the child calls tell() of a dead supervisor
        supervisor.tell(Child.start)


def test_the_loop_keeps_the_last_message_until_the_next_one():
    class Thing:
        pass

    ref = Plain.start()
    kept = weakref.ref(ref.ask(Thing, timeout=PATIENCE))
    gc.collect()
    assert kept() is not None
    ref.ask(lambda: None, timeout=PATIENCE)
    gc.collect()
    assert kept() is None


PROGRAM = """
import atexit, threading
import pykka

class Working(pykka.ThreadingActor):
    def on_receive(self, message):
        threading.main_thread().join()
        print("the main thread has ended, the actor works on")
        self.stop()

atexit.register(print, "atexit")
threading._register_atexit(print, "threading._register_atexit")
Working.start().tell("work")
"""


def test_a_thread_that_is_no_daemon_holds_up_the_programs_end_and_its_atexit():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    early, working, late = done.stdout.splitlines()
    assert (early, late) == ("threading._register_atexit", "atexit")
    assert "works on" in working


# --- futures ------------------------------------------------------------------------------


def test_a_get_hook_does_not_wake_a_waiting_thread():
    future = pykka.ThreadingFuture()
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(future.get(timeout=PATIENCE)))
    waiting.start()
    assert eventually(lambda: future._condition._waiters)
    future.set_get_hook(lambda timeout: "from the hook")
    assert future.get(timeout=PATIENCE) == "from the hook"
    assert eventually(lambda: future._condition._waiters), "the hook does not end the first wait"
    assert answers == []
    # No caller can set the future now. Only a set by force ends the wait of the thread.
    with pytest.raises(queue.Full):
        future.set("by hand")
    future._result = type("Set", (), {"exc_info": None, "value": "by force"})()
    with future._condition:
        future._condition.notify_all()
    waiting.join(PATIENCE)
    assert answers == ["by force"]


def test_a_future_that_is_returned_is_nested():
    ref = Plain.start()
    inner = pykka.ThreadingFuture()
    assert ref.ask(lambda: inner, timeout=PATIENCE) is inner


def test_a_reply_replaces_every_method_of_a_future_and_so_needs_no_constructor():
    methods = {name for name, it in vars(pykka.Future).items() if callable(it) and name != "__init__"}
    assert methods <= set(vars(Reply)), "a reply inherits a method that may need an attribute of the constructor"


def test_a_future_with_a_get_hook_calls_it_once_and_cannot_be_set():
    future, timeouts = pykka.ThreadingFuture(), []
    future.set_get_hook(lambda timeout: timeouts.append(timeout) or "hooked")
    for settle in (future.set, lambda: future.set_exception((ValueError, ValueError(), None))):
        with pytest.raises(queue.Full):
            settle()
    assert (future.get(timeout=3), future.get(), timeouts) == ("hooked", "hooked", [3])


def test_a_plain_future_shows_without_waiting_whether_it_has_an_answer():
    pending, answered, rejected = pykka.ThreadingFuture(), pykka.ThreadingFuture(), pykka.ThreadingFuture()
    answered.set(None)
    rejected.set_exception((ValueError, ValueError(), None))
    assert [is_settled(future) for future in (pending, answered, rejected)] == [False, True, True]


# --- actor types --------------------------------------------------------------------------


def test_a_reference_holds_its_actor_only_weakly():
    actor = Plain()
    ref, watched = actor.actor_ref, weakref.ref(actor)
    made.clear()
    del actor
    gc.collect()
    assert watched() is None
    assert not ref.actor_stopped.is_set()


def test_an_actor_that_is_not_started_is_a_plain_object():
    before = threading.active_count()
    actor = Plain()
    assert actor.on_receive(threading.get_ident) == threading.get_ident()
    assert actor.actor_inbox.empty()
    assert actor.actor_ref not in pykka.ActorRegistry.get_all()
    assert threading.active_count() == before


def test_a_new_type_of_actor_has_three_hooks():
    class Inbox(queue.SimpleQueue):
        pass

    class Future(pykka.ThreadingFuture):
        pass

    class ByHand(Plain):
        started = False

        @staticmethod
        def _create_actor_inbox():
            return Inbox()

        @staticmethod
        def _create_future():
            return Future()

        def _start_actor_loop(self):
            self.started = True

    ref = ByHand.start()
    actor = actor_of(ref)
    reply = ref.ask(lambda: "handled", block=False)
    assert (type(reply), type(ref.actor_inbox), actor.started, actor.thread) == (Future, Inbox, True, None)
    ref.tell(_ActorStop())
    actor._actor_loop()  # in the thread of the test
    assert reply.get(timeout=0) == "handled"
    assert not ref.is_alive()
