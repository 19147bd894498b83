"""The contract of a database. `test_contract.py` runs this suite over every kind of database.

A `Subject` describes one kind: it makes a database, and holds the SQL that differs between kinds.
The tests here are plain functions of the fixtures `subject`, `database` and `connection`."""

import os
import pickle
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from actors.databases.base import Connection, Database
from supervisor import (
    Call,
    ChildProcess,
    ConnectionLost,
    Query,
    QueryCancelled,
    QuerycrewError,
    QueryTimeout,
    RestartPolicy,
    Result,
    Script,
    Status,
    Stream,
    SupervisorStopped,
    Transaction,
    TransactionBroken,
    TransactionLeftOpen,
    WorkerDied,
)
from tests.conftest import eventually
from tests.support.call_functions import insert_both, insert_later
from tests.support.common import RUNAWAY, error_of
from tests.support.health import is_idle, same_workers

MANY_ROWS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) SELECT i FROM n"


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
    many_rows: str = MANY_ROWS
    """A query with the numbers from 1 to 100,000, in order."""
    readonly: bool = True
    """Whether it has transactions that only read."""
    missing_isolation: str = "read uncommitted"
    """An isolation level that it lacks."""
    savepoints: bool = True
    """Whether an error in a transaction undoes its own request alone."""
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
    assert not isinstance(error, ConnectionLost), repr(error.__cause__)
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


# --- transactions in a crew ---------------------------------------------------------------


@pytest.fixture
def crew(start, database):
    """A crew with one worker that does everything, or with one of each kind, and three numbers."""
    db = start(database, size=1, restart=RestartPolicy(backoff_initial=0.0))
    db.ask(Script("CREATE TABLE kept(number INTEGER PRIMARY KEY); INSERT INTO kept VALUES (1), (2)"))
    return db


def kept(db) -> list[int]:
    return db.ask(Query("SELECT number FROM kept ORDER BY number")).column("number")


def test_a_transaction_takes_effect_as_a_whole_or_not_at_all(crew):
    inserted, counted = crew.ask(
        Transaction([Query("INSERT INTO kept VALUES (3), (4)"), Query("SELECT count(*) FROM kept")])
    )
    assert (inserted.rowcount, counted.scalar()) == (2, 4)
    error = error_of(
        crew.ask(Transaction([Query("INSERT INTO kept VALUES (5)"), Query("INSERT INTO kept VALUES (1)")]), block=False)
    )
    assert isinstance(error, crew.errors)
    assert any("statement 2 of 2" in note for note in error.__notes__)
    assert kept(crew) == [1, 2, 3, 4]


def test_a_transaction_cannot_be_ended_from_inside(crew):
    error = error_of(crew.ask(Transaction([Query("INSERT INTO kept VALUES (3)"), Query("COMMIT")]), block=False))
    assert isinstance(error, TransactionBroken)
    assert error.executed is False
    assert kept(crew) == [1, 2]


def test_a_readonly_transaction_writes_nothing(subject, crew):
    if not subject.readonly:
        pytest.skip("this kind has no transactions that only read")
    counted = crew.ask(Transaction([Query("SELECT count(*) FROM kept")], readonly=True))
    assert counted[0].scalar() == 2
    assert isinstance(
        error_of(crew.ask(Transaction([Query("INSERT INTO kept VALUES (3)")], readonly=True), block=False)), crew.errors
    )
    crew.ask(Query("INSERT INTO kept VALUES (4)"))
    assert kept(crew) == [1, 2, 4]


def test_an_isolation_level_that_is_missing_is_refused(subject, crew):
    insert = Query("INSERT INTO kept VALUES (3)")
    error = error_of(crew.ask(Transaction([insert], isolation=subject.missing_isolation), block=False))
    assert isinstance(error, ValueError)
    assert subject.missing_isolation in str(error)
    assert kept(crew) == [1, 2]


def test_many_runs_take_effect_together_or_not_at_all(subject, crew):
    sql = f"INSERT INTO kept VALUES ({subject.placeholder})"
    assert crew.ask(Query(sql, many=[(3,), (4,), (5,)])).rowcount == 3
    assert crew.ask(Query(sql, many=[])).rowcount == 0
    assert isinstance(error_of(crew.ask(Query(sql, many=[(6,), (7,), (1,)]), block=False)), crew.errors)
    assert kept(crew) == [1, 2, 3, 4, 5]


def test_a_call_is_a_transaction_with_the_drivers_connection(crew):
    assert crew.ask(Call(insert_both, 3, 4)) == 7
    assert isinstance(error_of(crew.ask(Call(insert_both, 5, 1), block=False)), crew.errors)
    assert isinstance(error_of(crew.ask(Call(insert_later, 5), block=False)), TypeError)
    assert kept(crew) == [1, 2, 3, 4]


