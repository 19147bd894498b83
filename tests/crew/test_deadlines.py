"""The deadline of a request covers the queue, the wait for locks and the run."""

import math

import apsw
import pytest

from supervisor import Query, QueryTimeout, Script, Status, Supervisor, WorkerUp
from tests.conftest import eventually
from tests.support.common import RUNAWAY
from tests.support.fakes import FakeDatabase, Gate


def worker_ids(db):
    return [worker.id for worker in db.ask(Status()).workers]


@pytest.mark.parametrize("timeout", [-1, math.nan, -0.001])
@pytest.mark.parametrize("kind", [Query, Script])
def test_a_timeout_that_cannot_pass_is_a_value_error_that_names_it(kind, timeout):
    with pytest.raises(ValueError, match=r"timeout"):
        kind("SELECT 1", timeout=timeout)


@pytest.mark.parametrize("timeout", ["1", True, [], 1j])
@pytest.mark.parametrize("kind", [Query, Script])
def test_a_timeout_that_is_no_number_is_a_type_error_that_names_it(kind, timeout):
    with pytest.raises(TypeError, match=r"timeout"):
        kind("SELECT 1", timeout=timeout)


@pytest.mark.parametrize(("timeout", "error"), [(-1, ValueError), (math.nan, ValueError), ("1", TypeError)])
def test_the_crews_default_timeout_is_checked_as_well(timeout, error):
    with pytest.raises(error, match=r"Supervisor\.start\(timeout"):
        Supervisor.start(timeout=timeout)


def test_an_infinite_timeout_is_none_even_against_the_crews_default(start):
    db = start(FakeDatabase(statements={"gate": (gate := Gate())}), size=1, timeout=0.01)
    reply = db.ask(Query("gate", timeout=math.inf), block=False)
    assert gate.entered.wait(10)
    with pytest.raises(QueryTimeout):
        db.ask(Query("behind it"))
    gate.opened.set()
    assert reply.get(timeout=10).scalar() == "passed"


def test_a_queued_job_is_rejected_at_its_deadline_and_its_place_is_free(start):
    db = start(FakeDatabase(statements={"gate": (gate := Gate())}), size=1, max_queue=1)
    running = db.ask(Query("gate"), block=False)
    assert gate.entered.wait(10)
    with pytest.raises(QueryTimeout, match="before it was started") as caught:
        db.ask(Query("late", timeout=0.05))
    assert caught.value.executed is False
    assert isinstance(caught.value, TimeoutError)
    after = db.ask(Query("after"), block=False)
    gate.opened.set()
    assert after.get(timeout=10).scalar() == "after"
    assert running.get(timeout=10).scalar() == "passed"


def test_a_job_whose_deadline_has_passed_is_never_started(start):
    database = FakeDatabase(statements={"gate": (gate := Gate())})
    db = start(database, size=1)
    db.ask(Query("gate"), block=False)
    assert gate.entered.wait(10)
    late = [db.ask(Query(f"late {number}", timeout=0.001), block=False) for number in range(100)]
    gate.opened.set()
    assert all(isinstance(reply.exception(10), QueryTimeout) or reply.done() for reply in late)
    expired = [number for number, reply in enumerate(late) if reply.exception(0) is not None]
    assert not {f"late {number}" for number in expired} & set(database.ran)


def test_a_running_statement_is_interrupted_and_its_worker_lives(start, path):
    db = start(path, size=1)
    db.ask(Script("CREATE TABLE t(a)"))
    before = worker_ids(db)
    with pytest.raises(QueryTimeout, match="while it ran") as caught:
        db.ask(Query(RUNAWAY, timeout=0.05))
    assert caught.value.executed is False
    assert isinstance(caught.value.__cause__, apsw.InterruptError)
    assert db.ask(Query("SELECT 7")).scalar() == 7
    assert worker_ids(db) == before


