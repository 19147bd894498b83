"""One worker with a scripted database, in a thread of its own: how jobs end, and how it ends."""

import asyncio
import queue

import pykka
import pytest

from actors.dispatch.dispatcher import Dispatcher
from actors.dispatch.job import Job
from actors.replies.reply import Reply
from actors.values.events import WorkerUp
from actors.values.requests import Query, WorkerDown
from actors.worker import Worker
from supervisor import Result, WorkerDied
from tests.conftest import eventually
from tests.support.common import PATIENCE, bystander, error_of, kill, threads
from tests.support.fakes import FakeDatabase, Gate, lost

BASE_EXCEPTIONS = (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)


class OneWorker:
    """A worker without a supervisor. `news` keeps the messages of the worker."""

    def __init__(self, database: FakeDatabase) -> None:
        self.dispatcher = Dispatcher("one", str(database), 1, None)
        self.news: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.worker = Worker(1, database, self.dispatcher, self.news.put)
        self.dispatcher.add_worker(self.worker.handle)

    def launch(self) -> "OneWorker":
        self.worker.launch()
        return self

    def ask(self, sql: str) -> Reply[Result]:
        reply: Reply[Result] = Reply(self.dispatcher)
        job = Job(Query(sql), reply, self.dispatcher.clock())
        self.dispatcher.submit(job)
        return reply

    def hears(self) -> object:
        return self.news.get(timeout=PATIENCE)

    def is_gone(self) -> bool:
        """Return whether the worker left nothing behind and sent no further message."""
        registered = [ref for ref in pykka.ActorRegistry.get_all() if ref.actor_urn == self.worker.actor_urn]
        return eventually(lambda: not threads("querycrew-one-")) and not registered and self.news.empty()

    def retire(self) -> None:
        self.dispatcher.close()
        self.worker.actor_ref.stop(timeout=PATIENCE)
        assert eventually(lambda: not threads("querycrew-one-"))


@pytest.fixture
def database():
    return FakeDatabase()


@pytest.fixture
def one(database):
    one = OneWorker(database)
    yield one
    one.retire()


def test_a_worker_opens_says_so_and_answers(one):
    one.launch()
    assert one.hears() == WorkerUp("one", 1)
    assert one.ask("a").get(timeout=PATIENCE).scalar() == "a"


def test_jobs_that_waited_before_the_worker_was_up_run_first_in_first_out(one, database):
    replies = [one.ask(f"job {number}") for number in range(100)]
    one.launch()
    assert [reply.get(timeout=PATIENCE).scalar() for reply in replies] == database.ran
    assert database.ran == [f"job {number}" for number in range(100)]


def test_an_exception_of_a_statement_goes_to_its_caller_and_the_worker_lives(one, database):
    failure = ValueError("no such thing")
    database.statements["bad"] = failure
    one.launch()
    for _ in range(100):
        assert error_of(one.ask("bad")) is failure
        assert one.ask("good").get(timeout=PATIENCE).scalar() == "good"
    assert one.hears() == WorkerUp("one", 1)
    assert one.news.empty()
    assert len(database.connections) == 1


@pytest.mark.parametrize("kind", BASE_EXCEPTIONS)
def test_a_base_exception_of_a_statement_answers_its_caller_and_ends_this_worker_alone(one, database, kind):
    cause = kind("told to go")
    database.statements["bad"] = cause
    with bystander():
        one.launch()
        assert one.hears() == WorkerUp("one", 1)
        error = error_of(one.ask("bad"))
        assert isinstance(error, WorkerDied)
        assert error.__cause__ is cause
        assert error.executed is None
        assert one.hears() == WorkerDown(1, cause)
        assert one.is_gone()
        assert database.open_connections == 0


@pytest.mark.parametrize("kind", [OSError, *BASE_EXCEPTIONS])
def test_a_worker_that_cannot_open_says_why_and_takes_no_job(one, database, kind):
    cause = kind("no entry")
    database.opening.append(cause)
    waiting = one.ask("a")
    with bystander():
        one.launch()
        assert one.hears() == WorkerDown(1, cause)
        assert one.is_gone()
    assert not waiting.done()
    assert one.dispatcher.queued == 1


def test_a_lost_connection_is_reported_with_the_drivers_error_as_its_cause(one, database):
    cause = OSError("cable cut")
    database.statements["bad"] = lost(cause)
    one.launch()
    error = error_of(one.ask("bad"))
    assert isinstance(error, WorkerDied)
    assert error.__cause__ is cause
    assert one.hears() == WorkerUp("one", 1)
    assert one.hears() == WorkerDown(1, cause)
    assert one.is_gone()


def test_a_job_that_a_dead_worker_had_not_started_stays_in_the_queue(one, database):
    database.statements["bad"] = SystemExit()
    orphan, waiting = one.ask("bad"), one.ask("next")
    one.launch()
    assert isinstance(error_of(orphan), WorkerDied)
    assert one.hears() == WorkerUp("one", 1)
    assert isinstance(one.hears(), WorkerDown)
    assert one.is_gone()
    assert not waiting.done()
    assert one.dispatcher.queued == 1
    assert database.ran == ["bad"]


