"""Outcomes of replies and events of a crew, sent to other actors as messages."""

import queue

import pykka
import pytest

from supervisor import (
    DatabaseUnavailable,
    Outcome,
    Query,
    RestartPolicy,
    Resumed,
    Subscribe,
    SupervisorStopped,
    Suspended,
    Unsubscribe,
    WorkerLost,
    WorkerUp,
)
from tests.support.fakes import FakeDatabase, lost


class Listener(pykka.ThreadingActor):
    def __init__(self, heard):
        super().__init__()
        self.heard = heard

    def on_receive(self, message):
        self.heard.put(message)


@pytest.fixture
def listener():
    heard = queue.Queue()
    ref = Listener.start(heard)
    ref.heard = heard
    yield ref
    ref.stop()


def test_an_outcome_is_piped_to_another_actor(start, listener):
    db = start(FakeDatabase(statements={"bad": ValueError("bad")}), size=1)
    db.ask(Query("good"), block=False).pipe_to(listener)
    outcome = listener.heard.get(timeout=10)
    assert isinstance(outcome, Outcome)
    assert outcome.get().scalar() == "good"
    db.ask(Query("bad"), block=False).pipe_to(listener, wrap=lambda outcome: ("wrapped", outcome))
    tag, outcome = listener.heard.get(timeout=10)
    assert tag == "wrapped"
    with pytest.raises(ValueError, match="bad"):
        outcome.get()


def test_an_outcome_for_a_dead_actor_is_logged_and_does_no_harm(start, caplog):
    db = start(FakeDatabase(), size=1)
    dead = Listener.start(queue.Queue())
    dead.stop()
    db.ask(Query("nobody listens"), block=False).pipe_to(dead)
    assert db.ask(Query("next")).scalar() == "next"
    assert "outcome_undelivered" in caplog.text


def test_a_subscriber_gets_the_events_of_workers_and_suspensions(start, listener):
    database = FakeDatabase(statements={"die": lost()})
    db = start(database, size=1, name="crew", restart=RestartPolicy(backoff_initial=0.001, backoff_max=0.001))
    db.ask(Query("warm"))
    assert db.ask(Subscribe(listener)) is None
    database.opening.extend([OSError("away")] * 2)
    assert db.ask(Query("die"), block=False).exception(10) is not None
    assert isinstance(listener.heard.get(timeout=10), WorkerUp)
    heard = [listener.heard.get(timeout=10) for _ in range(4)]
    assert isinstance(heard[0], WorkerLost)
    assert heard[0].crew == "crew"
    assert isinstance(heard[0].cause, OSError)
    assert isinstance(heard[1], Suspended)
    assert {type(event) for event in heard[2:]} == {WorkerUp, Resumed}


def test_a_subscriber_that_left_or_died_gets_no_more_events(start, listener):
    database = FakeDatabase(statements={"die": lost()})
    db = start(database, size=1)
    dead = Listener.start(queue.Queue())
    db.ask(Subscribe(dead))
    dead.stop()
    db.ask(Query("warm"))
    db.ask(Subscribe(listener))
    db.ask(Unsubscribe(listener))
    assert listener.heard.get(timeout=10) == WorkerUp("fake", 1)
    assert db.ask(Query("die"), block=False).exception(10) is not None
    assert db.ask(Query("served")).scalar() == "served"
    assert listener.heard.empty()


def test_subscribing_to_a_stopped_crew_is_refused(start, listener):
    db = start(FakeDatabase(), size=1)
    db.stop()
    with pytest.raises((SupervisorStopped, pykka.ActorDeadError)):
        db.ask(Subscribe(listener))


@pytest.mark.parametrize("kind", [Subscribe, Unsubscribe])
def test_only_an_actor_can_subscribe(kind):
    with pytest.raises(TypeError, match="actor_ref"):
        kind("nobody")


def test_a_new_subscriber_gets_an_event_for_each_running_worker(start, listener):
    db = start(FakeDatabase(), size=2, name="app")
    db.ask(Subscribe(listener))
    assert {listener.heard.get(timeout=10) for _ in range(2)} == {WorkerUp("app", 1), WorkerUp("app", 2)}


def test_a_new_subscriber_of_a_suspended_crew_gets_its_suspension(start, listener):
    closed = OSError("closed")
    database = FakeDatabase()
    database.opening.extend([closed] * 2)
    db = start(database, size=1, name="app", restart=RestartPolicy(backoff_initial=3600, backoff_max=3600))
    with pytest.raises(DatabaseUnavailable):
        db.ask(Query("anything"))
    db.ask(Subscribe(listener))
    assert listener.heard.get(timeout=10) == Suspended("app", closed)


def test_the_error_of_a_wrap_is_sent_as_an_outcome(start, listener, caplog):
    db = start(FakeDatabase(), size=1)
    error = LookupError("no wrap today")

    def wrap(outcome):
        raise error

    db.ask(Query("good"), block=False).pipe_to(listener, wrap=wrap)
    assert listener.heard.get(timeout=10) == Outcome(None, error)
    assert "wrap_failed" in caplog.text
