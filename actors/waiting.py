"""Who waits, and on what: the crew's own threads, and event loops that nothing may block."""

import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

__all__ = ["Latch", "current_owner", "here", "running_loop", "settled_on"]


class _Here(threading.local):
    """What the current thread is: which crew's actor runs on it, if any."""

    crew: object = None
    number = 0
    """Of this thread, which no other thread of the process ever has; 0 before it is asked for."""


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
    bell = _bells.get(loop)
    if bell is None:
        bell = _bells[loop] = _Bell(loop)

    def wake() -> None:
        bell.ring(settled)

    if add_waker(wake):
        try:
            yield from settled
        finally:
            remove_waker(wake)


class _Bell:
    """Wakes an event loop for all that was settled since it last looked.

    Waking it once for each reply costs a system call each, and the loop a turn each.
    """

    def __init__(self, loop: "AbstractEventLoop") -> None:
        self._loop = weakref.ref(loop)
        self._settled: deque[Future[None]] = deque()
        # Monotonic seconds of the call that the loop has not answered yet.
        self._rung_at: float | None = None

    def ring(self, settled: "Future[None]") -> None:
        """Let `settled` have a result, on its loop. From any thread; may be called again."""
        loop = self._loop()
        if loop is None or loop.is_closed():
            self._settled.clear()  # nobody waits there any more; and these would keep the loop
            return
        self._settled.append(settled)
        rung_at, now = self._rung_at, time.monotonic()
        # Again after a while: whoever rang may have been killed before the loop could hear it.
        if rung_at is None or now - rung_at > _RING_AGAIN:
            try:
                self._rung_at = now
                loop.call_soon_threadsafe(self._answer)
            except BaseException as error:
                self._rung_at = None
                if isinstance(error, RuntimeError):  # it was closed in this very moment
                    self._settled.clear()
                raise

    def _answer(self) -> None:
        self._rung_at = None  # first: what comes from here on rings again
        while self._settled:
            settled = self._settled.popleft()
            if not settled.done():
                settled.set_result(None)


_RING_AGAIN = 0.05  # seconds
_bells: "weakref.WeakKeyDictionary[AbstractEventLoop, _Bell]" = weakref.WeakKeyDictionary()


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
    if not here.number:
        here.number = next(_numbers)
    loop = running_loop()
    if loop is None:
        return (here.number,)
    import asyncio  # it is there, since there is a loop

    task = asyncio.current_task(loop)
    return here.number, None if task is None else weakref.ref(task)
