"""Mutants of the library, each with a bug that the campaign must find."""

import time
from dataclasses import dataclass
from typing import Any

from actors.databases.executor import Batch
from actors.databases.sqlite.connection import READER, SQLiteConnection
from actors.databases.sqlite.database import SQLite
from actors.databases.sqlite.transactions import OwnTransaction, Transactions
from actors.databases.sqlite.writer import SQLiteWriter, _Group
from actors.dispatch.job import Job

__all__ = ["MUTANTS", "PackingLate"]

_commit, _roll_back, _check_closed = Transactions.commit, Transactions.roll_back, SQLiteConnection._check_closed
_run_together, _undo, _end = SQLiteWriter._run_together, SQLiteWriter._undo, OwnTransaction.end
_keep_promise = Job._keep_promise


def _read_after_the_commit(transactions: Transactions) -> None:
    """Commit, and then run one more short statement, as for the names of columns."""
    _commit(transactions)
    transactions.connection.execute("SELECT count(*) FROM seed WHERE i < 3000").fetchall()


def _promise_the_commit(transactions: Transactions) -> None:
    """Answer as after a commit, even if an interrupt came in the 50 µs before the commit."""
    time.sleep(50e-6)
    if transactions.connection.is_interrupted:
        transactions.roll_back()
    else:
        _commit(transactions)


def _put_off_the_commit(transactions: Transactions) -> None:
    """Leave the commit to the next request."""
    transactions.runner.settings.stays_readonly = True


def _commit_late(writer: SQLiteWriter, *group: Any) -> None:
    """Commit the group before, and run a group."""
    if writer._settings.stays_readonly and writer.connection.in_transaction:
        writer._settings.stays_readonly = False
        _commit(writer._transactions)
    _run_together(writer, *group)


def _keep_outstanding(transactions: Transactions) -> None:
    """Roll back, unless a commit is outstanding."""
    if not transactions.runner.settings.stays_readonly:
        _roll_back(transactions)


def _accept_outstanding(connection: SQLiteConnection, request: Any) -> None:
    """Look for a transaction that was left open, unless a commit is outstanding."""
    if not connection._settings.stays_readonly:
        _check_closed(connection, request)


def _deny_effect(job: Job, executed: bool | None, cause: BaseException | None) -> bool:
    """Report `executed=False` to every caller that cancelled, also after a late cancel."""
    del executed
    return _keep_promise(job, False, cause)


def _drop_the_others(writer: SQLiteWriter, group: Any, task: Any, error: Exception) -> None:
    """Undo a group, and answer its other members as if they were not undone."""
    ran = list(group.ran)
    _undo(writer, group, task, error)
    for other, value in ran:
        if other in group.waiting:
            group.waiting.remove(other)
            group.batch.answer(other, value)


def _blame_the_others(writer: SQLiteWriter, group: Any, task: Any, error: Exception) -> None:
    """Undo a group, and fail all members with its error."""
    ran = list(group.ran)
    _undo(writer, group, task, error)
    for other, _ in ran:
        if other in group.waiting:
            group.waiting.remove(other)
            group.batch.fail(other, error)


def _keep_a_part(own: OwnTransaction) -> None:
    """Commit a transaction that was interrupted."""
    if own._connection.in_transaction and not own._readonly:
        own._committing = True
        own._transactions.runner.close_cursor()
        _commit(own._transactions)
    _end(own)


def _interrupt_running(batch: Batch, task: Any) -> None:
    """Interrupt the running statement in the place of the right statement."""
    del task
    batch.connection.interrupt()


def _report_none(group: _Group) -> "list[Any]":
    """Report no other statement as the target of the interrupt."""
    del group
    return []


MUTANTS: dict[str, list[tuple[object, str, Any]]] = {
    "an interrupt after the commit becomes an error": [(Transactions, "commit", _read_after_the_commit)],
    "an interrupt just before the commit undoes an answered write": [(Transactions, "commit", _promise_the_commit)],
    "the answer comes before the commit": [
        (Transactions, "commit", _put_off_the_commit),
        (Transactions, "roll_back", _keep_outstanding),
        (SQLiteConnection, "_check_closed", _accept_outstanding),
        (SQLiteWriter, "_run_together", _commit_late),
    ],
    "executed=False of a committed write": [(Job, "_keep_promise", _deny_effect)],
    "the others of a group are answered and not begun again": [(SQLiteWriter, "_undo", _drop_the_others)],
    "the others of a group get its error": [(SQLiteWriter, "_undo", _blame_the_others)],
    "a part of an interrupted transaction is committed": [(OwnTransaction, "end", _keep_a_part)],
    "an interrupt hits a neighbour": [
        (Batch, "interrupt", _interrupt_running),
        (_Group, "take_unwanted", _report_none),
    ],
}
"""The mutants for worker threads. Each replaces attributes: the owner, the name and the value."""


class _LateWriter(SQLiteWriter):
    """A writer that packs answers after the commit."""

    @property  # type: ignore[override]
    def seal(self) -> Any:
        return lambda value, request: value

    @seal.setter
    def seal(self, pack: Any) -> None:
        """Ignore the value."""


@dataclass(frozen=True)
class PackingLate:
    """A SQLite file, for children, whose writer packs answers after the commit."""

    database: SQLite
    writes: bool = False

    @property
    def name(self) -> str:
        return self.database.name

    @property
    def max_size(self) -> int | None:
        return None

    def lanes(self) -> "tuple[Any, PackingLate]":
        return self.database.lanes()[0], PackingLate(self.database, writes=True)

    def connect(self) -> SQLiteConnection:
        return _LateWriter(self.database) if self.writes else SQLiteConnection(self.database, READER)
