"""The answers of connections: the kind that each request has."""

from collections.abc import Callable
from types import GeneratorType
from typing import Any

from actors.databases.steps import Begin, Close, Commit, Deallocate, Execute, Step
from actors.values.errors import TransactionLeftOpen
from actors.values.requests import Call, Query, Request, Script, Transaction
from actors.values.result import Result

__all__ = ["Sealed", "check_unbound", "checked", "left_open"]


class Sealed:
    """An answer that was packed before its commit; see `Connection.seal_with`."""

    __slots__ = ()


def checked(value: Any, request: Request | Step, connection: object) -> Any:
    """Return the answer of a connection as its caller gets it, with `max_rows` rows at most.

    Raises:
        TypeError: the request must not have such an answer.
    """
    if isinstance(value, Sealed):
        return value
    if isinstance(request, Execute):
        request = request.request
    if type(value) is Result and not isinstance(request, Transaction):
        return _limited(value, request.max_rows) if isinstance(request, Query) else value
    if isinstance(request, (Begin, Commit, Deallocate, Close)):
        return Result()
    if isinstance(request, Transaction):
        return _all_limited(value, request, connection)
    if isinstance(request, Call):
        return value
    message = (
        f"{_class_of(connection)}.execute() must return a Result, not {type(value).__name__}: "
        "a cursor or a generator cannot be sent to another thread"
    )
    raise TypeError(message)


def check_unbound(value: object, request: Call[Any], is_bound: Callable[[object], bool]) -> None:
    """Refuse the value of a `Call` if a part of it would use the worker's connection later.

    A generator may do so: its code runs when its rows are read.

    Args:
        value: the value, or a list or a tuple of values.
        request: the request, for the text of the error.
        is_bound: says whether a value belongs to a connection of the driver.

    Raises:
        TypeError: the value belongs to the connection.
    """
    for part in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(part, GeneratorType) or is_bound(part):
            message = (
                f"{request} returned a {type(part).__name__}, which belongs to the worker's connection: "
                "return rows, or other plain values"
            )
            raise TypeError(message)


def _all_limited(value: Any, transaction: Transaction, connection: object) -> list[Result]:
    queries = transaction.queries
    if type(value) is list and len(value) == len(queries) and all(type(each) is Result for each in value):
        return [_limited(each, query.max_rows) for each, query in zip(value, queries, strict=True)]
    message = (
        f"{_class_of(connection)}.execute() must return for a Transaction a list with a Result for each of its "
        f"queries, {len(queries)} here"
    )
    raise TypeError(message)


def _class_of(connection: object) -> str:
    return type(getattr(connection, "completes", connection)).__name__


def _limited(result: Result, most: int | None) -> Result:
    return result if most is None else result._limited(most)


def left_open(request: Request | Step) -> TransactionLeftOpen:
    """Return the error for a request that ended inside a transaction."""
    error = TransactionLeftOpen(
        f"{request} ended inside a transaction, which was rolled back; a transaction cannot span requests: ask for a "
        "Transaction, or write BEGIN, the statements and COMMIT into one Script"
    )
    if isinstance(request, Script):
        error.executed = None  # the transactions that it has committed before stay
    return error
