"""Upkeep: what a writer does for its file between two batches, so that the log stays short and the planner informed."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import apsw

from actors.system.log import log

if TYPE_CHECKING:
    from actors.databases.sqlite.connection import SQLiteConnection

__all__ = ["Upkeep"]

_SELDOM: Final = 16  # calls after which there is a look at the log's size
_LOG: Final = 16 << 20  # bytes of the log from which it is to begin anew; SQLite writes it back every 4 MB
_PATIENCE: Final = 0.1  # seconds that upkeep may wait, or take
_MOST_PATIENCE: Final = 1.0  # the same for a log that has become very long
_LAST_PATIENCE: Final = 0.05  # the same before the connection is closed
_DAY: Final = 24 * 3600.0


class Upkeep:
    """Looks after the file of a connection that writes. In its thread, between two batches."""

    def __init__(self, owner: "SQLiteConnection") -> None:
        self._owner = owner
        self._calls = 0
        self._truncate_at = 0.0
        self._optimize_at = time.monotonic() + _DAY

    def now_and_then(self) -> None:
        """Do what is due. Most calls do nothing."""
        self._calls += 1
        owner = self._owner
        if self._calls % _SELDOM or owner.file is None or owner.connection.in_transaction:
            return  # in a transaction: somebody's, whose statements come one by one
        now = time.monotonic()
        if now >= self._truncate_at and (size := owner.file.log_size()) > _LOG:
            # It is written back all the time, but begins anew only once nobody reads from it. While new readers go on
            # as ever, this waits for the old ones: the longer, the longer it has become.
            patience = min(_PATIENCE * size / _LOG, _MOST_PATIENCE)
            done = self._try(lambda: owner.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE), patience)
            self._truncate_at = now if done else now + 3 * patience
        if now >= self._optimize_at:
            self._optimize_at = now + _DAY
            self._optimize()

    def last(self) -> None:
        """Do what is worth doing before the connection is closed."""
        owner = self._owner
        connection = owner.connection
        with suppress(apsw.ConnectionClosedError):
            if connection.total_changes() and not connection.in_transaction:
                self._optimize()
                if owner.file is not None:
                    # The last connection that is closed removes the log. Of two that close in one moment none is the
                    # last, and the log stays: then it shall be empty.
                    self._try(lambda: connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE), _LAST_PATIENCE)

    def _try(self, what: Callable[[], object], patience: float) -> bool:
        """Do something that need not be done now; say whether it was."""
        try:
            with self._owner.patience(patience):
                what()
        except Exception as error:  # noqa: BLE001  # of a hook of the user's, too
            log(__name__, "debug", "upkeep_failed", error=error)
            return False
        return True

    def _optimize(self) -> None:
        """Let SQLite look at the tables whose statistics are old, as it advises for all of them from time to time."""
        connection, until = self._owner.connection, time.monotonic() + _PATIENCE
        connection.set_progress_handler(lambda: time.monotonic() > until, 1000)
        self._try(lambda: connection.execute("PRAGMA optimize = 0x10002").fetchall(), 0.0)
        connection.set_progress_handler(None)
