"""No caller harms the crew through its reply, and no crew harms the rest of the process."""

import asyncio
import logging
import threading
import weakref

import pykka
import pytest

from supervisor import Query, QueryCancelled, Status, SupervisorStopped
from tests.conftest import eventually
from tests.support.common import PATIENCE, bystander, error_of, nothing_left, up, worker_refs
from tests.support.fakes import FakeDatabase, Gate

BASE_EXCEPTIONS = (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)


@pytest.fixture
def slow(start):
    """A crew of one worker that runs a job until its gate opens; yields crew, reply and gate."""
    gate = Gate()
    db = start(FakeDatabase({"slow": gate}), size=1)
    reply = db.ask(Query("slow"), block=False)
    assert gate.entered.wait(PATIENCE)
    yield db, reply, gate
    gate.opened.set()


def lives(db):
    """Return whether the crew still answers, with its first workers."""
    return db.ask(Query("next"), timeout=PATIENCE).scalar() == "next" and db.ask(Status()).restarts == 0


# --- callers and their replies ------------------------------------------------------------


@pytest.mark.parametrize("kind", [ValueError, *BASE_EXCEPTIONS])
def test_a_callback_that_raises_harms_neither_the_worker_nor_the_other_callbacks(slow, kind, caplog):
    db, reply, gate = slow
    called = threading.Event()

    def fail(reply):
        raise kind("the callback's own")

    for callback in (fail, fail, lambda _: called.set()):
        reply.add_done_callback(callback)
    with caplog.at_level(logging.ERROR):
        gate.opened.set()
        assert called.wait(PATIENCE)
    assert caplog.text.count("callback_failed") == 2
    assert reply.get(timeout=0).scalar() == "passed"
    assert lives(db)
    reply.add_done_callback(fail)  # the reply is settled, so the callback runs at once, and does no harm


def test_a_client_that_answers_its_own_reply_keeps_that_answer_and_the_worker_lives(slow):
    db, reply, gate = slow
    reply.set("mine")
    gate.opened.set()
    assert lives(db)
    assert reply.get(timeout=0) == "mine"


def test_a_client_that_rejects_its_own_reply_keeps_that_error_and_the_worker_lives(slow):
    db, reply, gate = slow
    reply.set_exception((ValueError, ValueError("mine"), None))
    gate.opened.set()
    assert lives(db)
    with pytest.raises(ValueError, match="mine"):
        reply.get(timeout=0)


def test_a_client_that_hooks_its_own_reply_gets_its_hook_and_the_worker_lives(slow):
    db, reply, gate = slow
    reply.set_get_hook(lambda timeout: "hooked")
    gate.opened.set()
    assert lives(db)
    assert reply.get(timeout=0) == "hooked"


def test_the_error_of_a_hook_reaches_its_caller_and_the_worker_lives(slow):
    db, reply, gate = slow

    def fail(timeout):
        raise SystemExit("the hook's own")

    reply.set_get_hook(fail)
    gate.opened.set()
    assert lives(db)
    with pytest.raises(SystemExit):
        reply.get(timeout=0)


def test_clients_that_answer_at_the_same_time_as_the_worker_get_one_answer_each(start):
    db = start(FakeDatabase(), size=2)
    for number in range(100):
        reply = db.ask(Query(f"job {number}"), block=False)
        reply.settle("mine")
        first = reply.get(timeout=PATIENCE)
        assert lives(db)
        assert reply.get(timeout=0) is first


def test_the_job_of_a_dropped_reply_runs_and_leaves_nothing(start):
    database, gate = FakeDatabase(), Gate()
    database.statements["slow"] = gate
    db = start(database, size=1)
    dropped = [weakref.ref(db.ask(Query(sql), block=False)) for sql in ("slow", *["dropped"] * 100)]
    gate.opened.set()
    assert lives(db)
    assert database.ran.count("dropped") == 100
    assert eventually(lambda: not any(ref() for ref in dropped))


def test_a_caller_that_stops_waiting_does_no_harm(slow):
    db, reply, gate = slow
    for _ in range(100):
        with pytest.raises(pykka.Timeout):
            reply.get(timeout=0.0001)
    gate.opened.set()
    assert lives(db)


