"""A connection to SQLite, on APSW."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

import apsw

from actors.databases.base import Connection, NeedsWriter
from actors.databases.sqlite.authorizer import is_harmless
from actors.databases.sqlite.interactive import Steps
from actors.databases.sqlite.opening import opened
from actors.databases.sqlite.statement import (
    Counting,
    Known,
    Told,
    changes_connection,
    changes_rows,
    columns_now,
    columns_of,
    is_blank,
    statements_of,
)
from actors.databases.sqlite.transactions import OwnTransaction, call, run_each
from actors.databases.steps import STEPS, Close, CopyPages, Execute, KeepCopy, OpenBackup, Step
from actors.system.log import log
from actors.values.errors import ConnectionLost, ResultLost, TransactionLeftOpen
from actors.values.requests import Call, Parameters, Query, Request, Script, Transaction, shorten
from actors.values.result import Result

if TYPE_CHECKING:
    from actors.databases.executor import Batch, Task
    from actors.databases.sqlite.database import SQLite

__all__ = [
    "ALONE",
    "READER",
    "RELEASE",
    "SAVEPOINT",
    "UNDO",
    "WRITER",
    "NothingRan",
    "Role",
    "SQLiteConnection",
    "is_lost",
]

R = TypeVar("R")
T = TypeVar("T")

Role: TypeAlias = Literal["alone", "reader", "writer"]
"""What a connection is for: everything, or reading beside the one that writes, or writing."""
ALONE: Final = "alone"
READER: Final = "reader"
WRITER: Final = "writer"

_LOST: Final = (apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.ConnectionClosedError)

_LOOK_AGAIN = 0.01  # seconds after which a connection that reads looks whether its file is still there
_WAITING = 0.1  # seconds since it last had to wait for a lock: it looks several times as often

SAVEPOINT: Final = "SAVEPOINT querycrew"
RELEASE: Final = "RELEASE querycrew"
UNDO: Final = f"ROLLBACK TO querycrew; {RELEASE}"

_TRIES = 10  # rollbacks that are hit by an interrupt; each interrupt hits one of them at most

_REMEMBERED = 512  # texts of statements that a connection remembers: more than APSW keeps prepared


def is_lost(error: BaseException) -> bool:
    """Say whether nothing more can be trusted of a connection after an error."""
    # A virtual table that finds itself damaged, as in FTS5's integrity check, says nothing about the database.
    return isinstance(error, _LOST) and getattr(error, "extendedresult", 0) != apsw.SQLITE_CORRUPT_VTAB


class NothingRan(Exception):
    """Nothing of a statement ran: it cannot be run so."""


class _Unprepared(NothingRan):
    """It has to be prepared once more, since the connection's schema may be old."""

    def __init__(self, schema: str | None) -> None:
        super().__init__(schema)
        self.schema = schema
        """The database whose schema it reads; `None` for all that are attached."""


class _NeedsTransaction(NothingRan):
    """It writes, and has to be given a transaction first."""


