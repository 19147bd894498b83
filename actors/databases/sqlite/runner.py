"""Runs single statements on an open connection, in the transaction that is open, if one is."""

import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any

import apsw

from actors.databases.base import NeedsWriter
from actors.databases.sqlite.counting import Counting
from actors.databases.sqlite.settings import Settings
from actors.databases.sqlite.statement import (
    KnownStatements,
    NothingRan,
    OutdatedSchema,
    Statement,
    StatementFacts,
    columns_now,
    columns_of,
)
from actors.databases.sqlite.traces import ScriptTrace, Trace
from actors.databases.sqlite.untrusted import is_harmless
from actors.values.requests import Parameters, Query, shorten
from actors.values.result import Result

__all__ = ["Runner"]


class Runner:
    """Runs statements on one APSW connection, from its opening until it is closed.

    A runner begins and ends no transaction. All methods run in the thread of the connection.
    """

    __slots__ = ("_cursor", "_sandbox", "connection", "counting", "known", "reads_only", "settings", "statement")

    def __init__(self, connection: apsw.Connection, *, sandbox: bool, reads_only: bool) -> None:
        """Run statements on `connection`.

        Args:
            connection: an open connection.
            sandbox: whether the SQL is untrusted.
            reads_only: whether the connection never writes.
        """
        self.connection = connection
        self.reads_only = reads_only
        self._sandbox = sandbox
        self.statement = Statement()
        """The statement being prepared."""
        self.known = KnownStatements(queries_only=sandbox)
        """The facts of statements, by their texts."""
        self.settings = Settings(connection, reads_only=reads_only)
        self.counting = Counting(connection)
        """Counts the changes of the statement that runs."""
        self.take_over()
        self._cursor = connection.cursor()

    def take_over(self) -> None:
        """Remove a user function's hooks that could watch the crew or keep a transaction open."""
        connection = self.connection
        connection.authorizer = self._authorize
        connection.exec_trace = connection.row_trace = None
        connection.set_progress_handler(None)

    def _authorize(
        self, action: int, first: str | None, second: str | None, schema: str | None, trigger: str | None
    ) -> int:
        """Note and allow an action of the statement being prepared; SQLite asks for each."""
        self.statement.note(action, first, schema, trigger)
        if self._sandbox and not is_harmless(action, first, second):
            return apsw.SQLITE_DENY
        return apsw.SQLITE_OK if self.settings.admit(action, first, second, schema) else apsw.SQLITE_DENY

    def read_schema(self, schema: str | None = None) -> None:
        """Make the connection look at the schema as it is now. A pragma uses the one it knows.

        Args:
            schema: the database to look at; `None` for all but the temporary one.
        """
        for name in (schema,) if schema is not None else [db for db in self.connection.db_names() if db != "temp"]:
            quoted = name.replace('"', '""')
            self.connection.execute(f'SELECT 1 FROM "{quoted}".sqlite_schema LIMIT 1').fetchall()  # noqa: S608

    def close_cursor(self) -> None:
        """Close the cursor after an error, and take a new one.

        The error's traceback may keep the old cursor, and with it a lock on the database.
        """
        with suppress(apsw.Error):
            self._cursor.close(True)
        self._cursor = self.connection.cursor()

    # --- a query --------------------------------------------------------------------------

    def run_query(self, query: Query) -> Result:
        """Run a query of any kind, if `statement.admits` admits it.

        Raises:
            NothingRan: the statement was refused before its first step.
            NeedsWriter: likewise, by a connection that only reads.
            Exception: the driver's own.
        """
        try:
            if query.many is not None:
                return self._many(query)
            facts = self.known.get(query.sql)
            if facts is None or not facts.is_plain or query.max_rows is not None:
                return self._traced(query)
            self.statement.admits(facts)
            return self.run_known(query, facts)
        except (NothingRan, NeedsWriter):
            raise
        except BaseException:
            self.close_cursor()  # an open statement would keep a lock, and fail the next statement
            self.counting.abandon()
            self.known.pop(query.sql, None)
            raise

    def run_known(self, query: Query, facts: StatementFacts) -> Result:
        """Run a plain statement whose facts are known, without a trace: a trace takes 1.2 of 4 µs.

        The columns are the known ones unless SQLite prepares the statement again, as it does after
        a change of the schema. SQLite asks the authorizer then.
        """
        statement, counting, columns = self.statement, self.counting, facts.columns
        if statement.was_prepared:
            statement.clear()
        if facts.writes:
            counting.reset()
            counting.begin(facts)
        cursor = self._cursor.execute(query.sql, query.params)
        if statement.was_prepared:
            columns = self._columns(cursor, facts, query.sql, query.params)
        rows = cursor.fetchall() if columns else []
        if not facts.writes:
            return Result(columns, rows, len(rows))
        counting.end()
        return Result(columns, rows, counting.changed, counting.rowid)

    def read_known(self, query: Query, facts: StatementFacts) -> Result:
        """Run a plain statement that only reads, as `run_known` does."""
        statement, columns = self.statement, facts.columns
        if statement.was_prepared:
            statement.clear()
        cursor = self._cursor.execute(query.sql, query.params)
        if statement.was_prepared:
            columns = self._columns(cursor, facts, query.sql, query.params)
        rows = cursor.fetchall()
        return Result(columns, rows, len(rows))

    def _traced(self, query: Query) -> Result:
        """Run a statement whose facts are unknown, or whose number of rows is limited."""
        trace, cursor = Trace(query.sql, self.statement, self.known, self.counting), self._cursor
        self.counting.reset()
        self._start(cursor, trace, cursor.execute, query.sql, query.params)
        columns = self._columns(cursor, trace.facts, query.sql, query.params)
        rows, truncated = self._fetch(query.max_rows)
        self._cursor.exec_trace = None
        if trace.facts is None or not trace.facts.writes:
            return Result(columns, rows, len(rows), None, truncated)
        self.counting.end()
        return Result(columns, rows, self.counting.changed, self.counting.rowid, truncated)

    def _many(self, query: Query) -> Result:
        """Run a query once for each of its sets of parameters."""
        trace = Trace(query.sql, self.statement, self.known, self.counting, repeats=True)
        cursor = self._cursor
        self.counting.reset()
        self._start(cursor, trace, cursor.executemany, query.sql, query.many)
        columns = self._columns(cursor, trace.facts, query.sql, query.many[0] if query.many else ())
        rows = cursor.fetchall() if query.max_rows is None else list(islice(cursor, min(query.max_rows, sys.maxsize)))
        found = len(rows) + sum(1 for _ in cursor)  # each set runs, also behind the last wanted row
        cursor.exec_trace = None
        truncated = found > len(rows)
        if trace.facts is None or not trace.facts.writes:
            return Result(columns, rows, found, None, truncated)
        self.counting.end()
        return Result(columns, rows, self.counting.changed, self.counting.rowid, truncated)

    def run_of_script(self, sql: str) -> None:
        """Run one statement of a script. Its rows are read and forgotten."""
        cursor, trace = self._cursor, ScriptTrace(self.statement, self.counting)
        try:
            self._start(cursor, trace, cursor.execute, sql, None, keeps=False)
            for _ in cursor:
                pass
        except BaseException:
            self.counting.abandon()
            raise
        cursor.exec_trace = None
        self.counting.end()

    def open_rows(self, sql: str, params: Parameters) -> tuple[apsw.Cursor, tuple[str, ...]]:
        """Return a cursor on the rows of a statement, and the names of the columns.

        Raises:
            ValueError: the statement writes.
            Exception: the driver's own.
        """
        cursor, trace = self.connection.cursor(), Trace(sql, self.statement, self.known, self.counting)

        def admit(facts: StatementFacts) -> None:
            if facts.writes:
                message = f"a Stream only reads, and this statement writes: send it as a Query ({shorten(sql)!r})"
                raise ValueError(message)

        self.statement.admits = admit
        try:
            self._start(cursor, trace, cursor.execute, sql, params)
            columns = self._columns(cursor, trace.facts, sql, params)
        except BaseException:
            cursor.close(True)
            raise
        return cursor, columns

    # --- the beginning of a statement, its columns and its rows ---------------------------

    def _start(
        self,
        cursor: apsw.Cursor,
        trace: Trace | ScriptTrace,
        execute: Callable[..., object],
        sql: str,
        bindings: Any,
        *,
        keeps: bool = True,
    ) -> None:
        """Begin a statement under a trace.

        A pragma, an `EXPLAIN` and a statement that cannot be prepared begin a second time, with the
        schema as it is now. The reason: SQLite checks whether its schema is old only at the first
        step of a statement.

        Args:
            cursor: runs the statement.
            trace: looks at the statement before its first step.
            execute: the method of the cursor that begins the statement.
            sql: the statement.
            bindings: its parameters.
            keeps: whether APSW may keep the statement prepared, and use a kept one.
        """
        facts = self.known.get(sql) if keeps else None
        may_be_cached = facts is not None and facts.is_plain
        self.statement.clear()
        cursor.exec_trace = trace
        try:
            try:
                execute(sql, bindings, can_cache=may_be_cached)
            except (OutdatedSchema, apsw.SQLError) as again:
                if not isinstance(again, OutdatedSchema) and trace.facts is not None:
                    raise  # the statement was prepared, and has begun
                schema = getattr(again, "schema", None)
            else:
                return
            # Outside of the `except`: the error of the second attempt needs no context.
            self.read_schema(schema)
            trace.refresh()
            self.statement.clear()
            execute(sql, bindings, can_cache=False)
        except BaseException:
            cursor.exec_trace = None
            raise

    def _columns(
        self, cursor: apsw.Cursor, facts: StatementFacts | None, sql: str, params: Parameters
    ) -> tuple[str, ...]:
        """Return the columns of a statement that has begun.

        SQLite has prepared the statement again if the schema has changed.
        """
        if facts is None:
            return ()
        if self.statement.was_prepared and facts.columns:
            try:
                facts.columns = columns_now(cursor)
            except apsw.ExecutionCompleteError:  # it gave no rows, and the cursor has forgotten all
                # If the statement is committed by now, another look could fail.
                if facts.reads or (facts.is_transactional and self.connection.in_transaction):
                    facts.columns = self._columns_prepared(sql, params)
        return facts.columns

    def _columns_prepared(self, sql: str, params: Parameters) -> tuple[str, ...]:
        """Return the columns of a statement without running it."""
        found: list[tuple[str, ...]] = []

        def look(cursor: apsw.Cursor, *_: object) -> bool:
            found.append(columns_of(cursor))
            return False

        cursor = self.connection.cursor()
        cursor.exec_trace = look
        with suppress(apsw.ExecTraceAbort):
            cursor.execute(sql, params, can_cache=False)
        cursor.close(True)
        return found[0] if found else ()

    def _fetch(self, most: int | None) -> tuple[list[tuple[Any, ...]], bool]:
        """Return at most `most` rows of the running statement, and whether there were more."""
        if most is None:
            return self._cursor.fetchall(), False
        rows = list(islice(self._cursor, min(most, sys.maxsize)))
        truncated = next(self._cursor, None) is not None
        if truncated:
            self._cursor.close(True)
            self._cursor = self.connection.cursor()
        return rows, truncated
