"""What SQLite tells of a statement while it is prepared, and what is remembered of its text."""

from typing import Final

import apsw

__all__ = ["Counting", "Known", "Told", "changes_connection", "columns_now", "columns_of", "is_special"]

_ROWS: Final = frozenset({apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE})
_READS: Final = frozenset({apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE})
_AUTOCOMMIT: Final = frozenset(
    {apsw.SQLITE_PRAGMA, apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH, apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT}
)
"""What begins or ends a transaction, or means something else inside of one."""
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

_NO_ROWID: Final = -0x5E1F_1D0E_5107_2B6D
"""A number that no row has, except by an accident of 1 in 2 ** 63."""


class Told:
    """What the authorizer was told since the last statement began: see `SQLiteConnection._authorize`."""

    __slots__ = ("alters", "asked", "autocommit", "changes_rows", "inserts", "other", "pragma", "schema", "uses_rowid")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew, for the next statement."""
        self.asked = False
        """Whether SQLite has prepared anything."""
        self.pragma: str | None = None
        """The pragma that it is, in lower case."""
        self.schema: str | None = None
        """The database that this pragma names."""
        self.autocommit = False
        """Whether it does something that is different, or impossible, inside a transaction."""
        self.changes_rows = False
        """Whether it changes rows of tables."""
        self.inserts = False
        """Whether it inserts rows by itself, not by a trigger alone."""
        self.alters = False
        """Whether it is an `ALTER TABLE`."""
        self.other = False
        """Whether it does anything but reading and changing rows: it changes the schema, for instance."""
        self.uses_rowid = False
        """Whether it, or a trigger of it, calls `last_insert_rowid()`."""

    def note(self, action: int, first: str | None, second: str | None, schema: str | None, trigger: str | None) -> None:
        """Note one question that SQLite asks of the authorizer."""
        self.asked = True
        if action in _READS:
            if action == apsw.SQLITE_FUNCTION and second == "last_insert_rowid":
                self.uses_rowid = True
        elif action in _ROWS:
            self.changes_rows = True
            if action == apsw.SQLITE_INSERT and trigger is None:
                self.inserts = True
        else:
            self.other = True
            self.alters = self.alters or action == apsw.SQLITE_ALTER_TABLE
            if action in _AUTOCOMMIT and not self.changes_rows:  # else a virtual table asks it for itself
                self.autocommit = True
                if action == apsw.SQLITE_PRAGMA:
                    self.pragma, self.schema = str(first).lower(), schema


class Known:
    """What is known of a statement, as long as it is prepared as before."""

    __slots__ = ("columns", "inserts", "is_plain", "is_transactional", "pragma", "reads", "uses_rowid", "writes")

    def __init__(self, told: Told, columns: tuple[str, ...], *, is_readonly: bool) -> None:
        """Sum up what was told of a statement that is prepared and has not made its first step."""
        self.columns = () if told.alters else columns
        """The names of the columns of its rows. `ALTER TABLE` has some that are SQLite's own, and no rows."""
        self.writes = not is_readonly or told.pragma == "optimize"
        """Whether it writes to a database: SQLite says so."""
        self.is_plain = told.asked and not told.other
        """Whether it only reads and changes rows. Such a statement may be run as it was prepared before, and share a
        transaction with those of other callers; others take effect, or read the schema, as they are prepared."""
        self.reads = self.is_plain and not self.writes
        """Whether it is plain, and only reads."""
        self.is_transactional = not told.autocommit and (told.changes_rows or told.other)
        """Whether it means the same inside a transaction."""
        self.inserts = told.inserts
        self.uses_rowid = told.uses_rowid
        self.pragma = told.pragma

    def note_again(self, told: Told) -> None:
        """Note what was told as the statement was prepared once more: a trigger may be new."""
        self.inserts = self.inserts or told.inserts
        self.uses_rowid = self.uses_rowid or told.uses_rowid


class Counting:
    """Counts the rows that statements change, one after the other, and notes the last rowid that they insert.

    `last_insert_rowid()` does not tell an insert from an earlier one. So it is set to a number that no row has before a
    statement, and set back after one that inserted nothing. A statement that calls the function itself finds what is
    right there: it is prepared before that, or, if the schema has changed, sets it back itself (`reveal`).
    """

    __slots__ = ("_before", "_connection", "_hidden", "_inserts", "_rowid", "changed", "rowid")

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        # The connection's count of changes, and its last rowid, before the statement that runs.
        self._before: int | None = None
        self._rowid = 0
        # Whether that rowid is hidden now.
        self._hidden = False
        self._inserts = False
        self.reset()

    def reset(self) -> None:
        """Begin to count for a new request."""
        self.changed = 0
        """Rows that were changed; those that triggers and foreign keys changed do not count, as in SQLite."""
        self.rowid: int | None = None
        """The rowid of the last row that was inserted, if any was."""

    def begin(self, known: Known) -> None:
        """Look at the connection before the first step of a statement that writes."""
        connection = self._connection
        self._before = connection.total_changes()
        self._rowid = connection.last_insert_rowid()
        self._inserts = known.inserts
        if not known.uses_rowid:
            self._hidden = True
            connection.set_last_insert_rowid(_NO_ROWID)

    @property
    def has_changes(self) -> bool:
        """Whether rows may have been changed since `begin`."""
        return self._before is not None and self._connection.total_changes() != self._before

    def end(self) -> None:
        """Look at the connection after the statement that runs, if one does."""
        if self._before is None:
            return
        connection = self._connection
        changed = connection.changes() if connection.total_changes() != self._before else 0
        self._before = None
        self.changed += changed
        rowid = connection.last_insert_rowid()
        if not self._hidden:
            if self._inserts and changed:
                self.rowid = rowid
        elif rowid == _NO_ROWID:
            self.reveal()
        else:
            self.rowid = rowid
            self._hidden = False

    def reveal(self) -> None:
        """Set the rowid back that was hidden, if it still is: an error came, or a statement asks for it."""
        if self._hidden:
            self._hidden = False
            if self._connection.last_insert_rowid() == _NO_ROWID:
                self._connection.set_last_insert_rowid(self._rowid)

    def abandon(self) -> None:
        """Forget the statement that runs: it has failed."""
        self._before = None
        self.reveal()


def is_special(action: int) -> bool:
    """Say whether a question that SQLite asks of the authorizer is about more than reading and changing rows."""
    return action not in _READS and action not in _ROWS


def columns_of(cursor: apsw.Cursor) -> tuple[str, ...]:
    """Return the names of the columns of a statement that is prepared and has not made its first step."""
    return tuple([column[0] for column in cursor.get_description()])


def columns_now(cursor: apsw.Cursor) -> tuple[str, ...]:
    """Return the names of the columns of a statement that gives rows, which may have been prepared anew meanwhile.

    Raises:
        apsw.ExecutionCompleteError: it gave its last row, or gives none.
    """
    return tuple([column[0] for column in cursor.description])  # APSW keeps what `get_description` told before


def changes_connection(action: int, first: str | None, second: str | None, schema: str | None) -> bool:
    """Say whether the next job would notice: of this SQLite's authorizer is told."""
    return (
        action in (apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH)
        or action in _TEMPORARY
        or (action == apsw.SQLITE_PRAGMA and second is not None and str(first).lower() not in _READING_PRAGMAS)
        # Without the word TEMP, as in "CREATE TABLE temp.t", this is all that tells.
        or (action == apsw.SQLITE_INSERT and schema == "temp" and first in ("sqlite_master", "sqlite_temp_master"))
    )
