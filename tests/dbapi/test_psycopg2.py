"""DBAPI on psycopg2 and a real PostgreSQL."""

import datetime as dt
import decimal
import os
import signal
from pathlib import Path

import psycopg2
import pytest

from supervisor import (
    DBAPI,
    ChildProcess,
    DatabaseUnavailable,
    Query,
    QueryCancelled,
    QueryTimeout,
    RestartPolicy,
    Script,
    Status,
    Stream,
    Transaction,
    TransactionBroken,
    TransactionLeftOpen,
    WorkerDied,
)
from tests.conftest import eventually
from tests.dbapi import drivers
from tests.support.common import error_of, up
from tests.support.health import is_idle, same_workers

QUICK = RestartPolicy(backoff_initial=0.0)
SLEEP = "SELECT pg_sleep(60)"


@pytest.fixture(params=["thread", "child"])
def db(request, start, postgres_uri):
    database = DBAPI(psycopg2.connect, postgres_uri)
    db = start(database if request.param == "thread" else ChildProcess(database), size=2, restart=QUICK)
    db.ask(Script("DROP TABLE IF EXISTS kept; CREATE TABLE kept(number INTEGER PRIMARY KEY)"))
    db.ask(Query("INSERT INTO kept VALUES (%s), (%s)", (1, 2)))
    return db


def kept(db):
    return db.ask(Query("SELECT number FROM kept ORDER BY number")).column("number")


def test_statements_and_values(db):
    assert db.ask(Query("INSERT INTO kept VALUES (%(n)s)", {"n": 3})).rowcount == 1
    assert db.ask(Query("INSERT INTO kept VALUES (%s)", many=[(4,), (5,)])).rowcount == 2
    assert isinstance(
        error_of(db.ask(Query("INSERT INTO kept VALUES (%s)", many=[(6,), (1,)]), block=False)), db.errors
    )
    assert kept(db) == [1, 2, 3, 4, 5]
    day = dt.date(2026, 1, 2)
    values = ("text", 2.5, decimal.Decimal("1.50"), day, None, [1, 2])
    assert db.ask(Query("SELECT %s, %s, %s, %s, %s, %s", values)).rows == [values]
    assert db.ask(Query("SELECT '\\x00ff'::bytea AS b UNION ALL SELECT NULL")).column("b") == [b"\0\xff", None]


def test_deadlines_and_cancels_end_the_statement_alone(db):
    assert eventually(lambda: up(db) == 2)
    with same_workers(db):
        for _ in range(5):
            error = error_of(db.ask(Query(SLEEP, timeout=0.1), block=False))
            assert isinstance(error, QueryTimeout)
            assert error.executed is False
        reply = db.ask(Query(SLEEP), block=False)
        assert eventually(lambda: db.ask(Status()).running == 1)
        reply.cancel()
        assert isinstance(error_of(reply), QueryCancelled)
        assert kept(db) == [1, 2]


def test_random_cancels_hit_no_innocent(db):
    wrong = []
    for number in range(150):
        victim = db.ask(Query("SELECT pg_sleep(0.002)"), block=False)
        innocents = [db.ask(Query("SELECT %s", (number,)), block=False) for _ in range(3)]
        victim.cancel()
        wrong += [reply for reply in innocents if reply.get(timeout=30).scalar() != number]
    assert wrong == []
    assert db.ask(Status()).died == 0


