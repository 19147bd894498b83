"""CancelFence: a cancel travels over a second connection, and may arrive late.

A late cancel would hit the next job of the connection. So the worker does not leave a job while a
cancel is on its way.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from actors.system.threads import CrewThread

__all__ = ["CancelFence"]

_LONGEST: Final = 5.0  # seconds that a cancel may take; see `CancelFence.end`


class CancelFence:
    """Sends cancels of one connection, one at a time, each in a thread of its own.

    A thread for each cancel keeps a server that does not answer from delaying the cancels of other
    servers.
    """

    def __init__(self, cancel: Callable[[float], object]) -> None:
        """Send cancels by `cancel(seconds)`, which may block for that long, and may raise."""
        self._cancel = cancel
        self._lock = threading.Lock()
        self._is_running = False
        self._jobs: Sequence[object] | None = None
        # Set when the cancel that is on its way has arrived.
        self._underway: threading.Event | None = None
        self.sent = 0
        """How many cancels were sent."""

    def begin(self, jobs: Sequence[object] | None = None) -> None:
        """Note that the server runs jobs from now on. In the worker's thread.

        Args:
            jobs: the jobs that a cancel may be for. `None` is any job. A worker has begun some jobs
                that the server does not run yet: their cancels must hit no other job.
        """
        self._jobs = jobs
        self._is_running = True

    def end(self) -> bool:
        """Note that no job runs, and wait for a cancel that is on its way.

        In the worker's thread.

        Returns:
            Whether no cancel is on its way. If not, the connection must not be used again.
        """
        with self._lock:
            self._is_running = False
        return self.wait()

    def wait(self) -> bool:
        """Wait until no cancel is on its way; say whether this is so in time."""
        underway = self._underway
        return underway is None or underway.wait(_LONGEST + 1.0)

    def request(self, job: object = None) -> None:
        """Cancel a job, if the server runs it. From any thread; never blocks, never raises."""
        with self._lock:
            if not self._is_running or self._underway is not None:
                return
            if self._jobs is not None and not any(each is job for each in self._jobs):
                return
            underway = self._underway = threading.Event()
            self.sent += 1
        try:
            CrewThread(lambda: self._send(underway), "querycrew-cancel").start()
        except RuntimeError:  # the program ends, or has too many threads; the crew repeats the cancel
            self._arrive(underway)

    def _send(self, underway: threading.Event) -> None:
        try:
            with suppress(Exception):  # the crew repeats a cancel that failed
                self._cancel(_LONGEST)
        finally:
            self._arrive(underway)

    def _arrive(self, underway: threading.Event) -> None:
        with self._lock:
            self._underway = None
        underway.set()
