"""The actors of the example never wait for the crew."""

import pykka
import pytest

from examples.in_an_actor_system import Found, Monitor, Reporter
from supervisor import (
    DatabaseUnavailable,
    Outcome,
    Query,
    QueueFull,
    RestartPolicy,
    Resumed,
    Subscribe,
    WorkerLost,
    WorkerUp,
)
from tests.conftest import eventually
from tests.support.common import PATIENCE, up
from tests.support.fakes import FakeDatabase, Gate, lost

QUICKLY = RestartPolicy(backoff_initial=0.001, backoff_max=0.001, max_restarts=1000)


@pytest.fixture
def act():
    """Start both actors beside a crew, and return their proxies."""
    actors = []

    def start_actors(db):
        actors.append(Reporter.start(db))
        reporter = actors[0].proxy()
        actors.append(Monitor.start(reporter))
        db.ask(Subscribe(actors[1]))
        return reporter, actors[1].proxy()

    yield start_actors
    for actor in actors:
        actor.stop()


@pytest.fixture
def busy(start):
    """Yield a gate, and a crew whose only worker is busy until the gate is open."""
    gate = Gate()
    db = start(FakeDatabase({"slow": gate}), size=1, max_queue=100)
    db.ask(Query("slow"), block=False)
    assert gate.entered.wait(PATIENCE)
    yield db, gate
    gate.opened.set()


def find(reporter, sql):
    """Return the future that the reporter returns at once."""
    return reporter.find(sql).get(timeout=PATIENCE)


def test_neither_actor_blocks_while_the_only_worker_is_busy(act, busy):
    db, gate = busy
    reporter, monitor = act(db)
    found = [find(reporter, f"book {n}") for n in range(100)]
    assert reporter.under_way.get(timeout=PATIENCE) == 100
    assert len(monitor.workers.get(timeout=PATIENCE)) == 1
    for event in (WorkerUp("fake", 8), WorkerLost("fake", 8, None), Resumed("fake")):
        monitor.actor_ref.tell(event)
    assert monitor.history.get(timeout=PATIENCE) == ("WorkerUp", "WorkerUp", "WorkerLost", "Resumed")
    reporter.ask_again().get(timeout=PATIENCE)
    assert not gate.opened.is_set()
    gate.opened.set()
    assert [promise.get(timeout=PATIENCE) for promise in found] == [f"book {n}" for n in range(100)]
    assert reporter.under_way.get(timeout=PATIENCE) == 0


def test_a_refusal_goes_to_the_waiting_caller_and_the_reporter_lives(act, busy):
    db, gate = busy
    reporter, _ = act(db)
    found = [find(reporter, f"book {n}") for n in range(100)]
    with pytest.raises(QueueFull):
        find(reporter, "one too many").get(timeout=PATIENCE)
    gate.opened.set()
    assert found[-1].get(timeout=PATIENCE) == "book 99"


def test_an_error_goes_to_the_waiting_caller_and_the_reporter_lives(act, start):
    reporter, _ = act(start(FakeDatabase({"bad": ValueError("no such book")}), size=1))
    with pytest.raises(ValueError, match="no such book"):
        find(reporter, "bad").get(timeout=PATIENCE)
    assert find(reporter, "good").get(timeout=PATIENCE) == "good"


def test_a_question_while_the_database_is_away_is_answered_when_it_is_back(act, start):
    database, back = FakeDatabase({"die": lost()}), Gate()
    db = start(database, size=1, restart=QUICKLY)
    assert eventually(lambda: up(db))
    reporter, monitor = act(db)
    database.opening.extend([OSError("away"), back])
    with pytest.raises(pykka.ActorDeadError):
        db.ask(Query("die"))
    assert back.entered.wait(PATIENCE)  # the first attempt failed, so the crew is suspended; the second hangs
    found = [find(reporter, f"book {n}") for n in range(10)]
    assert reporter.postponed.get(timeout=PATIENCE) == 10
    assert monitor.workers.get(timeout=PATIENCE) == frozenset()
    back.opened.set()
    assert [promise.get(timeout=PATIENCE) for promise in found] == [f"book {n}" for n in range(10)]
    assert monitor.history.get(timeout=PATIENCE) == ("WorkerUp", "WorkerLost", "Suspended", "WorkerUp", "Resumed")


def test_a_refusal_that_arrives_after_the_database_is_back_is_not_postponed_for_ever(act, start):
    reporter, _ = act(start(FakeDatabase(), size=1))
    promise = pykka.ThreadingFuture()
    reporter.actor_ref.tell(Found("book", promise, Outcome(None, DatabaseUnavailable("a moment ago"))))
    assert promise.get(timeout=PATIENCE) == "book"


def test_no_question_stays_postponed_in_any_order_of_questions_and_returns(act, start):
    database = FakeDatabase({"die": lost()})
    db = start(database, size=1, restart=QUICKLY)
    reporter, _ = act(db)
    for turn in range(50):
        database.opening.extend([OSError("away")] * (turn % 3))
        dying = db.ask(Query("die"), block=False)
        found = [find(reporter, f"book {n}") for n in range(20)]
        assert dying.exception(PATIENCE) is not None
        assert [promise.get(timeout=PATIENCE) for promise in found] == [f"book {n}" for n in range(20)]
    assert reporter.under_way.get(timeout=PATIENCE) == 0