@pytest.mark.parametrize("answer", [None, 42, [("a row",)], iter(())])
def test_an_answer_that_is_no_result_is_refused_and_the_worker_lives(one, database, answer):
    database.statements["odd"] = answer
    one.launch()
    error = error_of(one.ask("odd"))
    assert isinstance(error, TypeError)
    assert type(answer).__name__ in str(error)
    assert one.ask("good").get(timeout=PATIENCE).scalar() == "good"


def test_an_answer_after_the_rejection_is_dropped_and_the_worker_lives(one, database):
    gate = database.statements["slow"] = Gate()
    one.launch()
    reply = one.ask("slow")
    assert gate.entered.wait(PATIENCE)
    assert reply.reject(TimeoutError("too late"))
    gate.opened.set()
    assert one.ask("next").get(timeout=PATIENCE).scalar() == "next"
    with pytest.raises(TimeoutError, match="too late"):
        reply.get(timeout=0)


def test_a_worker_that_is_stopped_from_outside_ends_once_and_without_a_cause(one, database):
    one.launch()
    assert one.hears() == WorkerUp("one", 1)
    assert one.worker.actor_ref.stop(timeout=PATIENCE) is True
    assert one.hears() == WorkerDown(1, None)
    assert one.worker.actor_ref.stop(timeout=PATIENCE) is False
    assert one.is_gone()
    assert database.open_connections == 0


def test_a_worker_that_its_own_job_stops_answers_that_job_and_leaves_the_next_in_the_queue(one, database):
    def stop_me() -> Result:
        one.worker.stop()
        return Result(("done",), [(1,)], 1)

    database.statements["stop me"] = stop_me
    own, waiting = one.ask("stop me"), one.ask("next")
    one.launch()
    assert own.get(timeout=PATIENCE).scalar() == 1
    assert one.hears() == WorkerUp("one", 1)
    assert one.hears() == WorkerDown(1, None)
    assert one.is_gone()
    assert not waiting.done()
    assert one.dispatcher.queued == 1


def test_messages_of_other_actors_do_no_harm(one):
    one.launch()
    assert one.worker.actor_ref.ask("hello", timeout=PATIENCE) is None
    one.worker.actor_ref.tell(object())
    assert one.ask("a").get(timeout=PATIENCE).scalar() == "a"


def test_a_client_that_settles_or_hooks_a_future_of_the_worker_does_not_end_it(one, database):
    gate = database.statements["slow"] = Gate()
    one.launch()
    slow = one.ask("slow")
    assert gate.entered.wait(PATIENCE)
    settled, hooked = (one.worker.actor_ref.ask("hello", block=False) for _ in range(2))
    settled.set("mine")
    hooked.set_get_hook(lambda timeout: "hooked")
    gate.opened.set()
    assert slow.get(timeout=PATIENCE).scalar() == "passed"
    assert one.ask("a").get(timeout=PATIENCE).scalar() == "a"
    assert settled.get(timeout=PATIENCE) == "mine"


def test_a_worker_that_opens_too_late_closes_and_takes_no_job(one, database):
    gate = Gate()
    database.opening.append(gate)
    one.launch()
    assert gate.entered.wait(PATIENCE)
    assert one.dispatcher.remove_worker(one.worker.handle) == []
    waiting = one.ask("a")
    gate.opened.set()
    assert one.hears() == WorkerDown(1, None)
    assert one.is_gone()
    assert database.open_connections == 0
    assert not waiting.done()


def test_a_worker_closes_its_connection_on_the_thread_that_opened_it(database):
    where = []
    one = OneWorker(database).launch()
    assert one.hears() == WorkerUp("one", 1)
    database.connections[0].close = lambda: where.append(threads("querycrew-one-"))
    one.retire()
    assert len(where) == 1
    assert len(where[0]) == 1


def test_a_worker_that_is_killed_while_idle_loses_no_job(one, database):
    one.launch()
    assert one.ask("a").get(timeout=PATIENCE).scalar() == "a"
    kill(threads("querycrew-one-")[0])
    # The exception hits the thread as it wakes, before or after it has taken the job.
    reply = one.ask("b")
    assert one.hears() == WorkerUp("one", 1)
    assert isinstance(one.hears(), WorkerDown)
    assert one.is_gone()
    if reply.done():
        assert reply.exception(0) is None or isinstance(reply.exception(0), WorkerDied)
    else:
        assert one.dispatcher.queued == 1
    assert database.open_connections == 0


def test_a_dead_worker_can_be_woken_and_interrupted_without_effect(one):
    one.launch()
    one.worker.actor_ref.stop(timeout=PATIENCE)
    one.worker.handle.wake()
    one.worker.abandon()
    one.worker.handle.connection.interrupt()
    assert one.dispatcher.remove_worker(one.worker.handle) == []


def test_an_idle_worker_that_another_thread_retires_ends(one, database):
    one.launch()
    assert one.hears() == WorkerUp("one", 1)
    assert one.ask("a").get(timeout=PATIENCE).scalar() == "a"
    assert eventually(lambda: one.dispatcher.status().workers[0].state == "idle")
    one.worker.retire()
    assert one.hears() == WorkerDown(1, None)
    assert one.is_gone()
    assert database.open_connections == 0
