"""The supervisor itself: its death, its messages, and its stop by Pykka's registry."""

import sys
import time

import pykka
import pytest

from actors.system.pykka_parts import Envelope
from actors.values.events import WorkerUp
from actors.values.requests import WorkerDown
from supervisor import Query, RestartPolicy, Status, SupervisorStopped
from tests.conftest import eventually
from tests.support.common import PATIENCE, bystander, error_of, is_refused, kill, nothing_left, running, thread_of, up
from tests.support.fakes import FakeDatabase, Gate

STAY_DOWN = RestartPolicy(backoff_initial=1000.0, backoff_max=1000.0)


def kill_supervisor(db, kind=SystemExit):
    """Kill the supervisor's thread while it sleeps, and wake it.

    The supervisor must not be about to start a worker. CPython would then kill the new thread
    instead, before it has begun, and `Thread.start` would wait for that thread for ever."""
    answer = pykka.ThreadingFuture()
    db.actor_inbox.put(Envelope("are you done?", reply_to=answer))
    answer.get(timeout=PATIENCE)
    kill(thread_of(db), kind)
    db.actor_inbox.put(Envelope("wake up"))
    assert db.wait_until_ended(PATIENCE)


# --- death of the supervisor --------------------------------------------------------------


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, MemoryError])
def test_a_killed_supervisor_rejects_queued_jobs_and_lets_running_jobs_finish(start, kind):
    database, gates = FakeDatabase(), [Gate(), Gate()]
    with bystander():
        db = start(database, size=2)
        runs = running(db, database, gates)
        queued = [db.ask(Query("a"), block=False) for _ in range(100)]
        kill_supervisor(db, kind)
        for reply in queued:
            error = error_of(reply)
            assert isinstance(error, SupervisorStopped)
            assert isinstance(error.__cause__, kind)
            assert error.executed is False
        assert not any(reply.done() for reply in runs)
        for gate in gates:
            gate.opened.set()
        assert [reply.get(timeout=PATIENCE).scalar() for reply in runs] == ["passed", "passed"]
        assert nothing_left(database)
        assert is_refused(db)


def test_the_workers_of_a_supervisor_that_is_killed_while_idle_end_too(start):
    for number in range(100):
        db = start(FakeDatabase(), size=2, name=f"crew {number}")
        assert eventually(lambda db=db: up(db) == 2)
        kill_supervisor(db)
        assert is_refused(db)
    assert nothing_left()


def test_a_crew_whose_supervisor_was_killed_can_be_stopped_and_shows_its_status(start):
    db = start(FakeDatabase(), size=1)
    assert eventually(lambda: up(db) == 1)
    kill_supervisor(db)
    assert db.stop(timeout=PATIENCE) is False
    db.shutdown(timeout=0)
    assert db.is_alive() is False
    status = db.ask(Status())
    assert status.state == "stopped"
    assert "SystemExit" in status.cause
    assert "stopped" in repr(db)


def test_a_killed_supervisor_releases_the_callers_that_wait_for_its_end(start):
    database, gate = FakeDatabase(), Gate()
    db = start(database, size=1)
    (reply,) = running(db, database, [gate])
    stopped = db.stop(block=False)
    kill_supervisor(db)
    assert stopped.get(timeout=PATIENCE) is True
    gate.opened.set()
    assert reply.get(timeout=PATIENCE).scalar() == "passed"


def test_a_worker_that_opens_as_the_supervisor_is_killed_ends_once_it_is_open(start):
    database, gate = FakeDatabase(), Gate()
    database.opening.append(gate)
    db = start(database, size=2)
    waiting = db.ask(Query("a"), block=False)
    assert gate.entered.wait(PATIENCE)
    kill_supervisor(db)
    assert isinstance(error_of(waiting), SupervisorStopped)
    gate.opened.set()
    assert nothing_left(database)
    assert database.ran == []


def test_a_worker_that_dies_after_the_supervisor_still_rejects_its_orphan(start):
    database, gate = FakeDatabase(), Gate()

    def fail():
        gate()
        raise SystemExit

    db = start(database, size=1)
    database.statements["bad"] = fail
    orphan = db.ask(Query("bad"), block=False)
    assert gate.entered.wait(PATIENCE)
    kill_supervisor(db)
    gate.opened.set()
    assert isinstance(error_of(orphan), pykka.ActorDeadError)
    assert nothing_left(database)


# --- messages and clocks ------------------------------------------------------------------


