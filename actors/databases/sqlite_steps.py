"""What SQLite does in a conversation: a transaction, the rows of a statement, or a backup, step by step."""

import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import apsw

from actors.databases.sqlite_backup import Copy
from actors.databases.sqlite_transactions import OwnTransaction
from actors.databases.steps import (
    Begin,
    Commit,
    CopyPages,
    KeepCopy,
    MoreRows,
    OpenBackup,
    OpenRows,
    Step,
    Within,
)
from actors.messages import Query
from actors.result import Result

if TYPE_CHECKING:
    from actors.databases.sqlite_connection import SQLiteConnection

__all__ = ["Steps"]


class Steps:
    """What is open on a connection between two steps; used by that connection alone."""

    def __init__(self, owner: "SQLiteConnection") -> None:
        self._owner = owner
        self._connection: apsw.Connection = owner.connection
        self._own: OwnTransaction | None = None
        # Of the rows of a statement.
        self._cursor: apsw.Cursor | None = None
        self._rows: Iterator[tuple[Any, ...]] = iter(())
        self._columns: tuple[str, ...] = ()
        # How many at a time, and those that were fetched ahead, or what went wrong.
        self._most = 0
        self._fetched: list[tuple[Any, ...]] | BaseException | None = None
        self._copy: Copy | None = None

    @property
    def are_open(self) -> bool:
        """Whether a conversation is under way, which the connection is kept for as it is."""
        return self._own is not None or self._cursor is not None or self._copy is not None

    def perform(self, step: Step) -> Any:
        """Perform a step, except for `Close`.

        Raises:
            TransactionBroken: the transaction is over already.
            Exception: the driver's own.
        """
        match step:
            case Begin(readonly):
                return self._begin(readonly)
            case Within(query):
                return self._within(query)
            case Commit():
                return self._commit()
            case OpenRows(sql, params, rows):
                self._cursor, self._columns = self._owner.opened_rows(sql, params)
                self._rows = iter(self._cursor)
                return self._more(rows)
            case MoreRows(rows):
                return self._more(rows)
            case OpenBackup(path):
                self._begin(readonly=True)
                self._copy = Copy(self._connection, path)
                return Result()
            case CopyPages(pages):
                assert self._copy is not None
                return self._copy.go_on(pages)
            case KeepCopy():
                assert self._copy is not None
                return self._copy.keep()
        message = f"a connection to SQLite does not know {step!r}"
        raise TypeError(message)

    def close(self) -> None:
        """Let go of whatever is open. Raises what the driver does, of a connection of which nothing more can be had."""
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.close()
        if self._cursor is not None:
            self._rows, self._fetched = iter(()), None
            self._cursor.close(True)
            self._cursor = None
        if self._own is not None:
            self._own.end()
        else:
            self._owner.roll_back()

    # --- a transaction --------------------------------------------------------------------

    def _begin(self, readonly: bool) -> Result:
        self._own = OwnTransaction(self._owner, readonly=readonly)
        self._own.begin()
        return Result()

    def _within(self, query: Query) -> Any:
        own = self._opened()
        try:
            result = self._owner.run_within(query)
            own.check_open(f"the transaction is over: {query} ended it")
        except Exception as failure:  # noqa: BLE001  # it is raised again, or what it means is
            error = own.explained(failure, f"the transaction is over: {query} ended it")
            raise error from error.__cause__
        return result

    def _commit(self) -> Result:
        self._opened().commit()
        return Result()

    def _opened(self) -> OwnTransaction:
        assert self._own is not None
        self._own.check_open("the transaction is over: an error before has rolled it back")
        return self._own

    # --- rows -----------------------------------------------------------------------------

    def _more(self, most: int) -> Result:
        self._most = min(most, sys.maxsize)
        if self._fetched is None:
            self.fetch_ahead()
        fetched, self._fetched = self._fetched, None
        if not isinstance(fetched, list):
            assert fetched is not None
            raise fetched
        return Result(self._columns, fetched, len(fetched), None, len(fetched) == self._most)

    def fetch_ahead(self) -> None:
        """Fetch the rows that are asked for next, if that is likely. What goes wrong is raised then."""
        if self._cursor is None or self._fetched is not None:
            return
        try:
            self._fetched = list(islice(self._rows, self._most))
        except BaseException as error:  # noqa: BLE001  # it is for whoever asks for these rows
            self._fetched = error
