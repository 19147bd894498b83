"""The statement being prepared, and the facts that a connection remembers of a statement.

While SQLite prepares a statement, SQLite asks the connection's authorizer about each thing that
the statement does. `Statement` notes these questions. `StatementFacts` is the summary of a
statement that is prepared. `KnownStatements` keeps the summaries by the statements' texts.
"""

from collections.abc import Callable
from typing import Final

import apsw

from actors.databases.base import NeedsWriter
from actors.databases.sqlite.sql_text import changes_rows

__all__ = [
    "KnownStatements",
    "NeedsTransaction",
    "NothingRan",
    "OutdatedSchema",
    "RunsAlone",
    "Statement",
    "StatementFacts",
    "admit_all",
    "admit_alone",
    "admit_reading",
    "columns_now",
    "columns_of",
]

_ROWS: Final = frozenset({apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE})
_READS: Final = frozenset({apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE})
_AUTOCOMMIT: Final = frozenset(
    {apsw.SQLITE_PRAGMA, apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH, apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT}
)
"""Actions that begin or end a transaction, or mean something else inside a transaction."""

_REMEMBERED: Final = 512  # statements that a connection remembers: more than APSW keeps prepared


# --- why a statement is refused before its first step --------------------------------------


class NothingRan(Exception):
    """A statement was refused before its first step."""


class OutdatedSchema(NothingRan):
    """The statement must be prepared again, since the connection's schema may be old."""

    def __init__(self, schema: str | None) -> None:
        super().__init__(schema)
        self.schema = schema
        """The database whose schema the statement reads; `None` for all attached databases."""


class NeedsTransaction(NothingRan):
    """The statement writes, and no transaction is open."""


class RunsAlone(NothingRan):
    """The statement cannot share a transaction with statements of other callers."""


# --- a statement ---------------------------------------------------------------------------


class Statement:
    """The statement being prepared: its actions, as SQLite names them, and its permissions.

    A connection has one of these objects, and clears it before each statement.
    """

    __slots__ = (
        "admits",
        "alters",
        "changes_rows",
        "inserts",
        "is_autocommit",
        "is_other",
        "must_share",
        "pragma",
        "schema",
        "was_prepared",
    )

    def __init__(self) -> None:
        self.admits: Callable[[StatementFacts], object] = admit_alone
        """Called just before the first step of a statement; raises an error to refuse it."""
        self.must_share = False
        """Whether the statement is refused if it does more than read and change rows. A pragma may
        take effect while it is prepared, so the refusal must come before that."""
        self.clear()

    def clear(self) -> None:
        """Forget the actions of the last statement."""
        self.was_prepared = False
        """Whether SQLite has prepared a statement since the last `clear`."""
        self.pragma: str | None = None
        """The name of the pragma that the statement is, in lower case."""
        self.schema: str | None = None
        """The database that this pragma names."""
        self.is_autocommit = False
        """Whether it does something that is different, or impossible, inside a transaction."""
        self.changes_rows = False
        """Whether it changes rows of tables."""
        self.inserts = False
        """Whether it inserts rows by itself, and not only by a trigger."""
        self.alters = False
        """Whether it is an `ALTER TABLE`."""
        self.is_other = False
        """Whether it does more than read and change rows: it changes the schema, for example."""

    def note(self, action: int, first: str | None, schema: str | None, trigger: str | None) -> None:
        """Note one question that SQLite asks the authorizer.

        Raises:
            RunsAlone: the statement must share a transaction, and cannot.
        """
        if self.must_share and action not in _READS and action not in _ROWS:
            raise RunsAlone
        self.was_prepared = True
        if action in _READS:
            return
        if action in _ROWS:
            self.changes_rows = True
            if action == apsw.SQLITE_INSERT and trigger is None:
                self.inserts = True
        else:
            self.is_other = True
            self.alters = self.alters or action == apsw.SQLITE_ALTER_TABLE
            if action in _AUTOCOMMIT and not self.changes_rows:  # else a virtual table runs it
                self.is_autocommit = True
                if action == apsw.SQLITE_PRAGMA:
                    self.pragma, self.schema = str(first).lower(), schema


