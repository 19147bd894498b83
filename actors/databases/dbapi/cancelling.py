"""Cancels that block, or that may come late: a thread of their own, and a fence."""

from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Event, Lock
from typing import Any, Final

from actors.system.threads import CrewThread

__all__ = ["Canceller"]

_LONGEST: Final = 5.0  # seconds that the next statement waits for a cancel under way


class Canceller:
    """Cancels the running statement of one connection, and never a later one.

    The race: a cancel travels over another connection. The statement ends by itself meanwhile, and
    the cancel hits the next statement. So the next statement begins only after the cancel has
    returned (`enter`). A cancel that begins after the end of its statement does nothing.
    """

    def __init__(self, cancel: Callable[[], object], name: str) -> None:
        """Prepare cancels by `cancel`, which may block. It runs in a thread named after `name`."""
        self._cancel = cancel
        self._lock = Lock()  # held for some instructions only
        # The number of the running statement, or 0.
        self._running = 0
        self._count = 0
        # Set once the cancel that is under way has returned. `None` if none is.
        self._fence: Event | None = None
        self._wanted: SimpleQueue[tuple[int, Event] | None] = SimpleQueue()
        self._thread = CrewThread(self._run, f"querycrew-{name}-cancel")
        self._thread.start()

    def enter(self) -> bool:
        """Begin a statement, after a cancel under way; say whether it may begin."""
        if not self.wait():
            return False
        with self._lock:
            self._count += 1
            self._running = self._count
        return True

    def leave(self) -> None:
        """End the statement: a cancel that has not begun does nothing any more."""
        with self._lock:
            self._running = 0

    def wait(self) -> bool:
        """Wait until no cancel is under way; say whether that is so in time."""
        fence = self._fence
        return fence is None or fence.wait(_LONGEST)

    def request(self) -> None:
        """Ask for a cancel of the running statement. From any thread; never blocks."""
        with self._lock:
            if not self._running or self._fence is not None:
                return
            self._fence = fence = Event()
            number = self._running
        self._wanted.put((number, fence))

    def close(self) -> None:
        """End the thread, after a cancel under way. Returns at once."""
        self._wanted.put(None)

    def _run(self) -> None:
        wanted: Any
        while (wanted := self._wanted.get()) is not None:
            number, fence = wanted
            try:
                if self._running == number:
                    with suppress(Exception):  # the crew asks again; in the end the worker is given up
                        self._cancel()
            finally:
                self._fence = None
                fence.set()
