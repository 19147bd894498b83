"""Interactive transactions and streams on PostgreSQL."""

import gc
import threading
import tracemalloc
from contextlib import suppress

import psycopg
import pytest

from supervisor import (
    Backup,
    Call,
    ChildProcess,
    PostgreSQL,
    Query,
    QueryTimeout,
    Script,
    Status,
    Stream,
    Transaction,
    TransactionBroken,
)
from tests.conftest import eventually
from tests.postgres.cancels import PATIENT
from tests.support.common import PATIENCE
from tests.support.health import is_idle

TABLE = Script("CREATE TABLE kept(number integer PRIMARY KEY); INSERT INTO kept VALUES (1), (2)")
MANY = "SELECT n, repeat('x', 50) FROM generate_series(1, 100000) AS n"
OPEN = Query(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
)


@pytest.fixture(params=["plain", "group commit"])
def db(start, uri, request):
    database = PostgreSQL(uri, group_commit=request.param == "group commit", prepare_threshold=1)
    db = start(database, size=2, restart=PATIENT)
    db.ask(TABLE)
    return db


def numbers(db):
    return db.ask(Query("SELECT number FROM kept ORDER BY number")).column("number")


# --- transactions -------------------------------------------------------------------------


def test_a_transaction_commits_at_its_end_or_not_at_all(db):
    with db.transaction() as tx:
        assert tx.ask(Query("INSERT INTO kept VALUES (3)")).rowcount == 1
        assert numbers(db) == [1, 2]
    with pytest.raises(KeyError), db.transaction() as tx:
        tx.ask(Query("INSERT INTO kept VALUES (4)"))
        raise KeyError
    assert numbers(db) == [1, 2, 3]


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("readonly", [False, True])
def test_a_transaction_has_its_isolation(db, isolation, readonly):
    with db.transaction(isolation=isolation, readonly=readonly) as tx:
        assert tx.ask(Query("SHOW transaction_isolation")).scalar() == isolation
        assert tx.ask(Query("SHOW transaction_read_only")).scalar() == ("on" if readonly else "off")


def _fail(driver):
    driver.execute("INSERT INTO kept VALUES (9)")
    raise KeyError


def test_an_error_undoes_its_request_alone(db):
    with db.transaction() as tx:
        tx.ask(Query("INSERT INTO kept VALUES (3)"))
        for request in (
            Query("INSERT INTO kept VALUES (4), (1)"),
            Query("INSERT INTO kept VALUES (%s)", many=[(4,), (1,)]),
            Script("INSERT INTO kept VALUES (4); SELECT 1 / 0"),
            Query("SELECT missing"),
            Query("SELECT %s", (object(),)),
            Query("SELECT 1 \0"),
            Call(_fail),
        ):
            with pytest.raises((psycopg.Error, KeyError)):
                tx.ask(request)
            assert tx.ask(Query("SELECT count(*) FROM kept")).scalar() == 3, request
        with pytest.raises(psycopg.Error):
            tx.ask(Stream("SELECT missing FROM nowhere"))
        with pytest.raises(psycopg.Error):
            list(tx.ask(Stream("SELECT 1 / (150 - n) FROM generate_series(1, 300) AS n", chunk=100)))
        assert tx.ask(Query("SELECT count(*) FROM kept")).scalar() == 3
    assert numbers(db) == [1, 2, 3]


def test_a_transaction_cannot_be_ended_from_inside(db):
    with pytest.raises(TransactionBroken, match="the transaction is over"), db.transaction() as tx:
        tx.ask(Query("INSERT INTO kept VALUES (3)"))
        with pytest.raises(TransactionBroken, match="would end"):
            tx.ask(Query("COMMIT"))
        tx.ask(Query("SELECT 1"))
    with pytest.raises(TransactionBroken), db.transaction() as tx:
        tx.ask(Query("INSERT INTO kept VALUES (3)"))
        with pytest.raises(TransactionBroken):
            tx.ask(Script("ROLLBACK; BEGIN"))
        tx.ask(Query("SELECT 1"))
    assert numbers(db) == [1, 2]


