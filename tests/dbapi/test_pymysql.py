"""DBAPI on PyMySQL and a real MariaDB."""

import decimal

import pymysql
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
from tests.dbapi.servers import mariadb as mariadb_server
from tests.support.common import error_of, up
from tests.support.health import is_idle, same_workers

QUICK = RestartPolicy(backoff_initial=0.0, grace=5.0)  # reading the rest of a stream takes a moment
SLEEP = "SELECT sleep(60)"


@pytest.fixture(params=["thread", "child"])
def db(request, start, mariadb):
    setup = pymysql.connect(**mariadb.options)
    with setup.cursor() as cursor:
        cursor.execute("CREATE DATABASE IF NOT EXISTS app")
        cursor.execute("DROP TABLE IF EXISTS app.kept")
    setup.close()
    database = DBAPI(pymysql.connect, database="app", **mariadb.options)
    db = start(database if request.param == "thread" else ChildProcess(database), size=2, restart=QUICK)
    db.ask(Query("CREATE TABLE kept(number INTEGER PRIMARY KEY) ENGINE=InnoDB"))
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
    values = ("text", b"\0\xff", None)
    assert db.ask(Query("SELECT %s, %s, %s, 1.50", values)).rows == [(*values, decimal.Decimal("1.50"))]
    assert isinstance(error_of(db.ask(Script("SELECT 1; SELECT 2"), block=False)), TypeError)
    assert isinstance(error_of(db.ask(Query("SELECT 1; DELETE FROM kept"), block=False)), pymysql.Error)
    assert db.ask(Query("SELECT number FROM kept", max_rows=2)).truncated


def test_deadlines_and_cancels_end_the_statement_alone(db):
    assert eventually(lambda: up(db) == 2)
    with same_workers(db):
        for _ in range(5):
            assert isinstance(error_of(db.ask(Query(SLEEP, timeout=0.1), block=False)), QueryTimeout)
        reply = db.ask(Query(SLEEP), block=False)
        assert eventually(lambda: db.ask(Status()).running == 1)
        reply.cancel()
        assert isinstance(error_of(reply), QueryCancelled)
        assert kept(db) == [1, 2]


def test_random_cancels_hit_no_innocent(db):
    wrong = []
    for number in range(150):
        victim = db.ask(Query("SELECT sleep(0.002)"), block=False)
        innocents = [db.ask(Query("SELECT %s, sleep(0)", (number,)), block=False) for _ in range(3)]
        victim.cancel()
        wrong += [reply for reply in innocents if reply.get(timeout=30).rows != [(number, 0)]]
    assert wrong == []
    assert db.ask(Status()).died == 0


def test_transactions_and_sessions(db):
    for isolation in ("read committed", "repeatable read", "serializable"):
        assert db.ask(Transaction([Query("SELECT count(*) FROM kept")], isolation=isolation))[0].scalar() == 2
    with pytest.raises(ValueError, match="snapshot"):
        db.ask(Transaction([Query("SELECT 1")], isolation="snapshot"))
    error = error_of(db.ask(Transaction([Query("INSERT INTO kept VALUES (3)")], readonly=True), block=False))
    assert isinstance(error, pymysql.Error)
    with db.transaction() as tx:
        tx.ask(Query("INSERT INTO kept VALUES (3)"))
        with pytest.raises(pymysql.IntegrityError):
            tx.ask(Query("INSERT INTO kept VALUES (4), (1)"))
        assert tx.ask(Query("SELECT count(*) FROM kept")).scalar() == 3
    assert kept(db) == [1, 2, 3]
    assert isinstance(error_of(db.ask(Query("BEGIN"), block=False)), TransactionLeftOpen)
    with pytest.raises(TransactionBroken), db.transaction() as tx:
        tx.ask(Query("COMMIT"))


def test_a_stream_is_read_from_the_socket_and_left_early(db):
    sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %s) SELECT i FROM n"
    db.ask(Query("SET GLOBAL max_recursive_iterations = 100000000"))
    assert sum(1 for _ in db.ask(Stream(sql, (900,), chunk=100))) == 900
    with same_workers(db):
        rows = db.ask(Stream("SELECT a.seq FROM seq_1_to_100000 a, seq_1_to_100000 b", chunk=10))
        next(rows)
        rows.close()
        assert eventually(lambda: is_idle(db))
        with db.transaction() as tx:
            rows = tx.ask(Stream("SELECT seq FROM seq_1_to_1000", chunk=10))
            assert next(rows) == (1,)
            tx.ask(Query("INSERT INTO kept VALUES (3)"))
            assert [row[0] for row in rows] == list(range(2, 1001))
        assert kept(db) == [1, 2, 3]


def test_a_killed_connection_costs_its_job_alone_and_poisons_nothing(db):
    running = Query("SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT sleep(60)%'")
    for _ in range(4):
        reply = db.ask(Query(SLEEP), block=False)
        assert eventually(lambda: db.ask(running).rows)
        db.ask(Query(f"KILL CONNECTION {db.ask(running).scalar()}"))
        assert isinstance(error_of(reply), WorkerDied)
        assert eventually(lambda: up(db) == 2)
    assert kept(db) == [1, 2]


def test_killed_idle_connections_cost_no_caller_anything(db, mariadb):
    assert eventually(lambda: up(db) == 2)
    other = pymysql.connect(**mariadb.options)
    cursor = other.cursor()
    for _ in range(4):
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = 'app' AND command = 'Sleep'")
        for (number,) in cursor.fetchall():
            cursor.execute(f"KILL CONNECTION {number}")
        assert eventually(lambda: kept(db) == [1, 2])
    other.close()
    assert db.ask(Status()).died == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # PyMySQL's, of refused connects
def test_a_crew_resumes_after_a_restart_of_the_server(start, tmp_path):
    with mariadb_server(tmp_path) as server:
        db = start(DBAPI(pymysql.connect, **server.options), size=2, restart=QUICK)
        assert db.ask(Query("SELECT 1")).scalar() == 1
        server.stop()
        failed = (DatabaseUnavailable, WorkerDied)
        assert eventually(lambda: isinstance(error_of(db.ask(Query("SELECT 1"), block=False)), failed))
        server.start()
        assert eventually(lambda: up(db) == 2, 30)
        assert db.ask(Query("SELECT 1")).scalar() == 1
