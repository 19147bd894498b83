"""Deadlines and cancels that come at the worst moment, step by step and without threads."""

import contextlib
import math
import threading

import apsw
import pytest

from actors.databases import executor
from actors.databases.sqlite.lock_wait import LockWait
from supervisor import Query, QueryCancelled, QueryTimeout, ResultLost, SQLite
from tests.conftest import eventually
from tests.support.common import PATIENCE
from tests.support.fakes import Gate
from tests.support.struck import Strike, interrupt
from tests.support.waiters import waiter
from tests.unit.dispatch.harness import DONE, QUICK, Harness, answer, once
from tests.unit.dispatch.strikes import cut_off, in_the_middle


@pytest.fixture
def crew():
    return Harness(size=1)


def end(batch, job, outcome):
    if isinstance(outcome, BaseException):
        batch.fail(job, outcome)
    else:
        batch.answer(job, outcome)


def forget_notes(outcome):
    """Let an error be new: a note that it has already is not added again."""
    if isinstance(outcome, BaseException):
        outcome.__dict__.pop("__notes__", None)


def test_a_job_that_ends_in_spite_of_its_interrupt_does_not_harm_the_next_job(crew):
    worker = crew.worker()
    late, innocent = crew.submit(deadline=crew.clock.now + 0.1), crew.submit()
    crew.begin(worker)
    crew.tick(0.2)
    interrupts = list(worker.connection.interrupted)
    assert {*interrupts} == {late}
    answer(worker, "late")
    assert late.reply.get(timeout=0) == "late"
    assert crew.begin(worker) is innocent
    for _ in range(50):
        assert crew.tick(0.02) == []
    assert worker.connection.interrupted == interrupts
    answer(worker, "innocent")
    assert innocent.reply.get(timeout=0) == "innocent"
    assert crew.dispatcher.next_due() is None


def test_the_next_job_begins_only_once_an_interrupt_of_the_one_before_is_over(crew, monkeypatch):
    monkeypatch.setattr(executor, "_LONGEST_INTERRUPT", PATIENCE)
    crew.knows()
    worker = crew.worker()
    job, following = crew.submitted(2, QUICK)
    batch = crew.take(worker)
    batch.begin()
    gate, hit = Gate(), []
    worker.connection.cancel = lambda task: (gate(), hit.append((task, list(batch.running))))
    with waiter(job.reply.cancel) as said:
        assert gate.entered.wait(PATIENCE)
        with waiter(lambda: (batch.answer(job, DONE), batch.begin())) as begun:
            assert eventually(lambda: not batch.running)
            assert following.is_waiting
            gate.opened.set()
    assert (hit, said, begun) == ([(job, [])], [True], [(None, following)])


def test_an_interrupt_that_comes_late_hits_no_job(crew):
    crew.knows()
    worker = crew.worker()
    job, following = crew.submitted(2, QUICK)
    batch = crew.take(worker)
    batch.begin()
    batch.answer(job, DONE)
    assert batch.begin() is following
    batch.interrupt(job)
    assert worker.connection.interrupted == []


def test_a_thread_that_was_killed_in_the_middle_of_an_interrupt_does_not_block_the_worker(crew):
    worker = crew.worker()
    job = crew.submit()
    batch = crew.take(worker)
    batch.begin()
    batch._marks.append(job)
    batch.answer(job, DONE)
    assert job.reply.done()


@pytest.mark.parametrize("outcome", [DONE, ResultLost("it was done"), ValueError("no such table")], ids=repr)
def test_a_cancel_that_comes_as_the_statement_ends_returns_the_truth(outcome):
    def prepare():
        crew = Harness(size=1)
        worker = crew.worker()
        job = crew.submit()
        batch, said = crew.take(worker), []
        batch.begin()
        forget_notes(outcome)
        step, act = lambda: end(batch, job, outcome), lambda: said.append(crew.dispatcher.cancel(job))
        return (crew, job, said), step, [act]

    both = set()
    for struck in (in_the_middle(prepare), in_the_middle(lambda: _the_other_way_round(prepare()))):
        for (crew, job, said), where in struck:
            error = job.reply.exception(0)
            assert said == [isinstance(error, QueryCancelled)], where
            both.update(said)
            status = crew.status()
            if said == [True]:
                assert error.executed is isinstance(outcome, (type(DONE), ResultLost))
                assert (status.cancelled, status.answered, status.failed) == (1, 0, 0), where
            else:
                assert (status.cancelled, status.answered + status.failed) == (0, 1), where
    assert both == {True, False}