def test_an_interrupted_write_is_rolled_back(start, path):
    db = start(path, size=1)
    db.ask(Query("CREATE TABLE t(a)"))
    fill = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    with pytest.raises(QueryTimeout):
        db.ask(Query(fill, timeout=0.05))
    assert db.ask(Query("SELECT count(*) FROM t")).scalar() == 0
    with pytest.raises(QueryTimeout) as caught:
        db.ask(Script(f"INSERT INTO t VALUES (1); {fill}", timeout=0.05))
    assert caught.value.executed is None
    assert db.ask(Query("SELECT count(*) FROM t")).scalar() == 1


def test_a_wait_for_another_process_lock_ends_at_the_deadline(start, path):
    db = start(path, size=1)
    db.ask(Query("CREATE TABLE t(a)"))
    other = apsw.Connection(str(path))
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(QueryTimeout) as caught:
            db.ask(Query("INSERT INTO t VALUES (1)", timeout=0.05))
    finally:
        other.close(True)
    assert caught.value.executed is False
    assert db.ask(Query("INSERT INTO t VALUES (2)")).rowcount == 1
    assert db.ask(Query("SELECT a FROM t")).column("a") == [2]


def test_a_worker_that_ignores_its_interrupt_is_given_up_and_replaced(start):
    database = FakeDatabase(statements={"stuck": (gate := Gate())})
    db = start(database, size=1)
    db.ask(Query("warm"))
    before = worker_ids(db)
    with pytest.raises(QueryTimeout, match="replaced") as caught:
        db.ask(Query("stuck", timeout=0.02))
    assert caught.value.executed is None
    assert database.connections[0].interrupted.is_set()
    assert db.ask(Query("served")).scalar() == "served"
    status = db.ask(Status())
    assert status.stuck == 1
    assert [worker.id for worker in status.workers] != before
    gate.opened.set()
    assert eventually(lambda: db.ask(Status()).stuck == 0)
    assert database.connections[0].closed
    assert db.ask(Status()).timed_out == 1


def test_the_crew_stops_although_a_thread_is_stuck(start):
    db = start(FakeDatabase(statements={"stuck": (gate := Gate())}), size=1)
    with pytest.raises(QueryTimeout):
        db.ask(Query("stuck", timeout=0.01))
    assert db.stop(timeout=10) is True
    gate.opened.set()


def test_a_result_in_time_is_given_although_other_jobs_expire(start, path):
    db = start(path, size=2, timeout=30)
    replies = [db.ask(Query("SELECT ?", (number,), timeout=20), block=False) for number in range(500)]
    assert [reply.get(timeout=20).scalar() for reply in replies] == list(range(500))
    status = db.ask(Status())
    assert (status.answered, status.timed_out) == (500, 0)


def test_events_of_the_same_worker_compare_by_value():
    assert WorkerUp("a", 1) == WorkerUp("a", 1) != WorkerUp("a", 2)


def test_the_timeout_of_an_ask_that_does_not_wait_is_its_deadline(start):
    gate = Gate()
    db = start(FakeDatabase({"wait": gate}), size=1)
    running = db.ask(Query("wait"), block=False)
    with pytest.raises(QueryTimeout, match=r"had 0\.01 seconds"):
        db.ask(Query("queued", timeout=60), block=False, timeout=0.01).get()
    with pytest.raises(QueryTimeout, match=r"had 0\.01 seconds"):
        db.ask(Query("queued", timeout=0.01), block=False, timeout=60).get()
    gate.opened.set()
    running.get()


@pytest.mark.parametrize(("timeout", "error"), [("1", TypeError), (-1, ValueError), (float("nan"), ValueError)])
def test_a_timeout_that_cannot_pass_is_refused_by_an_ask_that_does_not_wait(start, timeout, error):
    db = start(FakeDatabase(), size=1)
    with pytest.raises(error, match=r"ask\(timeout"):
        db.ask(Query("anything"), block=False, timeout=timeout)
