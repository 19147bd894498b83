"""A connection of any driver of PEP 249."""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from actors.databases.answers import check_unbound
from actors.databases.dbapi.presets import count_of, preset_of, run_sql, shut_down
from actors.databases.dbapi.secrets import secrets_of, without_secrets
from actors.databases.driver import DriverConnection
from actors.databases.fence import CancelFence
from actors.databases.rows import Rows
from actors.databases.steps import Declare, Step
from actors.values.errors import ConnectionLost, TransactionBroken
from actors.values.requests import Call, Query, Request, Script
from actors.values.result import Result

if TYPE_CHECKING:
    from actors.databases.dbapi.database import DBAPI
    from actors.databases.dbapi.presets import Preset

__all__ = ["DBAPIConnection"]

_SAVEPOINT: Final = "SAVEPOINT querycrew"
_UNDO: Final = ("ROLLBACK TO SAVEPOINT querycrew", "RELEASE SAVEPOINT querycrew")
_TRIES: Final = 100  # of one rollback: an interrupt of the statement before may hit some of them
_LEAVE_OUT: Final = "leave out BEGIN, COMMIT and ROLLBACK"
# The beginning of a statement that would end a transaction, behind white space and comments.
_ENDS: Final = re.compile(
    r"(?>[\s;]+|--[^\n]*|/\*(?s:.*?)\*/)*(?i:BEGIN|START|COMMIT|END|ABORT|ROLLBACK(?!\s+(?:WORK\s+|TRANSACTION\s+)?TO\b))\b"
)


