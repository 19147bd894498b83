"""Cancels and deadlines end their own query, and no other."""

import threading

import psycopg
import pytest

from supervisor import (
    Call,
    ChildProcess,
    PostgreSQL,
    Query,
    QueryCancelled,
    QueryTimeout,
    Script,
    Status,
    Transaction,
)
from tests.conftest import eventually
from tests.postgres.cancels import KINDS, PATIENT, storm
from tests.support.common import PATIENCE, error_of
from tests.support.health import same_workers

SLEEP = "SELECT pg_sleep(1000)"
ACTIVE = (
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(1000)%%' AND state = 'active' "
    "AND pid != pg_backend_pid() AND datname = %s"
)


def _sleep(driver):
    driver.execute(SLEEP)


REQUESTS = {
    "query": Query(SLEEP),
    "query with max_rows": Query(SLEEP, max_rows=1),
    "transaction": Transaction([Query("INSERT INTO kept VALUES (1)"), Query(SLEEP)]),
    "many": Query("INSERT INTO kept SELECT %s FROM pg_sleep(1000)", many=[(1,), (2,)]),
    "script": Script(f"INSERT INTO kept VALUES (1); {SLEEP}"),
    "call": Call(_sleep),
}


@pytest.fixture(params=["plain", "child"])
def db(start, uri, request):
    plain = PostgreSQL(uri)
    db = start(plain if request.param == "plain" else ChildProcess(plain), size=1, restart=PATIENT)
    db.ask(Script("CREATE TABLE kept(number integer)"))
    return db


def runs(server, uri):
    name = psycopg.conninfo.conninfo_to_dict(uri)["dbname"]
    return server.run(ACTIVE, name) == [(1,)]


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_a_running_request_ends_at_its_cancel(server, uri, db, request_):
    with same_workers(db):
        reply = db.ask(request_, block=False)
        assert eventually(lambda: runs(server, uri))
        reply.cancel()
        error = error_of(reply)
        assert isinstance(error, QueryCancelled)
        assert error.executed is (None if isinstance(request_, Script) else False)
        assert db.ask(Query("SELECT count(*) FROM kept"), timeout=PATIENCE).scalar() == 0
    assert not runs(server, uri)


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("kind", ["plain", "child"])
def test_a_running_request_ends_at_its_deadline(start, server, uri, kind, request_):
    server.run("CREATE TABLE kept(number integer)", uri=uri)
    plain = PostgreSQL(uri)
    db = start(plain if kind == "plain" else ChildProcess(plain), size=1, timeout=0.5)
    assert db.ask(Query("SELECT 1", timeout=PATIENCE)).scalar() == 1
    with same_workers(db):
        error = error_of(db.ask(request_, block=False))
        assert isinstance(error, QueryTimeout)
        assert error.executed is (None if isinstance(request_, Script) else False)
        assert db.ask(Query("SELECT count(*) FROM kept", timeout=PATIENCE)).scalar() == 0


def test_a_cancelled_procedure_that_may_have_committed_says_that_nobody_knows(server, uri, db):
    server.run(
        "CREATE PROCEDURE halves() LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO kept VALUES (1); COMMIT; PERFORM pg_sleep(1000); END $$",
        uri=uri,
    )
    reply = db.ask(Query("CALL halves()  -- pg_sleep(1000)"), block=False)
    assert eventually(lambda: server.run("SELECT count(*) FROM kept", uri=uri) == [(1,)])
    reply.cancel()
    error = error_of(reply)
    assert isinstance(error, QueryCancelled)
    assert error.executed is None


def test_a_cancel_works_with_a_libpq_without_safe_cancels(server, uri, start, monkeypatch):
    monkeypatch.setattr(type(psycopg.capabilities), "has_cancel_safe", lambda *_, **__: False)
    monkeypatch.setattr(psycopg.Connection, "cancel", lambda _: pytest.fail("it holds the GIL"))
    db = start(PostgreSQL(uri), size=1)
    db.ask(Query("SELECT 1"))
    with same_workers(db):
        reply = db.ask(Query(SLEEP), block=False)
        assert eventually(lambda: runs(server, uri))
        reply.cancel()
        assert isinstance(error_of(reply), QueryCancelled)
        assert db.ask(Query("SELECT 1")).scalar() == 1
    database = PostgreSQL(uri)
    storm(database, 100)


@pytest.mark.parametrize("kind", KINDS)
def test_a_storm_of_cancels_hits_no_innocent(uri, kind):
    ends = storm(KINDS[kind](uri), 300)
    assert ends["QueryCancelled while it ran"] > 0
    assert ends["answered"] > 0


def test_a_cancel_that_comes_as_the_session_is_cleaned_cannot_spoil_it(server, uri, start):
    """The function is done, and its session is cleaned by a slow `on_connect`."""
    cleaning, go_on = threading.Event(), threading.Event()
    count = []

    def slow(driver):
        count.append(1)
        if len(count) > 1:
            cleaning.set()
            assert go_on.wait(PATIENCE)
            driver.execute("SELECT 1")

    db = start(PostgreSQL(uri, on_connect=slow), size=1)
    reply = db.ask(
        Script("CREATE TABLE kept(number integer); INSERT INTO kept VALUES (1); SET work_mem TO '99kB'"), block=False
    )
    assert cleaning.wait(PATIENCE)
    reply.cancel()
    go_on.set()
    error = error_of(reply)
    assert error is None or error.executed is not False
    assert db.ask(Query("SELECT number FROM kept"), timeout=PATIENCE).column("number") == [1]
    assert db.ask(Query("SELECT current_setting('work_mem')")).scalar() != "99kB"
    assert db.ask(Status()).restarts == 0
