"""Bugs to plant into the connections. The differential test must find each of them."""

from dataclasses import dataclass
from typing import Any

import apsw

from actors.databases.sqlite import settings as sqlite_settings
from actors.databases.sqlite import transactions as sqlite_transactions
from actors.databases.sqlite.connection import SQLiteConnection
from actors.databases.sqlite.counting import Counting
from actors.databases.sqlite.interactive import Steps
from actors.databases.sqlite.runner import Runner
from actors.databases.sqlite.statement import StatementFacts, admit_all
from actors.databases.sqlite.transactions import OwnTransaction, Transactions
from actors.databases.sqlite.writer import SQLiteWriter, _Group
from actors.databases.steps import Declare, Fetch
from actors.values.requests import Query
from actors.values.result import Result

_run, _sealed, _fetch, _commit = (*(Runner.run_query, Transactions.run_sealed, Runner._fetch, Transactions.commit),)
_read_known, _begin_shared = Runner.read_known, SQLiteConnection._begin_shared
_next, _answer, _is_undone = _Group.next, _Group.answer, SQLiteWriter._is_undone
_begin, _end, _fetch_step = Counting.begin, Counting.end, Steps._fetch


def _columns_are_not_looked_at_again(
    self: Runner, cursor: apsw.Cursor, facts: StatementFacts | None, sql: str, params: Any
) -> Any:
    return () if facts is None else facts.columns


def _the_changes_of_triggers_count(self: Counting) -> None:
    facts, counted = self._runs, self.changed
    _end(self)
    if facts is not None and facts.counts and self.changed > counted:
        self.changed = counted + self._connection.total_changes() - _Before.count


class _Before:
    count = 0


def _note_all_changes(self: Counting, facts: StatementFacts) -> None:
    _Before.count = self._connection.total_changes()
    _begin(self, facts)


def _the_number_that_hides_a_rowid_is_seen(self: Counting) -> int:
    return self._connection.last_insert_rowid()


def _every_change_is_an_insert(self: Counting, facts: StatementFacts) -> None:
    facts.inserts = facts.counts
    _begin(self, facts)


def _an_error_undoes_nothing(self: Transactions, run: Any, request: Any) -> Any:
    self.runner.statement.admits = admit_all
    return run(request)


def _an_insert_runs_twice(self: Transactions, query: Query) -> Any:
    if query.sql.startswith("INSERT INTO log"):
        _sealed(self, query)
    return _sealed(self, query)


def _a_commit_is_left_out(self: Transactions) -> None:
    if self.connection.changes() == 2:
        self.connection.execute("ROLLBACK")
    else:
        _commit(self)


def _the_last_write_comes_first(self: _Group) -> Any:
    if self._first is None:
        self.waiting.extend(iter(self.batch.begin, None))
        self.waiting.reverse()
    return _next(self)


def _neighbours_get_each_others_answers(self: _Group) -> None:
    values = [value for _, value in self.ran]
    self.ran = [(task, value) for (task, _), value in zip(self.ran, values[1:] + values[:1], strict=True)]
    _answer(self)


def _a_kept_part_counts_as_undone(self: SQLiteWriter, error: Exception, group: _Group) -> bool:
    return isinstance(error, apsw.ConstraintError) or _is_undone(self, error, group)


def _there_is_a_row_too_many(self: Runner, most: int | None) -> Any:
    return _fetch(self, None if most is None else most + 1)


def _the_last_row_of_a_chunk_is_lost(self: Steps, step: Declare | Fetch) -> Result:
    result = _fetch_step(self, step)
    return Result(result.columns, result.rows[:-1], truncated=result.truncated)


def _a_text_ends_at_its_null(self: Runner, query: Query) -> Result:
    result = _run(self, query)
    rows = [tuple(value.split("\0")[0] if isinstance(value, str) else value for value in row) for row in result.rows]
    return Result(result.columns, rows, result.rowcount, result.lastrowid, result.truncated)


def _a_row_of_a_quick_read_is_lost(self: Runner, query: Query, facts: StatementFacts) -> Result:
    result = _read_known(self, query, facts)
    return Result(result.columns, result.rows[:-1], result.rowcount)


def _the_connection_stays_as_it_is(self: SQLiteConnection) -> None:
    self._settings.is_changed = False


@dataclass(frozen=True)
class Mutant:
    """A bug: new attributes of a class or a module."""

    what: str
    owner: Any
    parts: dict[str, Any]
    kind: str = "memory"
    """The kind of crew on which it shows."""

    def __str__(self) -> str:
        return self.what


MUTANTS = [
    Mutant("columns as before a change of the schema", Runner, {"_columns": _columns_are_not_looked_at_again}),
    Mutant(
        "the changes of triggers count", Counting, {"begin": _note_all_changes, "end": _the_changes_of_triggers_count}
    ),
    Mutant("a rowid is hidden from SQL", Counting, {"last_rowid": _the_number_that_hides_a_rowid_is_seen}),
    Mutant("every change is an insert", Counting, {"begin": _every_change_is_an_insert}),
    Mutant("a pragma with an old schema", Runner, {"read_schema": lambda self, schema=None: None}, "file"),
    Mutant("an error in a session undoes nothing", Transactions, {"undone_alone": _an_error_undoes_nothing}),
    Mutant("an error in a script undoes nothing", sqlite_transactions, {"changes_rows": lambda sql: False}),
    Mutant("a statement runs twice", Transactions, {"run_sealed": _an_insert_runs_twice}),
    Mutant("a commit is left out", Transactions, {"commit": _a_commit_is_left_out}),
    Mutant("writes in another order", _Group, {"next": _the_last_write_comes_first}, "file"),
    Mutant("another one's answer", _Group, {"answer": _neighbours_get_each_others_answers}, "file"),
    Mutant(
        "a part that was kept counts as undone", SQLiteWriter, {"_is_undone": _a_kept_part_counts_as_undone}, "file"
    ),
    Mutant("a row of a quick read is lost", Runner, {"read_known": _a_row_of_a_quick_read_is_lost}, "file"),
    Mutant(
        "reads see an old state",
        SQLiteConnection,
        {"_begin_shared": lambda self, is_alone: _begin_shared(self, False), "_end_shared": lambda self: None},
        "file",
    ),
    Mutant("a row too many", Runner, {"_fetch": _there_is_a_row_too_many}),
    Mutant("a row of a stream is lost", Steps, {"_fetch": _the_last_row_of_a_chunk_is_lost}),
    Mutant("a text ends at its null character", Runner, {"run_query": _a_text_ends_at_its_null}),
    Mutant("an error leaves its cursor open", Runner, {"close_cursor": lambda self: None}, "rollback journal"),
    Mutant("the next job finds the settings", SQLiteConnection, {"_renew": _the_connection_stays_as_it_is}, "file"),
    Mutant("a transaction that is over goes on", OwnTransaction, {"check_open": lambda self, how: None}),
    Mutant("a switch without effect", sqlite_settings, {"_check_changes_nothing": lambda connection, value: None}),
]