def test_transactions_and_sessions(db):
    for isolation in ("read committed", "repeatable read", "serializable"):
        [level] = db.ask(Transaction([Query("SHOW transaction_isolation")], isolation=isolation))
        assert level.scalar() == isolation
    with pytest.raises(ValueError, match="snapshot"):
        db.ask(Transaction([Query("SELECT 1")], isolation="snapshot"))
    error = error_of(db.ask(Transaction([Query("INSERT INTO kept VALUES (3)")], readonly=True), block=False))
    assert isinstance(error, psycopg2.errors.ReadOnlySqlTransaction)
    with db.transaction(isolation="repeatable read") as tx:
        tx.ask(Query("INSERT INTO kept VALUES (3)"))
        with pytest.raises(psycopg2.errors.UniqueViolation):
            tx.ask(Query("INSERT INTO kept VALUES (4), (1)"))
        assert tx.ask(Query("SELECT count(*) FROM kept")).scalar() == 3
    assert kept(db) == [1, 2, 3]
    assert isinstance(error_of(db.ask(Query("BEGIN"), block=False)), TransactionLeftOpen)
    with pytest.raises(TransactionBroken), db.transaction() as tx:
        tx.ask(Query("COMMIT"))


def test_a_stream_is_read_from_the_server_in_chunks(db):
    assert sum(1 for _ in db.ask(Stream("SELECT * FROM generate_series(1, %s)", (25_000,), chunk=1000))) == 25_000
    with same_workers(db):
        rows = db.ask(Stream("SELECT generate_series(1, 1000000000), '\\x01'::bytea", chunk=10))
        assert next(rows) == (1, b"\1")
        rows.close()
        assert eventually(lambda: is_idle(db))
        with db.transaction() as tx:
            first, second = (tx.ask(Stream("SELECT * FROM generate_series(1, 30)", chunk=10)) for _ in range(2))
            tx.ask(Query("INSERT INTO kept VALUES (3)"))
            assert [next(first)[0], next(second)[0], next(first)[0]] == [1, 1, 2]
            assert len(list(first)) == 28
        assert kept(db) == [1, 2, 3]
    status = db.ask(Query("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"))
    assert status.scalar() == 0


def test_a_terminated_backend_costs_its_job_alone_and_poisons_nothing(db):
    db.ask(Query("SELECT 1"))
    find = Query("SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_backend_pid(), pg_sleep(60)%'")
    for _ in range(4):
        reply = db.ask(Query("SELECT pg_backend_pid(), pg_sleep(60)"), block=False)
        assert eventually(lambda: db.ask(find).rows)
        os.kill(db.ask(find).scalar(), signal.SIGTERM)
        assert isinstance(error_of(reply), WorkerDied)
        assert eventually(lambda: up(db) == 2)
    assert kept(db) == [1, 2]


def test_terminated_idle_connections_cost_no_caller_anything(db, postgres_uri):
    assert eventually(lambda: up(db) == 2)
    other = psycopg2.connect(postgres_uri)
    other.autocommit = True
    cursor = other.cursor()

    def backends():
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return {pid for (pid,) in cursor.fetchall()}

    for _ in range(4):
        assert eventually(lambda: is_idle(db))
        before = backends()
        assert before
        for pid in before:
            os.kill(pid, signal.SIGTERM)
        assert eventually(lambda killed=before: not any(Path(f"/proc/{pid}").exists() for pid in killed))
        assert kept(db) == [1, 2]
    other.close()
    assert db.ask(Status()).died == 0


def test_the_error_of_a_refused_connection_shows_no_password(start, postgres_uri):
    database = DBAPI(psycopg2.connect, postgres_uri, dbname="nowhere", password="hunter2")
    error = error_of(start(database, size=1, restart=QUICK).ask(Query("SELECT 1"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert "nowhere" in str(error.__cause__)
    assert "hunter2" not in f"{error} {error.__cause__!r} {database!r}"


def test_a_worker_that_is_given_up_waits_no_longer_for_its_socket(start, postgres_uri):
    database = DBAPI(psycopg2.connect, postgres_uri, interrupt=drivers.do_nothing)
    db = start(database, size=1, restart=RestartPolicy(backoff_initial=0.0, grace=0.1))
    error = error_of(db.ask(Query(SLEEP, timeout=0.1), block=False))
    assert isinstance(error, QueryTimeout)
    assert error.executed is None
    assert db.ask(Query("SELECT 1")).scalar() == 1
    assert eventually(lambda: db.ask(Status()).stuck == 0), "the statement itself would take a minute"
