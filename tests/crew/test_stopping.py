"""stop() and shutdown() answer every accepted job, leave nothing, and no caller waits for ever."""

import collections
import gc
import threading

import pykka
import pytest

from supervisor import DatabaseUnavailable, Query, RestartPolicy, Result, Script, Status, Supervisor, SupervisorStopped
from tests.conftest import eventually
from tests.support.common import PATIENCE, RUNAWAY, error_of, is_refused, nothing_left, running, threads, up
from tests.support.fakes import FakeDatabase, Gate

STAY_DOWN = RestartPolicy(backoff_initial=1000.0, backoff_max=1000.0)


# --- stop ---------------------------------------------------------------------------------


def test_stop_under_load_answers_every_accepted_job_and_refuses_the_rest(start):
    database, gates = FakeDatabase(), [Gate(), Gate()]
    db = start(database, size=2)
    runs = running(db, database, gates)
    queued = [db.ask(Query(f"job {number}"), block=False) for number in range(1000)]
    stopped = db.stop(block=False)
    assert is_refused(db)
    assert not stopped.done()
    for gate in gates:
        gate.opened.set()
    assert stopped.get(timeout=PATIENCE) is True
    assert all(reply.done() for reply in [*runs, *queued]), "the crew stopped before every job was answered"
    assert database.open_connections == 0, "the crew stopped before every connection was closed"
    assert [reply.get(timeout=0).scalar() for reply in queued] == [f"job {number}" for number in range(1000)]
    assert max(collections.Counter(database.ran).values()) == 1
    assert nothing_left(database)
    assert is_refused(db)


def test_every_stop_that_comes_before_the_end_returns_true(start):
    database, gate = FakeDatabase(), Gate()
    db = start(database, size=1)
    running(db, database, [gate])
    stops = [db.stop(block=False) for _ in range(100)]
    gate.opened.set()
    assert {stop.get(timeout=PATIENCE) for stop in stops} == {True}
    assert db.stop(timeout=PATIENCE) is False
    db.shutdown()
    db.shutdown(timeout=0)
    assert nothing_left(database)


def test_the_end_of_a_with_block_stops_and_closes():
    database = FakeDatabase()
    with Supervisor.start(database, size=2) as db:
        waiting = [db.ask(Query("a"), block=False) for _ in range(100)]
    assert {reply.get(timeout=0).scalar() for reply in waiting} == {"a"}
    assert nothing_left(database)


def test_stop_with_a_timeout_gives_up_waiting_but_goes_on_stopping(start):
    database, gate = FakeDatabase(), Gate()
    db = start(database, size=1)
    (reply,) = running(db, database, [gate])
    with pytest.raises(pykka.Timeout):
        db.stop(timeout=0.01)
    gate.opened.set()
    assert reply.get(timeout=PATIENCE).scalar() == "passed"
    assert db.wait_until_ended(PATIENCE)


@pytest.mark.parametrize("how", ["stop", "shutdown"])
def test_a_stop_in_a_callback_on_a_worker_does_not_wait_for_itself(start, how):
    for _ in range(20):
        database, gate, called = FakeDatabase(), Gate(), threading.Event()
        db = start(database, size=2)
        (reply,) = running(db, database, [gate])
        reply.add_done_callback(lambda _, db=db, called=called: (getattr(db, how)(), called.set()))
        queued = [db.ask(Query("a"), block=False) for _ in range(10)]
        gate.opened.set()
        assert called.wait(PATIENCE)
        assert all(error_of(reply) is None for reply in queued)
        assert db.wait_until_ended(PATIENCE)
        assert nothing_left(database)


def test_a_stop_in_a_statement_answers_that_statement(start):
    database = FakeDatabase()
    db = start(database, size=1)

    def stop() -> Result:
        assert db.stop() is True
        return Result(("done",), [(1,)], 1)

    database.statements["stop"] = stop
    assert db.ask(Query("stop"), timeout=PATIENCE).scalar() == 1
    assert db.wait_until_ended(PATIENCE)


