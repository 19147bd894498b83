"""Steps: what a conversation with a caller asks of a connection, one after the other, until `Close`.

A connection performs them as it executes requests, with one difference: what a step leaves open, a transaction, a
cursor, a backup, is still there for the next one. Each is answered by a `Result`.
"""

from typing import TypeAlias

from actors.frozen import Frozen
from actors.messages import Parameters, Query

__all__ = [
    "STEPS",
    "Begin",
    "Close",
    "Commit",
    "CopyPages",
    "KeepCopy",
    "MoreRows",
    "OpenBackup",
    "OpenRows",
    "Step",
    "Within",
]


class Begin(Frozen):
    """Begin a transaction, which sees one state of the database, or has the right to write."""

    readonly: bool


class Within(Frozen):
    """Run a query in the transaction that was begun; an error of it leaves that open, unless it was rolled back."""

    query: Query

    def __str__(self) -> str:
        return str(self.query)


class Commit(Frozen):
    """Commit the transaction that was begun."""


class OpenRows(Frozen):
    """Begin to read the rows of a statement; answered by the first of them. `truncated` says whether more may come."""

    sql: str
    params: Parameters
    rows: int
    """How many at most."""

    _hidden = frozenset({"params"})


class MoreRows(Frozen):
    """Read on; answered as `OpenRows`."""

    rows: int


class OpenBackup(Frozen):
    """Begin to copy the database, as it is now, to a file beside `path`."""

    path: str


class CopyPages(Frozen):
    """Copy so many pages; answered by how many are copied, how many there are, and their size.

    `truncated` says whether any are left.
    """

    pages: int


class KeepCopy(Frozen):
    """Put the copy, which is whole, in its place; answered as `CopyPages`."""


class Close(Frozen):
    """Undo and close whatever is open."""


Step: TypeAlias = Begin | Within | Commit | OpenRows | MoreRows | OpenBackup | CopyPages | KeepCopy | Close

STEPS = (Begin, Within, Commit, OpenRows, MoreRows, OpenBackup, CopyPages, KeepCopy, Close)
"""The same, for `isinstance`."""
