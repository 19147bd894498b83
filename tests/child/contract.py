"""The contract of a database. `test_contract.py` runs this suite over every kind of database.

A `Subject` describes one kind: it makes a database, and holds the SQL that differs between kinds.
The tests here are plain functions of the fixtures `subject`, `database` and `connection`."""

import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from actors.databases.base import Connection, Database
from supervisor import (
    ConnectionLost,
    Query,
    QuerycrewError,
    Result,
    Script,
    Status,
    TransactionLeftOpen,
)
from tests.conftest import eventually
from tests.support.common import RUNAWAY
from tests.support.health import same_workers


@dataclass(frozen=True)
class Subject:
    """A kind of database, as the contract sees it."""

    name: str
    make: Callable[[Path], Database]
    """Makes an empty database in a folder that belongs to one test."""
    placeholder: str = "?"
    """The placeholder of a parameter in a statement."""
    shared: bool = True
    """Whether two connections see the same data."""
    unreachable: Callable[[Path], Database] | None = None
    """Makes a database that cannot be opened."""
    script_is_one_transaction: bool = False
    """Whether a `Script` without BEGIN is one transaction."""
    runaway: str = RUNAWAY
    """A query that runs until it is interrupted."""
    values: tuple[Any, ...] = field(default=(None, 0, 2**63 - 1, -(2**63), 1.5, "text \0 \U0001f600", b"\0\xff"))
    """Values that a query returns exactly as they were bound."""

    def __str__(self) -> str:
        return self.name


# --- helpers ------------------------------------------------------------------------------


def fill(connection: Connection) -> None:
    connection.execute(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1), (2)"))


def numbers(connection: Connection) -> list[int]:
    return connection.execute(Query("SELECT number FROM kept ORDER BY number")).column("number")


def fails(connection: Connection, request: Query | Script) -> Exception:
    """Run a request that must fail, and return its error.

    The error is the driver's own, so the connection is not lost.
    """
    with pytest.raises(Exception) as caught:  # each driver has its own
        connection.execute(request)
    assert not isinstance(caught.value, (ConnectionLost, QuerycrewError)), caught.value
    return caught.value


# --- the database -------------------------------------------------------------------------


def test_a_database_is_a_small_value_that_can_be_pickled(database):
    assert pickle.loads(pickle.dumps(database)) == database
    assert len(pickle.dumps(database)) < 1000
    assert isinstance(database.name, str)
    assert database.name
    assert type(database).__name__ in str(database)


def test_a_database_that_cannot_be_opened_raises_at_once(subject, tmp_path):
    if subject.unreachable is None:
        pytest.skip("this kind can always be opened")
    with pytest.raises(Exception):  # noqa: B017  # each driver has its own
        subject.unreachable(tmp_path).connect()


# --- answering ----------------------------------------------------------------------------


def test_an_answer_has_columns_and_plain_tuples(connection):
    fill(connection)
    result = connection.execute(Query("SELECT number, number + 10 AS more FROM kept ORDER BY number"))
    assert type(result) is Result
    assert result.columns == ("number", "more")
    assert result.rows == [(1, 11), (2, 12)]
    assert [type(row) for row in result.rows] == [tuple, tuple]
    assert (result.rowcount, result.lastrowid) == (2, None)


def test_an_answer_belongs_to_no_connection(database):
    connection = database.connect()
    try:
        result = connection.execute(Query("SELECT 1 AS one"))
    finally:
        connection.close()
    assert pickle.loads(pickle.dumps(result)) == result
    assert result.dicts() == [{"one": 1}]


def test_an_answer_without_rows_still_has_its_columns(connection):
    fill(connection)
    for _ in ("for the first time", "and again"):
        result = connection.execute(Query("SELECT number AS n FROM kept WHERE number > 5"))
        assert (result.columns, result.rows, result.rowcount) == (("n",), [], 0)


def test_a_statement_that_writes_returns_the_number_of_changed_rows(connection):
    fill(connection)
    for sql, changed in (
        ("INSERT INTO kept VALUES (3), (4), (5)", 3),
        ("UPDATE kept SET number = number + 100 WHERE number > 3", 2),
        ("DELETE FROM kept WHERE number > 100", 2),
        ("DELETE FROM kept WHERE number > 100", 0),
    ):
        result = connection.execute(Query(sql))
        assert (result.columns, result.rows, result.rowcount) == ((), [], changed), sql


def test_values_come_back_as_they_went_in(subject, connection):
    query = Query(f"SELECT {', '.join([subject.placeholder] * len(subject.values))}", subject.values)
    [row] = connection.execute(query).rows
    assert [(type(value), value) for value in row] == [(type(value), value) for value in subject.values]


def test_other_connections_see_an_acknowledged_write(subject, database, connection):
    if not subject.shared:
        pytest.skip("no other connection sees this database")
    fill(connection)
    other = database.connect()
    try:
        assert numbers(other) == [1, 2]
    finally:
        other.close()


# --- failing ------------------------------------------------------------------------------


