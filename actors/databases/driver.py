"""Requests and steps on a driver that can begin, commit and roll back."""

from collections.abc import Callable
from typing import Any

from actors.databases.answers import left_open
from actors.databases.base import Connection
from actors.databases.rows import OpenRows, Rows
from actors.databases.steps import (
    STEPS,
    Begin,
    Close,
    Commit,
    Deallocate,
    Declare,
    Execute,
    Fetch,
    Step,
)
from actors.values.errors import (
    ConnectionLost,
    TransactionBroken,
)
from actors.values.requests import Call, Query, Request, Script, Transaction
from actors.values.result import Result

__all__ = ["DriverConnection"]


class DriverConnection(Connection):
    """A connection whose requests and steps are made of a few primitives of a driver.

    A query runs by itself: the driver commits each statement (autocommit). A `Transaction`, a
    `Call` and a query with `many` each run in a transaction of the crew's own. An error rolls back
    the open transaction. If that fails, the connection is lost.

    In a transaction that comes step by step an error undoes its own request alone, if the driver
    has savepoints. Otherwise the error rolls back the whole transaction, and later steps are
    refused.
    """

    has_one_result: bool = False
    """Whether a statement ends the open result of the statement before. Then no savepoint is put
    around the opening of a cursor: an error there must leave the transaction as it was."""

    def __init__(self) -> None:
        # Whether the steps have begun a transaction.
        self._in_session = False
        # Whether the steps have opened anything since the last `Close`.
        self._is_used = False
        # Why the transaction of the steps is over, or `None`.
        self._broken: str | None = None
        self.open_cursors = OpenRows()
        """The cursors that may have more rows."""

    # --- the primitives, which a driver's connection writes --------------------------------

    def begin(self, *, readonly: bool, isolation: str | None) -> None:
        """Begin a transaction.

        Raises:
            ValueError: the database lacks the isolation level, or readonly transactions.
        """
        raise NotImplementedError

    def check_own(self, how: str) -> None:
        """Raise `TransactionBroken` unless the transaction of `begin` is still open and good.

        Args:
            how: the probable end of it, for the error.
        """
        raise NotImplementedError

    def commit(self) -> None:
        """Commit the transaction that is open."""
        raise NotImplementedError

    def roll_back(self) -> bool:
        """Roll back, and free open results; say whether a transaction was open.

        An interrupt of the request before may come during the rollback, and must not end it.
        """
        raise NotImplementedError

    def may_be_open(self, request: Query | Script) -> bool:
        """Say whether a request, which ran by itself, may have left a transaction open."""
        raise NotImplementedError

    def run_query(self, query: Query) -> Result:
        """Run one statement, with one set of parameters. In the open transaction, if one is."""
        raise NotImplementedError

    def run_many(self, query: Query) -> Result:
        """Run one statement with each set of parameters, in the open transaction."""
        raise NotImplementedError

    def run_script(self, script: Script) -> Result:
        """Run the statements of a script."""
        raise NotImplementedError

    def call(self, request: Call[Any]) -> Any:
        """Call a function with the driver's connection, in the open transaction."""
        raise NotImplementedError

    def open_rows(self, step: Declare) -> Rows:
        """Begin to read the rows of a statement. In the open transaction, if one is."""
        raise NotImplementedError

    def undone_alone(self, run: Callable[[Any], Any], request: Any) -> Any:
        """Run a request in the open transaction, so that an error undoes that request alone.

        A driver without savepoints cannot do so. The base class calls `end_broken` after an error.
        """
        try:
            return run(request)
        except Exception as error:
            self.end_broken(f"an error of {request} ({type(error).__name__}) has rolled it back")
            raise

    def lost(self, error: Exception) -> ConnectionLost | None:
        """Return the error to raise if the connection is of no more use after an error."""
        raise NotImplementedError

    # --- requests -------------------------------------------------------------------------

    def execute(self, request: Request | Step) -> Any:
        """Run a request, or perform a step; see `Connection`."""
        try:
            if isinstance(request, STEPS):
                return self._perform(request)
            return self._answer(request)
        except ConnectionLost:
            raise
        except Exception as error:
            lost = ConnectionLost(str(error)) if isinstance(request, Close) else self.lost(error)
            if lost is not None:
                raise lost from error
            if not self._in_session:
                self._clean_up()
            raise

    def _answer(self, request: Request) -> Any:
        match request:
            case Query():
                return self._query(request)
            case Script():
                value = self.run_script(request)
                self._check_closed(request)
                return value
            case Transaction():
                return self._in_own(request, self._each, isolation=request.isolation, readonly=request.readonly)
            case Call():
                return self._in_own(request, self.call, isolation=None, readonly=request.readonly)
        return super().execute(request)

    def _query(self, query: Query) -> Any:
        if query.many is not None:
            return self._in_own(query, self.run_many, isolation=None, readonly=False)
        value = self.run_query(query)
        self._check_closed(query)
        return value

    def _in_own(self, request: Any, run: Callable[[Any], Any], *, isolation: str | None, readonly: bool) -> Any:
        """Run a request in a transaction of its own. After an error the caller rolls back."""
        self.begin(readonly=readonly, isolation=isolation)
        value = run(request)
        self.check_own(f"{request} is one transaction, and it was ended inside")
        self.commit()
        return value

    def _each(self, transaction: Transaction) -> list[Result]:
        results = []
        for number, query in enumerate(transaction.queries, 1):
            try:
                results.append(self._run(query))
            except Exception as error:
                error.add_note(f"querycrew: statement {number} of {len(transaction.queries)}: {query}")
                raise
        return results

    def _run(self, request: Query | Script | Call[Any]) -> Any:
        match request:
            case Query():
                return self.run_query(request) if request.many is None else self.run_many(request)
            case Script():
                return self.run_script(request)
            case Call():
                return self.call(request)

    def _check_closed(self, request: Query | Script) -> None:
        """Raise `TransactionLeftOpen` if a request has left a transaction open; roll that back."""
        if self.may_be_open(request) and self.roll_back():
            raise left_open(request)

    def _clean_up(self) -> None:
        """Leave no cursor and no transaction behind, after an error.

        Raises:
            ConnectionLost: that has failed.
        """
        try:
            self.roll_back()
        except ConnectionLost:
            raise
        except Exception as error:
            raise (self.lost(error) or ConnectionLost(str(error))) from error

    # --- steps ----------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether anything is open that later steps need."""
        return self._in_session or bool(self.open_cursors)

    def end_broken(self, why: str) -> None:
        """Roll the transaction of the steps back after an error; later steps are refused."""
        self.open_cursors.close_all()
        self._broken = why
        self._clean_up()

    def _perform(self, step: Step) -> Any:
        match step:
            case Begin(readonly, isolation):
                self._is_used = True
                self.begin(readonly=readonly, isolation=isolation)
                self._in_session = True
            case Execute(request):
                self._check_unbroken()
                self.open_cursors.keep()
                value = self.undone_alone(self._run, request)
                self._check_own(f"{request} ended it")
                return value
            case Commit():
                self._check_unbroken()
                self.open_cursors.close_all()
                self._check_own("a request before ended it")
                self.commit()
            case Declare():
                return self._declare(step)
            case Fetch():
                return self._fetch(step)
            case Deallocate(cursor):
                self.open_cursors.close(cursor)
            case Close():
                self._close()
            case _:
                return super().execute(step)
        return Result()

    def _check_unbroken(self) -> None:
        if self._broken is not None:
            message = f"the transaction is over: {self._broken}"
            raise TransactionBroken(message)

    def _check_own(self, why: str) -> None:
        try:
            self.check_own(f"the transaction is over: {why}")
        except TransactionBroken:
            self.end_broken(why)
            raise

    def _declare(self, step: Declare) -> Result:
        self._check_unbroken()
        self.open_cursors.keep()
        self._is_used = True

        def first(step: Declare) -> Result:
            self.open_cursors.open(step.cursor, self.open_rows(step))
            return self.open_cursors.fetch(step)

        return self.undone_alone(first, step) if self._in_session and not self.has_one_result else first(step)

    def _fetch(self, step: Fetch) -> Result:
        self._check_unbroken()
        self.open_cursors.check(step.cursor)
        if not self._in_session:
            return self.open_cursors.fetch(step)
        try:
            return self.open_cursors.fetch(step)
        except Exception as error:
            self.end_broken(f"an error of a stream ({type(error).__name__}) has rolled it back")
            raise

    def _close(self) -> None:
        is_used, self._is_used = self._is_used, False
        self._in_session, self._broken = False, None
        self.open_cursors.close_all()
        if is_used:
            self.roll_back()

    def fetch_ahead(self) -> None:
        """Fetch the next rows of a stream, whose last rows were answered; see `Connection`."""
        self.open_cursors.fetch_ahead()
