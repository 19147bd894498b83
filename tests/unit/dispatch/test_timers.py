"""The timers agree with a simple model, and no deadline is lost as its job moves."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.dispatch.job import Job
from actors.dispatch.timers import INTERRUPT_AGAIN, Timers
from actors.replies.reply import Reply
from actors.values.errors import QueryTimeout
from actors.values.requests import Query
from tests.unit.dispatch.harness import DONE, QUICK, Harness, answer
from tests.unit.dispatch.strikes import in_the_middle

SLOT = 0.01  # seconds by which a job may be due too late
ROUNDING = 1e-6  # seconds, at the times of this test

times = st.one_of(st.floats(0, 2), st.sampled_from([0.29, 1.0, 1.01, 1.1]), st.floats(0, 1e9))
"""Many deadlines share a slot, and some are far from all others."""


def job(deadline):
    return Job(Query("SELECT 1"), Reply(), 0.0, deadline)


class TimersMachine(RuleBasedStateMachine):
    """Jobs come, end early or fall due. `waiting` is the expected state, in the order of adding."""

    def __init__(self):
        super().__init__()
        self.timers = Timers()
        self.waiting = []
        self.gone = []
        self.now = 0.0

    @rule(deadline=times, number=st.integers(1, 3))
    def add(self, deadline, number):
        for _ in range(number):
            one = job(deadline)
            self.timers.schedule(one)
            self.waiting.append(one)

    @precondition(lambda self: self.waiting)
    @rule(pick=st.integers(0, 20))
    def discard(self, pick):
        one = self.waiting.pop(pick % len(self.waiting))
        self.timers.forget(one)
        self.gone.append(one)

    @precondition(lambda self: self.gone)
    @rule(pick=st.integers(0, 20))
    def discard_what_is_not_there(self, pick):
        self.timers.forget(self.gone[pick % len(self.gone)])

    @rule(seconds=st.one_of(st.floats(0, 0.05), st.floats(0, 5)))
    def time_passes(self, seconds):
        self.now += seconds
        self.take_what_is_due()

    @rule()
    def sleep_until_the_next_is_due(self):
        due_at = self.timers.next(self.now)
        if due_at is not None:
            self.now = max(self.now, due_at)
            assert self.take_what_is_due(), "the supervisor was woken for nothing"

    def take_what_is_due(self):
        due = self.timers.due(self.now, 10**9)
        assert len(due) == len(set(due)), "a job was due twice"
        assert set(due) <= set(self.waiting), "a job was due after its end, or was never added"
        assert all(one.deadline <= self.now for one in due), "a job was due too early"
        left = [one for one in self.waiting if one not in due]
        assert all(self.now < one.deadline + SLOT + ROUNDING for one in left), "a job was not due in time"
        self.check_order(due)
        self.waiting = left
        self.gone += due
        return due

    def check_order(self, due):
        places = {one: place for place, one in enumerate(self.waiting)}
        for one, following in pairwise(due):
            assert one.deadline < following.deadline + SLOT + ROUNDING, "a later deadline came first"
            if one.deadline == following.deadline:
                assert places[one] < places[following], "of two jobs with one deadline, the younger came first"

    @invariant()
    def it_says_when_the_next_is_due(self):
        due_at = self.timers.next(self.now)
        if not self.waiting:
            assert due_at is None
            assert not self.timers._slots, "the timers keep the memory of jobs that are gone"
            assert not self.timers._order
        else:
            first = min(one.deadline for one in self.waiting)
            assert first <= due_at <= first + SLOT + ROUNDING


TestTimers = TimersMachine.TestCase
TestTimers.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def seen(*times):
    """Return timers that have seen one job for each deadline, and the jobs."""
    timers, jobs = Timers(), [job(at) for at in times]
    for one in jobs:
        timers.schedule(one)
    return timers, jobs


def all_due(timers, now):
    return timers.due(now, 10**9)


@given(st.lists(times, max_size=50), times, st.integers(1, 60))
def test_due_jobs_and_remaining_jobs_are_all_jobs_that_were_seen(given_times, now, most):
    timers, jobs = seen(*given_times)
    due = timers.due(now, most)
    assert len(due) <= most
    assert all(one.deadline <= now for one in due)
    rest = all_due(timers, float("inf"))
    assert len(due) + len(rest) == len(jobs)
    assert {*due, *rest} == set(jobs)
    assert all_due(timers, float("inf")) == []


class JobWithAFinalizer(Job):
    """A job that lets a finalizer add another job while the timers add this one."""

    __slots__ = ("finalizer",)

    def __hash__(self):
        finalizer, self.finalizer = self.finalizer, None
        if finalizer is not None:
            finalizer()
        return id(self)


@given(st.lists(times, max_size=5), times, times)
def test_a_finalizer_may_add_a_job_in_the_middle_of_adding_one(before, deadline, other_deadline):
    timers, jobs = seen(*before)
    other = job(other_deadline)
    one = JobWithAFinalizer(Query("SELECT 1"), Reply(), 0.0, deadline)
    one.finalizer = lambda: timers.schedule(other)
    timers.schedule(one)
    found = []
    while (due_at := timers.next(0.0)) is not None:
        found += all_due(timers, due_at)
    assert len(found) == len(jobs) + 2
    assert set(found) == {*jobs, one, other}


def test_deadlines_are_due_in_order_and_never_early():
    timers, jobs = seen(5.0, 1.0, 3.004, 3.001)
    assert all_due(timers, 0.999) == []
    assert all_due(timers, 1.011) == [jobs[1]]
    assert set(all_due(timers, 3.02)) == {jobs[2], jobs[3]}
    assert timers.next(0.0) == pytest.approx(5.01)


def test_discarded_deadlines_are_forgotten_and_leave_nothing():
    timers, jobs = seen(*(1 + number / 1000 for number in range(1000)))
    for one in jobs:
        timers.forget(one)
        timers.forget(one)
    assert timers.next(0.0) is None
    assert all_due(timers, 100.0) == []
    assert not timers._slots


def test_a_job_that_is_done_or_has_no_deadline_is_not_noted():
    done, without = job(1.0), job(None)
    done.reply.settle("early")
    timers = Timers()
    timers.schedule(done)
    timers.schedule(without)
    timers.forget(without)
    assert timers.next(0.0) is None


def test_a_deadline_is_noted_once_until_the_job_moves():
    timers, (one,) = seen(1.0)
    timers.schedule(one)
    assert all_due(timers, 2.0) == [one]
    timers.schedule(one)
    assert all_due(timers, 2.0) == []
    timers.reschedule(one)
    timers.schedule_all([])
    assert all_due(timers, 2.0) == [one]


# --- when the supervisor has to look ------------------------------------------------------


def ringing():
    crew, rung = Harness(size=2, has_writer=True), []
    crew.dispatcher.timers.notify = lambda: rung.append(True)
    return crew, rung


def test_the_supervisor_is_notified_of_the_first_deadline_and_of_earlier_ones_only():
    crew, rung = ringing()
    for deadline, rings in ((1010.0, 1), (1010.0, 0), (1020.0, 0), (1005.0, 1), (None, 0)):
        crew.submit(deadline=deadline)
        assert len(rung) == rings, deadline
        rung.clear()
        crew.dispatcher.next_due()
    assert crew.dispatcher.next_due() == 1005.0


def test_a_time_to_look_is_noted_once_it_is_earlier():
    timers, rung = Timers(), []
    timers.notify = lambda: rung.append(True)
    for at, rings in ((5.0, 1), (6.0, 1), (4.0, 2)):
        timers.look_at(at)
        timers.next(0.0)
        assert len(rung) == rings
    timers.begin_look(3.0)
    assert timers.next(3.0) == 4.0
    timers.begin_look(4.0)
    assert timers.next(4.0) is None


def test_a_time_to_look_that_is_noted_while_the_supervisor_looks_is_not_forgotten():
    timers = Timers()
    timers.look_at(4.0)
    assert timers.next(0.0) == 4.0
    timers.begin_look(4.0)
    timers.look_at(5.0)
    assert timers.next(4.0) == 5.0


def test_while_a_job_is_interrupted_the_supervisor_looks_again_and_again():
    crew = Harness(size=1)
    worker = crew.worker()
    job = crew.submit()
    crew.begin(worker)
    crew.dispatcher.cancel(job)
    assert crew.dispatcher.next_due() == crew.clock.now
    crew.tick()
    for times_interrupted in (3, 4, 5):
        assert crew.dispatcher.next_due() == crew.clock.now + INTERRUPT_AGAIN
        assert crew.tick(INTERRUPT_AGAIN) == []
        assert worker.connection.interrupted == [job] * times_interrupted
    answer(worker)
    crew.tick(INTERRUPT_AGAIN)
    assert worker.connection.interrupted == [job] * 5
    assert crew.dispatcher.next_due() is None


# --- wherever a job is at its deadline ----------------------------------------------------


def timed_out(crew, job, where):
    """Let the deadline pass, so that the job is rejected, or interrupted while it runs."""
    crew.tick()
    crew.tick(1.02)
    if not job.reply.done():
        assert job.owner.connection.interrupted, f"the supervisor did not look at the deadline: {where}"
        job.owner.fail(job, InterruptedError())
    assert isinstance(job.reply.exception(0), QueryTimeout), where


@pytest.mark.parametrize("place", ["queue", "batch", "running", "handed over", "given back", "rerouted"])
@pytest.mark.parametrize("is_seen", [False, True])
def test_a_deadline_holds_at_every_place_of_its_job(place, is_seen):
    crew = Harness(size=2, has_writer=True)
    crew.knows()
    worker = crew.worker()
    job = crew.submit(QUICK, deadline=crew.clock.now + 1)
    if is_seen:
        crew.dispatcher.next_due()
        crew.dispatcher.timers.schedule_all(crew.dispatcher.lanes)
    if place != "queue":
        batch = crew.take(worker)
    if place == "handed over":
        batch.hand_over()
    elif place not in ("queue", "batch"):
        batch.begin()
    if place == "given back":
        batch.give_back(job)
    elif place == "rerouted":
        batch.reroute(job)
    timed_out(crew, job, place)


@pytest.mark.parametrize("act", ["begin", "take and put back", "taken by another", "done"])
def test_no_deadline_is_lost_though_its_job_moves_while_the_supervisor_looks(act):
    def prepare():
        crew = Harness()
        first, second = crew.worker(), crew.worker()
        for _ in range(2):
            crew.submit(deadline=crew.clock.now + 50)
        job = crew.submit(deadline=crew.clock.now + 1)
        crew.dispatcher.next_due()
        crew.take(first)

        def take():
            crew.lane.jobs.rotate(1)
            crew.lane.take(second)
            second.batch.begin()

        def done():
            take()
            second.batch.answer(job, DONE)

        acts = {
            "begin": [take],
            "take and put back": [lambda: crew.run_batch(first.batch), lambda: crew.take(first)],
            "taken by another": [lambda: crew.run_batch(first.batch), take],
            "done": [done],
        }
        return (crew, job), lambda: crew.dispatcher.timers.schedule_all(crew.dispatcher.lanes), acts[act]

    for (crew, job), where in in_the_middle(prepare, ("see",) if "take" in act else ()):
        if act == "done":
            crew.tick()
            crew.tick(1.02)
            assert job.reply.done()
        else:
            timed_out(crew, job, where)


def test_a_job_with_an_earlier_deadline_is_seen_at_every_moment():
    def prepare():
        crew = Harness(size=1)
        crew.submit(deadline=crew.clock.now + 1)
        crew.dispatcher.next_due()
        crew.clock.now += 1
        job = crew.job(deadline=crew.clock.now + 1)
        return (crew, job), lambda: crew.dispatcher.expire(crew.clock()), [lambda: crew.dispatcher.submit(job)]

    for (crew, job), where in in_the_middle(prepare):
        timed_out(crew, job, where)


def test_another_deadline_holds_for_a_job_that_runs():
    crew = Harness(size=1)
    worker = crew.worker()
    job = crew.submit(deadline=crew.clock.now + 1)
    crew.begin(worker)
    crew.tick()
    crew.dispatcher.set_deadline(job, crew.clock.now + 5)
    crew.tick(1.02)
    crew.tick(3.9)
    assert worker.connection.interrupted == []
    crew.tick(0.1)
    assert worker.connection.interrupted
    crew.dispatcher.set_deadline(job, None)
    assert job.deadline is not None, "an interrupt of the job is under way"
