"""Servers that end connections, restart, stop, freeze, and refuse: the right error, and no more."""

import asyncio
import os
import signal
import subprocess
import threading

import psycopg
import pytest

from supervisor import (
    ChildProcess,
    DatabaseUnavailable,
    PoisonQuery,
    PostgreSQL,
    Query,
    QueryTimeout,
    RestartPolicy,
    Script,
    Status,
    Stream,
    Transaction,
    WorkerDied,
)
from tests.conftest import eventually
from tests.postgres.restarts import restart_under_callers
from tests.support.common import PATIENCE, error_of, up
from tests.support.health import same_workers

SLEEP = Query("SELECT pg_sleep(1000)")
ONE = Query("SELECT 1")
OTHERS = "FROM pg_stat_activity WHERE application_name = 'querycrew'"
TERMINATE = f"SELECT pg_terminate_backend(pid) {OTHERS}"


def backends(server, condition="true"):
    return [pid for (pid,) in server.run(f"SELECT pid {OTHERS} AND {condition}")]


def all_up(db, size):
    return eventually(lambda: up(db) == size)


@pytest.fixture(params=["plain", "group commit", "child"])
def kind(request):
    return {
        "plain": PostgreSQL,
        "group commit": lambda uri, **options: PostgreSQL(uri, group_commit=True, **options),
        "child": lambda uri, **options: ChildProcess(PostgreSQL(uri, **options)),
    }[request.param]


# --- connections that the server ends -----------------------------------------------------


def test_idle_connections_that_are_terminated_cost_no_caller_anything(start, victim, kind):
    db = start(kind(victim.uri), size=3)
    assert all_up(db, 3)
    for _ in range(5):
        assert all_up(db, 3)
        before = set(backends(victim))
        victim.run(TERMINATE)
        assert eventually(lambda before=before: not before & set(backends(victim)))
        for _ in range(10):
            assert db.ask(ONE, timeout=PATIENCE).scalar() == 1
    assert db.ask(Status()).died == 0
    assert db.ask(Status()).restarts == 0


def test_terminated_queries_are_lost_and_blame_no_statement(start, victim, kind):
    db = start(kind(victim.uri), size=2)
    assert all_up(db, 2)
    for _ in range(6):
        replies = [db.ask(SLEEP, block=False) for _ in range(2)]
        assert eventually(lambda: len(backends(victim, "query LIKE '%%pg_sleep%%'")) == 2)
        victim.run(TERMINATE)
        for reply in replies:
            error = error_of(reply)
            assert isinstance(error, WorkerDied), repr(error)
            assert error.executed is None
            assert isinstance(error.__cause__, psycopg.errors.AdminShutdown), repr(error.__cause__)
        assert all_up(db, 2)
        assert db.ask(ONE, timeout=PATIENCE).scalar() == 1


def test_a_backend_that_is_killed_restarts_the_server_and_the_crew_goes_on(start, victim, kind):
    db = start(kind(victim.uri), size=2)
    assert all_up(db, 2)
    reply = db.ask(SLEEP, block=False)
    assert eventually(lambda: backends(victim, "query LIKE '%%pg_sleep%%'"))
    os.kill(backends(victim, "query LIKE '%%pg_sleep%%'")[0], signal.SIGKILL)
    error = error_of(reply)
    assert isinstance(error, WorkerDied)
    assert error.executed is None
    assert eventually(lambda: db.ask(ONE, block=False).exception(PATIENCE) is None)


def test_a_stopped_server_suspends_the_crew_which_resumes_by_itself(start, victim, kind):
    db = start(kind(victim.uri), size=2)
    assert all_up(db, 2)
    victim.stop()
    try:
        assert eventually(lambda: isinstance(db.ask(ONE, block=False).exception(PATIENCE), DatabaseUnavailable))
        error = error_of(db.ask(ONE, block=False))
        assert error.executed is False
        assert isinstance(error.__cause__, psycopg.OperationalError)
    finally:
        victim.start()
    assert eventually(lambda: db.ask(ONE, block=False).exception(PATIENCE) is None)
    assert all_up(db, 2)


def test_a_restart_under_callers(victim):
    found = restart_under_callers(victim, PostgreSQL(victim.uri), callers=8)
    assert found.poisoned == 0
    assert found.answers_after > 0
    assert set(found.errors) <= {"WorkerDied", "DatabaseUnavailable"}


