"""Transactions: their beginning and their end, and a transaction that only the crew ends."""

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import apsw

from actors.databases.answers import check_unbound
from actors.databases.sqlite.lost import is_lost
from actors.databases.sqlite.runner import Runner
from actors.databases.sqlite.sql_text import changes_rows, statements_of
from actors.system.log import log
from actors.values.errors import TransactionBroken
from actors.values.places import note_statement
from actors.values.requests import Call, Query, Script, Transaction, shorten
from actors.values.result import Result

__all__ = ["OwnTransaction", "Transactions", "call", "check_level", "run_each", "run_script"]

R = TypeVar("R")
T = TypeVar("T")

_SAVEPOINT: Final = "SAVEPOINT querycrew"
_RELEASE: Final = "RELEASE querycrew"
_UNDO: Final = f"ROLLBACK TO querycrew; {_RELEASE}"

_HOOK: Final = "querycrew"
_ROLLBACKS: Final = 10  # tries of one rollback: each interrupt hits one of them at most
_TRIES: Final = 100  # an interrupt ends by itself, unless a function has left a cursor open

_BOUND: Final = (apsw.Connection, apsw.Cursor, apsw.Blob, apsw.Backup)
"""Values that belong to a connection, or run on it: they are of no use elsewhere."""


def check_level(isolation: str | None) -> None:
    """Raise `ValueError` unless SQLite has this isolation level."""
    if isolation not in (None, "serializable"):
        message = f"isolation={isolation!r}: every transaction of SQLite is serializable"
        raise ValueError(message)


