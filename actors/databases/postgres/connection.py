"""A connection to PostgreSQL that runs one request at a time."""

import random
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg

from actors.databases.base import Connection
from actors.databases.postgres.fence import CancelFence
from actors.databases.postgres.interactive import Interactive
from actors.databases.postgres.prepared import Prepared
from actors.databases.postgres.transactions import STALE, Transactions, complete
from actors.databases.postgres.wire import Wire
from actors.databases.steps import STEPS, Close, Declare, Execute, Step
from actors.values.errors import ConnectionLost, TransactionLeftOpen
from actors.values.requests import Call, Query, Request, Script, Transaction

if TYPE_CHECKING:
    from actors.databases.postgres.database import PostgreSQL

__all__ = ["PostgresConnection"]

_JITTER: Final = 0.1  # the part by which lifetimes differ, so that not all connections end at once


class PostgresConnection(Connection):
    """One connection of psycopg, in autocommit mode.

    **A clean session.** After a request that may have changed the session, `DISCARD ALL` runs, and
    then `on_connect`.

    **A lost connection blames no statement.** A client cannot know why a server ends connections.
    """

    def __init__(self, database: "PostgreSQL") -> None:
        self.database = database
        self.fence = CancelFence(self._cancel_safely)
        # Whether a request may have changed the session.
        self._is_dirty = False
        self._open()

    def _open(self) -> None:
        database = self.database
        self._driver = driver = psycopg.connect(**database.conninfo(), autocommit=True)
        try:
            driver.prepare_threshold = database.prepare_threshold
            self.prepared = Prepared(driver, database.prepare_threshold)
            self.wire = Wire(driver, self.prepared)
            self._transactions = Transactions(driver, self.wire, self.prepared)
            self._interactive = Interactive(self._transactions)
            self._set_up()
        except BaseException:
            driver.close()
            raise
        lifetime = database.max_lifetime
        part = 1 - _JITTER * random.random()  # noqa: S311  # no secret
        self._ends_at = float("inf") if lifetime is None else time.monotonic() + lifetime * part

    def _set_up(self) -> None:
        on_connect = self.database.on_connect
        if isinstance(on_connect, str):
            self.wire.command(on_connect)
        elif on_connect is not None:
            on_connect(self._driver)
        if not self.wire.is_idle:
            message = f"on_connect of {self.database} has left a transaction open"
            raise RuntimeError(message)

    # --- requests -------------------------------------------------------------------------

    def execute(self, request: Request | Step) -> Any:
        """Run a request, or perform a step; see `Connection`."""
        self.fence.begin()
        try:
            return self._step(request) if isinstance(request, STEPS) else self._run_whole(request)
        except psycopg.Error as error:
            if self.wire.is_lost:
                raise lost() from error
            raise
        finally:
            self.end_fence()

    def _run_whole(self, request: Request) -> Any:
        """Run a request, and leave the connection clean."""
        try:
            value = self._answer(request)
        except Exception as error:
            if self.wire.is_lost:
                raise
            self._clean()
            if not self._was_stale(request, error):
                raise
            value = self._answer(request)
        is_left_open = not self.wire.is_idle
        self._clean()
        if is_left_open:
            left_open = TransactionLeftOpen(
                f"{request} ended inside a transaction, which was rolled back; a transaction cannot span requests: "
                "write a Transaction or one Script"
            )
            if isinstance(request, Script):
                left_open.executed = None  # the script may have committed before
            raise left_open
        return value

    def _answer(self, request: Request) -> Any:
        transactions = self._transactions
        match request:
            case Query(many=None):
                bound = self.prepared.bind(request.sql, request.params)
                self._is_dirty = not bound.statement.is_clean
                return complete(bound, self.wire.run(bound), request)
            case Query():
                self._is_dirty = not self.is_clean(request)
                return transactions.run_many(request)
            case Transaction():
                self._is_dirty = not all(map(self.is_clean, request.queries))
                return transactions.run_each(request)
            case Script():
                self._is_dirty = True
                return transactions.run_script(request)
            case Call():
                self._is_dirty = True
                return transactions.call(request)
        return super().execute(request)

    def _was_stale(self, request: Request, error: Exception) -> bool:
        """Say whether a request may run again, since the server has refused a prepared statement.

        Nothing of the request has taken effect then: its transaction was undone.
        """
        if not isinstance(error, psycopg.Error) or error.sqlstate not in STALE:
            return False
        queries = request.queries if isinstance(request, Transaction) else (request,)
        was_prepared = any(isinstance(each, Query) and self.prepared.statement(each.sql).names for each in queries)
        self.prepared.is_stale = True
        return was_prepared

    def _step(self, step: Step) -> Any:
        match step:
            case Close():
                self._interactive.close()
                self._clean()
                return super().execute(step)
            case Execute(Query() as query):
                self._is_dirty = self._is_dirty or not self.is_clean(query)
            case Execute():
                self._is_dirty = True
            case Declare():
                self._is_dirty = self._is_dirty or not self.prepared.statement(step.sql).is_clean
        try:
            return self._interactive.perform(step)
        except psycopg.Error as error:
            if error.sqlstate in STALE:
                self.prepared.is_stale = True
            raise

    def _clean(self) -> None:
        """Leave no transaction open, and the session as it was before the request.

        Raises:
            psycopg.Error: the connection is lost.
        """
        self._transactions.roll_back()
        if self._is_dirty:
            self._driver.execute("DISCARD ALL", prepare=False)
            self.prepared.forget()
            self._is_dirty = False
            self._set_up()

    def is_clean(self, query: Query) -> bool:
        """Say whether a query surely leaves the session as it was."""
        return self.prepared.statement(query.sql).is_clean

    # --- the life of a connection ---------------------------------------------------------

    def check(self) -> None:
        """Notice that the server has closed the idle connection; see `Connection`."""
        try:
            self.wire.look()
        except psycopg.Error as error:
            raise lost(begun=False) from error

    def refresh(self) -> None:
        """Open a new connection once this one is too old; see `Connection`."""
        if time.monotonic() < self._ends_at:
            return
        old = self._driver
        try:
            self._open()
        except psycopg.Error as error:
            raise lost(begun=False) from error
        finally:
            old.close()

    def fetch_ahead(self) -> None:
        """Fetch the next rows of a stream; see `Connection`."""
        self._interactive.fetch_ahead()

    def interrupt(self) -> None:
        """Cancel the statement that the server runs; see `Connection`."""
        self.fence.request()

    def _cancel_safely(self, seconds: float) -> None:
        self._driver.cancel_safe(timeout=seconds)

    def end_fence(self) -> None:
        """Wait until a cancel that is on its way has arrived.

        Raises:
            ConnectionLost: it has not arrived, and could hit the next job.
        """
        if not self.fence.end():
            self._driver.close()
            raise lost()

    def abandon(self) -> None:
        """End a wait for the server: the other end of the connection is shut; see `Connection`."""
        with suppress(Exception), socket.socket(fileno=self._driver.fileno()) as end:
            try:
                end.shutdown(socket.SHUT_RDWR)
            finally:
                end.detach()

    def close(self) -> None:
        """Close the connection; see `Connection`."""
        with suppress(Exception):
            self._driver.close()


def lost(*, begun: bool = True) -> ConnectionLost:
    """Return the error for a connection that is of no more use."""
    return ConnectionLost(begun=begun, blames=False)