def test_a_lost_connection_inside_a_function_of_the_user_is_lost_for_the_crew_too(start, victim):
    from supervisor import Call

    def swallow(driver):
        try:
            driver.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        except psycopg.Error:
            raise KeyError("mine") from None

    db = start(PostgreSQL(victim.uri), size=1)
    replies = [db.ask(request, block=False) for request in (Call(swallow), ONE, ONE)]
    assert isinstance(error_of(replies[0]), WorkerDied)
    assert [reply.get(timeout=PATIENCE).scalar() for reply in replies[1:]] == [1, 1]


def test_an_idle_transaction_that_the_server_ends(start, victim, kind):
    db = start(kind(victim.uri, options="-c idle_in_transaction_session_timeout=200"), size=1)
    db.ask(Script("DROP TABLE IF EXISTS kept; CREATE TABLE kept(number integer)"))
    with pytest.raises(Exception) as caught, db.transaction() as tx:
        tx.ask(Query("INSERT INTO kept VALUES (1)"))
        assert eventually(lambda: not backends(victim, "state LIKE 'idle in transaction%%'"))
        tx.ask(ONE)
    assert isinstance(caught.value, WorkerDied), repr(caught.value)
    assert caught.value.executed is not True
    assert db.ask(Query("SELECT count(*) FROM kept"), timeout=PATIENCE).scalar() == 0


def test_a_stream_whose_connection_is_terminated_ends_with_an_error(start, victim, kind):
    db = start(kind(victim.uri), size=1)
    rows = db.ask(Stream("SELECT generate_series(1, 100000)", chunk=10))
    assert next(rows) == (1,)
    victim.run(TERMINATE)
    with pytest.raises(WorkerDied):
        list(rows)
    assert db.ask(ONE, timeout=PATIENCE).scalar() == 1


# --- servers that refuse ------------------------------------------------------------------


def test_too_many_connections_leave_a_smaller_crew_that_answers(start, victim):
    victim.run("DROP ROLE IF EXISTS few")
    victim.run("CREATE ROLE few LOGIN CONNECTION LIMIT 2")
    db = start(PostgreSQL(victim.uri, user="few"), size=4)
    replies = [db.ask(Query("SELECT pg_sleep(0.001)"), block=False) for _ in range(200)]
    assert [reply.exception(PATIENCE) for reply in replies] == [None] * 200
    victim.run("ALTER ROLE few CONNECTION LIMIT 0")
    victim.run(TERMINATE)
    refused = "too many connections"
    assert eventually(lambda: refused in str(getattr(db.ask(ONE, block=False).exception(PATIENCE), "__cause__", "")))
    assert isinstance(error_of(db.ask(ONE, block=False)), DatabaseUnavailable)
    victim.run("ALTER ROLE few CONNECTION LIMIT -1")
    assert all_up(db, 4)


