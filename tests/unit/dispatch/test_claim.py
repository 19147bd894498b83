"""The claim alone: many may want a job, one has it, and nobody loses it."""

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


def test_a_job_waits_until_somebody_claims_it_and_the_second_comes_too_late():
    job, first, second = unclaimed(), object(), object()
    assert (job.is_waiting, job.owner) == (True, None)
    assert job.claim(first)
    assert not job.claim(second)
    assert (job.is_waiting, job.owner, job.claims) == (False, first, [first])


def test_a_claim_is_given_back_by_its_owner_alone():
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


def test_of_two_that_claim_at_once_one_has_it_wherever_they_meet():
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


def test_of_many_threads_that_claim_at_once_one_has_it():
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


def test_a_claimant_that_is_killed_has_not_claimed_or_everybody_sees_that_it_has():
    def prepare():
        job, killed = unclaimed(), object()
        return (job, killed), lambda: job.claim(killed)

    found = set()
    for (job, killed), where in cut_off(prepare):
        assert job.owner in (None, killed)
        found.add(job.owner is killed)
        assert job.claim(object()) is (job.owner is not killed), where
    assert found == {True, False}


def test_a_job_that_its_owner_gives_back_is_lost_to_nobody_who_met_it_meanwhile():
    """A worker and a cancel claim at once; a second worker passes over the job while the cancel's mark is there."""

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
                crew.begun[job] -= 1  # nothing of it ran
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


def test_a_job_that_two_workers_begin_at_once_is_lost_to_nobody_if_its_owner_gives_it_back():
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
def test_a_job_whose_canceller_was_killed_before_it_settled_is_settled_by_the_next_that_meets_it(where):
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


def test_two_threads_that_cancel_a_queued_job_at_once_leave_nobody_waiting_and_one_has_done_it():
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
