"""A connection to SQLite, on APSW: jobs, steps and batches, and a clean connection for each."""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import apsw

from actors.databases.answers import left_open
from actors.databases.base import Connection
from actors.databases.sqlite.interactive import Steps
from actors.databases.sqlite.lock_wait import LockWait
from actors.databases.sqlite.lost import is_lost
from actors.databases.sqlite.opening import open_database
from actors.databases.sqlite.runner import Runner
from actors.databases.sqlite.statement import NeedsTransaction, admit_all, admit_alone, admit_reading
from actors.databases.sqlite.transactions import OwnTransaction, Transactions, call, run_each, run_script
from actors.databases.steps import STEPS, Close, CopyPages, Execute, KeepCopy, OpenBackup, Step
from actors.system.log import log
from actors.values.errors import ConnectionLost, ResultLost
from actors.values.requests import Call, Query, Request, Script, Transaction
from actors.values.result import Result

if TYPE_CHECKING:
    from actors.databases.executor import Batch, Task
    from actors.databases.sqlite.database import SQLite

__all__ = ["ALONE", "READER", "WRITER", "Role", "SQLiteConnection"]

Role: TypeAlias = Literal["alone", "reader", "writer"]
"""The work of a connection: everything, or reading beside a writer, or writing."""
ALONE: Final = "alone"
READER: Final = "reader"
WRITER: Final = "writer"

_LOOK_AGAIN: Final = 0.01  # seconds after which a reader checks whether its file is still there


