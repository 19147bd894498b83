"""A connection to SQLite, on APSW."""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import apsw

from actors.databases.base import NeedsWriter
from actors.databases.sqlite_opening import opened
from actors.databases.sqlite_state import changes_connection
from actors.databases.sqlite_steps import Steps
from actors.databases.sqlite_transactions import call, many, run_together
from actors.databases.steps import STEPS, Begin, Close, CopyPages, KeepCopy, OpenBackup, OpenRows, Step
from actors.errors import ConnectionLost, TransactionLeftOpen
from actors.log import log
from actors.messages import Call, Parameters, Query, Request, Script, Transaction, shorten
from actors.result import Result

if TYPE_CHECKING:
    from actors.databases.sqlite import SQLite

__all__ = ["ALONE", "LOST", "NO_ROWID", "READER", "RELEASE", "SAVEPOINT", "WRITER", "Role", "SQLiteConnection"]

Role: TypeAlias = Literal["alone", "reader", "writer"]
"""What a connection is for: everything, or reading beside the one that writes, or writing."""
ALONE: Final = "alone"
READER: Final = "reader"
WRITER: Final = "writer"

LOST: Final = (apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.ConnectionClosedError)
"""After these, nothing more can be trusted of the connection."""

_WAITING = 0.1  # seconds since it last had to wait for a lock: it looks several times as often

SAVEPOINT: Final = "SAVEPOINT querycrew"
RELEASE: Final = "RELEASE querycrew"

_REMEMBERED = 256  # texts of statements that a connection remembers

NO_ROWID: Final = -(2**63)
"""The last inserted rowid is set to this first, to tell whether there was one."""


