"""A transaction, or the rows of a statement, step by step."""

from typing import Any, Final

from actors.databases.postgres.transactions import Transactions, beginning
from actors.databases.postgres.wire import result_of
from actors.databases.steps import Begin, Commit, Deallocate, Declare, Execute, Fetch, Step
from actors.values.errors import SessionClosed, TransactionBroken
from actors.values.result import Result

__all__ = ["Interactive"]

_STREAM: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL cursor_tuple_fraction = 1"
"""How a stream begins. All of its rows are read, so the fastest plan for all of them is best."""


class Interactive:
    """The steps of one checkout. All methods belong to the worker's thread."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._wire = transactions.wire
        self.is_open = False
        """Whether a transaction is open that later steps need."""
        self._open_cursors: set[int] = set()
        # The cursor whose rows the caller will probably fetch next, and how many.
        self._likely: tuple[int, int] | None = None
        # Rows that were fetched ahead, or the error of fetching them.
        self._fetched: Result | Exception | None = None

    def perform(self, step: Step) -> Any:
        """Perform a step other than `Close`.

        Raises:
            TransactionBroken: the transaction is over already.
            TypeError: the step is one of a backup.
            Exception: the driver's own.
        """
        match step:
            case Begin(readonly, isolation):
                sql = beginning(isolation, readonly=readonly)
                self.is_open = True
                self._wire.command(sql)
            case Execute(request):
                self._check_open()
                return self._transactions.undone_alone(request)
            case Commit():
                self._check_open()
                self._transactions.commit()
            case Declare():
                return self._declare(step)
            case Fetch(cursor, rows, ahead):
                return self._fetch(cursor, rows, ahead=ahead)
            case Deallocate(cursor):
                self._deallocate(cursor)
            case _:
                message = "PostgreSQL makes no backups step by step: use pg_dump"
                raise TypeError(message)
        return Result()

    def forget(self) -> None:
        """Note that the checkout is over. A rollback closes its transaction and its cursors."""
        self.is_open = False
        self._open_cursors.clear()
        self._likely = self._fetched = None

    def fetch_ahead(self) -> None:
        """Fetch the rows that the caller will probably fetch next. `Fetch` raises its error."""
        likely, self._likely = self._likely, None
        if likely is not None and self._fetched is None:
            try:
                self._fetched = self._next_rows(*likely)
            except Exception as error:  # noqa: BLE001  # for the caller's next step
                self._fetched = error

    def _check_open(self) -> None:
        if not self._wire.is_in_transaction:
            message = "the transaction is over: an error before has rolled it back"
            raise TransactionBroken(message)

    def _declare(self, step: Declare) -> Result:
        if self.is_open:
            self._check_open()
        else:
            self._wire.command(_STREAM)
            self.is_open = True
        declare = f"DECLARE querycrew_{step.cursor} NO SCROLL CURSOR FOR\n{step.sql}", step.params
        fetch = f"FETCH FORWARD {step.rows} FROM querycrew_{step.cursor}", ()
        _, (bound, outcome) = self._transactions.statements_undone_alone(step, declare, fetch)
        self._open_cursors.add(step.cursor)
        return self._chunk(result_of(bound, outcome), step.cursor, step.rows, ahead=step.ahead)

    def _fetch(self, cursor: int, rows: int, *, ahead: bool) -> Result:
        self._check_open()
        if cursor not in self._open_cursors:
            message = "the stream is over"
            raise SessionClosed(message)
        fetched, self._fetched = self._fetched, None
        if fetched is None:
            fetched = self._next_rows(cursor, rows)
        if isinstance(fetched, Exception):
            raise fetched
        return self._chunk(fetched, cursor, rows, ahead=ahead)

    def _next_rows(self, cursor: int, rows: int) -> Result:
        fetch = f"FETCH FORWARD {rows} FROM querycrew_{cursor}", ()
        [(bound, outcome)] = self._transactions.statements_undone_alone("a stream", fetch)
        return result_of(bound, outcome)

    def _chunk(self, result: Result, cursor: int, rows: int, *, ahead: bool) -> Result:
        if len(result.rows) < rows:
            self._deallocate(cursor)
            return result
        if ahead:
            self._likely = cursor, rows
        return Result(result.columns, result.rows, result.rowcount, None, True)

    def _deallocate(self, cursor: int) -> None:
        self._likely = self._fetched = None
        if cursor in self._open_cursors:
            self._open_cursors.discard(cursor)
            if self._wire.is_in_transaction:
                self._wire.command(f"CLOSE querycrew_{cursor}")