class SQLiteConnection(Connection):
    """One APSW connection, which every job finds clean.

    A job may attach a database, create a temporary object or set a pragma. SQLite's authorizer
    reports that while the statement is prepared. Behind such a job the connection is opened anew. A
    connection to memory is not, since it would lose the data.

    A request that writes runs in a transaction of the crew's own. All steps that can fail come
    before its `COMMIT`, packing the result included, and nothing after the `COMMIT` changes the
    answer. The exceptions are statements that have no effect, or another effect, inside a
    transaction, such as `VACUUM` and a pragma. SQLite commits them by itself.
    """

    plain_values = True
    """Rows hold nothing but None, int, float, str and bytes."""

    connection: apsw.Connection

    def __init__(self, database: "SQLite", role: Role, *, create: bool = True) -> None:
        self._database = database
        self._role = role
        self._create = create
        self._wait = LockWait(database.busy_timeout, self._waits)
        self.seal: Callable[[Any, Any], Any] = lambda value, _: value
        """Makes the answer from a value and its request, before the commit of a request that
        writes. If that fails, nothing has taken effect."""
        # Whether a transaction is open that several reads share.
        self._shares = False
        self._open()

    def _open(self) -> None:
        database, on_busy = self._database, self._wait.on_busy
        self.connection, self.file, self.warnings = open_database(database, on_busy, create=self._create)
        self._create = False  # a file that is gone later must not be replaced by an empty one
        self.reads_only = self._role == READER or database.readonly
        if self._role == READER:
            self.connection.pragma("query_only", True)
            if self.file is not None:
                self.file.look_again = _LOOK_AGAIN
        runner = Runner(self.connection, sandbox=database.sandbox, reads_only=self.reads_only)
        self._transactions = Transactions(runner, self._seal, database)
        self._steps = Steps(self._transactions, self._seal)
        self._known = runner.known
        self._runner = runner
        self._settings = runner.settings  # the last step: an error before it leaves `is_changed` set

    def _waits(self) -> None:
        self.on_wait()  # the attribute may be set at any time

    def _seal(self, value: Any, request: Any) -> Any:
        return self.seal(value, request)

    # --- a batch --------------------------------------------------------------------------

    def seal_with(self, pack: Callable[[Any, Any], Any]) -> bool:
        """Pack the answer of a request that writes before its commit; see `Connection`."""
        self.seal = pack
        return True

    def run(self, batch: "Batch") -> None:
        """Run the jobs of a batch; see `Connection`.

        Quick reads that wait together share one transaction, and so one state of the database. It
        begins after all of them were asked. The gain: to lock and unlock the file costs more than
        most reads.
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
                facts = self._known.get(request.sql) if type(request) is Query else None
                if facts is None or not facts.reads or request.many is not None or request.max_rows is not None:
                    self._end_shared()
                    self.run_one(batch, task)
                    continue
                try:
                    if not self._shares:
                        self._begin_shared(is_alone)
                    value = self._runner.read_known(request, facts)
                except Exception as error:  # noqa: BLE001  # the caller of the job gets it
                    self._fail_shared(batch, task, error)
                else:
                    batch.answer(task, value)
        finally:
            task = request = value = None  # the error of a user's function leads to this frame
            self._end_shared()

    def _begin_shared(self, is_alone: bool) -> None:
        """Begin the transaction of the quick reads of a batch; a single read needs none."""
        self._wait.begin_job()
        self._transactions.is_committed = False
        self._make_ready()
        if not is_alone:
            self.connection.execute("BEGIN")
        self._shares = True

    def _end_shared(self) -> None:
        if self._shares:
            self._shares = False
            if self.connection.in_transaction:
                self._clean_up()

    def _fail_shared(self, batch: "Batch", task: "Task", error: Exception) -> None:
        if is_lost(error):
            raise ConnectionLost(str(error)) from error
        if isinstance(error, ConnectionLost):
            raise error
        request = task.request
        self._explain(error, request)
        self._known.pop(request.sql, None)  # type: ignore[union-attr]  # SQLite may have prepared it again
        self._shares = False
        self._clean_up()
        batch.fail(task, error)

    # --- one job --------------------------------------------------------------------------

    def execute(self, request: Request | Step) -> Any:
        """Run `request`; see `Connection`.

        A request that has read a torn file runs again, since nothing was written. A function is
        not called a second time.
        """
        self._wait.begin_job()
        self._transactions.is_committed = False
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
            self._known.pop(request.sql, None)  # SQLite may have prepared it again
            self._clean_up()
            if self._is_torn() and not isinstance(request, Call):
                return self.execute(request)
            if self._transactions.is_committed:
                raise ResultLost.of(request, error) from error
            raise
        if self._is_torn():
            if isinstance(request, Call):
                raise _torn()
            return self.execute(request)
        return value

    def _answer(self, request: Request) -> Any:
        if isinstance(request, Query):
            facts = self._known.get(request.sql)
            if facts is not None and facts.reads and request.many is None and request.max_rows is None:
                return self._runner.run_known(request, facts)
            return self._query(request)
        if isinstance(request, Script):
            return run_script(request, self._transactions)
        if isinstance(request, (Transaction, Call)):
            return self._in_own_transaction(request, readonly=request.readonly)
        message = f"a connection to SQLite cannot run {request}"
        raise TypeError(message)

    def _query(self, query: Query) -> Any:
        """Run a query of any kind. It is a transaction by itself."""
        if query.many is not None:
            return self._in_own_transaction(query, readonly=False)
        statement = self._runner.statement
        statement.admits = admit_reading if self._role == READER else admit_alone
        try:
            return self._runner.run_query(query)
        except NeedsTransaction:
            statement.admits = admit_all
        return self._transactions.write(query)

    def _in_own_transaction(self, request: Query | Transaction | Call[Any], *, readonly: bool) -> Any:
        self._runner.statement.admits = admit_all
        with OwnTransaction(self._transactions, readonly=readonly) as own:
            value = self._value_in(own, request)
            if not readonly:
                value = self.seal(value, request)
            own.commit()
        return value

    def _value_in(self, own: OwnTransaction, request: Query | Transaction | Call[Any]) -> Any:
        if isinstance(request, Query):
            return self._runner.run_query(request)
        if isinstance(request, Transaction):
            return run_each(request, self._runner.run_query, own)
        return call(own, self._runner, request, f"{request} is one transaction, and the function ended it")

    def _check_closed(self, request: Request) -> None:
        """Look at a connection on which something is open after a request.

        Raises:
            TransactionLeftOpen: a transaction is open.
        """
        if self.connection.in_transaction:
            raise left_open(request)
        self._settings.is_changed = True  # a user function's cursor is open

    def interrupt(self) -> None:
        """End the statement that runs; see `Connection`."""
        self._wait.is_interrupted = True
        with suppress(apsw.Error):  # the connection may be closed meanwhile
            self.connection.interrupt()

    def waits_for_lock(self) -> bool:
        """Say whether another connection holds a lock that this one waits for. From any thread."""
        return self._wait.is_recent()

    def _explain(self, error: Exception, request: Request | Step) -> None:
        if isinstance(error, apsw.BusyError):
            self._wait.explain(error, has_read=isinstance(request, Script) and self.connection.in_transaction)
        elif isinstance(error, KeyError):
            _name_the_missing(error, request)

    # --- steps of a checkout --------------------------------------------------------------

    def _perform(self, step: Step) -> Any:
        """Perform a step of a checkout; see `Connection`."""
        try:
            if not isinstance(step, Close):
                self._check_file()
                return self._steps.perform(step)
            steps, self._steps = self._steps, Steps(self._transactions, self._seal)
            steps.close()
        except Exception as error:
            if isinstance(step, (OpenBackup, CopyPages, KeepCopy)):
                raise  # most often the copy cannot be written
            if isinstance(step, Close) or is_lost(error):
                raise ConnectionLost(str(error)) from error
            self._explain(error, step)
            raise
        return Result()

    def _check_file(self) -> None:
        if not self._steps.is_open:
            self._make_ready()
        elif self._is_torn():
            raise _torn()

    def fetch_ahead(self) -> None:
        """Fetch the next rows of a stream, whose last rows were answered; see `Connection`."""
        self._steps.fetch_ahead()

    # --- a clean connection to the right file ---------------------------------------------

    def _make_ready(self) -> None:
        """Make the connection as new, and open the file that is at the path now. Before a job.

        Raises:
            ConnectionLost: the connection is of no more use.
            Exception: the reason why the file cannot be opened; the next request tries again.
        """
        try:
            if self._settings.is_changed:
                self._renew()
            elif self.file is not None and self.file.has_changed():
                self.file.prepare_to_reopen()
                self._renew()
        except apsw.Error as error:
            if is_lost(error):
                raise ConnectionLost(str(error)) from error
            raise

    def refresh(self) -> None:
        """Make the connection as new if a job has changed it; see `Connection`.

        Between two steps of a checkout this does nothing.

        Raises:
            ConnectionLost: the connection cannot be opened anew.
        """
        if self._settings.is_changed and not self._steps.is_open:
            try:
                self._renew()
            except Exception as error:
                raise ConnectionLost(str(error)) from error

    def _renew(self) -> None:
        """Open the connection anew; if that fails, the next call tries again."""
        if self._database.in_memory:
            self._settings.is_changed = False
            return
        self._settings.is_changed = True
        with self._wait.uninterruptible():
            self._close()
            self._open()

    def _is_torn(self) -> bool:
        """Say whether another process has changed a file that was opened as unchangeable.

        If so, no answer counts that was read from the file.
        """
        return self.file is not None and self.file.immutable and self.file.has_changed()

    def _clean_up(self) -> None:
        """Leave no cursor, no lock and no transaction behind, after an error.

        Raises:
            ConnectionLost: that has failed.
        """
        try:
            self._runner.close_cursor()
            self._transactions.roll_back()
        except apsw.Error as error:
            raise ConnectionLost(str(error)) from error

    def close(self) -> None:
        """Close the connection, and everything that is open on it; see `Connection`."""
        with suppress(Exception):  # the connection may be of no more use
            self._steps.close()
        self._close()

    def _close(self) -> None:
        try:
            self.connection.authorizer = None
            if self.connection.is_interrupted:
                # An interrupt would end the write-back of the log. The next statement clears it.
                with suppress(apsw.InterruptError):
                    self.connection.execute("SELECT 1").fetchall()
            self.connection.close(True)
        except Exception as error:  # noqa: BLE001  # nothing more can be done about it
            log(__name__, "debug", "close_failed", database=self._database, error=error)


def _torn() -> apsw.BusyError:
    return apsw.BusyError("another process has changed the database, which no process was writing when it was opened")


def _name_the_missing(error: KeyError, request: Request | Step) -> None:
    """Give APSW's error for a parameter without a value a text."""
    name = error.args[0] if error.args else None
    sql = getattr(request.request if isinstance(request, Execute) else request, "sql", "")
    if isinstance(name, str) and any(f"{prefix}{name}" in sql for prefix in ":@$"):
        error.args = (f"the statement has a parameter {name!r}, and params has no value for it",)
