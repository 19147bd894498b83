"""A connection to SQLite, on APSW."""

import re
import time
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import apsw

from actors.databases.sqlite_opening import opened
from actors.databases.sqlite_state import changes_connection
from actors.databases.sqlite_transactions import call, many, run_together
from actors.errors import ConnectionLost, TransactionLeftOpen
from actors.log import log
from actors.messages import Call, Query, Request, Script, Transaction
from actors.result import Result

if TYPE_CHECKING:
    from actors.databases.sqlite import SQLite

__all__ = ["SQLiteConnection"]

_LOST = (apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.ConnectionClosedError)
"""After these, nothing more can be trusted of the connection."""

_REMEMBERED = 256  # texts of statements that a connection remembers

_NO_ROWID = -(2**63)  # the last inserted rowid is set to this first, to tell whether there was one


class _Trace:
    """What the engine tells of a statement just before its first step.

    That is the only moment at which the columns of a statement without rows can be read, and
    the last at which a second statement can be refused before the first has run.
    """

    __slots__ = ("_connection", "_go_on", "_owner", "_seen", "_sql", "changes_before", "columns")

    def __init__(self, owner: "SQLiteConnection", sql: str, *, go_on: bool = True) -> None:
        self._owner = owner
        self._connection = owner._connection
        self._sql = sql
        self._go_on = go_on
        self._seen = False
        self.columns: tuple[str, ...] = ()
        self.changes_before: int | None = None
        """The connection's count of changes, of a statement that writes."""

    def __call__(self, cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        del bindings
        if self._seen:
            return self._go_on  # a comment behind the statement
        self._seen = True
        if len(sql) != len(self._sql) and not _is_blank(self._sql[len(sql) :]):
            message = "the query holds more than one statement; send them as Script(sql), or one by one"
            raise ValueError(message)
        self.columns = _names(cursor.get_description())
        self._owner._prepared = False
        if not cursor.is_readonly:
            self.changes_before = self._connection.total_changes()
            self._connection.set_last_insert_rowid(_NO_ROWID)
        return self._go_on


def _names(description: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple([column[0] for column in description])


class SQLiteConnection:
    """One APSW connection, which every job finds clean.

    A job that attaches a database, creates something temporary or sets a pragma (the engine's
    authorizer tells, as the statement is prepared) makes the connection be opened anew after it.
    Not so in memory, where that would lose the data.
    """

    plain_values = True
    """Rows hold nothing but None, int, float, str and bytes."""

    def __init__(self, database: "SQLite") -> None:
        self._database = database
        # Text → columns, of statements that are known to be single and only to read.
        self._reading: dict[str, tuple[str, ...]] = {}
        # Whether the engine has prepared a statement since this was last set to False.
        self._prepared = False
        # Set by `interrupt`, for a wait for a lock, which the engine's own interrupt does not end.
        # Not an event: a thread that is killed in the middle of setting one leaves its lock held.
        self._interrupted = False
        self._busy_since = 0.0
        # The job is done, and whoever still interrupts it comes too late.
        self._renewing = False
        # Whether the job has changed something of the connection that the next one would see.
        self._stateful = False
        self._open()

    def _open(self) -> None:
        connection = opened(self._database, self._on_busy)
        connection.authorizer = self._authorize
        self._connection = connection
        self._cursor = connection.cursor()
        self._stateful = False

    def _on_busy(self, attempts: int) -> bool:
        """Wait a little for a lock of another connection; say whether to try again.

        SQLite's own timeout does not end at an interrupt, so that a deadline could not end it.
        """
        now = time.monotonic()
        if attempts == 0:
            self._busy_since = now
        left = self._database.busy_timeout - (now - self._busy_since)
        if left <= 0 or (self._interrupted and not self._renewing):
            return False
        # Short at first, since most locks are; then as seldom as an interrupt may be late.
        time.sleep(min(left, 0.001 * (attempts + 1), 0.025))
        return self._renewing or not self._interrupted

    def _tell_how_long(self, error: apsw.BusyError) -> None:
        waited = max(0.0, time.monotonic() - self._busy_since) if self._busy_since else 0.0
        limit = self._database.busy_timeout
        note = f"waited {waited:.3f} seconds for a lock that another connection holds (busy_timeout is {limit:g})"
        error.add_note(f"querycrew: {note}")

    # --- called by the engine -------------------------------------------------------------

    def _authorize(
        self, action: int, first: str | None, second: str | None, schema: str | None, trigger: str | None
    ) -> int:
        del trigger
        self._prepared = True
        if changes_connection(action, first, second, schema):
            self._stateful = True
        return apsw.SQLITE_OK

    # --- Connection -----------------------------------------------------------------------

    def execute(self, request: Request) -> Any:
        """Run `request`; see `Connection`."""
        self._interrupted = False  # it was meant for the last job, which was done by then
        self._busy_since = 0.0
        try:
            if isinstance(request, Query):
                known = self._reading.get(request.sql)
                if known is not None and request.many is None and request.max_rows is None:
                    result: Any = self._query(request, known)
                    if self._connection.txn_state() == apsw.SQLITE_TXN_NONE:
                        return result
                else:
                    result = self._run(request)
            elif isinstance(request, Script):
                result = self._script(request)
            else:
                result = self._transaction(request)
            _check_closed(self._connection, request)
            if self._connection.txn_state() != apsw.SQLITE_TXN_NONE:
                self._stateful = True  # a cursor is open that is not ours
        except _LOST as error:
            raise ConnectionLost(str(error)) from error
        except Exception as error:
            if isinstance(error, apsw.BusyError):
                self._tell_how_long(error)
            self._reading.pop(request.sql, None)  # it may have been prepared anew
            self._clean_up()
            raise
        if self._stateful:
            self._renew()
        return result

    def interrupt(self) -> None:
        """End what is running; see `Connection`."""
        self._interrupted = True
        with suppress(apsw.Error):  # it may have been closed meanwhile
            self._connection.interrupt()

    def close(self) -> None:
        """Close, whatever is still open on it; see `Connection`."""
        try:
            self._connection.authorizer = None
            if self._connection.is_interrupted:
                # The next statement clears that; otherwise the write-back of the log would be interrupted.
                self._connection.execute("SELECT 1").fetchall()
            self._connection.close(True)
        except Exception as error:  # noqa: BLE001  # nothing more can be done about it
            log(__name__, "debug", "close_failed", database=self._database, error=error)

    # --- running --------------------------------------------------------------------------

    def _query(self, query: Query, columns: tuple[str, ...]) -> Result:
        """Run a single statement that only reads, as is known from before: without the trace, 1.2 µs less of 4.

        Its columns are those of before unless it is prepared anew, as SQLite does after a change of
        the schema; that goes through the authorizer.
        """
        self._prepared = False
        cursor = self._cursor.execute(query.sql, query.params)
        if self._prepared:
            columns = self._columns_now(query, cursor)
        rows = cursor.fetchall()
        return Result(columns, rows, len(rows))

    def _columns_now(self, query: Query, cursor: apsw.Cursor) -> tuple[str, ...]:
        try:
            columns = _names(cursor.get_description())
        except apsw.ExecutionCompleteError:  # it gave no rows, and the cursor has forgotten all
            columns = self._columns_traced(query)
        self._reading[query.sql] = columns
        return columns

    def _columns_traced(self, query: Query) -> tuple[str, ...]:
        """Return the columns of a statement that has just been run, without running it again."""
        trace = _Trace(self, query.sql, go_on=False)
        self._cursor.exec_trace = trace
        with suppress(apsw.ExecTraceAbort):
            self._cursor.execute(query.sql, query.params)
        self._cursor.exec_trace = None
        return trace.columns

    def _transaction(self, request: Transaction | Call[Any]) -> Any:
        stateful = self._stateful
        if isinstance(request, Transaction):
            value: Any = run_together(self._connection, request, self._run)
            # Its own pragmas are undone; those of its statements are not.
            self._stateful = stateful or (self._stateful and not request.readonly)
        else:
            value = call(self._connection, request)
            self._stateful = True  # nobody can tell what it has done to the connection
        return value

    def _run(self, query: Query) -> Result:
        """Run a query of any kind."""
        if query.many is not None:
            return many(self._connection, lambda: self._many(query))
        known = self._reading.get(query.sql) if query.max_rows is None else None
        return self._query_traced(query) if known is None else self._query(query, known)

    def _many(self, query: Query) -> Result:
        """Run a query once for each of its parameters."""
        connection, before = self._connection, self._connection.total_changes()
        self._cursor.exec_trace = trace = _Trace(self, query.sql)
        rows = self._cursor.executemany(query.sql, query.many or ()).fetchall()
        self._cursor.exec_trace = None
        if trace.changes_before is None:
            return Result(trace.columns, rows, len(rows))
        _, rowid = self._changes(before)
        return Result(trace.columns, rows, connection.total_changes() - before, rowid)

    def _fetch(self, most: int | None) -> tuple[list[tuple[Any, ...]], bool]:
        """Return the rows of the statement that runs, `most` of them at most, and whether there were more."""
        if most is None:
            return self._cursor.fetchall(), False
        rows = list(islice(self._cursor, most))
        truncated = next(self._cursor, None) is not None
        if truncated:
            self._cursor.close(True)
            self._cursor = self._connection.cursor()
        return rows, truncated

    def _query_traced(self, query: Query) -> Result:
        """Run a statement of which nothing is known yet, or one that writes."""
        trace = _Trace(self, query.sql)
        self._cursor.exec_trace = trace
        self._cursor.execute(query.sql, query.params)
        rows, truncated = self._fetch(query.max_rows)
        self._cursor.exec_trace = None
        changes = None if trace.changes_before is None else self._changes(trace.changes_before)
        columns = trace.columns
        if columns and self._prepared:  # anew, after the trace: the schema has changed
            columns = self._columns_traced(query)
        if changes is not None:
            return Result(columns, rows, *changes, truncated)
        if columns and not self._stateful:
            if len(self._reading) >= _REMEMBERED:
                self._reading.clear()
            self._reading[query.sql] = columns
        return Result(columns, rows, len(rows), None, truncated)

    def _script(self, script: Script) -> Result:
        connection = self._connection
        self._reading.pop(script.sql, None)  # it may be prepared anew here
        before = connection.total_changes()
        connection.set_last_insert_rowid(_NO_ROWID)
        for _ in self._cursor.execute(script.sql):
            pass
        _, rowid = self._changes(before)
        return Result((), [], connection.total_changes() - before, rowid)

    def _changes(self, before: int) -> tuple[int, int | None]:
        """Return the rows that the last statement changed, and the rowid that it inserted, if any."""
        connection = self._connection
        changed = connection.changes() if connection.total_changes() != before else 0
        rowid = connection.last_insert_rowid()
        return changed, None if rowid == _NO_ROWID else rowid

    def _clean_up(self) -> None:
        """After an error: leave no cursor, no lock, no transaction and no setting behind.

        Raises:
            ConnectionLost: that did not work.
        """
        try:
            # Closed by hand: the error's traceback may keep the cursor, and it a lock on the database.
            self._cursor.close(True)
            while self._connection.in_transaction:
                with suppress(apsw.InterruptError):  # it was meant for what is over
                    self._connection.execute("ROLLBACK")
            self._cursor = self._connection.cursor()
        except apsw.Error as error:
            raise ConnectionLost(str(error)) from error
        if self._stateful:
            self._renew()

    def _renew(self) -> None:
        if self._database.in_memory:
            self._stateful = False
            return
        self._renewing = True
        self.close()
        try:
            self._open()
        except apsw.Error as error:
            raise ConnectionLost(str(error)) from error
        finally:
            self._renewing = False


def _check_closed(connection: apsw.Connection, request: Request) -> None:
    """Raise `TransactionLeftOpen` if the request did not end the transaction that it began."""
    if not connection.in_transaction:
        return
    error = TransactionLeftOpen(
        f"{request} ended inside a transaction, which was rolled back; a transaction cannot span "
        "requests: write BEGIN, the statements and COMMIT into one Script"
    )
    if isinstance(request, Script):
        error.executed = None  # what it committed before stays
    raise error


# What may stand behind a statement. Atomic: with backtracking a comment could swallow the statement behind it.
_BLANK = re.compile(r"(?>[ \t\n\f\r;]+|--[^\n]*|/\*(?s:.*?)(?:\*/|\Z))*")


def _is_blank(sql: str) -> bool:
    """Say whether `sql` holds nothing but what SQLite takes for white space, semicolons and comments."""
    return _BLANK.fullmatch(sql) is not None
