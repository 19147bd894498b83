"""Who waits, and on what: the crew's own threads, and event loops that nothing may block."""

import sys
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["Latch", "here", "running_loop", "settled_on"]


class _Here(threading.local):
    """What the current thread is: which crew's actor runs on it, if any."""

    crew: object = None


here: Final = _Here()
"""A worker or supervisor writes its crew in here as its thread starts, so that code running on
it can be told not to wait for its own crew."""


def running_loop() -> "AbstractEventLoop | None":
    """Return the event loop that runs in this thread, if any."""
    # A program that has not imported asyncio runs no event loop, and importing it takes longer
    # than all of this library.
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        return cast("AbstractEventLoop", asyncio.get_running_loop())
    except RuntimeError:
        return None


def settled_on(
    loop: "AbstractEventLoop",
    add_waker: Callable[[Callable[[], object]], bool],
    remove_waker: Callable[[Callable[[], object]], object],
) -> Generator[Any, None, None]:
    """Wait on `loop`, without blocking it, until the waker that `add_waker` was given is called."""
    settled = loop.create_future()

    def finish() -> None:
        if not settled.done():
            settled.set_result(None)

    def wake() -> None:
        # A loop that was closed meanwhile raises RuntimeError: nobody waits there any more.
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish)

    if add_waker(wake):
        try:
            yield from settled
        finally:
            remove_waker(wake)


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