def test_an_error_of_a_statement_is_the_drivers_own_and_the_connection_stays_usable(subject, connection):
    fill(connection)
    for request in (
        Query("SELECT missing FROM nowhere"),
        Query("SELECT FROM WHERE"),
        Query(f"SELECT {subject.placeholder}"),
        Query(f"SELECT {subject.placeholder}", (1, 2)),
        Query(f"SELECT {subject.placeholder}", (object(),)),
        Script("SELECT missing FROM nowhere"),
    ):
        fails(connection, request)
        assert numbers(connection) == [1, 2]


def test_a_statement_that_fails_half_way_has_done_nothing(connection):
    fill(connection)
    fails(connection, Query("INSERT INTO kept VALUES (3), (4), (1)"))
    assert numbers(connection) == [1, 2]


def test_an_error_that_is_kept_keeps_no_lock(subject, database, connection):
    if not subject.shared:
        pytest.skip("no other connection needs a lock on this database")
    fill(connection)
    kept = fails(connection, Query("INSERT INTO kept VALUES (3), (4), (1)"))
    other = database.connect()
    try:
        other.execute(Query("INSERT INTO kept VALUES (5)"))
    finally:
        other.close()
    assert kept.__traceback__ is not None, "the test keeps the error together with its frames"
    assert numbers(connection) == [1, 2, 5]


def test_a_query_is_one_statement(connection):
    fill(connection)
    fails(connection, Query("INSERT INTO kept VALUES (3); DELETE FROM kept"))
    assert numbers(connection) == [1, 2]


# --- transactions -------------------------------------------------------------------------


def test_a_transaction_left_open_is_rolled_back_and_reported(subject, connection):
    fill(connection)
    with pytest.raises(TransactionLeftOpen) as caught:
        connection.execute(Query("BEGIN"))
    assert caught.value.executed is False
    with pytest.raises(TransactionLeftOpen) as caught:
        connection.execute(Script("INSERT INTO kept VALUES (3); BEGIN; INSERT INTO kept VALUES (4)"))
    assert caught.value.executed is None, "the first statement of the script was committed"
    assert numbers(connection) == ([1, 2] if subject.script_is_one_transaction else [1, 2, 3])


def test_a_script_runs_its_statements_one_after_the_other(connection):
    fill(connection)
    result = connection.execute(
        Script("BEGIN; INSERT INTO kept VALUES (3); DELETE FROM kept WHERE number < 3; COMMIT; SELECT 1")
    )
    assert (result.columns, result.rows) == ((), [])
    assert numbers(connection) == [3]


def test_an_error_in_the_middle_of_a_script_keeps_earlier_commits(connection):
    fill(connection)
    fails(
        connection,
        Script(
            "BEGIN; INSERT INTO kept VALUES (3); COMMIT; BEGIN; INSERT INTO kept VALUES (4); "
            "INSERT INTO kept VALUES (1); COMMIT"
        ),
    )
    assert numbers(connection) == [1, 2, 3]


# --- interrupting and closing -------------------------------------------------------------


def test_an_interrupt_from_another_thread_ends_the_running_statement(subject, connection):
    fill(connection)
    ended: list[BaseException] = []

    def run() -> None:
        try:
            connection.execute(Query(subject.runaway))
        except BaseException as error:  # the assertions below check it
            ended.append(error)

    thread = threading.Thread(target=run, name="runaway")
    thread.start()

    def interrupted() -> bool:
        connection.interrupt()  # repeated, since SQLite ignores an interrupt before the first step
        return not thread.is_alive()

    assert eventually(interrupted)
    thread.join()
    [error] = ended
    assert isinstance(error, Exception)
    assert not isinstance(error, ConnectionLost)
    assert numbers(connection) == [1, 2]


def test_an_interrupt_of_an_idle_connection_harms_nothing(connection):
    fill(connection)
    for _ in range(20):
        connection.interrupt()
        assert numbers(connection) == [1, 2]


def test_a_closed_connection_can_be_closed_and_interrupted_and_does_nothing_else(database):
    connection = database.connect()
    connection.close()
    connection.close()
    connection.interrupt()
    with pytest.raises(ConnectionLost) as caught:
        connection.execute(Query("SELECT 1"))
    assert caught.value.__cause__ is not None, "the cause is the driver's error"


# --- in a crew ----------------------------------------------------------------------------


def test_a_crew_gives_every_caller_its_own_answer(subject, start, database):
    db = start(database, size=database.max_size or 4)
    sql = f"SELECT {subject.placeholder} + 1"
    wrong: list[object] = []

    def ask(first: int) -> None:
        replies = [(number, db.ask(Query(sql, (number,)), block=False)) for number in range(first, first + 50)]
        wrong.extend(number for number, reply in replies if reply.get(timeout=30).scalar() != number + 1)

    callers = [threading.Thread(target=ask, args=(first,)) for first in range(0, 400, 100)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []
    assert db.ask(Status()).answered == 200


def test_errors_of_statements_cost_no_worker(start, database):
    db = start(database, size=1)
    db.ask(Query("SELECT 1"))
    with same_workers(db):
        for _ in range(5):
            error = db.ask(Query("SELECT missing FROM nowhere"), block=False).exception(10)
            assert "nowhere" in str(error)
            assert any("SELECT missing FROM nowhere" in note for note in error.__notes__)
        assert db.ask(Query("SELECT 1")).scalar() == 1
    assert db.ask(Status()).failed == 5
