"""Transactions: their beginning, their end, and the requests that run in them."""

from collections.abc import Sequence
from threading import Lock
from typing import Any, Final

import psycopg

from actors.databases.answers import check_unbound
from actors.databases.postgres.prepared import Bound, Prepared
from actors.databases.postgres.sql_text import ends_transaction
from actors.databases.postgres.wire import Wire, joined, result_of
from actors.values.errors import ResultLost, TransactionBroken
from actors.values.requests import Call, Query, Script, Transaction
from actors.values.result import Result

__all__ = ["Transactions", "beginning", "complete"]

_SAVEPOINT: Final = "SAVEPOINT querycrew"
_RELEASE: Final = "RELEASE SAVEPOINT querycrew"
_UNDO: Final = "ROLLBACK TO SAVEPOINT querycrew; RELEASE SAVEPOINT querycrew"
_LEVELS: Final = ("read uncommitted", "read committed", "repeatable read", "serializable")
_NO_SAVEPOINT: Final = (psycopg.errors.NoActiveSqlTransaction, psycopg.errors.InvalidSavepointSpecification)
_BOUND: Final = (psycopg.Connection, psycopg.Cursor, psycopg.Copy, psycopg.Transaction)
"""Values that belong to a connection: they are of no use elsewhere."""


def beginning(isolation: str | None, *, readonly: bool) -> str:
    """Return the SQL that begins a transaction.

    A readonly transaction sees one state of the database, so its default is REPEATABLE READ.

    Raises:
        ValueError: PostgreSQL lacks the isolation level.
    """
    if isolation is None:
        return "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if readonly else "BEGIN"
    if isolation not in _LEVELS:
        message = f"isolation={isolation!r}: PostgreSQL knows {', '.join(_LEVELS)}"
        raise ValueError(message)
    return f"BEGIN ISOLATION LEVEL {isolation.upper()}{' READ ONLY' if readonly else ''}"