def _the_other_way_round(prepared):
    state, step, [act] = prepared
    return state, act, [step]


@pytest.mark.parametrize("outcome", [DONE, ValueError("no such table"), ResultLost("it was done")], ids=repr)
def test_a_deadline_that_passes_as_the_statement_ends_is_counted_like_the_callers_outcome(outcome):
    def prepare():
        crew = Harness(size=1)
        worker = crew.worker()
        job = crew.submit(deadline=crew.clock.now + 0.1)
        batch = crew.take(worker)
        batch.begin()
        crew.tick()
        forget_notes(outcome)
        return (crew, job), lambda: end(batch, job, outcome), [lambda: crew.tick(0.2)]

    for struck in (in_the_middle(prepare), in_the_middle(lambda: _the_other_way_round(prepare()))):
        for (crew, job), where in struck:
            error, status = job.reply.exception(0), crew.status()
            timed_out = isinstance(error, QueryTimeout)
            assert (status.timed_out, status.failed, status.answered) == (
                timed_out,
                not timed_out and error is not None,
                error is None,
            ), where
            assert not timed_out or error.__cause__ is outcome
            assert not timed_out or error.executed is isinstance(outcome, ResultLost)


def test_a_worker_that_comes_back_as_it_is_given_up_does_not_take_its_next_job_with_it():
    def prepare():
        crew = Harness(size=1)
        crew.knows()
        worker = crew.worker()
        stuck = crew.submit(QUICK, deadline=crew.clock.now + 0.1)
        following = crew.submit(QUICK, deadline=crew.clock.now + 5)
        crew.begin(worker)
        crew.tick(0.2)
        crew.clock.now += 0.6

        def give_up():
            for handle in crew.dispatcher.follow_up(crew.clock()):
                crew.die(handle, given_up=True)

        def come_back():
            worker.batch.answer(stuck, "late")
            crew.run_batch(worker.batch)
            crew.work(worker)

        return (crew, stuck, following), give_up, [come_back]

    for (crew, stuck, following), where in in_the_middle(prepare):
        assert stuck.reply.done(), where
        crew.workers.clear()
        crew.settle_all()
        assert following.reply.done(), where
        status = crew.status()
        assert (status.died, status.answered + status.timed_out) == (0, 2), where


def test_two_threads_that_end_a_promised_job_at_once_give_all_callers_the_same_error():
    def prepare():
        crew = Harness(size=1)
        worker = crew.worker()
        job = crew.submit()
        crew.begin(worker)
        batch = worker.batch
        assert crew.dispatcher.cancel(job)
        found = []

        def give_up():
            crew.die(worker)
            found.append(job.reply.exception(0))

        return (crew, job, found), lambda: batch.answer(job, DONE), [give_up]

    for (crew, job, found), where in in_the_middle(prepare):
        assert job.reply.exception(0) is found[0], where
        assert isinstance(found[0], QueryCancelled)
        assert (crew.status().cancelled, crew.status().answered) == (1, 0), where


def test_a_cancel_of_a_job_that_another_process_has_done_says_that_it_ran(crew):
    crew.knows()
    worker = crew.worker()
    first, second = crew.submitted(2, QUICK)
    batch = crew.take(worker)
    batch.hand_over()
    batch.hand_over()
    assert crew.dispatcher.cancel(second)
    batch.answer(second, DONE, 0.001)
    batch.answer(first, DONE, 0.001)
    error = second.reply.exception(0)
    assert error.executed is True
    assert "was cancelled while it ran" in str(error)


def test_a_finalizer_may_cancel_another_job_while_one_is_interrupted_again():
    crew = Harness()
    first, second = crew.submitted(2)
    workers = [crew.worker(), crew.worker()]
    for worker in workers:
        crew.begin(worker)
    crew.dispatcher.cancel(first)
    connection = workers[0].connection
    connection.cancel = once(connection.cancel, lambda: crew.dispatcher.cancel(second))
    crew.tick(0.05)
    for worker in workers:
        worker.batch.fail(worker.running[0], InterruptedError())
    assert isinstance(first.reply.exception(0), QueryCancelled)
    assert isinstance(second.reply.exception(0), QueryCancelled)


