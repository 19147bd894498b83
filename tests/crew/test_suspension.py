"""A crew whose database cannot be opened refuses jobs at once with the cause, and heals."""

import itertools
import threading
import time

import apsw
import pytest

from supervisor import DatabaseUnavailable, Query, RestartPolicy, SQLite, Status, SupervisorStopped
from tests.conftest import eventually
from tests.support.common import PATIENCE, error_of, run_program, threads, up
from tests.support.fakes import FakeDatabase, Gate

QUICK = RestartPolicy(backoff_initial=0.005, backoff_max=0.02)
NEVER_AGAIN = RestartPolicy(backoff_initial=1000.0, backoff_max=1000.0)


def is_suspended(db):
    return db.ask(Status()).state == "suspended"


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_opening_that_fails_several_times_heals_at_the_next_attempt(start, failures):
    cause = OSError("not yet")
    database = FakeDatabase()
    database.opening.extend([cause] * failures)
    db = start(database, size=3, restart=QUICK)
    assert eventually(lambda: up(db) == 3)
    status = db.ask(Status())
    assert (status.state, status.failed_starts, status.died) == ("up", failures, 0)
    assert db.ask(Query("a"), timeout=PATIENCE).scalar() == "a"


def test_each_wait_before_the_next_attempt_is_at_least_twice_the_last(start):
    attempts = []
    healed = threading.Event()

    def fail():
        attempts.append(time.monotonic())
        raise OSError("not yet")

    database = FakeDatabase()
    database.opening.extend([fail] * 5)
    database.opening.append(healed.set)
    start(database, size=1, restart=RestartPolicy(backoff_initial=0.01, jitter=0.0))
    assert healed.wait(PATIENCE)
    gaps = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    for gap, least in zip(gaps, (0.01, 0.02, 0.04, 0.08), strict=True):
        assert gap >= least


def test_a_suspended_crew_refuses_every_job_at_once_with_the_cause(start):
    cause = OSError("no such place")
    database = FakeDatabase()
    database.opening.append(cause)
    db = start(database, size=2, restart=NEVER_AGAIN)
    assert eventually(lambda: is_suspended(db))
    errors = []
    for _ in range(100):
        reply = db.ask(Query("a"), block=False)
        assert reply.done()
        errors.append(reply.exception(0))
    assert {type(error) for error in errors} == {DatabaseUnavailable}
    assert all(error.__cause__ is cause and error.executed is False for error in errors)
    assert len({id(error) for error in errors}) == 100
    assert "no such place" in str(errors[0])
    assert database.connections == []
    status = db.ask(Status())
    assert status.rejected == 100
    assert "no such place" in status.cause
    assert "suspended" in repr(db)


def test_jobs_that_were_queued_before_the_suspension_are_rejected_with_the_cause(start):
    gate, cause = Gate(), OSError("no")

    def fail():
        gate()
        raise cause

    database = FakeDatabase()
    database.opening.append(fail)
    db = start(database, size=2, restart=NEVER_AGAIN)
    waiting = [db.ask(Query(f"job {number}"), block=False) for number in range(100)]
    gate.opened.set()
    assert all(error_of(reply).__cause__ is cause for reply in waiting)
    assert database.ran == []


def test_opening_that_fails_for_ever_needs_little_processor_time(start):
    database = FakeDatabase()
    database.opening.extend([OSError("no")] * 10_000)
    db = start(database, size=8)
    assert eventually(lambda: is_suspended(db))
    before = time.process_time()
    threading.Event().wait(0.5)
    assert time.process_time() - before < 0.05
    # All eight slots share one attempt at a time.
    assert db.ask(Status()).failed_starts <= 8
    assert len(threads("-worker-")) <= 1


def test_a_crew_without_a_wait_between_attempts_still_refuses_jobs(start):
    database = FakeDatabase()
    gone = threading.Event()

    def fail():
        if not gone.is_set():
            database.opening.append(fail)
        raise OSError("no")

    database.opening.append(fail)
    db = start(database, size=1, restart=RestartPolicy(backoff_initial=0.0))
    try:
        reply = db.ask(Query("a"), block=False)
        assert isinstance(reply.exception(PATIENCE / 4), DatabaseUnavailable)
    finally:
        gone.set()


def test_a_suspended_crew_is_resumed_by_the_first_worker_that_comes_up(start):
    second = Gate()
    database = FakeDatabase()
    database.opening.extend([OSError("no"), OSError("no"), None, second])
    db = start(database, size=2, restart=QUICK)
    assert eventually(lambda: up(db) == 1)
    assert db.ask(Query("a"), timeout=PATIENCE).scalar() == "a"
    second.opened.set()
    assert eventually(lambda: up(db) == 2)


def test_a_crew_whose_workers_all_die_and_cannot_be_replaced_is_suspended_and_resumes(start):
    database = FakeDatabase({"bad": SystemExit()})
    db = start(database, size=2, restart=QUICK)
    assert eventually(lambda: up(db) == 2)
    may_heal = threading.Event()

    def fail():
        if may_heal.is_set():
            return
        database.opening.append(fail)
        raise OSError("gone")

    database.opening.extend([fail, fail])
    for _ in range(2):
        db.ask(Query("bad"), block=False)
    assert eventually(lambda: is_suspended(db))
    assert isinstance(error_of(db.ask(Query("a"), block=False)), DatabaseUnavailable)
    may_heal.set()
    assert eventually(lambda: up(db) == 2)
    assert db.ask(Query("a"), timeout=PATIENCE).scalar() == "a"