class DBAPIConnection(DriverConnection):
    """One connection of a driver, which only the worker's thread uses.

    Autocommit is on if it is known how to turn it on. Else `commit` follows each query.
    """

    def __init__(self, database: "DBAPI") -> None:
        super().__init__()
        self._database = database
        self._driver = _opened(database)
        self._preset: Preset = preset_of(database, self._driver)
        preset = self._preset
        self.has_one_result = preset.has_one_result
        self._interrupt: Callable[[Any], object] | None = database.interrupt or preset.interrupt
        self._switch: Callable[[Any, bool], object] | None = database.autocommit or preset.autocommit
        self._begin = database.begin or (None if database.autocommit else preset.begin)
        self._in_transaction = database.in_transaction or preset.in_transaction
        self._is_lost = database.is_lost or preset.is_lost
        self._check = database.check or preset.check
        self._script = database.script or preset.script
        # Whether the open transaction is the crew's own, and whether `begin` began it by SQL.
        self._is_own = False
        self._by_sql = False
        self._fence: CancelFence | None = None
        self._is_closed = False
        try:
            if self._switch is not None:
                self._switch(self._driver, True)
        except BaseException:
            self._driver.close()
            raise
        at_once = preset.interrupts_at_once and database.interrupt is None
        if self._interrupt is not None and not at_once:
            self._fence = CancelFence(self._interrupt_now)

    # --- the life of the connection --------------------------------------------------------

    def execute(self, request: Request | Step) -> Any:
        """Run a request, or perform a step; see `Connection`."""
        fence = self._fence
        if fence is None:
            return super().execute(request)
        fence.begin()
        try:
            return super().execute(request)
        finally:
            if not fence.end():
                self.close()  # the cancel could hit the next job

    def interrupt(self) -> None:
        """End the running statement, if it is known how; see `Connection`."""
        if self._fence is not None:
            self._fence.request()
        elif self._interrupt is not None:
            with suppress(Exception):  # the connection may be closed meanwhile
                self._interrupt(self._driver)

    def _interrupt_now(self, seconds: float) -> None:
        del seconds  # the drivers know no limit
        assert self._interrupt is not None
        self._interrupt(self._driver)

    def check(self) -> None:
        """Raise `ConnectionLost` if the idle connection is of no more use; see `Connection`."""
        try:
            is_good = self._check(self._driver) is not False
        except Exception as error:
            message = "the idle connection is of no more use"
            raise ConnectionLost(message, begun=False, blames=False) from error
        if not is_good:
            message = "the idle connection is of no more use"
            raise ConnectionLost(message, begun=False, blames=False)

    def abandon(self) -> None:
        """Let the worker's thread go on, if it waits for a socket; see `Connection`."""
        with suppress(Exception):
            descriptor = self._preset.descriptor(self._driver)
            if descriptor is not None:
                shut_down(descriptor)

    def close(self) -> None:
        """Close the connection, and roll back an open transaction; see `Connection`."""
        if self._is_closed:
            return
        self._is_closed = True
        with suppress(Exception):  # nothing more can be done about it
            self.open_cursors.close_all()
        with suppress(Exception):
            self._driver.close()

    def lost(self, error: Exception) -> ConnectionLost | None:
        """Return the error to raise if the connection is of no more use."""
        if not self._is_closed and not self._is_lost(self._driver, error):
            return None
        return ConnectionLost(str(error), blames=self._preset.is_embedded)

    # --- transactions ----------------------------------------------------------------------

    def begin(self, *, readonly: bool, isolation: str | None) -> None:
        """Begin a transaction; see `DriverConnection`."""
        if self._begin is None:
            if readonly or isolation is not None:
                what = "readonly transactions" if readonly else f"isolation={isolation!r}"
                message = f"{self._database} does not know how to begin {what}: write DBAPI(…, begin=function)"
                raise ValueError(message)
            if self._switch is not None:
                self._switch(self._driver, False)
        else:
            self._by_sql = True
            self._begin(self._driver, readonly, isolation)
        self._is_own = True

    def check_own(self, how: str) -> None:
        """Raise `TransactionBroken` unless the transaction is open; see `DriverConnection`."""
        if self._by_sql and self._is_over():
            broken = TransactionBroken(f"{how}: {_LEAVE_OUT}")
            broken.executed = None  # the work that was committed stays
            raise broken

    def _is_over(self) -> bool:
        return self._in_transaction is not None and not self._in_transaction(self._driver)

    def commit(self) -> None:
        """Commit the open transaction."""
        if self._by_sql:
            run_sql(self._driver, "COMMIT")
        else:
            self._driver.commit()
        self._end()

    def roll_back(self) -> bool:
        """Roll back, after a cancel under way; say whether a transaction was open."""
        if self._fence is not None:
            self._fence.wait()
        was_open = not self._is_over()
        for last in range(_TRIES):
            try:
                self._roll_back_once(was_open=was_open)
                self._end()
            except Exception:
                if last == _TRIES - 1 or not self._preset.interrupts_at_once:
                    raise
                if self._is_over():
                    was_open = False  # only the settings are left to be restored
                continue
            break
        return was_open and self._in_transaction is not None

    def _roll_back_once(self, *, was_open: bool) -> None:
        by_commit = self._is_own and not self._by_sql  # with autocommit off, or unknown
        if self._switch is None or by_commit:
            self._driver.rollback()
        elif was_open and (self._by_sql or self._in_transaction is not None):
            run_sql(self._driver, "ROLLBACK")

    def _end(self) -> None:
        """Restore the settings that `begin` has changed."""
        if self._by_sql:
            self._preset.end_transaction(self._driver)
        elif self._is_own and self._switch is not None:
            self._switch(self._driver, True)
        self._is_own = self._by_sql = False

    def may_be_open(self, request: Query | Script) -> bool:
        """Say whether a transaction is open after a request that ran by itself."""
        del request
        return self._in_transaction is not None and bool(self._in_transaction(self._driver))

    def undone_alone(self, run: Callable[[Any], Any], request: Any) -> Any:
        """Run a request behind a savepoint, if the database has them; see `DriverConnection`."""
        if not self._preset.savepoints:
            return super().undone_alone(run, request)
        run_sql(self._driver, _SAVEPOINT)
        try:
            value = run(request)
        except Exception as error:
            if self.lost(error) is None:
                self._undo(request, error)
            raise
        if not self._is_over():
            run_sql(self._driver, _UNDO[1])
        return value

    def _undo(self, request: Any, error: Exception) -> None:
        if self._fence is not None:
            self._fence.wait()
        try:
            run_sql(self._driver, *_UNDO)
        except Exception:  # noqa: BLE001  # the error has ended the transaction, such as a deadlock
            self.end_broken(f"an error of {request} ({type(error).__name__}) has rolled it back")

    # --- statements ------------------------------------------------------------------------

    def _refuse_end(self, sql: str) -> None:
        if self._is_own and _ENDS.match(sql):
            message = f"a transaction of the crew cannot be ended from inside: {_LEAVE_OUT}"
            raise TransactionBroken(message)

    def run_query(self, query: Query) -> Result:
        """Run one statement; see `DriverConnection`."""
        self._refuse_end(query.sql)
        cursor = self._driver.cursor()
        try:
            cursor.execute(query.sql, query.params) if query.params else cursor.execute(query.sql)
            result = self._preset.result(cursor, query)
        finally:
            cursor.close()
        self._commit_alone()
        return result

    def _commit_alone(self) -> None:
        """Commit a request that ran by itself, if the driver does not do so."""
        if self._switch is None and not self._is_own:
            self._driver.commit()

    def run_many(self, query: Query) -> Result:
        """Run one statement with each set of parameters; see `DriverConnection`."""
        self._refuse_end(query.sql)
        runs = list(query.many or ())
        cursor = self._driver.cursor()
        try:
            if self._preset.counts_many:
                changed = 0
                if runs:
                    cursor.executemany(query.sql, runs)
                    changed = count_of(cursor)
            else:
                changed = sum(self._changed(cursor, query.sql, params) for params in runs)
        finally:
            cursor.close()
        return Result((), [], changed)

    def _changed(self, cursor: Any, sql: str, params: Any) -> int:
        cursor.execute(sql, params)
        return 0 if cursor.description else count_of(cursor)

    def run_script(self, script: Script) -> Result:
        """Run a script, if it is known how; see `DriverConnection`."""
        if self._script is None:
            message = (
                f"{self._database} does not know how to run a Script: ask for each statement, or for a Transaction, or "
                "write DBAPI(…, script=function)"
            )
            raise TypeError(message)
        changed = self._script(self._driver, script.sql)
        self._commit_alone()
        return Result((), [], changed or 0)

    def call(self, request: Call[Any]) -> Any:
        """Call a function with the driver's connection, in the open transaction."""
        value = request.function(self._driver, *request.args)
        check_unbound(value, request, _is_bound)
        return value

    def open_rows(self, step: Declare) -> Rows:
        """Begin to read the rows of a query; see `DriverConnection`."""
        self._refuse_end(step.sql)
        return self._preset.rows_of(self._driver, step.sql, step.params, step.cursor)


def _is_bound(value: object) -> bool:
    """Say whether a value is a cursor or a connection, as PEP 249 defines them."""
    kind = type(value)
    return hasattr(kind, "fetchone") or (hasattr(kind, "cursor") and hasattr(kind, "commit"))


def _opened(database: "DBAPI") -> Any:
    """Return a new connection of the driver.

    Raises:
        Exception: the driver's own. Its text shows nothing of the secret arguments.
    """
    kwargs = dict(database.kwargs)
    try:
        return database.connect_function(*database.args, **kwargs)
    except Exception as failure:  # noqa: BLE001  # each driver has its own
        error = without_secrets(failure, secrets_of(database.args, kwargs))
    raise error  # here, so that the error leads to no other error, whose text may show a secret
