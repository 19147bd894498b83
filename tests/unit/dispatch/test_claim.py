"""The claim alone: many threads may claim a job, one of them owns it, and no job is lost."""

import threading

import pytest

from actors.dispatch.batch import JobBatch
from actors.dispatch.job import Abort, Job
from actors.dispatch.worker_handle import WorkerState
from actors.replies.reply import Reply
from actors.values.errors import QueryCancelled
from actors.values.requests import Query
from tests.support.waiters import waiter
from tests.unit.dispatch.harness import DONE, Harness, errors
from tests.unit.dispatch.strikes import cut_off, in_the_middle

CLAIMING = ("claim", "step_back", "unclaim", "begin")


def unclaimed():
    return Job(Query("SELECT 1"), Reply(), 0.0)


def abort():
    return Abort("cancelled", lambda job, executed: QueryCancelled())


def test_a_job_waits_until_a_claim_and_a_second_claim_fails():
    job, first, second = unclaimed(), object(), object()
    assert (job.is_waiting, job.owner) == (True, None)
    assert job.claim(first)
    assert not job.claim(second)
    assert (job.is_waiting, job.owner, job.claims) == (False, first, [first])


def test_only_its_owner_gives_a_claim_back():
    job, owner, stranger = unclaimed(), object(), object()
    assert job.claim(owner)
    job.unclaim(stranger)
    assert job.owner is owner
    job.unclaim(owner)
    job.unclaim(owner)
    assert job.is_waiting
    assert job.claim(stranger)


def test_the_owner_cannot_claim_it_twice():
    job, owner = unclaimed(), object()
    assert job.claim(owner)
    assert not job.claim(owner)


def test_one_of_two_simultaneous_claims_succeeds_at_every_moment():
    def prepare():
        job, first, second, said = unclaimed(), object(), object(), {}
        return (
            (job, first, second, said),
            lambda: said.update(first=job.claim(first)),
            [lambda: said.update(second=job.claim(second))],
        )

    winners = set()
    for (job, first, second, said), where in in_the_middle(prepare):
        assert sorted(said.values()) == [False, True], where
        winner = "first" if said["first"] else "second"
        winners.add(winner)
        assert job.claims == [first if winner == "first" else second], where
    assert winners == {"first", "second"}


def test_one_of_many_simultaneous_claims_of_threads_succeeds():
    for _ in range(200):
        job, start = unclaimed(), threading.Barrier(4)

        def claim(job=job, start=start):
            start.wait(10)
            return job.claim(object())

        with waiter(claim) as a, waiter(claim) as b, waiter(claim) as c:
            mine = object()
            start.wait(10)
            said = job.claim(mine)
        assert sorted([*a, *b, *c, said]) == [False, False, False, True]
        assert len(job.claims) == 1
        assert (job.owner is mine) is said


def test_a_killed_claimant_has_no_claim_or_a_claim_that_all_threads_see():
    def prepare():
        job, killed = unclaimed(), object()
        return (job, killed), lambda: job.claim(killed)

    found = set()
    for (job, killed), where in cut_off(prepare):
        assert job.owner in (None, killed)
        found.add(job.owner is killed)
        assert job.claim(object()) is (job.owner is not killed), where
    assert found == {True, False}


def test_a_job_that_its_owner_gives_back_is_not_lost_if_another_worker_skipped_it():
    """A worker and a cancel claim at once. A second worker skips the job that the cancel marked."""

    def prepare():
        crew = Harness()
        first, second = crew.worker(), crew.worker()
        job = crew.submit()
        batch = crew.take(first)

        def begin():
            if batch.begin() is job:
                crew.begun[job] += 1

        def give_back():
            if job in batch.running:
                crew.begun[job] -= 1  # no part of the job ran
                batch.give_back(job)
                passing = crew.take(second)
                if passing is not None:
                    crew.run_batch(passing)

        return crew, job.reply.cancel, [begin, give_back]

    ends = set()
    for crew, _ in in_the_middle(prepare, CLAIMING):
        crew.settle_all()
        ends.add(type(crew.jobs[0].reply.exception(0)))
    assert ends == {type(None), QueryCancelled}


def test_a_job_that_two_workers_begin_at_once_is_not_lost_if_its_owner_gives_it_back():
    def prepare():
        crew = Harness()
        first, second, third = crew.worker(), crew.worker(), crew.worker()
        job = crew.submit()
        mine = crew.take(first)
        theirs = second.batch = JobBatch(second, crew.lane)
        theirs.jobs.append(job)
        second.state = WorkerState.BUSY

        def begin():
            if theirs.begin() is not None:
                crew.begun[job] += 1

        def give_back():
            if job in theirs.running:
                crew.begun[job] -= 1
                theirs.give_back(job)
                crew.work(third)
                crew.work(second)

        return crew, lambda: crew.run_batch(mine), [begin, give_back]

    for crew, _ in in_the_middle(prepare, CLAIMING):
        for handle in crew.workers:
            crew.finish(handle)
        crew.settle_all()


@pytest.mark.parametrize("where", ["queue", "batch"])
def test_the_next_thread_settles_a_job_whose_canceller_was_killed_before_it_settled(where):
    crew = Harness()
    worker = crew.worker()
    job, behind = crew.submit(), crew.submit()
    if where == "queue":
        assert job.claim(abort())
        crew.work(worker)
    else:
        batch = crew.take(worker)
        assert job.claim(abort())
        crew.run_batch(batch)
        crew.work(worker)
    assert isinstance(job.reply.exception(0), QueryCancelled)
    assert behind.reply.get(timeout=0) is DONE
    crew.check()


def test_two_threads_that_cancel_a_queued_job_at_once_settle_it_and_one_cancel_succeeds():
    def prepare():
        crew = Harness()
        job, said = crew.submit(), []
        return (
            (crew, job, said),
            lambda: said.append(crew.dispatcher.cancel(job)),
            [lambda: said.append(crew.dispatcher.cancel(job))],
        )

    for (crew, job, said), where in in_the_middle(prepare):
        assert isinstance(job.reply.exception(0), QueryCancelled), where
        assert said.count(True) == 1, where
        assert crew.status().cancelled == 1, where
        crew.check()


def test_a_job_that_is_refused_as_its_cancel_is_promised_counts_as_cancelled():
    def prepare():
        crew = Harness()
        worker = crew.worker()
        job = crew.submit(deadline=crew.clock.now + 1)
        batch = crew.take(worker)
        batch.now = crew.clock.now = crew.clock.now + 2
        return crew, batch.begin, [lambda: crew.dispatcher.cancel(job)]

    ends = set()
    for crew, _ in in_the_middle(prepare):
        crew.settle_all()
        end, status = errors(crew.jobs), crew.status()
        assert (status.cancelled, status.timed_out) == ((1, 0) if end == ["QueryCancelled"] else (0, 1))
        ends.add(*end)
    assert ends == {"QueryCancelled", "QueryTimeout"}
