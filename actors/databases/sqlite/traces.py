"""Traces: a look at a statement just before its first step.

Only at that moment can the columns of a statement without rows be read. It is also the last moment
at which a second statement can be refused before the first has run.
"""

import apsw

from actors.databases.sqlite.counting import Counting
from actors.databases.sqlite.sql_text import is_blank
from actors.databases.sqlite.statement import KnownStatements, OutdatedSchema, Statement, StatementFacts

__all__ = ["ScriptTrace", "Trace"]


class Trace:
    """Looks at the one statement of a query."""

    __slots__ = ("_counting", "_is_fresh", "_known", "_repeats", "_sql", "_statement", "facts")

    def __init__(
        self, sql: str, statement: Statement, known: KnownStatements, counting: Counting, *, repeats: bool = False
    ) -> None:
        """Look at the statement `sql`. With `repeats` it runs for many sets of parameters."""
        self._sql = sql
        self._statement = statement
        self._known = known
        self._counting = counting
        self._repeats = repeats
        # Whether the connection looked at its schema before the statement was prepared.
        self._is_fresh = False
        self.facts: StatementFacts | None = None
        """The facts of the statement, once it is prepared."""

    def refresh(self) -> None:
        """Let the statement begin again: the connection has looked at its schema."""
        self._is_fresh = True

    def __call__(self, cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        """Look at the statement; APSW calls this before each run of it. Return true: go on."""
        del bindings
        if self.facts is None:
            self._look(cursor, sql)
        elif self._repeats and not is_blank(sql):
            self._counting.end()
            self._count()
        return True  # APSW calls this for a comment behind the statement, too

    def _look(self, cursor: apsw.Cursor, sql: str) -> None:
        statement = self._statement
        if len(sql) != len(self._sql) and not is_blank(self._sql[len(sql) :]):
            message = "the query holds more than one statement; send them as Script(sql), or one by one"
            raise ValueError(message)
        facts = self._known.learn(self._sql, statement, cursor)
        statement.admits(facts)
        if (facts.pragma is not None or cursor.is_explain) and not self._is_fresh:
            raise OutdatedSchema(statement.schema)
        self.facts = facts
        statement.clear()
        if facts.writes:
            self._count()

    def _count(self) -> None:
        if self.facts is not None and self.facts.writes:
            self._counting.begin(self.facts)


class ScriptTrace:
    """Looks at one statement of a script."""

    __slots__ = ("_counting", "_statement", "facts")

    def __init__(self, statement: Statement, counting: Counting) -> None:
        self._statement = statement
        self._counting = counting
        self.facts: StatementFacts | None = None
        """The facts of the statement, once it is prepared."""

    def refresh(self) -> None:
        """Let the statement begin again: the connection has looked at its schema."""

    def __call__(self, cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        """Look at the statement; APSW calls this before it runs. Return true: go on."""
        del bindings
        self.facts = facts = StatementFacts(sql, self._statement, (), is_readonly=cursor.is_readonly)
        if facts.writes:
            self._counting.begin(facts)
        return True
