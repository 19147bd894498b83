"""Requests that are a transaction: all or nothing, and nobody but us ends it."""

from collections.abc import Callable
from contextlib import suppress
from types import GeneratorType
from typing import Any, Final, TypeVar

import apsw

from actors.errors import TransactionBroken
from actors.messages import Call, Query, Request, Transaction
from actors.result import Result

__all__ = ["call", "many", "run_each", "run_together"]

T = TypeVar("T")

_BOUND: Final = (apsw.Connection, apsw.Cursor, apsw.Blob, apsw.Backup, GeneratorType)
"""What belongs to a connection, or runs on it: of no use to anybody else."""


def run_together(
    connection: apsw.Connection, transaction: Transaction, run: Callable[[Query], Result], begun: Callable[[], None]
) -> list[Result]:
    """Run all queries in one transaction, and call `begun` once that is open.

    Raises:
        TransactionBroken: one of them ended it.
        Exception: a query failed; a note says which one.
    """
    return _together(connection, transaction.readonly, lambda: run_each(connection, transaction, run), begun)


def run_each(connection: apsw.Connection, transaction: Transaction, run: Callable[[Query], Result]) -> list[Result]:
    """Run all queries, one after the other, in the transaction that there is; see `run_together`."""
    results, count = [], len(transaction.queries)
    for number, query in enumerate(transaction.queries, 1):
        try:
            results.append(run(query))
            _check_open(connection, transaction, f"statement {number} of {count}, {query},")
        except Exception as error:
            error.add_note(f"querycrew: statement {number} of {count}: {query}")
            raise
    return results


def call(connection: apsw.Connection, request: Call[Any], begun: Callable[[], None]) -> Any:
    """Call a function in a transaction, and return what it returns; call `begun` before, once that is open.

    Raises:
        TransactionBroken: it ended the transaction.
        TypeError: what it returned belongs to the connection.
        Exception: its own.
    """

    def run() -> Any:
        try:
            value = request.function(connection, *request.args)
        finally:
            _unhook(connection)
        _check_open(connection, request, request.sql)
        for part in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(part, _BOUND):
                message = (
                    f"{request} returned a {type(part).__name__}, which belongs to the worker's connection: "
                    "return rows, or other plain values"
                )
                raise TypeError(message)
        return value

    return _together(connection, request.readonly, run, begun)


def _unhook(connection: apsw.Connection) -> None:
    """Take back what could keep the end of the transaction from happening; the rest goes with the connection."""
    with suppress(apsw.ConnectionClosedError):
        connection.authorizer = connection.exec_trace = connection.row_trace = None
        connection.set_progress_handler(None)


def many(connection: apsw.Connection, run: Callable[[], Result]) -> Result:
    """Run a query many times in one transaction, or in the one that there is."""
    return run() if connection.in_transaction else _together(connection, False, run, lambda: None)


def _together(connection: apsw.Connection, readonly: bool, run: Callable[[], T], begun: Callable[[], None]) -> T:
    """Run something in a transaction that only this function commits; whoever catches what it raises rolls back."""
    ours = False
    query_only = connection.pragma("query_only")
    if readonly:
        connection.pragma("query_only", True)
    try:
        connection.execute("BEGIN" if readonly else "BEGIN IMMEDIATE")
        # A hook that says True makes the commit a rollback.
        connection.set_commit_hook(lambda: not ours)
        begun()
        value = run()
        ours = True
        connection.execute("COMMIT")
    finally:
        connection.set_commit_hook(None)
        if readonly and not connection.in_transaction:
            connection.authorizer, authorizer = None, connection.authorizer  # it would refuse that
            connection.pragma("query_only", query_only)
            connection.authorizer = authorizer
    return value


def _check_open(connection: apsw.Connection, request: Request, culprit: str) -> None:
    if not connection.in_transaction:
        message = (
            f"{request} is one transaction, and {culprit} ended it, so all was rolled back: leave out BEGIN, COMMIT "
            "and ROLLBACK; SAVEPOINT is fine"
        )
        raise TransactionBroken(message)
