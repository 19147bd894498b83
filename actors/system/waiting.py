"""Which crew a thread belongs to, which owner a caller is, and an event without a lock."""

import threading
import weakref
from contextlib import suppress
from itertools import count
from typing import Final

from actors.system.event_loops import current_task

__all__ = ["Latch", "current_owner", "this_thread"]


class _ThisThread(threading.local):
    """Facts about the current thread. `crew` is the crew whose actor runs on it, if any."""

    crew: object = None
    number = 0
    """The thread's number. No other thread of the process ever has it. 0 until it is needed."""


this_thread: Final = _ThisThread()
"""A worker or supervisor stores its crew here when its thread starts. So the crew can refuse a wait
of that thread for its own crew."""


class Latch:
    """A `threading.Event` that is set once, without a lock that a killed thread could leave held.

    `threading.Event.set` takes its lock in Python code. An asynchronous exception there leaves the
    lock held for ever. Every thread that sets the event again hangs, even the end of the same
    thread. Here each step is a single step of the interpreter. To set the latch again releases the
    waiters that are left.
    """

    def __init__(self) -> None:
        self._is_set = False
        # One locked lock for each waiter.
        self._gates: list[threading.Lock] = []

    def is_set(self) -> bool:
        """Say whether the latch is set."""
        return self._is_set

    def set(self) -> None:
        """Release all present and future waiters."""
        self._is_set = True
        while self._gates:
            with suppress(IndexError, ValueError):  # another thread sets the latch at the same time
                gate = self._gates[-1]
                with suppress(RuntimeError):
                    gate.release()
                self._gates.remove(gate)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the latch is set, at most `timeout` seconds. Say whether it is set."""
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
    """Return a value that identifies the calling thread, and in an event loop the calling task."""
    if not this_thread.number:
        this_thread.number = next(_numbers)
    task = current_task()
    return (this_thread.number,) if task is None else (this_thread.number, weakref.ref(task))