def test_a_session_commits_or_rolls_back(crew):
    with crew.transaction() as tx:
        tx.ask(Query("INSERT INTO kept VALUES (3)"))
        assert tx.ask(Query("SELECT count(*) FROM kept")).scalar() == 3
        tx.ask(Script("INSERT INTO kept VALUES (4); INSERT INTO kept VALUES (5)"))
        assert tx.ask(Call(insert_both, 6, 7)) == 13
    assert kept(crew) == [1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(LookupError), crew.transaction() as tx:
        tx.ask(Query("DELETE FROM kept"))
        raise LookupError
    assert kept(crew) == [1, 2, 3, 4, 5, 6, 7]


def test_an_error_in_a_session_undoes_its_request_or_the_whole_session(subject, crew):
    with pytest.raises(TransactionBroken), crew.transaction() as tx:
        tx.ask(Query("INSERT INTO kept VALUES (3)"))
        for request in (
            Query("INSERT INTO kept VALUES (4), (1)"),
            Call(insert_both, 5, 1),
            Query(f"INSERT INTO kept VALUES ({subject.placeholder})", many=[(6,), (1,)]),
        ):
            if subject.savepoints or request.sql == "INSERT INTO kept VALUES (4), (1)":
                with pytest.raises(crew.errors):
                    tx.ask(request)
        if subject.savepoints:
            assert tx.ask(Query("SELECT count(*) FROM kept")).scalar() == 3
            raise TransactionBroken
        tx.ask(Query("SELECT 1"))
    assert kept(crew) == [1, 2]


def test_a_session_is_not_ended_by_a_statement(crew):
    with pytest.raises(TransactionBroken), crew.transaction() as tx:
        tx.ask(Query("INSERT INTO kept VALUES (3)"))
        tx.ask(Query("COMMIT"))
    assert kept(crew) == [1, 2]
    assert eventually(lambda: is_idle(crew))


# --- streams ------------------------------------------------------------------------------


def test_a_stream_yields_all_rows_in_order(subject, crew):
    with crew.ask(Stream(subject.many_rows, chunk=1000)) as rows:
        assert [row[0] for row in rows] == list(range(1, 100_001))
    assert kept(crew) == [1, 2]


def test_a_stream_that_is_left_early_frees_its_worker(subject, crew):
    with same_workers(crew):
        for _ in range(3):
            rows = crew.ask(Stream(subject.many_rows, chunk=100))
            assert next(rows)[0] == 1
            rows.close()
            assert kept(crew) == [1, 2]


def test_a_stream_with_an_error_says_so(crew):
    assert isinstance(error_of(crew.ask(Stream("SELECT missing FROM nowhere"), block=False)), crew.errors)
    assert kept(crew) == [1, 2]


def test_a_stream_of_a_session_goes_on_beside_other_statements(subject, crew):
    with crew.transaction() as tx:
        rows = tx.ask(Stream(subject.many_rows, chunk=1000))
        first = [next(rows)[0] for _ in range(10)]
        tx.ask(Query("INSERT INTO kept VALUES (3)"))
        other = tx.ask(Stream("SELECT number FROM kept ORDER BY number"))
        assert [row[0] for row in other] == [1, 2, 3]
        assert first + [row[0] for row in rows] == list(range(1, 100_001))
    assert kept(crew) == [1, 2, 3]


def test_chunks_and_results_become_columns(subject, crew):
    pytest.importorskip("pyarrow")
    for arrow in (False, True):
        with crew.ask(Stream(subject.many_rows, chunk=4096, arrow=arrow)) as rows:
            tables = [chunk.to_arrow() for chunk in rows.chunks()]
        assert sum(table.num_rows for table in tables) == 100_000
        assert [table.column(0)[0].as_py() for table in tables[:2]] == [1, 4097]
        result = crew.ask(Query("SELECT number, number + 1 AS more FROM kept ORDER BY number", arrow=arrow))
        assert result.to_arrow().to_pydict() == {"number": [1, 2], "more": [2, 3]}
        assert (result.rows, result.rowcount, len(result)) == ([(1, 2), (2, 3)], 2, 2)


# --- deadlines, cancels, ends -------------------------------------------------------------


def test_a_deadline_ends_the_statement_and_the_worker_stays(subject, crew):
    with same_workers(crew):
        error = error_of(crew.ask(Query(subject.runaway, timeout=0.2), block=False))
        assert isinstance(error, QueryTimeout)
        assert error.executed is False
        assert kept(crew) == [1, 2]


def test_a_cancel_ends_the_statement_and_hits_no_other(subject, crew):
    with same_workers(crew):
        for _ in range(5):
            reply = crew.ask(Query(subject.runaway), block=False)
            assert eventually(lambda: crew.ask(Status()).running == 1)
            reply.cancel()
            assert isinstance(error_of(reply), QueryCancelled)
            assert kept(crew) == [1, 2]


def test_a_shutdown_ends_a_running_statement(subject, crew):
    reply = crew.ask(Query(subject.runaway), block=False)
    assert eventually(lambda: crew.ask(Status()).running == 1)
    crew.shutdown(cancel_pending=True, timeout=0)
    assert isinstance(error_of(reply), SupervisorStopped)


def test_the_death_of_a_child_costs_one_job(subject, database, crew):
    if not isinstance(database, ChildProcess):
        pytest.skip("this kind has no child processes")
    reply = crew.ask(Query(subject.runaway), block=False)
    killed: set[int] = set()

    def is_over() -> bool:
        """Kill the child of the job. A job that its child has not begun runs in another child."""
        for worker in crew.ask(Status()).workers:
            if worker.job and worker.pid and worker.pid not in killed and worker.seconds > 0.2:
                killed.add(worker.pid)
                os.kill(worker.pid, signal.SIGKILL)
        return reply.done()

    assert eventually(is_over)
    assert isinstance(error_of(reply), WorkerDied)
    if "memory" not in subject.name:
        assert kept(crew) == [1, 2]
