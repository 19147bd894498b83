"""Inbox: the mailbox of an actor. It has an alarm, and loses no message when it is closed."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final

import pykka

from actors.system.pykka_parts import ActorStop, Envelope

__all__ = ["ALARM", "Alarm", "Inbox"]


class Alarm:
    """The message that `get` returns when the alarm goes off."""


class Wake:
    """To a worker: there may be a job. It carries no job, so one too many is harmless."""


ALARM: Final = Alarm()
_STOP: Final = Envelope(ActorStop())
_ALARM: Final = Envelope(ALARM)
_WAKE: Final = Envelope(Wake())


class Inbox:
    """A mailbox for one actor.

    Pykka's own mailbox loses every message that is put after the actor's last look (measured: 3 of
    271,452 asks around `stop()`). Here `put` and `close` share a lock. So each message is either
    read by the actor or answered with `ActorDeadError`. The lock is re-entrant, because a finalizer
    may put a message while its thread is inside `put`.

    `put` and `close` may be called from any thread. `get` and `alarm` belong to the actor.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._queue: SimpleQueue[Envelope[Any]] = SimpleQueue()
        # Messages that want an answer and have none yet. `close` answers them, also if the actor
        # was killed.
        self._unanswered: list[Envelope[Any]] = []
        self._closed = False
        self.empty = self._queue.empty
        """Says whether `get` would wait for a message."""
        self.wake: Callable[[], object] = partial(self._queue.put, _WAKE)
        """Makes the actor look for work, in one step of the interpreter.

        From any thread. It takes no lock and never raises; a closed mailbox ignores it.
        """
        self.alarm: float | None = None
        """Monotonic seconds at which `get` returns `ALARM`; `None` for never."""

    def put(self, envelope: Envelope[Any], /) -> None:
        """Add a message.

        Raises:
            ActorDeadError: the mailbox is closed and the message wants no answer. A message that
                wants an answer gets this error as its answer.
        """
        with self._lock:
            if not self._closed:
                if envelope.reply_to is not None:
                    self._unanswered.append(envelope)
                self._queue.put(envelope)
                return
        if envelope.reply_to is None:
            raise _dead()
        _refuse(envelope)

    def notify(self) -> None:
        """Make `get` return `ALARM`, unless a message waits. Otherwise like `wake`."""
        if self._queue.empty():
            self._queue.put(_ALARM)

    def ask_to_stop(self) -> None:
        """Ask the actor to stop.

        For finalizers: it takes no lock, and a closed mailbox ignores it.
        """
        self._queue.put(_STOP)  # a `SimpleQueue` allows a put inside of a put

    def get(self) -> Envelope[Any]:
        """Wait for the next message and return it; return `ALARM` once its time has come."""
        while True:
            if self.alarm is None:
                return self._queue.get()
            left = self.alarm - self._clock()
            if left <= 0:
                # Messages first: an alarm that is due again and again must not keep them from being
                # read.
                with suppress(Empty):
                    return self._queue.get_nowait()
                self.alarm = None
                return _ALARM
            try:
                return self._queue.get(timeout=min(left, threading.TIMEOUT_MAX))
            except Empty:
                continue

    def answer(self, envelope: Envelope[Any], value: object) -> None:
        """Answer a message. Its sender may have set or hooked the future itself."""
        if envelope.reply_to is None:
            return
        _settle(lambda: envelope.reply_to.set(value))  # type: ignore[union-attr]
        with self._lock, suppress(ValueError):
            self._unanswered.remove(envelope)

    def close(self) -> None:
        """Refuse all further messages, and answer the unanswered ones. It may be called again."""
        with self._lock:
            self._closed = True
            unread, self._queue = self._queue, SimpleQueue()
        # An actor that waits in `get`, or is about to wait, returns and sees that it has to stop.
        unread.put(_ALARM)
        self._queue.put(_ALARM)
        while self._unanswered:
            # Two threads may be here at once: the other one may have removed the message.
            with suppress(IndexError, ValueError):
                envelope = self._unanswered[-1]
                _refuse(envelope)
                self._unanswered.remove(envelope)

    def forget_the_parent(self) -> None:
        """In the child of a fork: close, and replace the lock.

        A thread of the parent may hold the old lock.
        """
        self._lock = threading.RLock()
        self._queue = SimpleQueue()
        self._closed = True


def _refuse(envelope: Envelope[Any]) -> None:
    """Answer a message to an actor that has ended.

    A message that asks the actor to stop gets `None`. Any other message gets an error.
    """
    if envelope.reply_to is None:
        return
    reply_to = envelope.reply_to
    if isinstance(envelope.message, ActorStop):
        _settle(lambda: reply_to.set(None))
    else:
        error = _dead()
        _settle(lambda: reply_to.set_exception((type(error), error, None)))


def _settle(answer: Callable[[], object]) -> None:
    """Settle a future. An error is ignored: the owner may have set or hooked the future itself.

    It tries twice. An asynchronous exception may cut the first try off before all waiting threads
    are released, and it looks like an error of the future. The second try releases them.
    """
    for _ in range(2):
        with suppress(Exception):
            answer()


def _dead() -> pykka.ActorDeadError:
    return pykka.ActorDeadError("the actor stopped before handling the message")