class Transactions:
    """The transactions of one open connection: begins them, commits them, rolls them back.

    All methods run in the thread of the connection.
    """

    __slots__ = ("_database", "_rolled_back", "_seal", "connection", "is_committed", "runner")

    def __init__(self, runner: Runner, seal: Callable[[Any, Any], Any], database: object) -> None:
        """Serve the connection of `runner`.

        Args:
            runner: runs the statements.
            seal: makes the answer from a value and its request, before the commit. If it raises,
                nothing has taken effect.
            database: is named in the log.
        """
        self.runner = runner
        self.connection = runner.connection
        self._seal = seal
        self._database = database
        self.is_committed = False
        """Whether the running request has taken effect. From then on each error must say so."""
        # Counts the transactions that were rolled back. SQLite may call this hook while the
        # connection is deallocated and no other part of this object is left. Python code would end
        # the process then, so the hook is a method of C.
        self._rolled_back = count()
        count_one: Any = self._rolled_back.__next__
        self.connection.set_rollback_hook(count_one, id=_HOOK)

    @property
    def rollbacks(self) -> int:
        """The number of transactions that were rolled back."""
        return int(repr(self._rolled_back)[6:-1])  # "count(3)"

    def begin(self) -> None:
        """Begin a transaction that writes.

        Raises:
            apsw.BusyError: another connection holds the lock.
        """
        self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Commit the transaction that is the whole request.

        Raises:
            Exception: nothing of the transaction has taken effect.
        """
        self.commit_part()
        self.is_committed = True

    def commit_part(self) -> None:
        """Commit the open transaction, which is a part of a request. Raises as `commit`."""
        rollbacks = self.rollbacks
        try:
            self.connection.execute("COMMIT")
        except Exception as error:
            if is_lost(error) or self.connection.in_transaction or self.rollbacks != rollbacks:
                raise
            # The error is that of a user's hook, which SQLite calls after the commit.
            log(__name__, "error", "commit_hook_failed", database=self._database, error=error)

    def roll_back(self) -> None:
        """Roll back the open transaction, if one is open.

        Raises:
            apsw.Error: the rollback has failed.
        """
        if self.connection.in_transaction:
            self.runner.close_cursor()
        tries = _ROLLBACKS
        while self.connection.in_transaction:
            try:
                self.connection.execute("ROLLBACK")
            except apsw.InterruptError:  # the interrupt was meant for the statement before
                tries -= 1
                if not tries:
                    raise  # SQLite keeps an interrupt while a cursor is open, e.g. a function's

    # --- in a transaction -----------------------------------------------------------------

    def run_sealed(self, query: Query) -> Any:
        """Run a query in the open transaction, and make its answer."""
        return self._seal(self.runner.run_query(query), query)

    def write(self, query: Query) -> Any:
        """Run one statement, which cannot end the transaction, in a transaction of its own.

        After an error the caller rolls back.
        """
        self.begin()
        value = self.run_sealed(query)
        self.commit()
        return value

    def undone_alone(self, run: Callable[[R], T], request: R) -> T:
        """Run a request in the open transaction, so that an error undoes that request alone.

        The request may end savepoints that were begun before it, and with them its own. Then it
        cannot be undone alone, and an error undoes the whole transaction.
        """
        connection, rollbacks = self.connection, self.rollbacks
        connection.execute(_SAVEPOINT)
        try:
            value = run(request)
            is_open = connection.in_transaction and self.rollbacks == rollbacks
            if is_open and not self._end_savepoint(_RELEASE) and self.runner.settings.stays_readonly:
                # The transaction may have been committed and another one begun: SQLite reports no
                # commit of a transaction that wrote nothing.
                next(self._rolled_back)
        except BaseException:
            self.runner.close_cursor()
            if connection.in_transaction and self.rollbacks == rollbacks and not self._end_savepoint(_UNDO):
                self.roll_back()
            raise
        return value

    def _end_savepoint(self, sql: str) -> bool:
        """Run the SQL that ends the savepoint; say whether there is a savepoint."""
        try:
            self.connection.execute(sql)
        except apsw.SQLError as error:
            if "no such savepoint" not in str(error):
                raise
            return False
        return True


class OwnTransaction:
    """A transaction that only this object commits; without `commit` its block ends in a rollback.

    A statement or a function may run a `COMMIT` on the connection. SQLite's commit hook turns that
    `COMMIT` into a rollback. The connection counts rollbacks. So a transaction that was begun after
    a `ROLLBACK` is not taken for this one.
    """

    def __init__(self, transactions: Transactions, *, readonly: bool) -> None:
        """Prepare a transaction. A readonly one sees one state of the database."""
        self._transactions = transactions
        self._connection: apsw.Connection = transactions.connection
        self._readonly = readonly
        self._committing = False
        self._refused = False
        self._rollbacks = 0

    def __enter__(self) -> Self:
        try:
            self.begin()
        except BaseException:
            self.end()  # an interrupt may have hit any step of `begin`
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def begin(self) -> None:
        """Begin the transaction.

        Raises:
            apsw.BusyError: the transaction writes, and another connection holds the lock.
        """
        transactions, runner = self._transactions, self._transactions.runner
        if self._readonly:
            runner.settings.set_query_only(True)
            self._connection.execute("BEGIN")
        else:
            transactions.begin()
        self._connection.set_commit_hook(self._refuses, id=_HOOK)
        self._rollbacks = transactions.rollbacks
        runner.read_schema()  # a transaction sees the state of the database at its first read
        runner.settings.stays_readonly = self._readonly

    def _refuses(self) -> bool:
        """Say whether a commit becomes a rollback. SQLite asks before each commit."""
        self._refused = not self._committing
        return self._refused

    @property
    def is_open(self) -> bool:
        """Whether the transaction is still open."""
        return self._connection.in_transaction and self._transactions.rollbacks == self._rollbacks

    def check_open(self, how: str) -> None:
        """Raise `TransactionBroken` if the transaction is over; `how` says why it is."""
        if not self.is_open:
            message = f"{how}, so all of it was rolled back: leave out BEGIN, COMMIT and ROLLBACK; SAVEPOINT is fine"
            raise TransactionBroken(message)

    def explained(self, error: Exception, how: str) -> Exception:
        """Return the error that the caller gets for an error of a statement.

        A commit that this object has refused is no fault of the database: it is a
        `TransactionBroken`.
        """
        if self._refused:
            try:
                self.check_open(how)
            except TransactionBroken as broken:
                broken.__cause__ = error
                return broken
        return error

    def commit(self) -> None:
        """Commit the transaction. If this raises, nothing of it has taken effect."""
        self._committing = True
        try:
            self._transactions.commit()
        finally:
            self._committing = False

    def end(self) -> None:
        """Roll back unless the transaction is over, and leave the connection as it was before."""
        settings = self._transactions.runner.settings
        settings.stays_readonly = False
        self._transactions.roll_back()
        self._connection.set_commit_hook(None, id=_HOOK)
        for _ in range(_TRIES if self._readonly else 0):
            with suppress(apsw.InterruptError):  # the interrupt was meant for the statement before
                settings.set_query_only(False)
                break


def run_each(transaction: Transaction, run: Callable[[Query], Result], own: OwnTransaction | None) -> list[Result]:
    """Run all queries, one after the other, in the open transaction.

    Args:
        transaction: the queries.
        run: runs one of them.
        own: the open transaction, if a statement can end it.

    Raises:
        ValueError: SQLite lacks the isolation level. No query ran.
        TransactionBroken: a query has ended the transaction.
        Exception: a query failed; a note says which one.
    """
    check_level(transaction.isolation)
    results = list[Result]()
    for number, query in enumerate(transaction.queries, 1):
        try:
            results.append(run(query))
            if own is not None and not own.is_open:
                own.check_open(_how(transaction, number))
        except Exception as failure:  # noqa: BLE001  # it is raised again, or its meaning is
            error = failure if own is None else own.explained(failure, _how(transaction, number))
            note_statement(error, f"statement {number} of {len(transaction.queries)}: {query}", query.sql)
            raise error from error.__cause__
    return results


def _how(transaction: Transaction, number: int) -> str:
    queries = transaction.queries
    return (
        f"{transaction} is one transaction, and statement {number} of {len(queries)}, {queries[number - 1]}, ended it"
    )


def run_script(script: Script, transactions: Transactions) -> Result:
    """Run a script. Each statement that changes rows is a transaction, unless one is open.

    Inside a transaction that the script has begun, an error undoes that whole transaction. After an
    error the caller rolls back.
    """
    runner = transactions.runner
    runner.counting.reset()
    for number, sql in enumerate(statements_of(script.sql), 1):
        try:
            if changes_rows(sql) and not runner.connection.in_transaction and not runner.reads_only:
                transactions.begin()
                runner.run_of_script(sql)
                transactions.commit_part()
            else:
                runner.run_of_script(sql)
        except Exception as error:
            note_statement(error, f"statement {number} of the script: {shorten(sql)!r}", sql)
            raise
    return Result((), [], runner.counting.changed, runner.counting.rowid)


def call(own: OwnTransaction, runner: Runner, request: Call[Any], how: str) -> Any:
    """Call a function in the open transaction, and return its value.

    Args:
        own: the open transaction.
        runner: has the connection that the function gets.
        request: the call.
        how: the text of the error if the function ends the transaction.

    Raises:
        TransactionBroken: the function has ended the transaction.
        TypeError: the value belongs to the connection.
        Exception: the function's own.
    """
    runner.settings.is_changed = True  # the function may do anything to the connection
    try:
        value = request.function(runner.connection, *request.args)
    except Exception as failure:  # noqa: BLE001  # it is raised again, or its meaning is
        error = own.explained(failure, how)
        raise error from error.__cause__
    finally:
        with suppress(apsw.ConnectionClosedError):
            runner.take_over()
    own.check_open(how)
    check_unbound(value, request, lambda part: isinstance(part, _BOUND))
    return value
