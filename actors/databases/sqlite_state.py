"""What changes a connection itself, so that the next job would notice."""

import apsw

__all__ = ["changes_connection"]

# Pragmas that take an argument and yet change nothing of the connection.
_READING_PRAGMAS = frozenset(
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
_STATEFUL_ACTIONS = frozenset(
    {
        apsw.SQLITE_ATTACH,
        apsw.SQLITE_DETACH,
        apsw.SQLITE_CREATE_TEMP_INDEX,
        apsw.SQLITE_CREATE_TEMP_TABLE,
        apsw.SQLITE_CREATE_TEMP_TRIGGER,
        apsw.SQLITE_CREATE_TEMP_VIEW,
    }
)


def changes_connection(action: int, first: str | None, second: str | None, schema: str | None) -> bool:
    """Say whether a statement does, of which SQLite's authorizer is told this."""
    return (
        action in _STATEFUL_ACTIONS
        or (action == apsw.SQLITE_PRAGMA and second is not None and str(first).lower() not in _READING_PRAGMAS)
        # Without the word TEMP, as in "CREATE TABLE temp.t", this is all that tells.
        or (action == apsw.SQLITE_INSERT and schema == "temp" and first in ("sqlite_master", "sqlite_temp_master"))
    )
