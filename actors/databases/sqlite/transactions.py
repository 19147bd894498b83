"""Requests that are one transaction: all or nothing, and only the crew ends it."""

from contextlib import suppress
from types import GeneratorType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import apsw

from actors.values.errors import TransactionBroken
from actors.values.requests import Call, Query, Transaction
from actors.values.result import Result

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.databases.sqlite.connection import SQLiteConnection

__all__ = ["OwnTransaction", "call", "run_each"]

_BOUND: Final = (apsw.Connection, apsw.Cursor, apsw.Blob, apsw.Backup, GeneratorType)
"""What belongs to a connection, or runs on it: of no use to anybody else."""

_HOOK: Final = "querycrew"
_TRIES: Final = 100  # an interrupt ends by itself, unless a function has left a cursor open


class OwnTransaction:
    """A transaction that only this object commits; leaving its block without `commit` rolls it back.

    A `COMMIT` by anything else, a statement or a function that has the connection, becomes a rollback: SQLite's commit
    hook says so. Rollbacks are counted by the connection, so a transaction that was begun anew behind a `ROLLBACK` is
    not taken for this one.
    """

    def __init__(self, owner: "SQLiteConnection", *, readonly: bool) -> None:
        """Prepare a transaction on the connection `owner`; a readonly one sees one state of the database."""
        self._owner = owner
        self._connection: apsw.Connection = owner.connection
        self._readonly = readonly
        self._committing = False
        self._refused = False
        self._rollbacks = 0

    def __enter__(self) -> Self:
        try:
            self.begin()
        except BaseException:
            self.end()  # an interrupt may have hit any step of it
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def begin(self) -> None:
        """Begin it.

        Raises:
            apsw.BusyError: it is to write, and the lock cannot be had.
        """
        owner, connection = self._owner, self._connection
        if self._readonly and not owner.reads_only:
            owner.set_pragma("query_only", True)
        connection.execute("BEGIN" if self._readonly else "BEGIN IMMEDIATE")
        connection.set_commit_hook(self._refuses, id=_HOOK)
        self._rollbacks = owner.rollbacks
        owner.read_schema()  # a transaction sees what there is at its first read
        owner.stays_readonly = self._readonly

    def _refuses(self) -> bool:
        """Say whether a commit becomes a rollback: SQLite asks before each."""
        self._refused = not self._committing
        return self._refused

    @property
    def is_open(self) -> bool:
        """Whether it has not been ended by anything else."""
        return self._connection.in_transaction and self._owner.rollbacks == self._rollbacks

    def check_open(self, how: str) -> None:
        """Raise `TransactionBroken` if something has ended it; `how` says what."""
        if not self.is_open:
            message = f"{how}, so all of it was rolled back: leave out BEGIN, COMMIT and ROLLBACK; SAVEPOINT is fine"
            raise TransactionBroken(message)

    def explained(self, error: Exception, how: str) -> Exception:
        """Return what an error of a statement means: a commit that was refused is no fault of the database."""
        if self._refused:
            try:
                self.check_open(how)
            except TransactionBroken as broken:
                broken.__cause__ = error
                return broken
        return error

    def commit(self) -> None:
        """Commit it. If this raises, nothing of it has taken effect."""
        self._committing = True
        try:
            self._owner.commit()
        finally:
            self._committing = False

    def end(self) -> None:
        """Roll it back unless it is over, and leave the connection as it was before."""
        owner, connection = self._owner, self._connection
        owner.stays_readonly = False
        owner.roll_back()
        connection.set_commit_hook(None, id=_HOOK)
        for _ in range(_TRIES if self._readonly and not owner.reads_only else 0):
            with suppress(apsw.InterruptError):  # it was meant for what is over
                owner.set_pragma("query_only", False)
                break


def run_each(transaction: Transaction, run: "Callable[[Query], Result]", own: OwnTransaction | None) -> list[Result]:
    """Run all queries, one after the other, in the transaction that is open.

    Args:
        transaction: the queries.
        run: runs one of them.
        own: that transaction, if a statement can end it.

    Raises:
        TransactionBroken: one of them ended it.
        Exception: a query failed; a note says which one.
    """
    results = list[Result]()
    for number, query in enumerate(transaction.queries, 1):
        try:
            results.append(run(query))
            if own is not None and not own.is_open:
                own.check_open(_how(transaction, number))
        except Exception as failure:  # noqa: BLE001  # it is raised again, or what it means is
            error = failure if own is None else own.explained(failure, _how(transaction, number))
            error.add_note(f"querycrew: statement {number} of {len(transaction.queries)}: {query}")
            raise error from error.__cause__
    return results


def _how(transaction: Transaction, number: int) -> str:
    queries = transaction.queries
    return (
        f"{transaction} is one transaction, and statement {number} of {len(queries)}, {queries[number - 1]}, ended it"
    )


def call(own: OwnTransaction, owner: "SQLiteConnection", request: Call[Any], how: str) -> Any:
    """Call a function in the transaction that is open, and return what it returns.

    Args:
        own: that transaction.
        owner: the connection that the function gets.
        request: the call.
        how: what to say if the function ends the transaction.

    Raises:
        TransactionBroken: it ended the transaction.
        TypeError: what it returned belongs to the connection.
        Exception: its own.
    """
    owner.is_stale = True  # the function may do anything to the connection
    try:
        value = request.function(owner.connection, *request.args)
    except Exception as failure:  # noqa: BLE001  # it is raised again, or what it means is
        error = own.explained(failure, how)
        raise error from error.__cause__
    finally:
        with suppress(apsw.ConnectionClosedError):
            owner.take_over()
    own.check_open(how)
    for part in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(part, _BOUND):
            message = (
                f"{request} returned a {type(part).__name__}, which belongs to the worker's connection: "
                "return rows, or other plain values"
            )
            raise TypeError(message)
    return value