class _Trace:
    """Looks at a statement just before its first step.

    That is the only moment at which the columns of a statement without rows can be read, and
    the last at which a second statement can be refused before the first has run.
    """

    __slots__ = ("_is_fresh", "_owner", "_repeats", "_sql", "known")

    def __init__(self, owner: "SQLiteConnection", sql: str, *, repeats: bool = False) -> None:
        """Look at the statement `sql`; one that `repeats` is run for many sets of parameters."""
        self._owner = owner
        self._sql = sql
        self._repeats = repeats
        # Whether the connection's schema was looked at before the statement was prepared.
        self._is_fresh = False
        self.known: Known | None = None
        """What is known of the statement, once it was prepared."""

    def refresh(self) -> None:
        """Let the statement begin again: the schema has been looked at."""
        self._is_fresh = True

    def __call__(self, cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        del bindings
        if self.known is None:
            self._first(cursor, sql)
        elif self._repeats and not is_blank(sql):
            self._owner.counting.end()
            self._count()
        return True  # a comment behind the statement comes here, too

    def _first(self, cursor: apsw.Cursor, sql: str) -> None:
        owner, told = self._owner, self._owner.told
        if len(sql) != len(self._sql) and not is_blank(self._sql[len(sql) :]):
            message = "the query holds more than one statement; send them as Script(sql), or one by one"
            raise ValueError(message)
        known = owner.known_of(self._sql, cursor)
        owner.admits(known)
        if (known.pragma is not None or cursor.is_explain) and not self._is_fresh:
            raise _Unprepared(told.schema)
        self.known = known
        owner.told.clear()
        if known.writes:
            self._count()

    def _count(self) -> None:
        if self.known is not None and self.known.writes:
            self._owner.counting.begin(self.known)


class _ScriptTrace:
    """Looks at a statement of a script just before its first step."""

    __slots__ = ("_owner", "known")

    def __init__(self, owner: "SQLiteConnection") -> None:
        self._owner = owner
        self.known: Known | None = None
        """What is known of the statement, once it was prepared."""

    def refresh(self) -> None:
        """Let the statement begin again: the schema has been looked at."""

    def __call__(self, cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        del bindings
        owner = self._owner
        self.known = known = Known(sql, owner.told, (), is_readonly=cursor.is_readonly)
        if known.writes:
            owner.counting.begin(known)
        return True


class SQLiteConnection(Connection):
    """One APSW connection, which every job finds clean.

    A job that attaches a database, creates something temporary or sets a pragma (the engine's authorizer tells, as the
    statement is prepared) makes the connection be opened anew behind it. Not so in memory, where that would lose the
    data.

    What writes is run in a transaction of ours: all that can fail, packing the result included, comes before its
    `COMMIT`, and nothing behind that changes the answer. Except what has no effect, or another one, inside a
    transaction (`VACUUM`, a pragma), which SQLite commits by itself.
    """

    plain_values = True
    """Rows hold nothing but None, int, float, str and bytes."""

    def __init__(self, database: "SQLite", role: Role, *, create: bool = True) -> None:
        self._database = database
        self._role = role
        self._create = create
        # What is known of statements, by their texts.
        self._known: dict[str, Known] = {}
        self.told = Told()
        """What SQLite told of the statement that is being prepared."""
        self.admits: Callable[[Known], object] = self._admit_free
        """Raises what keeps a statement from being run now, just before its first step."""
        self.seal: Callable[[Any, Any], Any] = lambda value, _: value
        """Makes what is answered of the value of a request that writes, and the request, before it is committed: if
        that fails, nothing has taken effect."""
        # Counts the transactions that were rolled back. SQLite may tell as the connection is deallocated, when nothing
        # else is left of this object. Python code that is called then has ended the process.
        self._rolled_back = count()
        # Whether the request that runs has taken effect: no error of it says anything else from then on.
        self._is_committed = False
        # Set by `interrupt`, for a wait for a lock, which the engine's own interrupt does not end.
        # Not an event: a thread that is killed in the middle of setting one leaves its lock held.
        self._interrupted = False
        self._busy_since = self._busy_at = 0.0
        # Seconds that it may wait for a lock, if less than the database allows.
        self._patience = float("inf")
        # Whether a transaction is open that several reads share.
        self._shares = False
        # The job is done, and an interrupt comes too late.
        self._renewing = False
        self.is_stale = False
        """Whether a job has changed something of the connection that the next one would see."""
        self.stays_readonly = False
        """Whether the transaction that is open only reads, and no statement of it can change that."""
        self._open()

    def _open(self) -> None:
        self.connection: apsw.Connection
        self.connection, self.file, self.warnings = opened(self._database, self._on_busy, create=self._create)
        self._create = False  # a file that is gone was there, and an empty one is no substitute
        self.reads_only = self._role == READER or self._database.readonly
        if self._role == READER:
            self.connection.pragma("query_only", True)
            if self.file is not None:
                self.file.look_again = _LOOK_AGAIN
        self._known.clear()
        self.counting = Counting(self.connection)
        """Counts what the statement that runs changes."""
        self.take_over()
        count_one: Any = self._rolled_back.__next__
        self.connection.set_rollback_hook(count_one, id="querycrew")
        self._cursor = self.connection.cursor()
        self.is_stale = False
        self._steps = Steps(self)

    def set_pragma(self, name: str, value: object) -> None:
        """Set a pragma of the crew's own, which is no reason to open the connection anew."""
        is_stale = self.is_stale
        try:
            self.connection.pragma(name, value)
        finally:
            self.is_stale = is_stale

    def take_over(self) -> None:
        """Take back what a function of the user's may have set, and what could keep a transaction from ending."""
        connection = self.connection
        connection.authorizer = self._authorize
        connection.exec_trace = connection.row_trace = None
        connection.set_progress_handler(None)

    @property
    def rollbacks(self) -> int:
        """How many transactions were rolled back."""
        return int(repr(self._rolled_back)[6:-1])  # "count(3)"

    # --- waiting for locks ----------------------------------------------------------------

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

    @contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """Wait no longer than so many seconds for each lock within the block."""
        self._patience, self._busy_since, self._interrupted = seconds, 0.0, False
        try:
            yield
        finally:
            self._patience = float("inf")

    def waits_for_lock(self) -> bool:
        """Say whether it waits for a lock that another connection holds. From any thread."""
        return time.monotonic() - self._busy_at < _WAITING

    def _tell_how_long(self, error: apsw.BusyError, request: object = None) -> None:
        if isinstance(request, Script) and self.connection.in_transaction:
            note = (
                "a transaction that has read cannot wait for the lock of a writer, since it would see an old state: "
                "begin it with BEGIN IMMEDIATE, or send a Transaction"
            )
        else:
            waited = max(0.0, time.monotonic() - self._busy_since) if self._busy_since else 0.0
            limit = self._database.busy_timeout
            note = f"waited {waited:.3f} seconds for a lock that another connection holds (busy_timeout is {limit:g})"
        error.add_note(f"querycrew: {note}")

    # --- what a statement is, and whether it may be run ------------------------------------

    def known_of(self, sql: str, cursor: apsw.Cursor) -> Known:
        """Return, and remember, what SQLite told of a statement that is prepared.

        Raises:
            apsw.AuthError: the statement is a stranger's, and no query.
        """
        known, told = self._known.get(sql), self.told
        if known is not None and not told.asked:
            return known  # it is taken as it was prepared before, and of that SQLite tells nothing
        # `ALTER TABLE` has columns that are SQLite's own, and no rows.
        columns = () if told.alters and not cursor.is_explain else columns_of(cursor)
        known = Known(sql, told, columns, is_readonly=cursor.is_readonly)
        if self._database.sandbox and not (known.reads or known.pragma):
            message = "not authorized: SQLite(sandbox=True) takes queries only"
            raise apsw.AuthError(message)
        if cursor.is_explain:
            return known  # a kept EXPLAIN would not notice a new schema
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[sql] = known
        return known

    def _admit_free(self, known: Known) -> None:
        """Admit what runs by itself."""
        if known.writes and known.is_transactional:
            raise _NeedsTransaction

    def _admit_reading(self, known: Known) -> None:
        """Admit what a connection for reading runs by itself."""
        if known.writes:
            raise NeedsWriter

    def _admit_all(self, known: Known) -> None:
        """Admit what runs in a transaction of ours."""

    def _authorize(
        self, action: int, first: str | None, second: str | None, schema: str | None, trigger: str | None
    ) -> int:
        self.told.note(action, first, schema, trigger)
        if self._database.sandbox and not is_harmless(action, first, second):
            return apsw.SQLITE_DENY
        if action == apsw.SQLITE_PRAGMA and second is not None:
            pragma = str(first).lower()
            if self.stays_readonly and pragma == "query_only":
                return apsw.SQLITE_DENY
            if pragma == "foreign_keys" and self.connection.in_transaction:
                _check_changes_nothing(self.connection, second)
        if changes_connection(action, first, second, schema):
            self.is_stale = True
        return apsw.SQLITE_OK

    def read_schema(self, schema: str | None = None) -> None:
        """See to it that the connection knows the schema as it is now: a pragma takes it as it is known."""
        for name in (schema,) if schema is not None else [db for db in self.connection.db_names() if db != "temp"]:
            quoted = name.replace('"', '""')
            self.connection.execute(f'SELECT 1 FROM "{quoted}".sqlite_schema LIMIT 1').fetchall()  # noqa: S608

    # --- Connection -----------------------------------------------------------------------

    def seal_with(self, pack: Callable[[Any, Any], Any]) -> bool:
        """Pack what a request that writes is answered by before it is committed; see `Connection`."""
        self.seal = pack
        return True

    def run(self, batch: "Batch") -> None:
        """Run the jobs of a batch; see `Connection`.

        Quick reads that wait together see one state of the database, which is begun after all of them were asked: to
        lock and unlock the file for each costs more than most of them.
        """
        if self._role != READER:
            super().run(batch)
            return
        is_alone = len(batch) == 1
        request: Any
        value: Any
        try:
            while (task := batch.begin()) is not None:
                request = task.request
                known = self._known.get(request.sql) if type(request) is Query else None
                if known is None or not known.reads or request.many is not None or request.max_rows is not None:
                    self._end_shared()
                    self.run_one(batch, task)
                    continue
                try:
                    if not self._shares:
                        self._begin_shared(is_alone)
                    value = self._read_known(request, known)
                except Exception as error:  # noqa: BLE001  # it goes to its caller
                    self._fail_shared(batch, task, error)
                else:
                    batch.answer(task, value)
        finally:
            task = request = value = None  # an error leads to this frame, if a function of the user's has raised it
            self._end_shared()

    def _fail_shared(self, batch: "Batch", task: "Task", error: Exception) -> None:
        if is_lost(error):
            raise ConnectionLost(str(error)) from error
        if isinstance(error, ConnectionLost):
            raise error
        request = task.request
        self._explain(error, request)
        self._known.pop(request.sql, None)  # type: ignore[union-attr]  # it may have been prepared anew
        self._shares = False
        self._clean_up()
        batch.fail(task, error)

    def _begin_shared(self, is_alone: bool) -> None:
        """Begin what the quick reads of a batch share; a read that is alone is a transaction by itself."""
        self._interrupted = self._is_committed = False
        self._busy_since = 0.0
        self._make_ready()
        if not is_alone:
            self.connection.execute("BEGIN")
        self._shares = True

    def _end_shared(self) -> None:
        if self._shares:
            self._shares = False
            if self.connection.in_transaction:
                self._clean_up()

    def execute(self, request: Request | Step) -> Any:
        """Run `request`; see `Connection`."""
        self._interrupted = False  # an interrupt was meant for the last job
        self._is_committed = False
        self._busy_since = 0.0
        if isinstance(request, STEPS):
            return self._perform(request)
        self._make_ready()
        try:
            value = self._answer(request)
            if self.connection.in_transaction or self.connection.txn_state() != apsw.SQLITE_TXN_NONE:
                self._check_closed(request)
        except Exception as error:
            if is_lost(error):
                raise ConnectionLost(str(error)) from error
            self._explain(error, request)
            self._known.pop(request.sql, None)  # it may have been prepared anew
            self._clean_up()
            if self._is_torn() and not isinstance(request, Call):
                return self.execute(request)
            if self._is_committed:
                raise ResultLost.of(request, error) from error
            raise
        if self._is_torn():
            if isinstance(request, Call):
                raise _torn()
            return self.execute(request)
        return value

    def _make_ready(self) -> None:
        """See to it that the connection is as new, and to the file that is at the path now. Before anything is run.

        Raises:
            ConnectionLost: it is of no more use.
            Exception: why it cannot be opened; the next request tries again.
        """
        try:
            if self.is_stale:
                self._renew()
            elif self.file is not None and self.file.has_changed():
                self.file.prepare_to_reopen()
                self._renew()
        except apsw.Error as error:
            if is_lost(error):
                raise ConnectionLost(str(error)) from error
            raise

    def _explain(self, error: Exception, request: Request | Step) -> None:
        if isinstance(error, apsw.BusyError):
            self._tell_how_long(error, request)
        elif isinstance(error, KeyError):
            _name_the_missing(error, request)

    def _is_torn(self) -> bool:
        """Say whether another process has changed meanwhile what no process was to change: nothing of it counts.

        Nothing was written, so the request is run again; a function is not called a second time.
        """
        return self.file is not None and self.file.immutable and self.file.has_changed()

    def _answer(self, request: Request) -> Any:
        if isinstance(request, Query):
            known = self._known.get(request.sql)
            if known is not None and known.reads and request.many is None and request.max_rows is None:
                return self._run_known(request, known)
            return self._query(request)
        if isinstance(request, Script):
            return self._script(request)
        if isinstance(request, (Transaction, Call)):
            return self._in_own_transaction(request, readonly=request.readonly)
        message = f"a connection to SQLite cannot run {request}"
        raise TypeError(message)

    def _query(self, query: Query) -> Any:
        """Run a query of any kind by itself."""
        if query.many is not None:
            return self._in_own_transaction(query, readonly=False)
        self.admits = self._admit_reading if self._role == READER else self._admit_free
        try:
            return self.run_query(query)
        except _NeedsTransaction:
            self.admits = self._admit_all
        self.connection.execute("BEGIN IMMEDIATE")  # which the statement cannot end
        value = self._sealed(query)
        self.commit()
        return value

    def _in_own_transaction(self, request: Query | Transaction | Call[Any], *, readonly: bool) -> Any:
        self.admits = self._admit_all
        with OwnTransaction(self, readonly=readonly) as own:
            value = self._value_in(own, request)
            if not readonly:
                value = self.seal(value, request)
            own.commit()
        return value

    def _value_in(self, own: OwnTransaction, request: Query | Transaction | Call[Any]) -> Any:
        if isinstance(request, Query):
            return self.run_query(request)
        if isinstance(request, Transaction):
            return run_each(request, self.run_query, own)
        return call(own, self, request, f"{request} is one transaction, and the function ended it")

    def _check_closed(self, request: Request) -> None:
        """Look at a connection on which something is open after a request.

        Raises:
            TransactionLeftOpen: a transaction is.
        """
        if self.connection.in_transaction:
            error = TransactionLeftOpen(
                f"{request} ended inside a transaction, which was rolled back; a transaction cannot span "
                "requests: write BEGIN, the statements and COMMIT into one Script"
            )
            if isinstance(request, Script):
                error.executed = None  # what it committed before stays
            raise error
        self.is_stale = True  # a cursor is open that is not ours

    def interrupt(self) -> None:
        """End what is running; see `Connection`."""
        self._interrupted = True
        with suppress(apsw.Error):  # it may have been closed meanwhile
            self.connection.interrupt()

    def refresh(self) -> None:
        """Make the connection as new, if a job has changed it. Between two jobs, or two steps of a checkout.

        Between two steps it does nothing.

        Raises:
            ConnectionLost: it cannot be opened anew.
        """
        if self.is_stale and not self._steps.is_open:
            try:
                self._renew()
            except Exception as error:
                raise ConnectionLost(str(error)) from error

    def close(self) -> None:
        """Close, whatever is still open on it; see `Connection`."""
        with suppress(Exception):  # it may be of no more use
            self._steps.close()
        self._close()

    def _close(self) -> None:
        try:
            self.connection.authorizer = None
            if self.connection.is_interrupted:
                # The next statement clears that; otherwise the write-back of the log would be interrupted.
                with suppress(apsw.InterruptError):
                    self.connection.execute("SELECT 1").fetchall()
            self.connection.close(True)
        except Exception as error:  # noqa: BLE001  # nothing more can be done about it
            log(__name__, "debug", "close_failed", database=self._database, error=error)

    # --- steps ----------------------------------------------------------------------------

    def _perform(self, step: Step) -> Any:
        """Perform a step of a checkout; see `Connection`."""
        try:
            if not isinstance(step, Close):
                self._check_file()
                return self._steps.perform(step)
            steps, self._steps = self._steps, Steps(self)
            steps.close()
        except Exception as error:
            if isinstance(step, (OpenBackup, CopyPages, KeepCopy)):
                raise  # most often it is the copy that cannot be written
            if isinstance(step, Close) or is_lost(error):
                raise ConnectionLost(str(error)) from error
            self._explain(error, step)
            raise
        return Result()

    def fetch_ahead(self) -> None:
        """After rows of a stream were answered, and more may come: fetch those that will be asked for next."""
        self._steps.fetch_ahead()

    def _check_file(self) -> None:
        if not self._steps.is_open:
            self._make_ready()
        elif self._is_torn():
            raise _torn()

    def run_within(self, query: Query) -> Any:
        """Run a query in the transaction that there is; an error undoes that query, unless all is rolled back."""
        if query.many is None:
            self.admits = self._admit_free
            try:
                return self._sealed(query)
            except _NeedsTransaction:
                pass
        return self.undone_alone(self._sealed, query)

    def run_script_within(self, script: Script) -> Any:
        """Run a script in the transaction that there is, as `run_within` runs a query."""
        return self.undone_alone(lambda script: self.seal(self._script(script), script), script)

    def _sealed(self, query: Query) -> Any:
        return self.seal(self.run_query(query), query)

    def undone_alone(self, run: Callable[[R], T], request: R) -> T:
        """Run a request in the transaction that there is, so that an error undoes that alone.

        It may end savepoints that were begun before it, and with them its own. Then it cannot be
        undone alone, and an error undoes the whole transaction.
        """
        connection, rollbacks = self.connection, self.rollbacks
        self.admits = self._admit_all
        connection.execute(SAVEPOINT)
        try:
            value = run(request)
            is_open = connection.in_transaction and self.rollbacks == rollbacks
            if is_open and not self._end_savepoint(RELEASE) and self.stays_readonly:
                # SQLite tells of no commit where nothing was written, and another one may be open.
                next(self._rolled_back)
        except BaseException:
            self.close_cursor()
            if connection.in_transaction and self.rollbacks == rollbacks and not self._end_savepoint(UNDO):
                self.roll_back()
            raise
        return value

    def _end_savepoint(self, sql: str) -> bool:
        """Run the SQL that ends the savepoint; say whether there is one."""
        try:
            self.connection.execute(sql)
        except apsw.SQLError as error:
            if "no such savepoint" not in str(error):
                raise
            return False
        return True

    def opened_rows(self, sql: str, params: Parameters) -> tuple[apsw.Cursor, tuple[str, ...]]:
        """Return a cursor on the rows of a statement that reads, and the names of the columns."""
        cursor, trace = self.connection.cursor(), _Trace(self, sql)

        def admit(known: Known) -> None:
            if known.writes:
                message = f"a Stream only reads, and this statement writes: send it as a Query ({shorten(sql)!r})"
                raise ValueError(message)

        self.admits = admit
        try:
            self._start(cursor, trace, cursor.execute, sql, params)
            columns = self._columns(cursor, trace.known, sql, params)
        except BaseException:
            cursor.close(True)
            raise
        return cursor, columns

    def close_cursor(self) -> None:
        """After an error: its traceback may keep the cursor, and that a lock on the database."""
        with suppress(apsw.Error):
            self._cursor.close(True)
        self._cursor = self.connection.cursor()

    # --- running --------------------------------------------------------------------------

    def run_query(self, query: Query) -> Result:
        """Run a query of any kind, in the transaction that there is, if there is any."""
        try:
            if query.many is not None:
                return self._many(query)
            known = self._known.get(query.sql)
            if known is None or not known.is_plain or query.max_rows is not None:
                return self._traced(query)
            self.admits(known)
            return self._run_known(query, known)
        except (NothingRan, NeedsWriter):
            raise
        except BaseException:
            self.close_cursor()  # an open statement would keep a lock, and fail the next one
            self.counting.abandon()
            self._known.pop(query.sql, None)
            raise

    def _run_known(self, query: Query, known: Known) -> Result:
        """Run a statement as is known from before: without the trace, which takes 1.2 µs of 4.

        Its columns are those of before unless it is prepared anew, as SQLite does after a change of
        the schema; that goes through the authorizer.
        """
        told, counting, columns = self.told, self.counting, known.columns
        if told.asked:
            told.clear()
        if known.writes:
            counting.reset()
            counting.begin(known)
        cursor = self._cursor.execute(query.sql, query.params)
        if told.asked:
            columns = self._columns(cursor, known, query.sql, query.params)
        rows = cursor.fetchall() if columns else []
        if not known.writes:
            return Result(columns, rows, len(rows))
        counting.end()
        return Result(columns, rows, counting.changed, counting.rowid)

    def _read_known(self, query: Query, known: Known) -> Result:
        """Run a statement that is known to read only, as `_run_known` does."""
        told, columns = self.told, known.columns
        if told.asked:
            told.clear()
        cursor = self._cursor.execute(query.sql, query.params)
        if told.asked:
            columns = self._columns(cursor, known, query.sql, query.params)
        rows = cursor.fetchall()
        return Result(columns, rows, len(rows))

    def _traced(self, query: Query) -> Result:
        """Run a statement of which nothing is known yet, or of which not all rows are wanted."""
        trace, cursor = _Trace(self, query.sql), self._cursor
        self.counting.reset()
        self._start(cursor, trace, cursor.execute, query.sql, query.params)
        columns = self._columns(cursor, trace.known, query.sql, query.params)
        rows, truncated = self._fetch(query.max_rows)
        self._cursor.exec_trace = None
        if trace.known is None or not trace.known.writes:
            return Result(columns, rows, len(rows), None, truncated)
        self.counting.end()
        return Result(columns, rows, self.counting.changed, self.counting.rowid, truncated)

    def _many(self, query: Query) -> Result:
        """Run a query once for each of its parameters."""
        trace, cursor = _Trace(self, query.sql, repeats=True), self._cursor
        self.counting.reset()
        self._start(cursor, trace, cursor.executemany, query.sql, query.many)
        columns = self._columns(cursor, trace.known, query.sql, query.many[0] if query.many else ())
        rows = cursor.fetchall() if query.max_rows is None else list(islice(cursor, min(query.max_rows, sys.maxsize)))
        found = len(rows) + sum(1 for _ in cursor)  # what is left is run, whatever is wanted of its rows
        cursor.exec_trace = None
        truncated = found > len(rows)
        if trace.known is None or not trace.known.writes:
            return Result(columns, rows, found, None, truncated)
        self.counting.end()
        return Result(columns, rows, self.counting.changed, self.counting.rowid, truncated)

    def _script(self, script: Script) -> Result:
        self.counting.reset()
        for sql in statements_of(script.sql):
            # In a transaction of the script's own, an error undoes all of that.
            if changes_rows(sql) and not self.connection.in_transaction and not self.reads_only:
                self.connection.execute("BEGIN IMMEDIATE")
                self._of_a_script(sql)
                self._commit_now()  # a part of the request
            else:
                self._of_a_script(sql)
        return Result((), [], self.counting.changed, self.counting.rowid)

    def _of_a_script(self, sql: str) -> None:
        cursor = self._cursor
        try:
            self._start(cursor, _ScriptTrace(self), cursor.execute, sql, None, keeps=False)
            for _ in cursor:
                pass
        except BaseException:
            self.counting.abandon()
            raise
        cursor.exec_trace = None
        self.counting.end()

    def _start(
        self,
        cursor: apsw.Cursor,
        trace: _Trace | _ScriptTrace,
        execute: Callable[..., object],
        sql: str,
        bindings: Any,
        *,
        keeps: bool = True,
    ) -> None:
        """Begin a statement under a trace.

        A pragma, an `EXPLAIN`, and a statement that cannot be prepared begin again, with the schema as it is now:
        SQLite looks whether its schema is an old one only as a statement makes its first step. With `keeps` the
        statement may be kept prepared, and be taken as it was prepared before.
        """
        known = self._known.get(sql) if keeps else None
        may_be_cached = known is not None and known.is_plain
        self.told.clear()
        cursor.exec_trace = trace
        try:
            try:
                execute(sql, bindings, can_cache=may_be_cached)
            except (_Unprepared, apsw.SQLError) as again:
                if not isinstance(again, _Unprepared) and trace.known is not None:
                    raise  # it was prepared, and has begun
                self.read_schema(getattr(again, "schema", None))
                trace.refresh()
                self.told.clear()
                execute(sql, bindings, can_cache=False)
        except BaseException:
            cursor.exec_trace = None
            raise

    def _columns(self, cursor: apsw.Cursor, known: Known | None, sql: str, params: Parameters) -> tuple[str, ...]:
        """Return the columns of a statement that was begun: SQLite prepares it anew if the schema has changed."""
        if known is None:
            return ()
        if self.told.asked and known.columns:
            try:
                known.columns = columns_now(cursor)
            except apsw.ExecutionCompleteError:  # it gave no rows, and the cursor has forgotten all
                # Behind a statement that is committed by now, another look could fail.
                if known.reads or (known.is_transactional and self.connection.in_transaction):
                    known.columns = self._columns_prepared(sql, params)
        return known.columns

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
        """Return the rows of the statement that runs, `most` of them at most, and whether there were more."""
        if most is None:
            return self._cursor.fetchall(), False
        rows = list(islice(self._cursor, min(most, sys.maxsize)))
        truncated = next(self._cursor, None) is not None
        if truncated:
            self._cursor.close(True)
            self._cursor = self.connection.cursor()
        return rows, truncated

    # --- the end of a transaction, and of a job --------------------------------------------

    def commit(self) -> None:
        """Commit the transaction that is the whole request. If this raises, nothing of it has taken effect."""
        self._commit_now()
        self._is_committed = True

    def _commit_now(self) -> None:
        """Commit the transaction that is open."""
        rollbacks = self.rollbacks
        try:
            self.connection.execute("COMMIT")
        except Exception as error:
            if is_lost(error) or self.connection.in_transaction or self.rollbacks != rollbacks:
                raise
            # A hook of the user's, which is called when all is done.
            log(__name__, "error", "commit_hook_failed", database=self._database, error=error)

    def roll_back(self) -> None:
        """Roll back the transaction that is open, if one is.

        Raises:
            apsw.Error: that did not work.
        """
        if self.connection.in_transaction:
            self.close_cursor()
        tries = _TRIES
        while self.connection.in_transaction:
            try:
                self.connection.execute("ROLLBACK")
            except apsw.InterruptError:  # it was meant for what is over
                tries -= 1
                if not tries:
                    raise  # SQLite goes on with it as long as any cursor is open, such as one that a function has left

    def _clean_up(self) -> None:
        """After an error: leave no cursor, no lock and no transaction behind.

        Raises:
            ConnectionLost: that did not work.
        """
        try:
            # Closed by hand: the error's traceback may keep the cursor, and it a lock on the database.
            self.close_cursor()
            self.roll_back()
        except apsw.Error as error:
            raise ConnectionLost(str(error)) from error

    def _renew(self) -> None:
        """Open the connection anew; if that fails, the next call tries again."""
        if self._database.in_memory:
            self.is_stale = False
            return
        self.is_stale = self._renewing = True
        try:
            self._close()
            self._open()
        finally:
            self._renewing = False


def _torn() -> apsw.BusyError:
    return apsw.BusyError("the database, which no process was writing when it was opened, was changed by another one")


def _name_the_missing(error: KeyError, request: Request | Step) -> None:
    """Give APSW's error for a parameter that has no value a text."""
    name = error.args[0] if error.args else None
    sql = getattr(request.request if isinstance(request, Execute) else request, "sql", "")
    if isinstance(name, str) and any(f"{prefix}{name}" in sql for prefix in ":@$"):
        error.args = (f"the statement has a parameter {name!r}, and params has no value for it",)


def _check_changes_nothing(connection: apsw.Connection, value: str) -> None:
    """Raise unless `PRAGMA foreign_keys = value` is what holds already: SQLite ignores it inside a transaction."""
    wanted = value.lower() in ("on", "yes", "true") or (value.isdigit() and int(value) != 0)
    if wanted != bool(connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, -1)):
        message = (
            "PRAGMA foreign_keys has no effect inside a transaction, so it is refused there: send one "
            "Script('PRAGMA foreign_keys = OFF; BEGIN IMMEDIATE; …; COMMIT'), with the pragma before BEGIN"
        )
        raise ValueError(message)