def test_a_database_that_does_not_exist_is_unavailable_until_it_does(start, victim):
    victim.run("DROP DATABASE IF EXISTS later")
    db = start(PostgreSQL(victim.uri, dbname="later"), size=1)
    error = error_of(db.ask(ONE, block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert isinstance(error.__cause__, psycopg.OperationalError)
    victim.run("CREATE DATABASE later")
    assert eventually(lambda: db.ask(ONE, block=False).exception(PATIENCE) is None)
    db.shutdown()
    victim.run("DROP DATABASE later WITH (FORCE)")


def test_a_serialization_failure_and_a_deadlock_are_their_callers_errors(start, uri):
    db = start(PostgreSQL(uri), size=3)
    db.ask(Script("CREATE TABLE kept(id integer, n integer); INSERT INTO kept VALUES (1, 0), (2, 0)"))
    assert all_up(db, 3)
    add = "UPDATE kept SET n = n + 1 WHERE id = %s"
    with same_workers(db):
        with db.transaction(isolation="serializable") as tx:
            tx.ask(Query("SELECT * FROM kept"))
            db.ask(Query(add, (1,)))
            with pytest.raises(psycopg.errors.SerializationFailure):
                tx.ask(Query(add, (1,)))
        ends = []
        barrier = threading.Barrier(2)

        def cross(first, second):
            try:
                with db.transaction() as tx:
                    tx.ask(Query(add, (first,)))
                    barrier.wait(PATIENCE)
                    tx.ask(Query(add, (second,)))
                    ends.append("done")
            except psycopg.errors.DeadlockDetected:
                ends.append("deadlock")

        threads = [threading.Thread(target=cross, args=order) for order in ((1, 2), (2, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert sorted(ends) == ["deadlock", "done"]
        assert db.ask(Query("SELECT sum(n) FROM kept")).scalar() == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_is_the_error_of_its_statement_alone(start, victim):
    place = victim.folder / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine mounts no file system")
    try:
        if victim.system_user:
            subprocess.run(["chown", victim.system_user, place], check=True)
        victim.run(f"CREATE TABLESPACE small LOCATION '{place}'")
        db = start(PostgreSQL(victim.uri), size=1)
        db.ask(Script("CREATE TABLE filled(t text) TABLESPACE small"))
        insert = "INSERT INTO filled SELECT repeat(md5(n::text), 100) FROM generate_series(1, %s) AS n"
        with same_workers(db):
            db.ask(Query(insert, (10,)))
            for request in (
                Query(insert, (100_000,)),
                Transaction([ONE, Query(insert, (100_000,))]),
                Query(insert, many=[(100_000,)]),
            ):
                with pytest.raises(psycopg.errors.DiskFull):
                    db.ask(request)
                assert db.ask(Query("SELECT count(*) FROM filled")).scalar() == 10
        db.ask(Script("DROP TABLE filled"))
        db.shutdown()
        victim.run("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "-l", place], check=False)


# --- a frozen server ----------------------------------------------------------------------


class Ticker:
    """A thread that counts as long as it gets the GIL."""

    def __enter__(self):
        self.count, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def _run(self):
        while not self._over.wait(0.001):
            self.count += 1

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def goes_on(self):
        before = self.count
        return eventually(lambda: self.count > before + 20)


@pytest.fixture
def frozen(start, victim, kind):
    """A crew whose server freezes while two of its queries run, and all processes of the server."""
    db = start(kind(victim.uri, connect_timeout=2), size=2, restart=RestartPolicy(grace=0.2))
    assert all_up(db, 2)
    replies = [db.ask(Query(SLEEP.sql, timeout=1.0), block=False) for _ in range(2)]
    assert eventually(lambda: len(backends(victim, "query LIKE '%%pg_sleep%%'")) == 2)
    victim.freeze()
    yield db, replies
    victim.thaw()


def test_a_frozen_server_blocks_no_caller_no_thread_and_no_other_crew(start, frozen):
    db, replies = frozen
    other = start(size=1)
    with Ticker() as ticker:
        for reply in replies:
            error = error_of(reply)
            assert isinstance(error, QueryTimeout), repr(error)
            assert error.executed is None, "the server may still run it"
            assert ticker.goes_on()
            assert other.ask(ONE).scalar() == 1
        late = db.ask(Query("SELECT 1", timeout=0.2), block=False)
        assert isinstance(error_of(late), (QueryTimeout, DatabaseUnavailable))
        assert ticker.goes_on()
        assert db.ask(Status()).size == 2
        db.shutdown(cancel_pending=True, timeout=0)
        assert ticker.goes_on()


def test_a_frozen_server_blocks_no_event_loop(frozen):
    db, replies = frozen
    turns = 0

    async def main():
        nonlocal turns

        async def turn():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        turning = asyncio.create_task(turn())
        errors = await asyncio.gather(
            *replies, db.ask(Query("SELECT 1", timeout=0.1), block=False), return_exceptions=True
        )
        for _ in range(10):
            await asyncio.sleep(0)
        turning.cancel()
        return errors

    errors = asyncio.run(main())
    assert all(isinstance(error, (QueryTimeout, DatabaseUnavailable)) for error in errors), errors
    assert turns > 20


def test_a_server_that_thaws_is_served_again(frozen, victim):
    db, replies = frozen
    for reply in replies:
        assert isinstance(error_of(reply), QueryTimeout)
    victim.thaw()
    assert eventually(lambda: db.ask(ONE, block=False).exception(PATIENCE) is None)
    assert all_up(db, 2)


def test_nothing_is_poisoned_by_a_server_that_comes_and_goes(start, victim):
    db = start(PostgreSQL(victim.uri), size=3)
    for _ in range(3):
        assert eventually(lambda: db.ask(ONE, block=False).exception(PATIENCE) is None)
        replies = [db.ask(ONE, block=False) for _ in range(30)]
        victim.restart()
        ends = [reply.exception(PATIENCE) for reply in replies]
        assert not any(isinstance(end, PoisonQuery) for end in ends)
