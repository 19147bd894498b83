"""Workers in Ray actors, each with a connection to one PostgreSQL server."""

import os
import signal
from concurrent.futures import CancelledError

import pytest

from supervisor import (
    Call,
    DatabaseUnavailable,
    PostgreSQL,
    Query,
    QueryTimeout,
    Ray,
    RestartPolicy,
    Script,
    Status,
    Stream,
    Supervisor,
    Transaction,
    WorkerDied,
)
from tests.conftest import eventually
from tests.postgres.server import Server, missing
from tests.support.call_functions import return_it
from tests.support.common import PATIENCE, error_of

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

LONG = 30.0  # seconds. A new actor needs some on a busy machine.
ENDLESS = "SELECT pg_sleep(1000), %s"
NUMBERS = "SELECT n, 'text ' || n FROM generate_series(1, %s) AS n"


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def database(server, address):
    return Ray(PostgreSQL(server.new_database()), address)


@pytest.fixture(scope="module")
def crew(database):
    db = Supervisor.start(database, size=2)
    db.ask(Script("CREATE TABLE kept(number integer PRIMARY KEY, text text)"))
    yield db
    db.stop()


@pytest.fixture
def db(crew):
    """A crew with an empty table. No test loses one of its workers."""
    crew.ask(Query("TRUNCATE kept"), timeout=LONG)
    return crew


def runs(server, mark):
    """Say how many servers' processes run the endless statement of one test."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s AND pid <> pg_backend_pid()"
    return server.run(sql, f"%{mark}%")[0][0]


def test_queries_transactions_and_calls(db):
    assert db.ask(Query("INSERT INTO kept VALUES (%s, %s)", many=[(1, "one"), (2, "zwölf")])).rowcount == 2
    results = db.ask(Transaction([Query("INSERT INTO kept VALUES (3)"), Query("SELECT count(*) FROM kept")]))
    assert results[1].scalar() == 3
    with db.transaction() as session:
        session.ask(Query("DELETE FROM kept WHERE number = %s", (3,)))
        assert session.ask(Query("SELECT count(*) FROM kept")).scalar() == 2
    assert db.ask(Call(return_it, {"key": [1, None]})) == {"key": [1, None]}
    assert db.ask(Query("SELECT * FROM kept ORDER BY number")).rows == [(1, "one"), (2, "zwölf")]


def test_values_of_the_driver_come_back_as_they_went_in(db):
    row = db.ask(Query("SELECT %s::numeric, %s::bytea, ARRAY[1, NULL], now() - now()", ("0.10", b"\0\xff"))).rows[0]
    assert [str(row[0]), row[1], row[2], row[3].total_seconds()] == ["0.10", b"\0\xff", [1, None], 0.0]


def test_an_error_is_psycopgs_own_and_undoes_its_transaction(db):
    import psycopg

    twice = Query("INSERT INTO kept VALUES (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.ask(Transaction([twice, twice]))
    with pytest.raises(psycopg.errors.UniqueViolation), db.transaction() as session:
        session.ask(twice)
        session.ask(twice)
    with pytest.raises(psycopg.errors.UndefinedTable) as caught:
        db.ask(Query("SELECT * FROM nowhere"))
    assert caught.value.sqlstate == "42P01"
    assert isinstance(caught.value, db.errors)
    assert db.ask(Query("SELECT count(*) FROM kept")).scalar() == 0


def test_a_stream_is_read_piece_by_piece(db):
    with db.ask(Stream(NUMBERS, (10_000_000,))) as rows:
        assert [next(rows)[0] for _ in range(5000)] == list(range(1, 5001))
    with db.ask(Stream(NUMBERS, (3,))) as rows:
        assert list(rows) == [(1, "text 1"), (2, "text 2"), (3, "text 3")]


def test_a_deadline_and_a_cancel_end_the_statement_on_the_server(db, server):
    late = db.ask(Query(ENDLESS.replace("%s", "'late'"), timeout=0.5), block=False)
    error = error_of(late)
    assert isinstance(error, QueryTimeout)
    cancelled = db.ask(Query(ENDLESS.replace("%s", "'unwanted'")), block=False)
    assert eventually(lambda: runs(server, "'unwanted'") == 1, LONG)
    cancelled.cancel()
    assert isinstance(error_of(cancelled), CancelledError)
    assert eventually(lambda: runs(server, "pg_sleep(1000)") == 0)
    assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1
    assert db.ask(Status()).died == 0


def test_a_killed_actor_costs_its_own_job_only(start, db, database, server):
    other = start(database, size=2, restart=RestartPolicy(backoff_max=0.2, max_restarts=1000))
    lost = other.ask(Query("INSERT INTO kept SELECT 1 FROM pg_sleep(1000)"), block=False)
    assert eventually(lambda: runs(server, "INSERT INTO kept") == 1, LONG)
    [worker] = [each for each in other.ask(Status()).workers if each.job]
    reads = [other.ask(Query("SELECT %s::integer", (number,)), block=False) for number in range(200)]
    os.kill(worker.pid, signal.SIGKILL)
    error = error_of(lost)
    assert isinstance(error, WorkerDied)
    assert error.executed is None
    assert f"Ray actor {worker.pid}" in str(error.__cause__)
    assert [reply.get(timeout=LONG).scalar() for reply in reads] == list(range(200))
    assert eventually(lambda: len([each for each in other.ask(Status()).workers if each.pid]) == 2, LONG)
    assert db.ask(Query("SELECT count(*) FROM kept")).scalar() == 0


def test_a_server_that_is_not_there_suspends_the_crew_and_no_text_shows_the_password(start, address):
    import psycopg

    db = start(Ray(PostgreSQL("postgresql://me:secret@/nothing?host=/no/such/folder"), address), size=1)
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert isinstance(error.__cause__, psycopg.OperationalError)
    assert "secret" not in f"{error} {error.__cause__!r} {db.ask(Status())}"
