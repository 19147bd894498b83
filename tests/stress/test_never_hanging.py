"""Every reply is settled exactly once, at any point where a thread is cut off, and in each race."""

import asyncio
import collections
import sys
import threading

import pykka
import pytest

from actors.worker import Worker
from supervisor import (
    DatabaseUnavailable,
    Query,
    RestartPolicy,
    Result,
    Status,
    Supervisor,
    SupervisorStopped,
    WorkerDied,
)
from tests.conftest import eventually
from tests.support.common import PATIENCE, bystander, error_of, nothing_left, up
from tests.support.fakes import FakeDatabase, Gate
from tests.support.struck import KilledAt

EAGER = RestartPolicy(max_restarts=1_000_000, backoff_initial=0.001, backoff_max=0.001, poison_after=0)

# The possible ends of a request when a part of the crew is killed. There is always an end.
ENDS = (type(None), WorkerDied, DatabaseUnavailable, SupervisorStopped)


# --- stop and ask at the same time --------------------------------------------------------


def ask_until_refused(db, replies):
    while True:
        reply = db.ask(Query(f"job {len(replies)}"), block=False)
        replies.append(reply)
        if len(replies) % 100 == 0:
            error_of(reply)  # the queue need not be long for a race
        if reply.done() and isinstance(reply.exception(0), SupervisorStopped):
            return


def race(start, stop):
    """Let four threads ask until they are refused; stop the crew meanwhile; return the replies."""
    db = start(FakeDatabase(), size=2)
    replies = [[] for _ in range(4)]
    askers = [threading.Thread(target=ask_until_refused, args=(db, mine)) for mine in replies]
    for asker in askers:
        asker.start()
    assert eventually(lambda: min(map(len, replies)) > 10)
    stop(db)
    for asker in askers:
        asker.join(PATIENCE)
        assert not asker.is_alive(), "an asker hangs"
    assert db.wait_until_ended(PATIENCE)
    return [reply for mine in replies for reply in mine]


@pytest.mark.parametrize(
    ("stop", "times"),
    [
        (lambda db: db.stop(), 200),
        (lambda db: db.shutdown(), 100),
        (lambda db: db.shutdown(cancel_pending=True, timeout=0), 100),
        (lambda db: pykka.ActorRegistry.stop_all(block=False), 100),
    ],
    ids=["stop", "shutdown", "shutdown now", "stop_all"],
)
def test_stop_that_races_with_asks_of_four_threads_leaves_none_unanswered(start, stop, times):
    for _ in range(times):
        replies = race(start, stop)
        unanswered = [reply for reply in replies if not reply.done()]
        assert not unanswered, f"{len(unanswered)} of {len(replies)} are unanswered"
        assert {type(reply.exception(0)) for reply in replies} <= {type(None), SupervisorStopped}
    assert nothing_left()


def test_workers_that_die_while_four_threads_ask_leave_none_unanswered(start):
    database = FakeDatabase({"bad": SystemExit()})
    db = start(database, size=2, restart=EAGER)
    ends = collections.Counter()

    def ask(number):
        for turn in range(250):
            sql = "bad" if turn % 10 == number else f"job {number} {turn}"
            ends[type(error_of(db.ask(Query(sql), block=False)))] += 1

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(6 * PATIENCE)
    assert ends.total() == 1000
    assert set(ends) <= set(ENDS)
    once = collections.Counter(sql for sql in database.ran if sql != "bad")
    assert max(once.values()) == 1, "a job was run twice"
    assert eventually(lambda: up(db) == 2)
    assert eventually(lambda: database.open_connections == 2)


# --- killed at every step of the crew's own code ------------------------------------------


def traced(actor_class, killer, which=1):
    """Return `actor_class` whose `which`-th instance is cut off where `killer` says."""
    born = []

    class Traced(actor_class):
        def _actor_loop_setup(self):
            born.append(self)
            if len(born) == which:
                sys.setprofile(killer)
            super()._actor_loop_setup()

    return Traced


def adds_up(status):
    settled = status.answered + status.failed + status.died + status.rejected + status.cancelled + status.timed_out
    return status.submitted == status.queued + status.running + settled


def crew_with(worker_class, supervisor_class, database, **options):
    class Crew(supervisor_class):
        pass

    Crew.worker_class = worker_class
    return Crew.start(database, restart=EAGER, **options)