class StopsWhenCollected:
    """A user's object that stops its crew in its finalizer, on any thread."""

    def __init__(self, db, done):
        self.db, self.done, self.itself = db, done, self

    def __del__(self):
        self.db.stop()
        self.done.set()


def test_a_finalizer_in_the_callers_thread_can_stop_the_crew(start):
    database, done = FakeDatabase(), threading.Event()
    db = start(database, size=1)
    db.ask(Query("a"), timeout=PATIENCE)
    StopsWhenCollected(db, done)
    gc.collect()
    assert done.is_set()
    assert nothing_left(database)


def test_a_finalizer_in_a_workers_thread_can_stop_the_crew(start):
    done = threading.Event()

    def collect() -> Result:
        gc.collect()
        return Result(("done",), [(1,)], 1)

    database = FakeDatabase({"collect": collect})
    db = start(database, size=1)
    gc.disable()
    try:
        StopsWhenCollected(db, done)
        assert db.ask(Query("collect"), timeout=PATIENCE).scalar() == 1
    finally:
        gc.enable()
    assert done.wait(PATIENCE)
    assert db.wait_until_ended(PATIENCE)


def test_a_finalizer_in_the_middle_of_the_dispatcher_can_stop_the_crew(start):
    database, done = FakeDatabase(), threading.Event()
    db = start(database, size=1)
    assert eventually(lambda: up(db) == 1)

    def clock():
        gc.collect()
        return 0.0

    StopsWhenCollected(db, done)
    db._dispatcher.clock = clock  # read inside the dispatcher's lock
    db.ask(Status())
    assert done.is_set()
    assert db.wait_until_ended(PATIENCE)


def test_a_crew_that_stops_while_a_worker_is_replaced_settles_every_job(start):
    for _ in range(50):
        database = FakeDatabase({"bad": SystemExit()})
        db = start(database, size=2)
        replies = [db.ask(Query(sql), block=False) for sql in ("bad", "a", "bad", "b", "c")]
        assert db.stop(timeout=PATIENCE) is True
        assert all(reply.done() for reply in replies)
        assert max(collections.Counter(database.ran[1:]).values()) == 1
        assert nothing_left(database)


def test_a_crew_that_stops_while_replacements_wait_refuses_the_jobs_that_no_worker_can_run(start):
    database, gate = FakeDatabase({"bad": SystemExit()}), Gate()
    db = start(database, size=1, restart=RestartPolicy(max_restarts=0, within=1000.0))
    (reply,) = running(db, database, [gate])
    orphan, waiting = (db.ask(Query(sql), block=False) for sql in ("bad", "a"))
    stopped = db.stop(block=False)
    gate.opened.set()
    assert stopped.get(timeout=PATIENCE) is True
    assert error_of(reply) is None
    assert error_of(orphan) is not None
    assert isinstance(error_of(waiting), (DatabaseUnavailable, SupervisorStopped))
    assert nothing_left(database)


@pytest.mark.parametrize("stop", [lambda db: db.stop(timeout=PATIENCE), lambda db: db.shutdown()])
def test_a_suspended_crew_stops_at_once(start, stop):
    database = FakeDatabase()
    database.opening.append(OSError("no"))
    db = start(database, size=2, restart=STAY_DOWN)
    assert eventually(lambda: db.ask(Status()).state == "suspended")
    stop(db)
    assert db.wait_until_ended(PATIENCE)
    assert is_refused(db)
    assert nothing_left(database)


def test_a_stop_at_once_after_the_start_leaves_nothing(start):
    for _ in range(100):
        database = FakeDatabase()
        db = start(database, size=2)
        reply = db.ask(Query("a"), block=False)
        assert db.stop(timeout=PATIENCE) is True
        assert reply.get(timeout=0).scalar() == "a"
        assert database.open_connections == 0
    assert nothing_left(database)


# --- shutdown -----------------------------------------------------------------------------


def test_shutdown_waits_until_every_job_is_answered_and_every_connection_is_closed(start):
    database = FakeDatabase()
    db = start(database, size=2)
    queued = [db.ask(Query("a"), block=False) for _ in range(100)]
    db.shutdown()
    assert database.open_connections == 0
    assert all(reply.get(timeout=0).scalar() == "a" for reply in queued)
    assert nothing_left(database)


