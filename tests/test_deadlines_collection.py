"""Deadlines against a simple model: a dictionary that is searched from end to end."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.deadlines import Deadlines
from actors.job import Job
from actors.messages import Query
from actors.reply import Reply

SLOT = 0.01  # seconds that a job may be due too late
ROUNDING = 1e-6  # seconds, at the times of this test

times = st.one_of(st.floats(0, 2), st.sampled_from([0.29, 1.0, 1.01, 1.1]), st.floats(0, 1e9))
"""Many that share a slot, and some that lie far from all others."""


def job(deadline):
    return Job(Query("SELECT 1"), Reply(), 0.0, deadline)


class DeadlinesMachine(RuleBasedStateMachine):
    """Jobs come, are done early or fall due; `waiting` is what ought to be there, in the order of adding."""

    def __init__(self):
        super().__init__()
        self.deadlines = Deadlines()
        self.waiting = []
        self.gone = []
        self.now = 0.0

    @rule(deadline=times, number=st.integers(1, 3))
    def add(self, deadline, number):
        for _ in range(number):
            one = job(deadline)
            self.deadlines.add(one)
            self.waiting.append(one)

    @precondition(lambda self: self.waiting)
    @rule(pick=st.integers(0, 20))
    def discard(self, pick):
        one = self.waiting.pop(pick % len(self.waiting))
        self.deadlines.discard(one)
        self.gone.append(one)

    @precondition(lambda self: self.gone)
    @rule(pick=st.integers(0, 20))
    def discard_what_is_not_there(self, pick):
        self.deadlines.discard(self.gone[pick % len(self.gone)])

    @rule(seconds=st.one_of(st.floats(0, 0.05), st.floats(0, 5)))
    def time_passes(self, seconds):
        self.now += seconds
        self.take_what_is_due()

    @rule()
    def sleep_until_the_next_is_due(self):
        due_at = self.deadlines.next()
        if due_at is not None:
            self.now = max(self.now, due_at)
            assert self.take_what_is_due(), "it was woken for nothing"

    def take_what_is_due(self):
        due = self.deadlines.due(self.now)
        assert len(due) == len(set(due)), "a job was due twice"
        assert set(due) <= set(self.waiting), "a job was due that was done, or never added"
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
                assert places[one] < places[following], "of two with one deadline, the younger came first"

    @invariant()
    def it_says_when_the_next_is_due(self):
        due_at = self.deadlines.next()
        if not self.waiting:
            assert due_at is None
            assert not self.deadlines._slots, "the memory of jobs that are gone is kept"
            assert not self.deadlines._order
        else:
            first = min(one.deadline for one in self.waiting)
            assert first <= due_at <= first + SLOT + ROUNDING


TestDeadlines = DeadlinesMachine.TestCase
TestDeadlines.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@given(st.lists(times, max_size=50), times)
def test_what_is_due_and_what_is_left_are_all_that_was_added(given_times, now):
    deadlines = Deadlines()
    jobs = [job(at) for at in given_times]
    for one in jobs:
        deadlines.add(one)
    due = deadlines.due(now)
    assert set(due) | set(deadlines.due(float("inf"))) == set(jobs)
    assert deadlines.due(float("inf")) == []
    assert all(one.deadline <= now for one in due)


class JobWithAFinalizer(Job):
    """A job in the middle of whose adding the garbage collector runs code that adds another."""

    __slots__ = ("finalizer",)

    def __hash__(self):
        finalizer, self.finalizer = self.finalizer, None
        if finalizer is not None:
            finalizer()
        return id(self)


@given(st.lists(times, max_size=5), times, times)
def test_a_finalizer_may_add_a_job_in_the_middle_of_adding_one(before, deadline, other_deadline):
    deadlines = Deadlines()
    jobs = [job(at) for at in before]
    for one in jobs:
        deadlines.add(one)
    other = job(other_deadline)
    one = JobWithAFinalizer(Query("SELECT 1"), Reply(), 0.0, deadline)
    one.finalizer = lambda: deadlines.add(other)
    deadlines.add(one)
    found = []
    while (due_at := deadlines.next()) is not None:
        found += deadlines.due(due_at)
    assert len(found) == len(jobs) + 2
    assert set(found) == {*jobs, one, other}
