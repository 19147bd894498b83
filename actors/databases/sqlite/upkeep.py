"""Upkeep: a writer keeps its file's log short and the statistics of the query planner fresh."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import apsw

from actors.databases.sqlite.file import OpenFile
from actors.databases.sqlite.lock_wait import LockWait
from actors.system.log import log

__all__ = ["Upkeep"]

_SELDOM: Final = 16  # calls after which upkeep looks at the log's size
_LOG: Final = 16 << 20  # bytes from which the log begins anew; SQLite writes it back every 4 MB
_PATIENCE: Final = 0.1  # seconds that upkeep may wait, or take
_MOST_PATIENCE: Final = 1.0  # the same for a log that has become very long
_LAST_PATIENCE: Final = 0.05  # the same before the connection is closed
_DAY: Final = 24 * 3600.0


class Upkeep:
    """Looks after the file of a connection that writes. In its thread, between two batches."""

    def __init__(self, wait: LockWait) -> None:
        """Look after a file; `wait` is the connection's wait for locks."""
        self._wait = wait
        self._calls = 0
        self._truncate_at = 0.0
        self._optimize_at = time.monotonic() + _DAY

    def now_and_then(self, connection: apsw.Connection, file: OpenFile | None) -> None:
        """Do the work that is due. Most calls do nothing.

        Inside a transaction nothing is done: a session is open, whose statements come one by one.

        Args:
            connection: the connection that writes.
            file: its file; `None` for a database in memory.
        """
        self._calls += 1
        if self._calls % _SELDOM or file is None or connection.in_transaction:
            return
        now = time.monotonic()
        if now >= self._truncate_at and (size := file.log_size()) > _LOG:
            # SQLite writes the log back all the time. But the log begins anew only when no reader
            # uses it. This waits for old readers, while new readers go on. The longer the log is,
            # the longer is the wait.
            patience = min(_PATIENCE * size / _LOG, _MOST_PATIENCE)
            done = self._try(lambda: connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE), patience)
            self._truncate_at = now if done else now + 3 * patience
        if now >= self._optimize_at:
            self._optimize_at = now + _DAY
            self._optimize(connection)

    def last(self, connection: apsw.Connection, file: OpenFile | None) -> None:
        """Do the work that pays before the connection is closed. Arguments as `now_and_then`."""
        with suppress(apsw.ConnectionClosedError):
            if connection.total_changes() and not connection.in_transaction:
                self._optimize(connection)
                if file is not None:
                    # The last connection that is closed removes the log. If two are closed at the
                    # same moment, none is the last, and the log stays. Then it must be empty.
                    self._try(lambda: connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE), _LAST_PATIENCE)

    def _try(self, work: Callable[[], object], patience: float) -> bool:
        """Do work that can also be done later; say whether it was done."""
        try:
            with self._wait.limit(patience):
                work()
        except Exception as error:  # noqa: BLE001  # also an error of a user's hook
            log(__name__, "debug", "upkeep_failed", error=error)
            return False
        return True

    def _optimize(self, connection: apsw.Connection) -> None:
        """Let SQLite look at the tables whose statistics are old.

        SQLite advises every program to do so from time to time.
        """
        until = time.monotonic() + _PATIENCE
        connection.set_progress_handler(lambda: time.monotonic() > until, 1000)
        self._try(lambda: connection.execute("PRAGMA optimize = 0x10002").fetchall(), 0.0)
        connection.set_progress_handler(None)
