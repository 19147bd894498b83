"""The requests of a world.

Each has a number of its own, by which every part of the world knows it.
"""

from random import Random
from typing import Any

from actors.databases.steps import Declare
from actors.values.requests import Query, Request, Script, Stream, Transaction

_READS = ("SELECT a", "SELECT a", "SELECT b", "SELECT c")
_WRITES = ("INSERT a", "INSERT a", "UPDATE b", "WITH a")
"""The last one does not show that it writes: a reader finds out."""


def some_request(random: Random, number: int, timeout: float | None, write: float) -> Request:
    """Return a request of one kind or other.

    Args:
        random: the source of all choices.
        number: its number.
        timeout: its deadline in seconds, if it has one.
        write: how likely it writes.
    """
    if random.random() >= write:
        if random.random() < 0.1:
            return Transaction([Query("SELECT a", (number,))], readonly=True, timeout=timeout)
        return Query(random.choice(_READS), (number,), timeout)
    kind = random.randrange(8)
    if kind == 0:
        return Script(f"UPDATE s -- {number}", timeout)
    if kind == 1:
        return Transaction([Query("INSERT t", (number,))], timeout=timeout)
    if kind == 2:
        return Query("INSERT m", many=[(number,)], timeout=timeout)
    return Query(random.choice(_WRITES), (number,), timeout)


def number_of(request: Any) -> int:
    """Return the number of a request, or of a step."""
    if isinstance(request, Transaction):
        request = request.queries[0]
    if isinstance(request, Query) and request.many is not None:
        return int(request.many[0][0])  # type: ignore[index]
    if isinstance(request, (Query, Stream, Declare)):
        return int(request.params[0])  # type: ignore[index]
    return int(request.sql.rpartition(" ")[2])


def writes(request: Any) -> bool:
    """Say whether a request writes."""
    sql = request.queries[0].sql if isinstance(request, Transaction) else request.sql
    return not sql.startswith("SELECT") or (isinstance(request, Transaction) and not request.readonly)


def rows_of(number: int) -> list[tuple[int, int]]:
    """Return the rows of the stream with this number."""
    return [(number, row) for row in range(number % 7)]
