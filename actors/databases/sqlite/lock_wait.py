"""The wait for a lock that another connection holds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import apsw

__all__ = ["LockWait"]

_RECENT: Final = 0.1  # seconds: a waiting connection looks for the lock several times in this time
_LONGEST_SLEEP: Final = 0.025  # seconds: an interrupt may come so late


class LockWait:
    """The busy handler of a connection: how long it waits for a lock, and the end of the wait.

    SQLite's own timeout does not end at an interrupt, so a deadline could not end it. This wait
    does. All methods but `is_recent` and the attribute `is_interrupted` belong to the thread of
    the connection.
    """

    __slots__ = ("_is_uninterruptible", "_last", "_limit", "_on_wait", "_since", "_timeout", "is_interrupted")

    def __init__(self, timeout: float, on_wait: Callable[[], object]) -> None:
        """Wait for at most `timeout` seconds for each lock; call `on_wait` again and again then."""
        self._timeout = timeout
        self._on_wait = on_wait
        # Seconds that the connection may wait now, if that is less than the timeout.
        self._limit = float("inf")
        # Monotonic times: when the wait began (0 for no wait), and when it was last seen.
        self._since = self._last = 0.0
        # Whether an interrupt comes too late, since the job is done.
        self._is_uninterruptible = False
        self.is_interrupted = False
        """Set by any thread to end the wait. It is no event: a thread that is killed while it sets
        an event leaves the lock of the event held."""

    def begin_job(self) -> None:
        """Forget the last job, and an interrupt of it."""
        self.is_interrupted = False
        self._since = 0.0

    def on_busy(self, attempts: int) -> bool:
        """Wait a little for the lock; say whether to try again. SQLite calls this.

        Args:
            attempts: how often SQLite has called this for the same lock before.
        """
        now = time.monotonic()
        if attempts == 0:
            self._since = now
        self._last = now
        self._on_wait()
        left = min(self._timeout, self._limit) - (now - self._since)
        if left <= 0 or (self.is_interrupted and not self._is_uninterruptible):
            return False
        # Most locks are short, so the first sleeps are short.
        time.sleep(min(left, 0.001 * (attempts + 1), _LONGEST_SLEEP))
        return self._is_uninterruptible or not self.is_interrupted

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Wait at most so many seconds for each lock within the block."""
        self._limit = seconds
        self.begin_job()
        try:
            yield
        finally:
            self._limit = float("inf")

    @contextmanager
    def uninterruptible(self) -> Iterator[None]:
        """Ignore an interrupt within the block: its job is done."""
        self._is_uninterruptible = True
        try:
            yield
        finally:
            self._is_uninterruptible = False

    def is_recent(self) -> bool:
        """Say whether the connection waits for a lock at this moment. From any thread."""
        return time.monotonic() - self._last < _RECENT

    def explain(self, error: apsw.BusyError, *, has_read: bool) -> None:
        """Add a note to an error: how long the wait was, or why there was none.

        Args:
            error: the error of the statement that needed the lock.
            has_read: whether the transaction of the statement has read before it needed the lock.
        """
        if has_read:
            note = (
                "a transaction that has read cannot wait for the lock of a writer, since it would see an old state: "
                "begin it with BEGIN IMMEDIATE, or send a Transaction"
            )
        else:
            waited = max(0.0, time.monotonic() - self._since) if self._since else 0.0
            limit = self._timeout
            note = f"waited {waited:.3f} seconds for a lock that another connection holds (busy_timeout is {limit:g})"
        error.add_note(f"querycrew: {note}")
