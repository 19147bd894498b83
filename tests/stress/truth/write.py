"""A kind of write: its request, and the search of another connection for its parts."""

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
    """The parameters of one write."""

    number: int
    text: str = ""
    """A comment after the SQL, which makes a text that no connection knows."""
    timeout: float | None = None
    size: int = 0
    """The size of a large answer, in bytes."""

    def query(self, sql: str, *params: Any) -> Query:
        return Query(sql + self.text, params, self.timeout)

    def part(self, sql: str, *params: Any) -> Query:
        """Return a query for a transaction. It has no timeout."""
        return Query(sql + self.text, params)


@dataclass(frozen=True)
class Session:
    """Requests that run one by one in `db.transaction()`."""

    requests: Sequence[Query | Script | Call[Any]]
    timeout: float | None
    forgives: bool = False
    """Whether the session continues after a statement that breaks a constraint."""


Asked: TypeAlias = Query | Script | Transaction | Call[Any] | Session


def _nothing(file: File, number: int) -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Write:
    """A kind of write."""

    name: str
    parts: int
    """The number of parts that `found` counts if the write is in the file once and whole."""
    make: Callable[[Order], Asked]
    prepare: Callable[[File, int], object] = _nothing
    """Makes the rows and tables that the write needs."""
    found: Callable[[File, int], int] = File.inserted
    """Counts the parts in the file."""
    clear: Callable[[File, int], object] = _nothing
    """Removes rows and tables that would disturb later writes."""
    is_right: Callable[[Any], bool] = lambda value: True
    """Returns whether an answer is right."""
    statements: tuple[int, ...] = ()
    """The parts of each statement of a script. Each statement commits alone."""
    fails: bool = False
    """Whether the write always ends with an error."""
    is_lost: bool = False
    """Whether a child cannot send the answer."""
    is_sole: bool = False
    """Whether the write changes a value that the file has once, so that it has no neighbours."""

    def there(self, file: File, number: int) -> There:
        """Return the part of the write that is in the file, after `file.look()`."""
        found = self.found(file, number)
        if found == 0:
            return There.NOT
        if found == self.parts and not self.fails:
            return There.WHOLE
        if found in accumulate(self.statements):
            return There.BEGINNING
        return There.TWICE if found > self.parts else There.PART


def counts(rows: int) -> Callable[[Any], bool]:
    """Return a check that an answer counts `rows` changed rows."""
    return lambda result: result.rowcount == rows and not result.rows


def returned(rows: int) -> Callable[[Any], bool]:
    """Return a check that an answer has `rows` rows, each as wide as its columns."""

    def check(result: Any) -> bool:
        width = len(result.columns)
        return len(result.rows) == rows and width > 0 and all(len(row) == width for row in result.rows)

    return check