def test_after_more_deaths_than_allowed_replacements_wait_and_jobs_are_refused(start):
    policy = RestartPolicy(max_restarts=3, within=1000.0, backoff_initial=0.0, quiet_period=0.0, poison_after=0)
    db = start(FakeDatabase({"bad": SystemExit("worn out")}), size=1, restart=policy)
    for _ in range(4):
        error_of(db.ask(Query("bad"), block=False))
    assert eventually(lambda: is_suspended(db))
    error = error_of(db.ask(Query("a"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert isinstance(error.__cause__, SystemExit)
    assert db.ask(Status()).restarts == 3


def test_opening_that_hangs_is_given_up_and_its_late_connection_is_closed(start):
    gate = Gate()
    database = FakeDatabase()
    database.opening.append(gate)
    policy = RestartPolicy(start_timeout=0.05, backoff_initial=0.01)
    db = start(database, size=1, restart=policy)
    waiting = db.ask(Query("a"), block=False)
    error = error_of(waiting)
    assert isinstance(error, DatabaseUnavailable)
    assert isinstance(error.__cause__, TimeoutError)
    assert "0.05 seconds" in str(error.__cause__)
    assert eventually(lambda: up(db) == 1)
    gate.opened.set()
    assert eventually(lambda: len(database.connections) == 2 and database.open_connections == 1)
    assert db.ask(Query("b"), timeout=PATIENCE).scalar() == "b"
    assert database.ran == ["b"]


@pytest.mark.parametrize("queued", [0, 10])
def test_a_crew_whose_opening_hangs_can_be_shut_down_in_time(start, queued):
    gate = Gate()
    database = FakeDatabase()
    database.opening.append(gate)
    db = start(database, size=2)
    assert gate.entered.wait(PATIENCE)
    waiting = [db.ask(Query("a"), block=False) for _ in range(queued)]
    db.shutdown(wait=False, timeout=0.05)
    assert db.wait_until_ended(PATIENCE)
    assert all(isinstance(error_of(reply), SupervisorStopped) for reply in waiting)
    gate.opened.set()
    assert eventually(lambda: not threads("-worker-"))
    assert database.open_connections == 0
    assert database.ran == []


def test_an_idle_crew_whose_opening_hangs_can_be_stopped(start):
    gate = Gate()
    database = FakeDatabase()
    database.opening.append(gate)
    db = start(database, size=2)
    assert gate.entered.wait(PATIENCE)
    assert db.stop(timeout=PATIENCE) is True
    gate.opened.set()
    assert eventually(lambda: not threads("-worker-"))
    assert database.open_connections == 0


def test_a_crew_that_stops_while_opening_hangs_answers_queued_jobs_once_it_is_open(start):
    gate = Gate()
    database = FakeDatabase()
    database.opening.append(gate)
    db = start(database, size=2)
    waiting = [db.ask(Query(f"job {number}"), block=False) for number in range(10)]
    stopped = db.stop(block=False)
    gate.opened.set()
    assert [reply.get(timeout=PATIENCE).scalar() for reply in waiting] == [f"job {number}" for number in range(10)]
    assert stopped.get(timeout=PATIENCE) is True
    assert database.open_connections == 0


# --- real files ---------------------------------------------------------------------------


def refused(db):
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert isinstance(error.__cause__, apsw.Error)
    assert error.executed is False
    return " ".join(error.__cause__.__notes__)


def heals(db):
    """Wait until the crew answers and has its full size. The crew creates a missing file."""
    return eventually(lambda: error_of(db.ask(Query("SELECT 1"), block=False)) is None) and eventually(
        lambda: up(db) == 2
    )


def test_a_missing_directory_is_named_and_healed_once_it_is_there(start, tmp_path):
    path = tmp_path / "missing" / "app.db"
    db = start(path, size=2, restart=QUICK)
    assert f"no directory {path.parent}" in refused(db)
    path.parent.mkdir()
    assert heals(db)


def test_a_file_that_is_no_database_is_named_and_healed_once_it_is_one(start, path, tmp_path):
    path.write_bytes(b"This is no database, and it never was one. " * 100)
    db = start(path, size=2, restart=QUICK)
    assert "is not a SQLite database" in refused(db)
    good = apsw.Connection(str(tmp_path / "good.db"))
    good.execute("CREATE TABLE t(x); INSERT INTO t VALUES (7)")
    good.close()
    (tmp_path / "good.db").replace(path)
    assert heals(db)
    assert db.ask(Query("SELECT x FROM t"), timeout=PATIENCE).scalar() == 7


def test_a_directory_in_place_of_the_file_is_named_and_healed_once_it_is_gone(start, path):
    path.mkdir()
    db = start(path, size=2, restart=QUICK)
    assert "is a directory" in refused(db)
    path.rmdir()
    assert heals(db)


def test_a_file_that_may_not_be_read_is_named_and_healed_once_it_may():
    done = run_program("permission")
    assert (done.returncode, done.stdout.split()) == (0, ["CantOpenError", "True", "True", "7"]), done.stderr


def test_jobs_are_refused_with_the_cause_until_the_system_gives_descriptors(path):
    done = run_program("descriptors", path)
    assert (done.returncode, done.stdout.split()) == (0, ["CantOpenError", "True", "True"]), done.stderr


def test_a_file_that_another_connection_holds_is_served_once_it_is_free(start, path):
    blocker = apsw.Connection(str(path))
    blocker.execute("BEGIN EXCLUSIVE")
    db = start(SQLite(path, busy_timeout=0.0), size=2, restart=QUICK)
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert isinstance(error.__cause__, apsw.BusyError)
    blocker.close()
    assert heals(db)