def life(db, database, killer):
    """Lead a short life with everything in it, and see that it all comes to an end."""
    gate = database.statements["gate"] = Gate()
    replies = [db.ask(Query(sql), block=False) for sql in ("gate", "wrong", "two", "bad", "three")]
    called = collections.Counter()
    replies[2].add_done_callback(lambda _: called.update(["callback"]))
    replies += [reply.map(len) for reply in replies]

    async def all_ends():
        # All of them are waited for before the first can be answered.
        ends = asyncio.gather(*(asyncio.wait_for(reply, PATIENCE) for reply in replies), return_exceptions=True)
        await asyncio.sleep(0)
        gate.opened.set()
        return await ends

    expected = (Result, int, ValueError, killer.kind, WorkerDied, DatabaseUnavailable, SupervisorStopped)
    for end in asyncio.run(all_ends()):
        assert isinstance(end, expected), (end, killer.where)
    assert called["callback"] <= 1
    ran = collections.Counter(database.ran)
    assert max(ran.values(), default=0) <= 1, f"run twice: {ran}"


def every_step(kill_at):
    """Call `kill_at(1)`, `kill_at(2)` … until there is no such step.

    Return how many steps there were.
    """
    for step in range(1, 10_000):
        if not kill_at(step):
            return step - 1
    pytest.fail("this life has no end")


# Python reports and drops an exception in a finalizer.
_IN_A_FINALIZER = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <function Keeper\.__del__:pytest.PytestUnraisableExceptionWarning"
)


@_IN_A_FINALIZER
@pytest.mark.parametrize("kind", [SystemExit, ZeroDivisionError])
@pytest.mark.parametrize("which", [1, 2], ids=["first", "replacement"])
def test_a_worker_killed_at_any_step_of_its_life_leaves_no_reply_and_is_replaced(kind, which):
    def kill_at(step):
        killer = KilledAt(step, kind)
        database = FakeDatabase({"bad": SystemExit(), "wrong": ValueError()})
        db = crew_with(traced(Worker, killer, which), Supervisor, database, size=1)
        try:
            life(db, database, killer)
            assert eventually(lambda: db.ask(Query("again"), block=False).exception(PATIENCE) is None), killer.where
            assert eventually(lambda: database.open_connections == 1), killer.where
            status = db.ask(Status())
            assert adds_up(status), (killer.where, status)
        finally:
            db.shutdown(cancel_pending=True, timeout=0)
        assert nothing_left(database), killer.where
        return killer.where

    with bystander():
        assert every_step(kill_at) > 100


@_IN_A_FINALIZER
@pytest.mark.parametrize("kind", [SystemExit, ZeroDivisionError])
def test_a_supervisor_killed_at_any_step_of_its_life_leaves_no_reply_and_nothing_behind(kind):
    def kill_at(step):
        killer = KilledAt(step, kind)
        database = FakeDatabase({"bad": SystemExit(), "wrong": ValueError()})
        database.opening.append(OSError("not at first"))
        db = crew_with(Worker, traced(Supervisor, killer), database, size=2)
        life(db, database, killer)
        stopped = db.stop(block=False)
        assert stopped.exception(PATIENCE) is None, killer.where
        assert db.wait_until_ended(PATIENCE), killer.where
        assert isinstance(error_of(db.ask(Query("late"), block=False)), SupervisorStopped)
        assert nothing_left(database), killer.where
        return killer.where

    with bystander():
        assert every_step(kill_at) > 100


def asking(db):
    db.ask(Query("asked"))


def asking_later(db):
    db.ask(Query("asked"), block=False).get()


def telling(db):
    db.tell(Query("told"))


def looking(db):
    db.ask(Status())
    repr(db)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("action", [asking, asking_later, telling, looking])
def test_a_caller_interrupted_at_any_step_leaves_the_crew_usable(start, action, busy):
    db = start(FakeDatabase(), size=1)

    def kill_at(step):
        killer = KilledAt(step, KeyboardInterrupt)
        before = [db.ask(Query("before"), block=False) for _ in range(3 * busy)]
        try:
            with killer.armed():
                action(db)
        except KeyboardInterrupt:
            pass
        assert all(error_of(reply) is None for reply in before), killer.where
        assert db.ask(Query("after"), timeout=PATIENCE).scalar() == "after", killer.where
        assert eventually(lambda: db.ask(Status()).queued == 0), killer.where
        assert eventually(lambda: adds_up(db.ask(Status()))), (killer.where, db.ask(Status()))
        return killer.where

    assert every_step(kill_at) > 10


@pytest.mark.parametrize("stop", [lambda db: db.stop(), lambda db: db.shutdown()], ids=["stop", "shutdown"])
def test_a_caller_interrupted_at_any_step_of_stopping_can_stop_again(start, stop):
    def kill_at(step):
        killer = KilledAt(step, KeyboardInterrupt)
        database = FakeDatabase()
        db = start(database, size=1)
        waiting = db.ask(Query("a"), block=False)
        try:
            with killer.armed():
                stop(db)
        except KeyboardInterrupt:
            pass
        db.stop(timeout=PATIENCE)
        assert error_of(waiting) is None, killer.where
        assert nothing_left(database), killer.where
        return killer.where

    assert every_step(kill_at) > 10
