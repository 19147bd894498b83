"""Answers: how workers and children take a connection of any class, and what it answers."""

from typing import Any

from actors.databases.base import Connection
from actors.databases.steps import Begin, Close, Commit, Deallocate, Execute, Step
from actors.messages import Call, Query, Request, Transaction
from actors.result import Result

__all__ = ["checked", "completed", "usable"]


class _Completed(Connection):
    """A connection that has `execute`, and lacks something else."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        for name in ("execute", *_OFFERED):
            if hasattr(connection, name):
                setattr(self, name, getattr(connection, name))


_OFFERED = ("interrupt", "close", "plain_values")


def usable(connection: Any) -> Connection:
    """Return a connection that a database has opened; see `completed`.

    Raises:
        TypeError: it has no `execute`.
    """
    if not callable(getattr(connection, "execute", None)):
        message = f"connect() must return a connection, with a method execute(), not {type(connection).__name__}"
        raise TypeError(message)
    return completed(connection)


def completed(connection: Any) -> Connection:
    """Return a connection, with the defaults of `Connection` for what it lacks."""
    is_whole = hasattr(connection, "interrupt") and hasattr(connection, "close")
    return connection if is_whole else _Completed(connection)


def checked(value: Any, request: Request | Step, connection: Connection) -> Any:
    """Return the answer of a connection as its caller gets it: `max_rows` is kept here at last.

    Raises:
        TypeError: a request is not answered so.
    """
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
        "what belongs to a connection or a thread cannot be sent to another"
    )
    raise TypeError(message)


def _all_limited(value: Any, transaction: Transaction, connection: Connection) -> list[Result]:
    queries = transaction.queries
    if type(value) is list and len(value) == len(queries) and all(type(each) is Result for each in value):
        return [_limited(each, query.max_rows) for each, query in zip(value, queries, strict=True)]
    message = (
        f"{_class_of(connection)}.execute() must return for a Transaction a list with a Result for each of its "
        f"queries, {len(queries)} here"
    )
    raise TypeError(message)


def _class_of(connection: Connection) -> str:
    return type(connection.connection if isinstance(connection, _Completed) else connection).__name__


def _limited(result: Result, most: int | None) -> Result:
    """Return a result without the rows that are too many; `rowcount` stays what the driver told."""
    if most is None or len(result.rows) <= most:
        return result
    return Result(result.columns, result.rows[:most], result.rowcount, result.lastrowid, True)