def test_the_supervisor_ignores_outdated_and_unknown_messages(start):
    db = start(FakeDatabase(), size=1)
    assert db.ask(Query("a"), timeout=PATIENCE).scalar() == "a"
    for message in (
        WorkerUp("fake", 999),
        WorkerDown(999, None),
        WorkerDown(999, OSError()),
        WorkerUp("fake", 1),
        object(),
        None,
    ):
        db.actor_inbox.put(Envelope(message))
    assert db.ask(Query("b"), timeout=PATIENCE).scalar() == "b"
    answer = pykka.ThreadingFuture()
    db.actor_inbox.put(Envelope("anything", reply_to=answer))
    assert answer.get(timeout=PATIENCE) is None
    assert up(db) == 1
    assert db.ask(Status()).restarts == 0


def test_a_request_that_comes_by_the_inbox_runs(start):
    database = FakeDatabase()
    db = start(database, size=1)
    db.actor_inbox.put(Envelope(Query("by mail")))
    assert eventually(lambda: database.ran == ["by mail"])


def test_a_message_whose_future_is_already_set_does_no_harm(start):
    db = start(FakeDatabase(), size=1)
    answer = pykka.ThreadingFuture()
    answer.set("mine")
    db.actor_inbox.put(Envelope("anything", reply_to=answer))
    assert db.ask(Query("a"), timeout=PATIENCE).scalar() == "a"
    assert db.is_alive()


def test_a_jump_of_the_wall_clock_has_no_effect(start, monkeypatch):
    lookers = []
    real_time = time.time

    def jumping():
        lookers.append(sys._getframe(1).f_globals["__name__"])
        return real_time() + 1e9 * (-1) ** len(lookers)

    monkeypatch.setattr(time, "time", jumping)
    database, gate, hanging = FakeDatabase({"bad": SystemExit()}), Gate(), Gate()
    database.opening.extend([OSError("no"), OSError("no"), hanging])
    policy = RestartPolicy(backoff_initial=0.01, start_timeout=0.05)
    db = start(database, size=2, restart=policy)
    assert eventually(lambda: up(db) == 2)
    error_of(db.ask(Query("bad"), block=False))
    assert eventually(lambda: up(db) == 2)
    with pytest.raises(pykka.Timeout):
        running(db, database, [gate])[0].get(timeout=0.01)
    db.shutdown(timeout=0.01)
    status = db.ask(Status())
    assert 0 <= status.run.max < 1000
    assert 0 <= status.wait.max < 1000
    assert not [name for name in lookers if name.startswith(("actors", "supervisor"))]
    gate.opened.set()
    hanging.opened.set()
    assert nothing_left(database)


# --- ActorRegistry.stop_all ---------------------------------------------------------------


def test_stop_all_answers_everything_and_leaves_nothing_and_can_be_repeated(start):
    for _ in range(20):
        database = FakeDatabase()
        db = start(database, size=3)
        replies = [db.ask(Query("a"), block=False) for _ in range(100)]
        pykka.ActorRegistry.stop_all(timeout=PATIENCE)
        pykka.ActorRegistry.stop_all(timeout=PATIENCE)
        assert {reply.exception(0) for reply in replies} == {None}
        assert nothing_left(database)
        assert is_refused(db)


def test_stop_all_during_a_restart_leaves_nothing(start):
    for _ in range(20):
        database, gate = FakeDatabase({"bad": SystemExit()}), Gate()
        db = start(database, size=2)
        assert eventually(lambda db=db: up(db) == 2)
        database.opening.append(gate)
        error_of(db.ask(Query("bad"), block=False))
        assert gate.entered.wait(PATIENCE)
        stops = pykka.ActorRegistry.stop_all(block=False)
        gate.opened.set()
        for stop in stops:
            stop.get(timeout=PATIENCE)
        assert db.wait_until_ended(PATIENCE)
        assert nothing_left(database)


def test_stop_all_with_a_timeout_gives_up_waiting_and_nothing_is_left_in_the_end(start):
    database, gate = FakeDatabase(), Gate()
    db = start(database, size=1)
    (reply,) = running(db, database, [gate])
    with pytest.raises(pykka.Timeout):
        pykka.ActorRegistry.stop_all(timeout=0.01)
    stops = pykka.ActorRegistry.stop_all(block=False)
    gate.opened.set()
    for stop in stops:
        stop.get(timeout=PATIENCE)
    assert reply.get(timeout=PATIENCE).scalar() == "passed"
    assert nothing_left(database)


def test_stop_all_while_suspended_leaves_nothing(start):
    database = FakeDatabase()
    database.opening.append(OSError("no"))
    db = start(database, size=2, restart=STAY_DOWN)
    assert eventually(lambda: db.ask(Status()).state == "suspended")
    pykka.ActorRegistry.stop_all(timeout=PATIENCE)
    assert nothing_left(database)