class StatementFacts:
    """The facts of a statement. They hold until SQLite prepares the statement again."""

    __slots__ = ("columns", "counts", "inserts", "is_plain", "is_transactional", "pragma", "reads", "writes")

    def __init__(self, sql: str, statement: Statement, columns: tuple[str, ...], *, is_readonly: bool) -> None:
        """Sum up a statement that is prepared and has not made its first step."""
        self.columns = columns
        """The names of the columns of its rows."""
        self.writes = not is_readonly or statement.pragma == "optimize"
        """Whether it writes to a database, as SQLite says."""
        self.is_plain = statement.was_prepared and not statement.is_other
        """Whether it only reads and changes rows. A plain statement may run as it was prepared
        before, and may share a transaction with statements of other callers. Other statements take
        effect, or read the schema, while they are prepared."""
        self.reads = self.is_plain and not self.writes
        """Whether it is plain and only reads."""
        self.is_transactional = not statement.is_autocommit and (statement.changes_rows or statement.is_other)
        """Whether it means the same inside a transaction."""
        self.counts = self.writes and changes_rows(sql)
        """Whether the rows that it changes count. Rows that a `CREATE` changes are SQLite's own."""
        self.inserts = self.counts and statement.inserts
        """Whether it inserts rows by itself."""
        self.pragma = statement.pragma


class KnownStatements(dict[str, StatementFacts]):
    """The facts of the last statements of a connection, by their texts."""

    __slots__ = ("_queries_only",)

    def __init__(self, *, queries_only: bool) -> None:
        """Remember nothing yet. With `queries_only`, a statement that is no query is an error."""
        super().__init__()
        self._queries_only = queries_only

    def learn(self, sql: str, statement: Statement, cursor: apsw.Cursor) -> StatementFacts:
        """Return the facts of the statement that `cursor` has prepared, and remember them.

        Raises:
            apsw.AuthError: the SQL is untrusted, and the statement is no query.
        """
        facts = self.get(sql)
        if facts is not None and not statement.was_prepared:
            return facts  # APSW has kept the statement prepared, so SQLite has asked nothing
        # `ALTER TABLE` has columns that are SQLite's own, and no rows.
        columns = () if statement.alters and not cursor.is_explain else columns_of(cursor)
        facts = StatementFacts(sql, statement, columns, is_readonly=cursor.is_readonly)
        if self._queries_only and not (facts.reads or facts.pragma):
            message = "not authorized: SQLite(sandbox=True) takes queries only"
            raise apsw.AuthError(message)
        if cursor.is_explain:
            return facts  # an EXPLAIN that is kept prepared would not notice a new schema
        if len(self) >= _REMEMBERED:
            self.clear()
        self[sql] = facts
        return facts


# --- which statements may run --------------------------------------------------------------


def admit_alone(facts: StatementFacts) -> None:
    """Admit each statement that needs no transaction around itself.

    Raises:
        NeedsTransaction: the statement needs one.
    """
    if facts.writes and facts.is_transactional:
        raise NeedsTransaction


def admit_reading(facts: StatementFacts) -> None:
    """Admit each statement that only reads.

    Raises:
        NeedsWriter: the statement writes.
    """
    if facts.writes:
        raise NeedsWriter


def admit_all(facts: StatementFacts) -> None:
    """Admit each statement, since the crew's own transaction is around it."""


# --- columns -------------------------------------------------------------------------------


def columns_of(cursor: apsw.Cursor) -> tuple[str, ...]:
    """Return the names of the columns of a statement before its first step."""
    return tuple([column[0] for column in cursor.get_description()])


def columns_now(cursor: apsw.Cursor) -> tuple[str, ...]:
    """Return the names of the columns of a statement that gives rows.

    SQLite may have prepared the statement again since `columns_of`.

    Raises:
        apsw.ExecutionCompleteError: the statement gave its last row, or gives none.
    """
    return tuple([column[0] for column in cursor.description])  # APSW caches `get_description`