def test_a_deferred_constraint_is_the_error_of_the_commit(db):
    db.ask(Script("CREATE TABLE late(n integer UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
    with pytest.raises(psycopg.errors.UniqueViolation), db.transaction() as tx:
        tx.ask(Query("INSERT INTO late VALUES (1)"))
        tx.ask(Query("INSERT INTO late VALUES (1)"))
    assert db.ask(Query("SELECT count(*) FROM late")).scalar() == 0


def test_a_deadline_rolls_a_transaction_back(db):
    with pytest.raises(QueryTimeout) as caught, db.transaction(timeout=0.3) as tx:
        tx.ask(Query("INSERT INTO kept VALUES (3)"))
        tx.ask(Query("SELECT pg_sleep(1000)"))
    assert caught.value.executed is False
    assert numbers(db) == [1, 2]


# --- streams ------------------------------------------------------------------------------


def test_a_stream_gives_all_rows_and_holds_few(db):
    with db.ask(Stream(MANY, chunk=500)) as rows:
        assert rows.columns == ("n", "repeat")
        assert sum(n for n, _ in rows) == 100_000 * 100_001 // 2
    with db.ask(Stream("SELECT n FROM generate_series(1, %s) AS n", (7,), chunk=1)) as rows:
        assert [n for (n,) in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert list(db.ask(Stream("SELECT 1 WHERE false"))) == []


def test_a_stream_needs_little_memory(start, uri):
    db = start(PostgreSQL(uri), size=1)
    sql = "SELECT repeat('x', 1000) || n FROM generate_series(1, 100000) AS n"
    tracemalloc.start()
    try:
        with db.ask(Stream(sql, chunk=500)) as rows:
            assert sum(1 for _ in rows) == 100_000
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 10_000_000, "all rows together take more than 100 MB"


def _break(db):
    for number, _ in db.ask(Stream(MANY, chunk=10)):
        if number == 25:
            break


def _raise(db):
    with pytest.raises(KeyError), db.ask(Stream(MANY, chunk=10)) as rows:
        for _ in rows:
            raise KeyError


def _collect(db):
    rows = db.ask(Stream(MANY, chunk=10))
    next(rows)
    del rows
    gc.collect()


def _deadline(db):
    with pytest.raises(QueryTimeout):
        for _ in db.ask(Stream("SELECT n, pg_sleep(0.01) FROM generate_series(1, 100000) AS n", chunk=5, timeout=0.2)):
            pass


def _close(db):
    rows = db.ask(Stream(MANY, chunk=10))
    next(rows)
    rows.close()


def _error(db):
    with pytest.raises(psycopg.errors.DivisionByZero):
        list(db.ask(Stream("SELECT 1 / (150 - n) FROM generate_series(1, 300) AS n", chunk=100)))


def _beginning(db):
    for sql in ("SELECT missing", "INSERT INTO kept VALUES (7)", "SELECT 1; SELECT 2", "SELECT 1 \0"):
        with pytest.raises(psycopg.Error):
            db.ask(Stream(sql))
    with pytest.raises(psycopg.Error):
        db.ask(Stream("SELECT %s", (1, 2)))


@pytest.mark.parametrize("way_out", [_break, _raise, _collect, _deadline, _close, _error, _beginning])
def test_a_stream_is_freed_at_every_way_out(db, way_out):
    for _ in range(3):
        way_out(db)
    assert eventually(lambda: is_idle(db))
    assert db.ask(OPEN).scalar() == 0
    assert db.ask(Status()).restarts == 0
    assert numbers(db) == [1, 2]


def _next_quietly(rows):
    with suppress(Exception):
        next(rows)


def test_a_stream_that_is_cancelled_while_it_fetches_ends(db):
    sleepy = "SELECT n, CASE WHEN n > 5 THEN pg_sleep(1000) END FROM generate_series(1, 10) AS n"
    with db.ask(Stream(sleepy, chunk=5)) as rows:
        assert [next(rows)[0] for _ in range(5)] == [1, 2, 3, 4, 5]
        waiting = threading.Thread(target=_next_quietly, args=(rows,))
        waiting.start()
        running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'FETCH%'"
        assert eventually(lambda: db.ask(Query(running)).scalar() == 1)
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert eventually(lambda: is_idle(db))
    assert db.ask(OPEN).scalar() == 0


def test_a_fetch_ahead_of_a_child_can_be_cancelled(start, uri):
    db = start(ChildProcess(PostgreSQL(uri)), size=1)
    sleepy = "SELECT n, CASE WHEN n > 5 THEN pg_sleep(1000) END FROM generate_series(1, 10) AS n"
    rows = db.ask(Stream(sleepy, chunk=5))
    assert next(rows)[0] == 1
    rows.close()
    assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1
    assert db.ask(Status()).restarts == 0


@pytest.mark.parametrize("kind", ["plain", "child"])
def test_a_connection_that_is_too_old_is_replaced_between_jobs_and_never_inside_one(start, uri, kind):
    plain = PostgreSQL(uri, max_lifetime=0.001)
    db = start(plain if kind == "plain" else ChildProcess(plain), size=1)
    db.ask(TABLE)
    pid = Query("SELECT pg_backend_pid()")
    first = db.ask(pid).scalar()
    assert eventually(lambda: db.ask(pid).scalar() != first)
    with db.transaction() as tx:
        pids = set()
        for number in range(10, 20):
            tx.ask(Query("INSERT INTO kept VALUES (%s)", (number,)))
            pids.add(tx.ask(pid).scalar())
        assert len(pids) == 1
    assert len(numbers(db)) == 12
    with db.ask(Stream("SELECT generate_series(1, 1000)", chunk=10)) as rows:
        assert len(list(rows)) == 1000
    assert db.ask(Status()).restarts == 0


def test_an_empty_statement_has_an_empty_answer(db):
    for sql in ("-- nothing", "/* nothing */", ";"):
        assert db.ask(Query(sql)).rows == []
        assert db.ask(Transaction([Query(sql), Query("SELECT 1")]))[1].scalar() == 1
        with db.transaction() as tx:
            assert tx.ask(Query(sql)).rows == []


def test_a_backup_is_refused_and_the_error_names_pg_dump(db, tmp_path):
    with pytest.raises(TypeError, match="pg_dump"):
        db.ask(Backup(tmp_path / "copy"))
    assert db.ask(Query("SELECT 1")).scalar() == 1