def test_jobs_with_one_deadline_are_rejected_in_the_order_of_their_arrival(crew):
    jobs = [crew.submit(deadline=crew.clock.now + 0.1) for _ in range(100)]
    crew.tick(0.2)
    assert list(crew.settled) == jobs


def test_very_many_jobs_that_are_due_together_are_rejected_in_rounds_without_a_pause(crew):
    jobs = [crew.submit(deadline=crew.clock.now + 0.1) for _ in range(1_500)]
    crew.tick(0.2)
    assert len(crew.settled) == 1_000
    assert crew.dispatcher.next_due() <= crew.clock.now
    crew.tick()
    assert list(crew.settled) == jobs


def test_a_cancel_that_is_cut_off_anywhere_leaves_no_caller_waiting_and_is_not_forgotten():
    def prepare():
        crew = Harness(size=1)
        crew.begin(crew.worker()) if crew.submit() else None
        job = crew.submit()
        return (crew, job), job.reply.cancel

    for (crew, job), where in cut_off(prepare):
        if not job.reply.done():
            assert job.reply.cancel() or job.reply.done(), where
        assert isinstance(job.reply.exception(0), QueryCancelled)
        assert crew.dispatcher.queued == 0, where
        crew.settle_all()


@pytest.mark.parametrize(
    "timeout", [1e307, 1e300, 10**400, 1e17, math.inf], ids=["1e307", "1e300", "10**400", "1e17", "inf"]
)
def test_a_deadline_in_a_million_years_is_none(start, timeout):
    db = start(SQLite(), size=1)
    assert db.ask(Query("SELECT 1", timeout=timeout)).scalar() == 1
    assert db._dispatcher.timers.earliest == math.inf


class CtrlC(Strike):
    """A strike in the crew's code or in its locks."""

    def counts(self, frame, event):
        return event != "return" and frame.f_globals.get("__name__", "").startswith(("actors", "threading"))


@pytest.mark.parametrize("at", range(1, 12))
def test_an_interrupt_that_is_cut_off_by_ctrl_c_leaves_the_connection_usable(path, at):
    connection = SQLite(path).connect()
    with contextlib.suppress(KeyboardInterrupt), CtrlC(at, interrupt).armed():
        connection.interrupt()
    usable = threading.Event()

    def use():
        connection.interrupt()
        if connection.execute(Query("SELECT 1")).scalar() == 1:
            usable.set()

    threading.Thread(target=use, daemon=True).start()
    assert usable.wait(5), "the thread hangs"
    connection.close()


def test_a_cancel_that_comes_while_the_connection_is_opened_anew_does_not_lose_it(path, monkeypatch):
    connection = SQLite(path, journal_mode="delete").connect()
    other = apsw.Connection(str(path))
    open_anew, on_busy = connection._open, LockWait.on_busy

    def cancelled_while_another_holds_the_lock():
        other.execute("BEGIN EXCLUSIVE")
        connection.interrupt()
        open_anew()

    def goes_on_once_the_lock_is_free(wait, attempts):
        if other.in_transaction:
            other.execute("ROLLBACK")
        return on_busy(wait, attempts)

    connection._open = cancelled_while_another_holds_the_lock
    monkeypatch.setattr(LockWait, "on_busy", goes_on_once_the_lock_is_free)
    try:
        connection.execute(Query("PRAGMA cache_size = 100"))  # the next job must not see the interrupt
        assert connection.execute(Query("SELECT 1")).scalar() == 1
    finally:
        connection.close()
        other.close(True)


def test_an_interrupt_by_the_mark_of_a_cancel_that_promises_later_is_a_cancel(crew, monkeypatch):
    worker = crew.worker()
    job = crew.submit()
    batch = crew.take(worker)
    batch.begin()
    promise = job.reply.promise

    def late():
        batch.fail(job, apsw.InterruptError("by the mark"))  # the supervisor has followed the mark up
        return promise()

    monkeypatch.setattr(job.reply, "promise", late)
    assert job.reply.cancel()
    assert isinstance(job.reply.exception(0), QueryCancelled)
    assert (crew.status().cancelled, crew.status().failed) == (1, 0)
