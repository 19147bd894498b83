"""Who waits: the crew's own threads, and others."""

import threading
import weakref
from contextlib import suppress
from itertools import count
from typing import Final

from actors.system.event_loops import current_task

__all__ = ["Latch", "current_owner", "this_thread"]


class _ThisThread(threading.local):
    """What the current thread is: which crew's actor runs on it, if any."""

    crew: object = None
    number = 0
    """Of this thread, which no other thread of the process ever has; 0 before it is asked for."""


this_thread: Final = _ThisThread()
"""A worker or supervisor writes its crew in here as its thread starts, so that code running on
it can be told not to wait for its own crew."""


class Latch:
    """A `threading.Event` that is set once, and has no lock that a killed thread could leave held.

    `threading.Event.set` takes its lock in Python code: an asynchronous exception there leaves it
    held for ever, and whoever sets the event again, such as the end of the very same thread, hangs.
    Here each step is a single one, and setting again releases whoever is left.
    """

    def __init__(self) -> None:
        self._is_set = False
        # One locked lock for each waiter.
        self._gates: list[threading.Lock] = []

    def is_set(self) -> bool:
        """Say whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Release all waiters, now and later."""
        self._is_set = True
        while self._gates:
            with suppress(IndexError, ValueError):  # another thread is setting it as well
                gate = self._gates[-1]
                with suppress(RuntimeError):
                    gate.release()
                self._gates.remove(gate)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, for at most `timeout` seconds; say whether it is."""
        gate = threading.Lock()
        gate.acquire()
        self._gates.append(gate)
        if not self._is_set:
            gate.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        with suppress(ValueError):
            self._gates.remove(gate)
        return self._is_set


_numbers = count(1)


def current_owner() -> tuple[object, ...]:
    """Return what tells the thread that calls this from all others, and in an event loop the task."""
    if not this_thread.number:
        this_thread.number = next(_numbers)
    task = current_task()
    return (this_thread.number,) if task is None else (this_thread.number, weakref.ref(task))
