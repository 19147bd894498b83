"""Workers that die under a real supervisor: only the orphan is rejected, and the crew recovers."""

import asyncio
import collections
import logging
import threading

import pykka
import pytest

from supervisor import DatabaseUnavailable, Query, RestartPolicy, Result, Status, WorkerDied
from tests.conftest import eventually
from tests.support.common import PATIENCE, bystander, error_of, kill, thread_of_a_worker, threads, up, worker_refs
from tests.support.fakes import FakeDatabase, Gate, lost

BASE_EXCEPTIONS = (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)

# Replacements start at once, after any number of deaths.
EAGER = RestartPolicy(max_restarts=1_000_000, backoff_initial=0.0, quiet_period=0.0, poison_after=0)


def raiser(kind):
    def fail(*args):
        raise kind("told to go")

    return fail


def add_up(status):
    settled = status.answered + status.failed + status.died + status.rejected + status.cancelled + status.timed_out
    return status.submitted == status.queued + status.running + settled


@pytest.mark.parametrize("kind", BASE_EXCEPTIONS)
def test_after_a_base_exception_the_orphan_is_rejected_and_the_queue_is_served(start, kind):
    database = FakeDatabase({"bad": raiser(kind)})
    db = start(database, size=2, restart=EAGER)
    with bystander():
        for _ in range(100):
            orphan = db.ask(Query("bad"), block=False)
            waiting = [db.ask(Query(f"job {number}"), block=False) for number in range(3)]
            error = error_of(orphan)
            assert isinstance(error, WorkerDied)
            assert isinstance(error.__cause__, kind)
            assert [reply.get(timeout=PATIENCE).scalar() for reply in waiting] == ["job 0", "job 1", "job 2"]
        assert eventually(lambda: up(db) == 2)
    status = db.ask(Status())
    assert status.died == status.restarts == 100
    assert add_up(status)
    assert collections.Counter(database.ran)["bad"] == 100, "a job was run again"
    assert eventually(lambda: database.open_connections == 2)


@pytest.mark.parametrize("kind", BASE_EXCEPTIONS)
def test_opening_that_fails_with_a_base_exception_answers_waiting_callers_and_is_repeated(start, kind):
    gate = Gate()

    def fail():
        gate()
        raise kind("no entry")

    database = FakeDatabase()
    database.opening.append(fail)
    with bystander():
        db = start(database, size=2, restart=RestartPolicy(backoff_initial=0.01))
        waiting = db.ask(Query("a"), block=False)
        gate.opened.set()
        error = error_of(waiting)
        assert isinstance(error, DatabaseUnavailable)
        assert isinstance(error.__cause__, kind)
        assert error.executed is False
        assert eventually(lambda: up(db) == 2)
        assert db.ask(Query("b"), timeout=PATIENCE).scalar() == "b"
    assert database.ran == ["b"]


def test_a_connection_that_is_lost_a_hundred_times_costs_only_a_hundred_orphans(start):
    database = FakeDatabase({"bad": lambda: exec("raise error", {"error": lost()})})
    db = start(database, size=1, restart=EAGER)
    replies = [db.ask(Query(sql), block=False) for _ in range(100) for sql in ("bad", "good")]
    ended = [type(error_of(reply)) for reply in replies]
    assert ended == [WorkerDied, type(None)] * 100
    assert database.ran == ["bad", "good"] * 100


def test_the_death_of_one_worker_does_not_affect_the_job_of_another(start):
    gate = Gate()
    database = FakeDatabase({"slow": gate, "bad": SystemExit()})
    db = start(database, size=2, restart=EAGER)
    assert eventually(lambda: up(db) == 2)
    slow = db.ask(Query("slow"), block=False)
    assert gate.entered.wait(PATIENCE)
    assert isinstance(error_of(db.ask(Query("bad"), block=False)), WorkerDied)
    assert not slow.done()
    gate.opened.set()
    assert slow.get(timeout=PATIENCE).scalar() == "passed"


@pytest.mark.parametrize("kind", [SystemExit, ValueError])
def test_a_thread_killed_while_it_runs_a_job_rejects_that_job_alone(start, kind):
    entered = threading.Event()

    def busy():
        entered.set()
        while True:
            pass

    database = FakeDatabase({"busy": busy})
    db = start(database, size=1, restart=EAGER)
    for _ in range(10):
        entered.clear()
        orphan, waiting = (db.ask(Query(sql), block=False) for sql in ("busy", "next"))
        assert entered.wait(PATIENCE)
        kill(thread_of_a_worker(db), kind)
        # An ordinary exception looks like an error of the statement itself.
        assert isinstance(error_of(orphan), WorkerDied if kind is SystemExit else ValueError)
        assert waiting.get(timeout=PATIENCE).scalar() == "next"
    assert database.ran == ["busy", "next"] * 10


def test_a_thread_killed_while_it_is_idle_is_replaced_and_every_job_is_settled(start):
    db = start(FakeDatabase(), size=1, restart=EAGER)
    for number in range(100):
        assert db.ask(Query("a"), timeout=PATIENCE).scalar() == "a"
        kill(thread_of_a_worker(db))
        error = error_of(db.ask(Query(f"job {number}"), block=False))
        assert error is None or isinstance(error, WorkerDied)
        assert eventually(lambda: up(db) == 1)
    assert add_up(db.ask(Status()))