class _Trace:
    """What the engine tells of a statement just before its first step.

    That is the only moment at which the columns of a statement without rows can be read, and
    the last at which a second statement can be refused before the first has run.
    """

    __slots__ = ("_connection", "_go_on", "_owner", "_seen", "_sql", "changes_before", "columns", "end")

    def __init__(self, owner: "SQLiteConnection", sql: str, *, go_on: bool = True) -> None:
        self._owner = owner
        self._connection = owner._connection
        self._sql = sql
        self._go_on = go_on
        self._seen = False
        self.columns: tuple[str, ...] = ()
        self.changes_before: int | None = None
        """The connection's count of changes, of a statement that writes."""
        self.end = ""
        """What is to be run once the rows are read, of a statement that was given a transaction for itself."""

    def __call__(self, cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        del bindings
        if self._seen:
            return self._go_on  # a comment behind the statement
        self._seen = True
        if len(sql) != len(self._sql) and not _is_blank(self._sql[len(sql) :]):
            message = "the query holds more than one statement; send them as Script(sql), or one by one"
            raise ValueError(message)
        writes = not cursor.is_readonly or self._owner._optimizes
        if self._go_on:
            self._owner._object(self._sql, writes)
        self.columns = _names(cursor.get_description())
        self._owner._prepared = False
        if writes:
            if self.columns and self._go_on and "pragma" not in sql.lower():
                # Rows that cannot be read are an error when all is done: it is undone then.
                self.end = self._owner._begin_one()
            self.changes_before = self._connection.total_changes()
            self._connection.set_last_insert_rowid(NO_ROWID)
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

    def __init__(self, database: "SQLite", role: Role, *, create: bool = True) -> None:
        self._database = database
        self._role = role
        self._create = create
        # Text → columns, of statements that are known to be single and only to read.
        self._reading: dict[str, tuple[str, ...]] = {}
        # Whether the engine has prepared a statement since this was last set to False.
        self._prepared = False
        # Set by `interrupt`, for a wait for a lock, which the engine's own interrupt does not end.
        # Not an event: a thread that is killed in the middle of setting one leaves its lock held.
        self._interrupted = False
        self._busy_since = self._busy_at = 0.0
        # Seconds that it may wait for a lock, if less than the database allows.
        self._patience = float("inf")
        self.on_wait: Callable[[], object] = lambda: None
        """Called again and again while it waits for a lock."""
        # The job is done, and whoever still interrupts it comes too late.
        self._renewing = False
        # Whether the job has changed something of the connection that the next one would see.
        self._stateful = False
        # Whether the statement may be run by the writer instead.
        self._may_move = False
        self.stays_readonly = False
        """Whether the transaction that is open only reads, whatever its statements want."""
        # Whether the statement runs in somebody's transaction, and has no savepoint yet.
        self._alone_within = False
        # Whether the statement is to be read row by row.
        self._only_reads = False
        # Whether what was prepared last is a pragma that writes, though the engine holds it to be readonly.
        self._optimizes = False
        self._open()

    def _open(self) -> None:
        connection, self._file = opened(self._database, self._on_busy, create=self._create)
        self._create = False  # a file that is gone was there, and an empty one is no substitute
        if self._role == READER:
            connection.pragma("query_only", True)
        connection.authorizer = self._authorize
        self._connection = connection
        self._cursor = connection.cursor()
        self._stateful = False
        self._steps = Steps(self)

    def _on_busy(self, attempts: int) -> bool:
        """Wait a little for a lock of another connection; say whether to try again.

        SQLite's own timeout does not end at an interrupt, so that a deadline could not end it.
        """
        now = time.monotonic()
        if attempts == 0:
            self._busy_since = now
        self._busy_at = now
        self.on_wait()
        left = min(self._database.busy_timeout, self._patience) - (now - self._busy_since)
        if left <= 0 or (self._interrupted and not self._renewing):
            return False
        # Short at first, since most locks are; then as seldom as an interrupt may be late.
        time.sleep(min(left, 0.001 * (attempts + 1), 0.025))
        return self._renewing or not self._interrupted

    def waits_for_lock(self) -> bool:
        """Say whether it waits for a lock that another connection holds. From any thread."""
        return time.monotonic() - self._busy_at < _WAITING

    def _tell_how_long(self, error: apsw.BusyError) -> None:
        waited = max(0.0, time.monotonic() - self._busy_since) if self._busy_since else 0.0
        limit = self._database.busy_timeout
        note = f"waited {waited:.3f} seconds for a lock that another connection holds (busy_timeout is {limit:g})"
        error.add_note(f"querycrew: {note}")

    # --- called by the engine -------------------------------------------------------------

    def _object(self, sql: str, writes: bool) -> None:
        """Raise what keeps a statement from being run here, just before its first step.

        Raises:
            NeedsWriter: it writes, and this connection only reads.
            ValueError: it writes, and is to be read row by row.
        """
        if writes and self._may_move:
            raise NeedsWriter
        if writes and self._only_reads:
            message = f"a Stream only reads, and this statement writes: send it as a Query ({shorten(sql)!r})"
            raise ValueError(message)

    def _may_cache(self, sql: str) -> bool:
        """Say whether a statement may be run as it was prepared before, when the authorizer was asked."""
        # Whether a pragma writes is only told as it is prepared.
        return self._role != READER or sql in self._reading

    def _authorize(
        self, action: int, first: str | None, second: str | None, schema: str | None, trigger: str | None
    ) -> int:
        del trigger
        self._prepared = True
        if self.stays_readonly and action == apsw.SQLITE_PRAGMA and second is not None and first == "query_only":
            return apsw.SQLITE_DENY
        self._optimizes = action == apsw.SQLITE_PRAGMA and str(first).lower() == "optimize"
        if changes_connection(action, first, second, schema):
            self._stateful = True
        return apsw.SQLITE_OK

    # --- Connection -----------------------------------------------------------------------

    def execute(self, request: Request | Step) -> Any:
        """Run `request`; see `Connection`."""
        self._interrupted = self._optimizes = self._may_move = False  # an interrupt was meant for the last job
        self._busy_since = 0.0
        if isinstance(request, STEPS):
            return self._perform(request)
        try:
            if self._file is not None and self._file.has_changed():
                self._open_anew()
            if isinstance(request, Query):
                known = self._reading.get(request.sql)
                if known is not None and request.many is None and request.max_rows is None:
                    result: Any = self._query(request, known)
                    if self._connection.txn_state() == apsw.SQLITE_TXN_NONE:
                        return result
                else:
                    self._may_move = self._role == READER
                    result = self._run(request)
            elif isinstance(request, Script):
                result = self._script(request)
            elif isinstance(request, (Transaction, Call)):
                result = self._transaction(request)
            else:
                message = f"a connection to SQLite cannot run {request}"
                raise TypeError(message)  # noqa: TRY301  # as any error of a request
            self.stays_readonly = False
            _check_closed(self._connection, request)
            if self._connection.txn_state() != apsw.SQLITE_TXN_NONE:
                self._stateful = True  # a cursor is open that is not ours
        except LOST as error:
            raise ConnectionLost(str(error)) from error
        except Exception as error:
            if isinstance(error, apsw.BusyError):
                self._tell_how_long(error)
            self._reading.pop(request.sql, None)  # it may have been prepared anew
            self._clean_up()
            raise
        if self._stateful:
            self._renew()
        if self._file is not None and self._file.immutable and self._file.has_changed():
            return self.execute(request)  # what was read may be torn; nothing was written
        return result

    def interrupt(self) -> None:
        """End what is running; see `Connection`."""
        self._interrupted = True
        with suppress(apsw.Error):  # it may have been closed meanwhile
            self._connection.interrupt()

    def close(self) -> None:
        """Close, whatever is still open on it; see `Connection`."""
        with suppress(Exception):  # it may be of no more use
            self._steps.close()
        self._close()

    def _close(self) -> None:
        try:
            self._connection.authorizer = None
            if self._connection.is_interrupted:
                # The next statement clears that; otherwise the write-back of the log would be interrupted.
                self._connection.execute("SELECT 1").fetchall()
            self._connection.close(True)
        except Exception as error:  # noqa: BLE001  # nothing more can be done about it
            log(__name__, "debug", "close_failed", database=self._database, error=error)

    # --- steps ----------------------------------------------------------------------------

    def _perform(self, step: Step) -> Result:
        """Perform a step of a conversation; see `Connection`."""
        try:
            if not isinstance(step, Close):
                self._check_file(step)
                return self._steps.perform(step)
            steps, self._steps = self._steps, Steps(self)
            steps.close()
        except apsw.Error as error:
            if isinstance(step, (OpenBackup, CopyPages, KeepCopy)):
                raise  # most often it is the copy that cannot be written
            if isinstance(step, Close) or isinstance(error, LOST):
                raise ConnectionLost(str(error)) from error
            if isinstance(error, apsw.BusyError):
                self._tell_how_long(error)
            raise
        if self._stateful:
            self._renew()
        return Result()

    def fetch_ahead(self) -> None:
        """After rows of a stream were answered, and more may come: fetch those that will be asked for next."""
        self._steps.fetch_ahead()

    def _check_file(self, step: Step) -> None:
        if self._file is None or not self._file.has_changed():
            return
        if isinstance(step, (Begin, OpenRows, OpenBackup)):
            self._open_anew()
        elif self._file.immutable:
            message = "the database, which nobody was writing when it was opened, was changed by another process"
            raise apsw.BusyError(message)

    @property
    def reads_only(self) -> bool:
        """Whether nothing can be written with it."""
        return self._role == READER or self._database.readonly

    def run_within(self, query: Query) -> Result:
        """Run a query in the transaction that there is; an error undoes that query, unless all is rolled back."""
        connection, self._alone_within = self._connection, query.many is None
        if query.many is not None:
            connection.execute(SAVEPOINT)
        try:
            result = self._run(query)
        except BaseException:
            self.close_cursor()
            if connection.in_transaction and (query.many is not None or not self._alone_within):
                connection.execute(f"ROLLBACK TO querycrew; {RELEASE}")
            raise
        finally:
            self._alone_within = False
        if query.many is not None:
            connection.execute(RELEASE)
        return result

    def _begin_one(self) -> str:
        """Begin a transaction for the statement that is about to run; return what ends it."""
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
            return "COMMIT"
        if self._alone_within:
            self._connection.execute(SAVEPOINT)
            self._alone_within = False
            return RELEASE
        return ""

    def opened_rows(self, sql: str, params: Parameters) -> tuple[apsw.Cursor, tuple[str, ...]]:
        """Return a cursor on the rows of a statement that reads, and the names of the columns."""
        cursor, trace = self._connection.cursor(), _Trace(self, sql)
        cursor.exec_trace = trace
        self._only_reads = True
        try:
            cursor.execute(sql, params, can_cache=False)
        except BaseException:
            cursor.close(True)
            raise
        finally:
            self._only_reads = False
        return cursor, trace.columns

    def close_cursor(self) -> None:
        """After an error: its traceback may keep the cursor, and that a lock on the database."""
        with suppress(apsw.Error):
            self._cursor.close(True)
        self._cursor = self._connection.cursor()
        self._reading.clear()  # what failed may have been prepared anew, with other columns

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

        def lock() -> None:
            self.stays_readonly = request.readonly

        if isinstance(request, Transaction):
            value: Any = run_together(self._connection, request, self._run, lock)
            # Its own pragmas are undone; those of its statements are not.
            self._stateful = stateful or (self._stateful and not request.readonly)
        else:
            value = call(self._connection, request, lock)
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
        rows = self._cursor.executemany(query.sql, query.many or (), can_cache=self._may_cache(query.sql)).fetchall()
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
        self._cursor.execute(query.sql, query.params, can_cache=self._may_cache(query.sql))
        rows, truncated = self._fetch(query.max_rows)
        self._cursor.exec_trace = None
        if trace.end:
            self._connection.execute(trace.end)
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
        connection.set_last_insert_rowid(NO_ROWID)
        for _ in self._cursor.execute(script.sql):
            pass
        _, rowid = self._changes(before)
        return Result((), [], connection.total_changes() - before, rowid)

    def _changes(self, before: int) -> tuple[int, int | None]:
        """Return the rows that the last statement changed, and the rowid that it inserted, if any."""
        connection = self._connection
        changed = connection.changes() if connection.total_changes() != before else 0
        rowid = connection.last_insert_rowid()
        return changed, None if rowid == NO_ROWID else rowid

    def _clean_up(self) -> None:
        """After an error: leave no cursor, no lock, no transaction and no setting behind.

        Raises:
            ConnectionLost: that did not work.
        """
        was_readonly, self.stays_readonly = self.stays_readonly, False
        try:
            # Closed by hand: the error's traceback may keep the cursor, and it a lock on the database.
            self._cursor.close(True)
            while self._connection.in_transaction:
                with suppress(apsw.InterruptError):  # it was meant for what is over
                    self._connection.execute("ROLLBACK")
            self._cursor = self._connection.cursor()
            if was_readonly:
                self._connection.pragma("query_only", self.reads_only)
        except apsw.Error as error:
            raise ConnectionLost(str(error)) from error
        if self._stateful:
            self._renew()

    def _open_anew(self) -> None:
        """Open the file that is at the path now: the one that is open was replaced.

        Raises:
            apsw.CantOpenError: there is none.
        """
        if self._file is not None:
            self._file.check_there()
        self._renew()

    def _renew(self) -> None:
        if self._database.in_memory:
            self._stateful = False
            return
        self._renewing = True
        self._close()
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
