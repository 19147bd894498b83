"""A kind of write: how it is submitted, and how another connection counts its parts in the file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeAlias

from supervisor import Call, Query, Script, Transaction
from tests.stress.truth.file import File
from tests.stress.truth.law import There

__all__ = ["Asked", "Order", "Session", "Write", "counts", "returned"]


@dataclass(frozen=True)
class Order:
    """One write to ask for."""

    number: int
    text: str = ""
    """Stands behind the SQL: a comment makes a text that no connection knows."""
    timeout: float | None = None
    size: int = 0
    """Bytes of the answer, of a write that has a large one."""

    def query(self, sql: str, *params: Any) -> Query:
        return Query(sql + self.text, params, self.timeout)

    def part(self, sql: str, *params: Any) -> Query:
        """Return a query of a transaction, which has no timeout of its own."""
        return Query(sql + self.text, params)


@dataclass(frozen=True)
class Session:
    """Requests that are asked one by one in `db.transaction()`."""

    requests: Sequence[Query | Script | Call[Any]]
    timeout: float | None
    forgives: bool = False
    """Whether it goes on behind a statement that breaks a constraint."""


Asked: TypeAlias = Query | Script | Transaction | Call[Any] | Session


def _nothing(file: File, number: int) -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Write:
    """A kind of write."""

    name: str
    parts: int
    """How many parts of it `found` counts, if it is there once and wholly."""
    make: Callable[[Order], Asked]
    prepare: Callable[[File, int], object] = _nothing
    """Prepares the file for the write."""
    found: Callable[[File, int], int] = File.inserted
    """Counts the parts that are there."""
    clear: Callable[[File, int], object] = _nothing
    """Removes rows that would be in the way of later writes."""
    is_right: Callable[[Any], bool] = lambda value: True
    """Says whether an answer is the right one."""
    statements: tuple[int, ...] = ()
    """Of a script: the parts of each statement, which commits by itself."""
    fails: bool = False
    """Whether it always ends with an error."""
    is_lost: bool = False
    """Whether its answer cannot be brought from a child."""
    is_sole: bool = False
    """Whether it changes a value that the file has once, so that no neighbour may change it."""

    def there(self, file: File, number: int) -> There:
        """Say how much of it is in the file, after `file.look()`."""
        found = self.found(file, number)
        if found == 0:
            return There.NOT
        if found == self.parts and not self.fails:
            return There.WHOLE
        if found in accumulate(self.statements):
            return There.BEGINNING
        return There.TWICE if found > self.parts else There.PART


def counts(rows: int) -> Callable[[Any], bool]:
    """Return a check that an answer tells so many changed rows."""
    return lambda result: result.rowcount == rows and not result.rows


def returned(rows: int) -> Callable[[Any], bool]:
    """Return a check that an answer has so many rows, each as wide as it has columns."""

    def check(result: Any) -> bool:
        width = len(result.columns)
        return len(result.rows) == rows and width > 0 and all(len(row) == width for row in result.rows)

    return check