def test_shutdown_that_does_not_wait_returns_while_a_job_runs(start):
    database, gate = FakeDatabase(), Gate()
    db = start(database, size=1)
    (reply,) = running(db, database, [gate])
    db.shutdown(wait=False)
    assert not reply.done()
    assert is_refused(db)
    gate.opened.set()
    assert reply.get(timeout=PATIENCE).scalar() == "passed"
    assert db.wait_until_ended(PATIENCE)


def test_a_shutdown_that_cancels_rejects_queued_jobs_and_lets_running_jobs_finish(start):
    database, gate = FakeDatabase(), Gate()
    db = start(database, size=1)
    (reply,) = running(db, database, [gate])
    queued = [db.ask(Query("a"), block=False) for _ in range(100)]
    db.shutdown(wait=False, cancel_pending=True)
    for waiting in queued:
        error = error_of(waiting)
        assert isinstance(error, SupervisorStopped)
        assert error.executed is False
    assert not reply.done()
    gate.opened.set()
    assert reply.get(timeout=PATIENCE).scalar() == "passed"
    assert db.wait_until_ended(PATIENCE)
    assert database.ran == ["gate 0"]


def test_a_time_limit_that_is_set_later_hastens_a_waiting_stop(start):
    database, gate = FakeDatabase(), Gate()
    db = start(database, size=1)
    (reply,) = running(db, database, [gate])
    stopped = db.stop(block=False)
    db.shutdown(wait=False, timeout=1000.0)
    db.shutdown(wait=False, timeout=0.01)
    assert isinstance(error_of(reply), SupervisorStopped)
    assert stopped.get(timeout=PATIENCE) is True
    gate.opened.set()


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_a_shutdown_interrupts_and_undoes_a_runaway_statement_at_its_time_limit(start, path, timeout):
    db = start(path, size=1)
    db.ask(Script("CREATE TABLE t(x)"), timeout=PATIENCE)
    runs = [db.ask(Query(sql), block=False) for sql in (RUNAWAY, f"INSERT INTO t SELECT ({RUNAWAY})")]
    assert eventually(lambda: db.ask(Status()).running == 2)
    queued = [db.ask(Query(sql), block=False) for sql in ("SELECT 1", "INSERT INTO t VALUES (2)") for _ in range(10)]
    db.shutdown(timeout=timeout)
    for reply in [*runs, *queued]:
        error = reply.exception(0)
        assert isinstance(error, SupervisorStopped)
        assert error.executed is False
    assert nothing_left()
    with Supervisor.start(path) as again:
        assert again.ask(Query("SELECT count(*) FROM t"), timeout=PATIENCE).scalar() == 0


def test_an_interrupted_script_cannot_say_whether_it_took_effect(start, path):
    db = start(path, size=1)
    script = db.ask(Script(f"CREATE TABLE t(x); INSERT INTO t VALUES (1); {RUNAWAY}"), block=False)
    assert eventually(lambda: db.ask(Status()).running == 1)
    db.shutdown(timeout=0.05)
    error = script.exception(0)
    assert isinstance(error, SupervisorStopped)
    assert error.executed is None


def test_a_statement_that_ignores_its_interrupt_is_given_up_and_may_have_taken_effect(start):
    database, gate = FakeDatabase(), Gate()
    db = start(database, size=2)
    (reply,) = running(db, database, [gate])
    db.shutdown(timeout=0)
    error = reply.exception(0)
    assert isinstance(error, SupervisorStopped)
    assert error.executed is None
    assert any(connection.interrupted.is_set() for connection in database.connections)
    # No one can end this thread. It ends by itself once its gate opens, and the crew drops its late
    # answer.
    assert threads("-worker-")
    gate.opened.set()
    assert nothing_left(database)
    assert reply.exception(0) is error


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_an_invalid_time_limit_is_refused(start, timeout):
    db = start(FakeDatabase(), size=1)
    with pytest.raises(ValueError, match="timeout"):
        db.shutdown(timeout=timeout)
    assert db.ask(Query("a"), timeout=PATIENCE).scalar() == "a"
