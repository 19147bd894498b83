"""Steps: how a crew asks a connection for a transaction, for rows, or for a backup, piece by piece.

A connection performs a step as it runs a request, with one difference: a step leaves something open
(a transaction, a cursor, a backup) that the next step needs. All steps of one caller come in a row,
and `Close` is the last of them: after it nothing is open. `Begin`, `Commit`, `Deallocate` and
`Close` are answered by nothing; the worker ignores the value.
"""

from typing import Any, TypeAlias

from actors.values.record import Record
from actors.values.requests import Call, Parameters, Query, Script, shorten

__all__ = [
    "STEPS",
    "Begin",
    "Close",
    "Commit",
    "CopyPages",
    "Deallocate",
    "Declare",
    "Execute",
    "Fetch",
    "KeepCopy",
    "OpenBackup",
    "Step",
]


class Begin(Record):
    """Begin a transaction; a readonly one sees one state of the database."""

    readonly: bool
    isolation: str | None = None
    """The isolation level, of `ISOLATION`; `None` for the database's own. A connection that lacks
    the level refuses it with a `ValueError`."""


class Execute(Record):
    """Run a request in the transaction, and answer as for the request alone.

    An error undoes this request alone, and leaves the transaction open. If the error has rolled the
    whole transaction back, each later step but `Close` is refused with `TransactionBroken`.
    """

    request: Query | Script | Call[Any]

    def __str__(self) -> str:
        return str(self.request)


class Commit(Record):
    """Commit the transaction. After an error the worker asks for `Close`, which rolls back."""


class Declare(Record):
    """Begin to read the rows of a statement, and answer by the first of them.

    `truncated` of the `Result` says whether more rows may come. If none come, or after an error,
    the cursor is closed by itself. Without a `Begin` before it, the cursor is the only one.
    """

    cursor: int
    """The number of the cursor in later steps."""
    sql: str
    """One statement, which only reads."""
    params: Parameters
    rows: int
    """How many rows to answer at most."""
    ahead: bool
    """Whether the connection may fetch the next rows before they are asked for."""
    arrow: bool = False
    """Whether the answers may hold columns instead of rows; see `Result.of_table`."""

    _hidden = frozenset({"params"})

    def __str__(self) -> str:
        return f"Stream({shorten(self.sql)!r})"


class Fetch(Record):
    """Answer by the next rows of a cursor, as for `Declare`."""

    cursor: int
    rows: int
    """How many rows to answer at most."""
    ahead: bool
    """As for `Declare`."""


class Deallocate(Record):
    """Close one cursor, if it is still open. Never an error."""

    cursor: int


class OpenBackup(Record):
    """Begin to copy the database, as it is now, to a file beside `path`."""

    path: str


class CopyPages(Record):
    """Copy so many pages; answered by how many are copied, how many there are, and their size.

    `truncated` says whether any are left.
    """

    pages: int


class KeepCopy(Record):
    """Put the copy, which is whole, in its place; answered as `CopyPages`."""


class Close(Record):
    """Undo and close all that is open: cursors, the transaction, a backup.

    An error after which the connection is not clean must be `ConnectionLost`.
    """


Step: TypeAlias = Begin | Execute | Commit | Declare | Fetch | Deallocate | OpenBackup | CopyPages | KeepCopy | Close

STEPS = (Begin, Execute, Commit, Declare, Fetch, Deallocate, OpenBackup, CopyPages, KeepCopy, Close)
"""The same, for `isinstance`."""
