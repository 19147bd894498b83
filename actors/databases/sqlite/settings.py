"""The settings of an open connection: which of them a job may change, and whether a job did."""

from typing import Final

import apsw

__all__ = ["Settings"]

_TEMPORARY: Final = frozenset(
    {
        apsw.SQLITE_CREATE_TEMP_INDEX,
        apsw.SQLITE_CREATE_TEMP_TABLE,
        apsw.SQLITE_CREATE_TEMP_TRIGGER,
        apsw.SQLITE_CREATE_TEMP_VIEW,
    }
)
# Pragmas that take an argument and yet change nothing of the connection.
_READING_PRAGMAS: Final = frozenset(
    {
        "foreign_key_check",
        "foreign_key_list",
        "function_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "optimize",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
        "wal_checkpoint",
    }
)


class Settings:
    """The settings of one open connection. The connection is opened anew once a job changed one.

    SQLite's authorizer calls `admit` while a statement is prepared, and so reports each pragma,
    each attached database and each temporary object.
    """

    __slots__ = ("_connection", "_reads_only", "is_changed", "stays_readonly")

    def __init__(self, connection: apsw.Connection, *, reads_only: bool) -> None:
        """Watch over a connection; `reads_only` says that it never writes."""
        self._connection = connection
        self._reads_only = reads_only
        self.is_changed = False
        """Whether a job has changed something of the connection that the next job would see."""
        self.stays_readonly = False
        """Whether the open transaction only reads, and no statement may change that."""

    def set(self, name: str, value: object) -> None:
        """Set a pragma for the crew itself. The connection does not count as changed."""
        is_changed = self.is_changed
        try:
            self._connection.pragma(name, value)
        finally:
            self.is_changed = is_changed

    def set_query_only(self, value: bool) -> None:
        """Forbid writing, or allow it again. A connection that never writes stays as it is."""
        if not self._reads_only:
            self.set("query_only", value)

    def admit(self, action: int, first: str | None, second: str | None, schema: str | None) -> bool:
        """Say whether a statement may do this to the settings, and note a change.

        Raises:
            ValueError: the pragma would have no effect.
        """
        if action == apsw.SQLITE_PRAGMA and second is not None:
            pragma = str(first).lower()
            if self.stays_readonly and pragma == "query_only":
                return False
            if pragma == "foreign_keys" and self._connection.in_transaction:
                _check_changes_nothing(self._connection, second)
        if _changes_connection(action, first, second, schema):
            self.is_changed = True
        return True


def _changes_connection(action: int, first: str | None, second: str | None, schema: str | None) -> bool:
    """Say whether the next job would notice an action that SQLite asks the authorizer about."""
    return (
        action in (apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH)
        or action in _TEMPORARY
        or (action == apsw.SQLITE_PRAGMA and second is not None and str(first).lower() not in _READING_PRAGMAS)
        # Of "CREATE TABLE temp.t", without the word TEMP, SQLite reports this and nothing else.
        or (action == apsw.SQLITE_INSERT and schema == "temp" and first in ("sqlite_master", "sqlite_temp_master"))
    )


def _check_changes_nothing(connection: apsw.Connection, value: str) -> None:
    """Raise `ValueError` unless `PRAGMA foreign_keys` has this value already.

    SQLite ignores this pragma inside a transaction.
    """
    wanted = value.lower() in ("on", "yes", "true") or (value.isdigit() and int(value) != 0)
    if wanted != bool(connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, -1)):
        message = (
            "PRAGMA foreign_keys has no effect inside a transaction, so it is refused there: send one "
            "Script('PRAGMA foreign_keys = OFF; BEGIN IMMEDIATE; …; COMMIT'), with the pragma before BEGIN"
        )
        raise ValueError(message)
