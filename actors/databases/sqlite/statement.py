"""What SQLite tells of a statement while it is prepared, and what is remembered of its text."""

import re
from collections.abc import Iterator
from typing import Final
from weakref import ref

import apsw

__all__ = [
    "Counting",
    "Known",
    "Told",
    "changes_connection",
    "changes_rows",
    "columns_now",
    "columns_of",
    "is_blank",
    "is_special",
    "statements_of",
]

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

# These are compiled when they are needed first, and not as this is imported.
# White space, semicolons and comments. Atomic: with backtracking a comment could swallow the statement behind it.
_BLANK: Final = r"(?>[ \t\n\f\r\ufeff;]+|--[^\n]*|/\*(?s:.*?)(?:\*/|\Z))*"
# The beginning of a statement that changes rows. `WITH` may also begin a statement that reads.
_CHANGES_ROWS: Final = _BLANK + r"(?i:INSERT|REPLACE|UPDATE|DELETE|WITH)\b"
# Text in which a semicolon ends nothing, or a semicolon that may end a statement.
_SEMICOLON: Final = (
    r"'[^']*(?:'|\Z)|\"[^\"]*(?:\"|\Z)|`[^`]*(?:`|\Z)|\[[^\]]*(?:\]|\Z)|--[^\n]*|/\*(?s:.*?)(?:\*/|\Z)|;"
)

_NO_ROWID: Final = -0x5E1F_1D0E_5107_2B6D
"""A number that no row has, except by an accident of 1 in 2 ** 63."""


class Told:
    """What the authorizer was told since the last statement began: see `SQLiteConnection._authorize`."""

    __slots__ = ("alters", "asked", "autocommit", "changes_rows", "inserts", "other", "pragma", "schema")

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

    def note(self, action: int, first: str | None, schema: str | None, trigger: str | None) -> None:
        """Note one question that SQLite asks of the authorizer."""
        self.asked = True
        if action in _READS:
            return
        if action in _ROWS:
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

    __slots__ = ("columns", "counts", "inserts", "is_plain", "is_transactional", "pragma", "reads", "writes")

    def __init__(self, sql: str, told: Told, columns: tuple[str, ...], *, is_readonly: bool) -> None:
        """Sum up what was told of the statement `sql`, which is prepared and has not made its first step."""
        self.columns = columns
        """The names of the columns of its rows."""
        self.writes = not is_readonly or told.pragma == "optimize"
        """Whether it writes to a database: SQLite says so."""
        self.is_plain = told.asked and not told.other
        """Whether it only reads and changes rows. Such a statement may be run as it was prepared before, and share a
        transaction with those of other callers; others take effect, or read the schema, as they are prepared."""
        self.reads = self.is_plain and not self.writes
        """Whether it is plain, and only reads."""
        self.is_transactional = not told.autocommit and (told.changes_rows or told.other)
        """Whether it means the same inside a transaction."""
        self.counts = self.writes and changes_rows(sql)
        """Whether its changed rows count. Rows that a `CREATE` changes are SQLite's own."""
        self.inserts = self.counts and told.inserts
        """Whether it inserts rows by itself."""
        self.pragma = told.pragma


class Counting:
    """Counts the rows that statements change, one after the other, and notes the last rowid that they insert.

    `last_insert_rowid()` does not tell an insert from an earlier one. So before an insert it is set to a number that no
    row has, and set back if nothing was inserted. SQL never sees that number: the connection has a function of the same
    name, which calls `last_rowid`.
    """

    __slots__ = ("__weakref__", "_connection", "_hidden", "_runs", "changed", "rowid")

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        # The statement that runs, if one does that writes.
        self._runs: Known | None = None
        # The connection's last rowid, while another number stands there.
        self._hidden: int | None = None
        self.reset()
        # Innocuous, like SQLite's own function: triggers and views of a strange file may call it. A weak reference:
        # otherwise a connection that nobody closes would keep itself alive.
        me = ref(self)
        connection.create_scalar_function(
            "last_insert_rowid", lambda *_: _last_rowid(me), 0, flags=apsw.SQLITE_INNOCUOUS
        )

    def reset(self) -> None:
        """Begin to count for a new request."""
        self.changed = 0
        """Rows that were changed; those that triggers and foreign keys changed do not count, as in SQLite."""
        self.rowid: int | None = None
        """The rowid of the last row that was inserted, if any was."""

    def begin(self, known: Known) -> None:
        """Look at the connection before the first step of a statement that writes."""
        self._runs = known
        if known.inserts:
            self._hidden = self._connection.last_insert_rowid()
            self._connection.set_last_insert_rowid(_NO_ROWID)

    def end(self) -> None:
        """Look at the connection after the statement that runs, if one does."""
        known, self._runs = self._runs, None
        if known is None or not known.counts:
            return
        self.changed += self._connection.changes()
        if known.inserts and not self._show():
            self.rowid = self._connection.last_insert_rowid()

    def abandon(self) -> None:
        """Forget the statement that runs: it has failed."""
        self._runs = None
        self._show()

    def last_rowid(self) -> int:
        """Return the value of `last_insert_rowid()` in SQL."""
        rowid = self._connection.last_insert_rowid()
        return self._hidden if self._hidden is not None and rowid == _NO_ROWID else rowid

    def _show(self) -> bool:
        """Set the rowid back that was hidden, unless there is another one by now; say whether it was."""
        hidden, self._hidden = self._hidden, None
        if hidden is None or self._connection.last_insert_rowid() != _NO_ROWID:
            return False
        self._connection.set_last_insert_rowid(hidden)
        return True


def _last_rowid(counting: "ref[Counting]") -> int:
    found = counting()
    assert found is not None  # it lives as long as its connection runs SQL
    return found.last_rowid()


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


def is_blank(sql: str) -> bool:
    """Say whether `sql` holds nothing but white space, semicolons and comments, as SQLite understands them."""
    return re.fullmatch(_BLANK, sql) is not None


def changes_rows(sql: str) -> bool:
    """Say whether a statement begins like one that changes rows. A query that begins with `WITH` does, too."""
    return re.match(_CHANGES_ROWS, sql) is not None


def statements_of(script: str) -> Iterator[str]:
    """Return the statements of a script one by one, each with its semicolon. SQLite finds the end of each."""
    begin, first = 0, _after_blank(script, 0)
    for found in re.finditer(_SEMICOLON, script):
        end = found.end()
        if found[0] != ";" or end <= first:
            continue
        # A byte order mark would count as a part of the first word here, and a null character is refused here.
        if apsw.complete(script[first:end].replace("\0", " ")):
            yield script[begin:end]
            begin, first = end, _after_blank(script, end)
    if first < len(script):
        yield script[begin:]


def _after_blank(sql: str, begin: int) -> int:
    found = re.compile(_BLANK).match(sql, begin)
    return begin if found is None else found.end()