def test_a_told_request_that_fails_is_logged_and_kills_no_worker(start, caplog):
    db = start(FakeDatabase({"bad": ValueError("no such thing as a secret")}), size=1)
    with caplog.at_level(logging.ERROR):
        for _ in range(100):
            db.tell(Query("bad", ("secret",)))
        assert lives(db)
    assert caplog.text.count("told_request_failed") == 100
    assert "error=ValueError" in caplog.text
    assert "secret" not in caplog.text


def test_a_worker_that_dies_of_a_told_request_is_logged_and_replaced(start, caplog):
    db = start(FakeDatabase({"bad": SystemExit()}), size=1)
    with caplog.at_level(logging.ERROR):
        db.tell(Query("bad"))
        assert db.ask(Query("next"), timeout=PATIENCE).scalar() == "next"
        assert eventually(lambda: "WorkerDied" in caplog.text)


# --- event loops --------------------------------------------------------------------------


async def wait_for(reply):
    return await reply


def test_a_loop_that_was_closed_before_the_answer_does_no_harm(slow):
    db, reply, gate = slow
    loops = [asyncio.new_event_loop() for _ in range(10)]
    waiters = [loop.create_task(wait_for(reply)) for loop in loops]
    for loop in loops:
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    gate.opened.set()
    assert reply.get(timeout=PATIENCE).scalar() == "passed"
    assert lives(db)
    for waiter in waiters:
        waiter._log_destroy_pending = False
        waiter.get_coro().close()


def test_a_task_that_was_cancelled_before_the_answer_does_no_harm(slow):
    db, reply, gate = slow

    async def give_up():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(wait_for(reply), 0.01)

    asyncio.run(give_up())
    gate.opened.set()
    assert isinstance(reply.exception(PATIENCE), QueryCancelled)
    assert lives(db)


def test_awaiting_does_not_block_the_loop(slow):
    _, reply, gate = slow

    async def open_later():
        waiting = asyncio.ensure_future(wait_for(reply))
        await asyncio.sleep(0)
        assert not waiting.done()
        gate.opened.set()  # reached only if the loop is not blocked
        return await asyncio.wait_for(waiting, PATIENCE)

    assert asyncio.run(open_later()).scalar() == "passed"


# --- the rest of the process --------------------------------------------------------------


class _Fatal(pykka.ThreadingActor):
    use_daemon_thread = True

    def on_receive(self, message):
        raise message


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_foreign_actor_whose_death_stops_all_actors_stops_the_crew_properly(start, kind):
    for _ in range(10):
        database = FakeDatabase()
        db = start(database, size=2)
        replies = [db.ask(Query("a"), block=False) for _ in range(100)]
        _Fatal.start().tell(kind("a foreign actor's"))
        assert db.wait_until_ended(PATIENCE)
        assert {error_of(reply) for reply in replies} == {None}
        assert isinstance(error_of(db.ask(Query("late"), block=False)), SupervisorStopped)
        assert nothing_left(database)


def test_foreign_actors_may_ask_a_crew_and_die_while_it_works(start):
    database, gate = FakeDatabase(), Gate()
    database.statements["slow"] = gate
    db = start(database, size=1)

    class Asker(pykka.ThreadingActor):
        use_daemon_thread = True

        def on_receive(self, message):
            if message == "die":
                raise ValueError
            return db.ask(Query(message), block=False)

    askers = [Asker.start() for _ in range(10)]
    replies = [asker.ask("slow" if number == 0 else "a", timeout=PATIENCE) for number, asker in enumerate(askers)]
    for asker in askers:
        asker.tell("die")
    assert eventually(lambda: not any(asker.is_alive() for asker in askers))
    gate.opened.set()
    assert [error_of(reply) for reply in replies] == [None] * 10
    assert lives(db)


def test_the_death_of_one_crew_does_not_affect_another(start):
    dying = start(FakeDatabase({"bad": SystemExit()}), size=2, name="dying")
    living = start(FakeDatabase(), size=2, name="living")
    assert eventually(lambda: up(living) == 2)
    with bystander():
        for _ in range(20):
            error_of(dying.ask(Query("bad"), block=False))
        dying.shutdown(cancel_pending=True, timeout=0)
        assert lives(living)
        assert len(worker_refs()) == 2