def test_a_thread_killed_in_a_callback_has_answered_its_job_and_is_replaced(start):
    db = start(FakeDatabase({"slow": (gate := Gate())}), size=1, restart=EAGER)
    entered = threading.Event()

    def busy(reply):
        entered.set()
        while True:
            pass

    reply = db.ask(Query("slow"), block=False)
    reply.add_done_callback(busy)
    waiting = db.ask(Query("next"), block=False)
    gate.opened.set()
    assert entered.wait(PATIENCE)
    assert reply.get(timeout=0).scalar() == "passed"
    kill(thread_of_a_worker(db))
    assert waiting.get(timeout=PATIENCE).scalar() == "next"
    assert db.ask(Query("last"), timeout=PATIENCE).scalar() == "last"


def test_a_worker_stopped_by_its_own_reference_is_replaced_and_its_job_is_answered(start):
    database = FakeDatabase()
    db = start(database, size=1, restart=EAGER)
    for number in range(100):
        database.statements["slow"] = gate = Gate()
        slow, waiting = (db.ask(Query(sql), block=False) for sql in ("slow", f"job {number}"))
        assert gate.entered.wait(PATIENCE)
        stopped = worker_refs()[0].stop(block=False)
        gate.opened.set()
        assert slow.get(timeout=PATIENCE).scalar() == "passed"
        assert stopped.get(timeout=PATIENCE) is True
        assert waiting.get(timeout=PATIENCE).scalar() == f"job {number}"
    assert db.ask(Status()).died == 0


def test_a_worker_stopped_by_its_own_job_is_replaced_and_the_job_is_answered(start):
    def stop_all_workers():
        for ref in worker_refs():
            ref.stop(block=False)
        return Result(("n",), [(1,)], 1)

    db = start(FakeDatabase({"stop": stop_all_workers}), size=2, restart=EAGER)
    for number in range(100):
        stopping, waiting = (db.ask(Query(sql), block=False) for sql in ("stop", f"job {number}"))
        assert stopping.get(timeout=PATIENCE).scalar() == 1
        assert waiting.get(timeout=PATIENCE).scalar() == f"job {number}"
    assert eventually(lambda: up(db) == 2)


class RaisingHandler(logging.Handler):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def emit(self, record):
        raise self.kind("a handler that raises")


class RaisingFilter(logging.Filter):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def filter(self, record):
        raise self.kind("a filter that raises")


@pytest.fixture(params=["querycrew", "querycrew.supervisor", "querycrew.worker", "querycrew.replies.reply", "pykka"])
def raising_log(request, kind):
    """A logger whose filters and handlers raise at each event."""
    logger = logging.getLogger(request.param)
    before, handler, guard = logger.level, RaisingHandler(kind), RaisingFilter(kind)

    def arm():
        logger.setLevel(logging.DEBUG)
        logger.addHandler(handler)
        logger.addFilter(guard)

    yield arm
    logger.setLevel(before)
    logger.removeHandler(handler)
    logger.removeFilter(guard)


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_logging_that_raises_costs_no_job_except_the_orphan(start, raising_log, kind):
    db = start(FakeDatabase({"bad": SystemExit(), "wrong": ValueError()}), size=1, restart=EAGER)
    assert db.ask(Query("a"), timeout=PATIENCE).scalar() == "a"
    raising_log()
    db.tell(Query("wrong"))
    for number in range(5):
        orphan, waiting = (db.ask(Query(sql), block=False) for sql in ("bad", f"job {number}"))
        orphan.add_done_callback(raiser(kind))
        assert isinstance(error_of(orphan), WorkerDied)
        assert waiting.get(timeout=PATIENCE).scalar() == f"job {number}"


def broken_threads(monkeypatch, names, times=10**9):
    """Let the system refuse threads whose name contains one of `names`, `times` times."""
    real_start, left = threading.Thread.start, [times]

    def start(thread):
        if left[0] and any(name in thread.name for name in names):
            left[0] -= 1
            raise RuntimeError("can't start new thread")
        real_start(thread)

    monkeypatch.setattr(threading.Thread, "start", start)


def test_without_a_thread_for_the_supervisor_start_raises_and_nothing_is_left(start, monkeypatch):
    broken_threads(monkeypatch, ["querycrew"])
    for _ in range(100):
        with pytest.raises(RuntimeError, match="new thread"):
            start(FakeDatabase(), size=1)
    assert pykka.ActorRegistry.get_all() == []


def test_jobs_are_refused_with_the_cause_until_the_system_gives_threads_for_workers(start, monkeypatch):
    broken_threads(monkeypatch, ["-worker-"], times=3)
    database = FakeDatabase()
    db = start(database, size=2, restart=RestartPolicy(backoff_initial=0.01, backoff_max=0.01))
    first = db.ask(Query("a"), block=False)
    error = error_of(first)
    if error is not None:  # None if a worker was up before the job came
        assert isinstance(error, DatabaseUnavailable)
        assert isinstance(error.__cause__, RuntimeError)
    assert eventually(lambda: up(db) == 2)
    assert db.ask(Query("b"), timeout=PATIENCE).scalar() == "b"
    assert db.ask(Status()).failed_starts == 3
    assert len(worker_refs()) == len(threads("-worker-")) == database.open_connections == 2


def test_a_replacement_without_a_thread_does_not_stop_the_other_workers(start, monkeypatch):
    db = start(FakeDatabase({"bad": SystemExit()}), size=2, restart=RestartPolicy(backoff_initial=0.01))
    assert eventually(lambda: up(db) == 2)
    broken_threads(monkeypatch, ["-worker-"], times=3)
    assert isinstance(error_of(db.ask(Query("bad"), block=False)), WorkerDied)
    for number in range(100):
        assert db.ask(Query(f"job {number}"), timeout=PATIENCE).scalar() == f"job {number}"
    assert eventually(lambda: up(db) == 2)
    assert len(worker_refs()) == 2
