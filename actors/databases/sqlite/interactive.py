"""The steps of a checkout on a SQLite connection: a transaction, rows, or a backup."""

import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import apsw

from actors.databases.rows import OpenRows, Rows
from actors.databases.sqlite.statement import NeedsTransaction, admit_all, admit_alone
from actors.databases.sqlite.transactions import OwnTransaction, Transactions, call, check_level, run_script
from actors.databases.steps import (
    Begin,
    Commit,
    CopyPages,
    Deallocate,
    Declare,
    Execute,
    Fetch,
    KeepCopy,
    OpenBackup,
    Step,
)
from actors.values.requests import Call, Query, Script
from actors.values.result import Result

if TYPE_CHECKING:
    from actors.databases.sqlite.backup import Copy

__all__ = ["Steps"]


class Steps:
    """Everything that stays open on a connection between two steps.

    All methods run in the thread of the connection.
    """

    def __init__(self, transactions: Transactions, seal: Callable[[Any, Any], Any]) -> None:
        """Perform steps on a connection.

        Args:
            transactions: the transactions of the connection.
            seal: makes an answer from a value and its request.
        """
        self._transactions = transactions
        self._runner = transactions.runner
        self._seal = seal
        self._own: OwnTransaction | None = None
        self._cursors = OpenRows()
        self._copy: Copy | None = None

    @property
    def is_open(self) -> bool:
        """Whether anything is open that later steps need."""
        return self._own is not None or bool(self._cursors)

    def perform(self, step: Step) -> Any:
        """Perform a step other than `Close`.

        Raises:
            TransactionBroken: the transaction is over already.
            Exception: the driver's own.
        """
        match step:
            case Begin(readonly, isolation):
                check_level(isolation)
                return self._begin(readonly)
            case Execute(request):
                return self._execute(request)
            case Commit():
                return self._commit()
            case Declare():
                return self._declare(step)
            case Fetch():
                return self._fetch(step)
            case Deallocate(cursor):
                self._cursors.close(cursor)
                return Result()
            case OpenBackup(path):
                return self._open_backup(path)
            case CopyPages(pages):
                assert self._copy is not None
                return self._copy.copy_pages(pages)
            case KeepCopy():
                assert self._copy is not None
                return self._copy.keep()
        message = f"a connection to SQLite does not know {step!r}"
        raise TypeError(message)

    def close(self) -> None:
        """Close everything that is open.

        Raises:
            apsw.Error: the connection is lost.
        """
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.close()
        self._cursors.close_all()
        if self._own is not None:
            self._own.end()
        else:
            self._transactions.roll_back()

    # --- a transaction --------------------------------------------------------------------

    def _begin(self, readonly: bool) -> Result:
        self._own = OwnTransaction(self._transactions, readonly=readonly)
        self._own.begin()
        return Result()

    def _execute(self, request: Query | Script | Call[Any]) -> Any:
        own, how = self._opened(), f"the transaction is over: {request} ended it"
        try:
            match request:
                case Query():
                    value = self._query(request)
                case Script():
                    value = self._undone_alone(self._script, request)
                case Call():
                    value = self._undone_alone(lambda request: self._called(own, request, how), request)
            own.check_open(how)
        except Exception as failure:  # noqa: BLE001  # it is raised again, or its meaning is
            error = own.explained(failure, how)
            raise error from error.__cause__
        return value

    def _query(self, query: Query) -> Any:
        """Run a query. An error undoes that query alone, unless SQLite rolls back everything."""
        if query.many is None:
            self._runner.statement.admits = admit_alone
            try:
                return self._transactions.run_sealed(query)
            except NeedsTransaction:
                pass
        return self._undone_alone(self._transactions.run_sealed, query)

    def _script(self, script: Script) -> Any:
        return self._seal(run_script(script, self._transactions), script)

    def _open_backup(self, path: str) -> Result:
        from actors.databases.sqlite.backup import Copy  # few programs make backups

        self._begin(readonly=True)
        self._copy = Copy(self._runner.connection, path)
        return Result()

    def _undone_alone(self, run: Callable[[Any], Any], request: Query | Script | Call[Any]) -> Any:
        self._runner.statement.admits = admit_all
        return self._transactions.undone_alone(run, request)

    def _called(self, own: OwnTransaction, request: Call[Any], how: str) -> Any:
        runner, settings = self._runner, self._runner.settings
        locks = request.readonly and not runner.reads_only and not settings.stays_readonly
        if locks:
            settings.set_query_only(True)
            settings.stays_readonly = True
        try:
            value = call(own, runner, request, how)
        finally:
            if locks:
                settings.stays_readonly = False
                settings.set_query_only(False)
        return self._seal(value, request)

    def _commit(self) -> Result:
        own = self._opened()
        self._cursors.close_all()
        own.commit()
        return Result()

    def _opened(self) -> OwnTransaction:
        assert self._own is not None
        self._own.check_open("the transaction is over: an error before has rolled it back")
        return self._own

    # --- rows -----------------------------------------------------------------------------

    def _declare(self, step: Declare) -> Result:
        if self._own is not None:
            self._opened()
        self._cursors.open(step.cursor, _Rows(*self._runner.open_rows(step.sql, step.params)))
        return self._cursors.fetch(step)

    def _fetch(self, step: Fetch) -> Result:
        if self._own is not None:
            self._opened()
        self._cursors.check(step.cursor)
        return self._cursors.fetch(step)

    def fetch_ahead(self) -> None:
        """Fetch the rows that the caller will probably fetch next. `Fetch` raises its error."""
        self._cursors.fetch_ahead()


class _Rows(Rows):
    """The rows of one statement, read in chunks."""

    def __init__(self, cursor: apsw.Cursor, columns: tuple[str, ...]) -> None:
        super().__init__()
        self._cursor = cursor
        self._columns = columns
        self._rows: Iterator[tuple[Any, ...]] = iter(cursor)

    def next_chunk(self, most: int) -> Result:
        """Return the next rows; see `Rows`."""
        most = min(most, sys.maxsize)
        rows = list(islice(self._rows, most))
        return Result(self._columns, rows, len(rows), None, len(rows) == most)

    def close(self) -> None:
        """Close the cursor."""
        self._rows, self._fetched = iter(()), None
        self._cursor.close(True)
