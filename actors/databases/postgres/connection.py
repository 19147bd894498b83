"""A connection to PostgreSQL that runs one request at a time."""

import random
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg

from actors.databases.answers import left_open
from actors.databases.base import Connection
from actors.databases.fence import CancelFence
from actors.databases.postgres.interactive import Interactive
from actors.databases.postgres.prepared import Prepared
from actors.databases.postgres.settings import DriverSettings
from actors.databases.postgres.sql_text import commits_inside
from actors.databases.postgres.transactions import Transactions, complete
from actors.databases.postgres.wire import Wire
from actors.databases.steps import STEPS, Close, Declare, Execute, Step
from actors.values.errors import ConnectionLost
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
        self.fence = CancelFence(self._cancel)
        # The job that runs, if other jobs of the batch were begun with it.
        self.alone: tuple[object, ...] | None = None
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
            self._own = DriverSettings(driver)
            self._set_up()
            self.prepared.check_settings()
            self.prepared.adapters = self._own.detached_adapters()
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
        """Run a request, or perform a step; see `Connection`.

        1. The request runs. A cancel may hit it.
        2. The fence: no cancel is on its way any more.
        3. The connection is cleaned, which no cancel can hit. The request keeps its outcome.
        """
        if self.wire.is_lost:
            message = "the connection is closed"
            raise lost(begun=False) from psycopg.OperationalError(message)
        if isinstance(request, Close):
            self._interactive.forget()
            self._clean()
            return super().execute(request)
        is_whole = not isinstance(request, STEPS)
        self.fence.begin(self.alone)
        try:
            value = self._run_whole(request) if is_whole else self._step(request)
        except Exception as error:
            is_lost = self.wire.is_lost
            self.end_fence()
            if is_lost:
                raise lost() from error
            if is_whole:
                self._clean()
                if type(request) is Query and isinstance(error, psycopg.Error) and commits_inside(request.sql):
                    error.executed = None  # type: ignore[attr-defined]  # a part may be committed
            raise
        self.end_fence()
        if is_whole:
            is_left_open = not self.wire.is_idle
            if is_left_open or self._is_dirty:
                self._clean()
            if is_left_open:
                raise left_open(request)
        return value

    def _run_whole(self, request: Any) -> Any:
        """Run a request, and again whenever the server has refused a prepared statement of it."""
        while True:
            refusals = self.prepared.refusals
            try:
                return self._answer(request)
            except psycopg.Error:
                if self.prepared.refusals == refusals or self.wire.is_lost:
                    raise
            self._transactions.roll_back()  # nothing of the request has taken effect

    def _answer(self, request: Request) -> Any:
        transactions = self._transactions
        match request:
            case Query(many=None):
                bound = self.prepared.bind(request.sql, request.params)
                self._is_dirty = not bound.statement.is_clean
                if request.max_rows is not None:
                    return complete(bound, self.wire.run_limited(bound, request.max_rows), request)
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

    def _step(self, step: Any) -> Any:
        match step:
            case Execute(Query() as query):
                self._is_dirty = self._is_dirty or not self.is_clean(query)
            case Execute():
                self._is_dirty = True
            case Declare():
                self._is_dirty = self._is_dirty or not self.prepared.statement(step.sql).is_clean
        try:
            return self._interactive.perform(step)
        finally:
            if self._is_dirty:
                self.prepared.check_settings()

    def _clean(self) -> None:
        """Roll back, and leave the session as it was. If that fails, end the connection."""
        try:
            self._transactions.roll_back()
            if self._is_dirty:
                self._driver.execute("DISCARD ALL", prepare=False)
                self.prepared.forget()
                self._own.restore()
                self._set_up()
                self.prepared.check_settings()
                self._is_dirty = False
        except Exception:  # noqa: BLE001  # the request is over, and keeps its outcome
            self._driver.close()

    def is_clean(self, query: Query) -> bool:
        """Say whether a query surely leaves the session as it was."""
        return self.prepared.statement(query.sql).is_clean

    # --- the life of a connection ---------------------------------------------------------

    def check(self) -> None:
        """Open a new connection if the server has ended the idle one; see `Connection`."""
        try:
            self.wire.look()
        except psycopg.Error as error:
            if self._interactive.is_open:  # a transaction cannot go on elsewhere
                raise lost(begun=False) from error
            self._open_again()

    def refresh(self) -> None:
        """Open a new connection once this one is too old; see `Connection`."""
        if time.monotonic() >= self._ends_at and not self._interactive.is_open:
            self._open_again()

    def _open_again(self) -> None:
        old = self._driver
        try:
            self._open()
        except Exception as error:
            raise lost(begun=False) from error
        finally:
            old.close()

    def fetch_ahead(self) -> None:
        """Fetch the next rows of a stream; see `Connection`."""
        self.fence.begin()
        self._interactive.fetch_ahead()
        self.end_fence()

    def interrupt(self) -> None:
        """Cancel the statement that the server runs; see `Connection`."""
        self.fence.request()

    def cancel(self, task: Any) -> None:
        """Cancel a job, if the server runs it; see `Connection`."""
        self.fence.request(task)

    def _cancel(self, seconds: float) -> None:
        """Cancel in a thread of the fence. `cancel` of psycopg would stop all threads meanwhile."""
        if psycopg.capabilities.has_cancel_safe():
            self._driver.cancel_safe(timeout=seconds)
            return
        # libpq before version 17.
        options = {**self.database.conninfo(), "connect_timeout": max(2, int(seconds))}
        with psycopg.connect(**options, autocommit=True) as other:
            other.execute("SELECT pg_cancel_backend(%s)", (self._driver.info.backend_pid,), prepare=False)

    def end_fence(self) -> None:
        """Wait until a cancel that is on its way has arrived. If it has not, end the connection."""
        if not self.fence.end():
            self._driver.close()  # the cancel could hit the next job

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