class Transactions:
    """The transactions of one connection. All methods belong to the worker's thread."""

    def __init__(self, driver: "psycopg.Connection[Any]", wire: Wire, prepared: Prepared) -> None:
        self.driver = driver
        self.wire = wire
        self.prepared = prepared

    def roll_back(self) -> None:
        """Roll back the open transaction, if one is open.

        Raises:
            psycopg.Error: the connection is lost.
        """
        tries = 10  # a cancel that was meant for the statement before may hit the rollback
        while not self.wire.is_idle:
            try:
                self.wire.command("ROLLBACK")
            except psycopg.errors.QueryCanceled:
                tries -= 1
                if not tries:
                    raise

    def commit(self) -> None:
        """Commit the open transaction.

        Raises:
            TransactionBroken: the transaction has failed before, and was rolled back.
            psycopg.Error: nothing has taken effect, or the connection is lost.
        """
        if self.wire.command("COMMIT")[-1].command_status == b"ROLLBACK":
            message = "the transaction failed before its commit, so all of it was rolled back"
            raise TransactionBroken(message)

    # --- a whole request ------------------------------------------------------------------

    def run_each(self, transaction: Transaction) -> list[Result]:
        """Run a `Transaction`. Queries without `many` leave in one message.

        Raises:
            TransactionBroken: a query would end the transaction. Nothing ran.
            psycopg.Error: a query failed; a note says which one. Nothing has taken effect.
        """
        queries = transaction.queries
        for number, query in enumerate(queries, 1):
            if ends_transaction(query.sql):
                message = (
                    f"{transaction} is one transaction, and statement {number} of {len(queries)}, {query}, would end "
                    "it: leave out BEGIN, COMMIT and ROLLBACK; SAVEPOINT is fine"
                )
                raise TransactionBroken(message)
        self.wire.command(beginning(transaction.isolation, readonly=transaction.readonly))
        results = list[Result]()
        while len(results) < len(queries):
            self._run_some(transaction, results)
        self.commit()
        return results

    def run_many(self, query: Query) -> Result:
        """Run a statement many times, in a transaction of its own."""
        self.wire.command("BEGIN")
        result = self._run_many(query)
        self.commit()
        return result

    def run_script(self, script: Script) -> Result:
        """Run a text of several statements. The server makes one transaction of it."""
        results = self.wire.command(script.sql)
        return Result((), [], sum(result.command_tuples or 0 for result in results if not result.nfields))

    def call(self, request: Call[Any]) -> Any:
        """Call a function in a transaction of its own; return its value."""
        self.wire.command(beginning(None, readonly=request.readonly))
        value = self._call(request)
        self.commit()
        return value

    # --- in an open transaction -----------------------------------------------------------

    def undone_alone(self, request: Query | Script | Call[Any]) -> Any:
        """Run a request in the open transaction, so that its error undoes this request alone.

        Raises:
            TransactionBroken: the request has ended the transaction.
            Exception: the request failed.
        """
        if isinstance(request, Query) and ends_transaction(request.sql):
            self.roll_back()  # as in SQLite, where the statement itself has this effect
            message = (
                f"{request} would end the transaction, so all of it was rolled back: leave out BEGIN, COMMIT and "
                "ROLLBACK; SAVEPOINT is fine"
            )
            raise TransactionBroken(message)
        if isinstance(request, Query) and request.many is None:
            bound, outcome = self.statements_undone_alone(request, (request.sql, request.params))[-1]
            return complete(bound, outcome, request)
        try:
            self.wire.command(_SAVEPOINT)
            value = self._inside(request)
            self.wire.command(_RELEASE)
        except TransactionBroken:
            raise
        except Exception as error:
            if not self.wire.is_lost:
                self._undo(request, error)
            raise
        return value

    def statements_undone_alone(self, request: object, *statements: tuple[str, Any]) -> list[tuple[Bound, Any]]:
        """Run statements in the open transaction, in one message. An error undoes them alone.

        Returns:
            Each statement with its libpq result.

        Raises:
            TransactionBroken: a statement has ended the transaction.
            psycopg.Error: a statement failed.
        """
        refusals = self.prepared.refusals
        try:
            return self._between_savepoints(request, statements)
        except psycopg.Error:
            if self.prepared.refusals == refusals or self.wire.is_lost:
                raise
        return self._between_savepoints(request, statements)

    def _between_savepoints(self, request: object, statements: tuple[tuple[str, Any], ...]) -> list[tuple[Bound, Any]]:
        inner = [self.prepared.bind(sql, params) for sql, params in statements]
        bounds = [self.prepared.bind(_SAVEPOINT), *inner, self.prepared.bind(_RELEASE)]
        try:
            outcomes = self.wire.pipeline(bounds, together=True)
            for outcome in outcomes:
                if isinstance(outcome, psycopg.Error):
                    raise outcome
        except psycopg.Error as error:
            if not self.wire.is_lost:
                self._undo(request, error)
            raise
        return list(zip(inner, outcomes[1:-1], strict=True))

    def _inside(self, request: Query | Script | Call[Any]) -> Any:
        if isinstance(request, Query):
            return self._run_many(request)
        return self.run_script(request) if isinstance(request, Script) else self._call(request)

    def _undo(self, request: object, error: Exception) -> None:
        """Undo one request of the open transaction.

        Raises:
            TransactionBroken: the request has ended the transaction.
        """
        try:
            if not self.wire.is_idle:
                self.wire.command(_UNDO)
                return
        except psycopg.Error:  # there is no savepoint: the transaction is another one
            self.roll_back()
        raise _ended(request) from error

    def _run_many(self, query: Query) -> Result:
        self.prepared.check(query.sql)
        with self.driver.cursor() as cursor:
            cursor.executemany(query.sql, query.many or ())
            return Result((), [], max(cursor.rowcount, 0))

    def _run_some(self, transaction: Transaction, results: list[Result]) -> None:
        """Run the next queries in one message.

        A query with `many` runs alone. So does a statement that may change a setting: the
        conversion of the values before it and behind it may depend on that setting.
        """
        queries, first = transaction.queries, len(results)
        number = first
        try:
            if queries[first].many is not None:
                results.append(self._run_many(queries[first]))
                return
            end = self._end_of_message(queries, first)
            bounds = list[Bound]()
            for number in range(first, end):
                bounds.append(self.prepared.bind(queries[number].sql, queries[number].params))
            number = first
            for bound, outcome in zip(bounds, self.wire.pipeline(bounds, together=True), strict=True):
                if isinstance(outcome, psycopg.Error):
                    raise outcome  # noqa: TRY301
                results.append(result_of(bound, outcome))
                number += 1
            if not bounds[0].statement.is_clean:
                self.prepared.check_settings()
        except Exception as error:
            error.add_note(f"querycrew: statement {number + 1} of {len(queries)}: {queries[number]}")
            raise

    def _end_of_message(self, queries: Sequence[Query], first: int) -> int:
        """Return the number of the first query that does not travel with the query `first`."""
        end = first
        while end < len(queries) and queries[end].many is None and self.prepared.statement(queries[end].sql).is_clean:
            end += 1
        return max(end, first + 1)

    def _call(self, request: Call[Any]) -> Any:
        """Call a function in the open transaction; return its value.

        psycopg makes a savepoint, and refuses `commit` and `rollback` of the connection meanwhile.

        Raises:
            TransactionBroken: the function has ended the transaction by SQL.
            TypeError: the value belongs to the connection.
            Exception: the function's own.
        """
        try:
            with self.driver.transaction():
                value = self._value_of(request)
        except _NO_SAVEPOINT as error:
            raise _ended(request) from error
        check_unbound(value, request, lambda part: isinstance(part, _BOUND))
        return value

    def _value_of(self, request: Call[Any]) -> Any:
        driver = self.driver
        try:
            return request.function(driver, *request.args)
        finally:
            # An unfinished stream or copy holds the lock, for which psycopg would wait for ever.
            if driver.lock.locked():
                driver.close()
                driver.lock = Lock()


def _ended(request: object) -> TransactionBroken:
    broken = TransactionBroken(
        f"{request} has ended the transaction: leave out BEGIN, COMMIT and ROLLBACK; SAVEPOINT is fine"
    )
    broken.executed = None  # it may have committed
    return broken


def complete(bound: Bound, answer: Any, request: object) -> Result:
    """Return the rows of a statement that took effect.

    Args:
        bound: the statement.
        answer: the libpq result, or the list of its parts.
        request: the request, for the text of an error.

    Raises:
        ResultLost: Python has no value for one of the rows.
    """
    try:
        return joined(bound, answer) if isinstance(answer, list) else result_of(bound, answer)
    except Exception as error:
        raise ResultLost.of(request, error) from error
