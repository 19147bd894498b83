"""Code on a thread of the crew that waits for the crew gets an error at once, never a deadlock."""

import threading
from itertools import count

import pykka
import pytest

from supervisor import Query, Status, SupervisorStopped, WouldDeadlock
from tests.conftest import eventually
from tests.support.common import PATIENCE, SQLiteWith, error_of, worker_refs
from tests.support.fakes import FakeDatabase, Gate
from tests.support.struck import Struck


@pytest.fixture
def told():
    """Results and errors of the code that ran on the threads of the crew."""
    return []


def recording(told, function):
    """Return a callback, or SQL function, that adds the outcome of `function` to `told`."""
    done = threading.Event()

    def run(*args):
        try:
            told.append(function())
        except BaseException as error:
            told.append(error)
        finally:
            done.set()
        return 1

    run.done = done
    return run


@pytest.mark.parametrize("size", [1, 2])
def test_a_job_that_asks_its_own_crew_gets_an_error_at_once(start, path, told, size):
    asking = recording(told, lambda: db.ask(Query("SELECT 2")))
    db = start(SQLiteWith(path, {"ask_again": asking}), size=size)
    for _ in range(100):
        assert db.ask(Query("SELECT ask_again()"), timeout=PATIENCE).scalar() == 1
    assert {type(error) for error in told} == {WouldDeadlock}
    assert "block=False" in str(told[0])


def test_a_job_that_waits_for_a_reply_of_its_own_crew_gets_an_error_at_once(start, path, told):
    waiting = recording(told, lambda: db.ask(Query("SELECT 2"), block=False).get())
    db = start(SQLiteWith(path, {"wait": waiting}), size=1)
    db.ask(Query("SELECT wait()"), timeout=PATIENCE)
    assert isinstance(told[0], WouldDeadlock)


def test_the_error_reaches_the_caller_of_a_job_that_does_not_catch_it(start, path):
    db = start(SQLiteWith(path, {"ask_again": lambda: db.ask(Query("SELECT 2")).scalar()}), size=1)
    with pytest.raises(WouldDeadlock):
        db.ask(Query("SELECT ask_again()"), timeout=PATIENCE)
    assert db.ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1
    assert db.ask(Status()).restarts == 0


def test_a_job_may_ask_its_own_crew_without_waiting(start, path, told):
    asking = recording(told, lambda: db.ask(Query("SELECT 2"), block=False))
    db = start(SQLiteWith(path, {"ask_again": asking}), size=1)
    db.ask(Query("SELECT ask_again()"), timeout=PATIENCE)
    assert told[0].get(timeout=PATIENCE).scalar() == 2


def test_a_job_may_ask_and_wait_for_another_crew(start, path, told):
    other = start(path, size=1)
    asking = recording(told, lambda: other.ask(Query("SELECT 2"), timeout=PATIENCE).scalar())
    db = start(SQLiteWith(path, {"ask_other": asking}), size=1)
    db.ask(Query("SELECT ask_other()"), timeout=PATIENCE)
    assert told == [2]


def test_a_callback_that_asks_and_waits_gets_an_error_at_once(start, told):
    gate = Gate()
    db = start(FakeDatabase({"slow": gate}), size=1)
    reply = db.ask(Query("slow"), block=False)
    asking = recording(told, lambda: db.ask(Query("again")))
    reply.add_done_callback(asking)
    gate.opened.set()
    assert asking.done.wait(PATIENCE)
    assert isinstance(told[0], WouldDeadlock)
    assert db.ask(Query("next"), timeout=PATIENCE).scalar() == "next"


def test_a_callback_may_ask_without_waiting_and_be_called_again_with_the_answer(start):
    gate, answered = Gate(), threading.Event()
    answers = []
    db = start(FakeDatabase({"slow": gate}), size=1)

    def ask_on(reply):
        answers.append(reply.get(timeout=0).scalar())
        if len(answers) == 100:
            answered.set()
        else:
            db.ask(Query(f"job {len(answers)}"), block=False).add_done_callback(ask_on)

    db.ask(Query("slow"), block=False).add_done_callback(ask_on)
    gate.opened.set()
    assert answered.wait(PATIENCE)
    assert answers == ["passed", *(f"job {number}" for number in range(1, 100))]


def test_a_derived_reply_that_a_callback_waits_for_is_an_error_too(start, told):
    gate = Gate()
    database = FakeDatabase({"slow": gate})
    db = start(database, size=1)
    first = db.ask(Query("slow"), block=False)
    doubled = db.ask(Query("second"), block=False).map(len)
    waiting = recording(told, doubled.get)
    first.add_done_callback(waiting)
    gate.opened.set()
    assert waiting.done.wait(PATIENCE)
    assert isinstance(told[0], WouldDeadlock)
    assert doubled.exception(PATIENCE) is told[0]
    db.stop()
    assert database.ran == ["slow"]


def test_a_status_can_be_asked_for_from_anywhere(start, path, told):
    db = start(SQLiteWith(path, {"look": recording(told, lambda: db.ask(Status()).running)}), size=1)
    db.ask(Query("SELECT look()"), timeout=PATIENCE)
    assert told == [1]


@pytest.mark.parametrize("options", [{}, {"max_queue": 10}], ids=["no limit", "a limit"])
@pytest.mark.parametrize(
    "wait",
    [
        lambda db: db.ask(Query("again"), timeout=PATIENCE / 4),
        lambda db: db.ask(Query("again"), block=False).get(timeout=PATIENCE / 4),
        lambda db: db.ask(Query("again"), block=False).map(len).get(timeout=PATIENCE / 4),
        lambda db: db.stop(block=False).get(timeout=PATIENCE / 4),
    ],
    ids=["ask", "ask, get", "ask, map, get", "stop, get"],
)
def test_a_finalizer_or_signal_handler_in_the_middle_of_an_ask_never_deadlocks(start, told, wait, options):
    db = start(FakeDatabase(), size=1, **options)
    for at in count(1):
        if not db.is_alive():
            db = start(FakeDatabase(), size=1, **options)
        assert eventually(lambda db=db: db._dispatcher.lanes[0].idle), "no worker is idle"
        struck = Struck(at, recording(told, lambda db=db: wait(db)))
        with struck.armed():
            reply = db.ask(Query("interrupted"), block=False)
        assert isinstance(error_of(reply), SupervisorStopped | None)
        if not struck.where:
            break
    assert at > 10, "too few moments were interrupted"
    late = [error for error in told if isinstance(error, BaseException) and not isinstance(error, WouldDeadlock)]
    assert late == []
    refused = [error for error in told if isinstance(error, WouldDeadlock)]
    assert bool(refused) == bool(options), "a crew with a limit has a lock, and a wait with that lock held is refused"


# A wait through Pykka's own references has a time limit, so that a failing test ends.
@pytest.mark.parametrize(
    "stop",
    [
        lambda: worker_refs()[0].stop(timeout=PATIENCE / 4),
        lambda: pykka.ActorRegistry.stop_all(timeout=PATIENCE / 4),
    ],
    ids=["its own worker", "all actors"],
)
def test_a_job_that_stops_its_own_worker_and_waits_gets_an_error_at_once(start, told, stop):
    db = start(FakeDatabase({"stop": recording(told, stop)}), size=1)
    error_of(db.ask(Query("stop"), block=False))
    assert isinstance(told[0], WouldDeadlock)
