"""Overload: a queue whose jobs all wait too long sheds its oldest jobs."""

import math

import pytest

from actors.dispatch.codel import CoDel
from supervisor import Overloaded, Query, QueueFull, Status, Supervisor
from tests.support.fakes import FakeDatabase, Gate
from tests.unit.dispatch.harness import QUICK, Harness


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (math.nan, ValueError), ("1", TypeError)]
)
def test_shed_after_is_checked(value, error):
    with pytest.raises(error, match="shed_after"):
        Supervisor.start(shed_after=value)


def test_a_queue_that_was_short_once_in_an_interval_does_not_stand():
    codel = CoDel(1.0)
    assert not codel.stands(5.0, 10.0) or codel.stands(0.5, 10.1) is False
    assert codel.stands(0.5, 10.2) is False
    assert codel.stands(5.0, 10.3) is False
    assert codel.stands(5.0, 11.1) is False


def test_a_queue_stands_from_an_interval_of_long_waits_until_the_first_short_wait():
    codel = CoDel(1.0)
    codel.stands(0.1, 10.0)
    codel.stands(2.0, 11.0)
    codel.stands(2.0, 11.5)
    assert codel.stands(2.0, 12.1) is True
    assert codel.stands(0.9, 12.2) is True
    assert codel.stands(0.5, 12.3) is False


def crew_under(load, *, seconds=30.0, together=False):
    """Drive a crew with jobs of 10 ms in virtual time; return the waits and the number shed."""
    crew = Harness(size=1, shed_after=1.0)
    if together:
        crew.knows()
    worker, clock, waits = crew.worker(), crew.clock, []
    began = due = clock.now

    def ask():
        nonlocal due
        while due <= clock.now:
            job = crew.job(QUICK if together else None)
            job.submitted_at = due
            crew.dispatcher.submit(job)
            due += 0.01 / load

    while clock.now < began + seconds:
        ask()
        batch = crew.take(worker)
        while batch is not None and (job := batch.begin()) is not None:
            waits.append(clock.now - job.submitted_at)
            clock.now += 0.01
            ask()
            batch.answer(job, None)
            crew.knows(*[QUICK] if together else [Query("none")])
        if batch is None:
            clock.now += 0.01
        if crew.dispatcher.next_due() is not None:
            crew.tick()
    return waits, crew.status().shed


@pytest.mark.parametrize("together", [False, True])
def test_with_three_times_the_load_the_answered_jobs_wait_about_as_long_as_shed_after(together):
    waits, shed = crew_under(3.0, together=together)
    settled = sorted(waits[len(waits) // 5 :])
    assert settled[int(len(settled) * 0.99)] <= 1.25
    assert shed > len(waits)


def test_without_overload_nothing_is_shed():
    waits, shed = crew_under(0.8)
    assert shed == 0
    assert max(waits) < 0.1


def test_jobs_behind_workers_that_never_come_back_are_shed_as_well(start):
    db = start(FakeDatabase(statements={"gate": (gate := Gate())}), size=1, shed_after=0.02)
    db.ask(Query("gate"), block=False)
    assert gate.entered.wait(10)
    error = db.ask(Query("waits"), block=False).exception(10)
    assert isinstance(error, Overloaded)
    assert isinstance(error, QueueFull)
    assert error.executed is False
    assert db.ask(Status()).shed == 1
    gate.opened.set()


def test_jobs_are_shed_at_the_head_of_a_queue_from_which_no_worker_takes():
    crew = Harness(size=1, shed_after=1.0)
    crew.worker()
    old = crew.submitted(2)
    crew.clock.now += 1.5
    young = crew.submit()
    crew.tick(0.5)
    assert [type(job.reply.exception(0)) for job in old] == [Overloaded] * 2
    assert not young.reply.done()
    assert crew.dispatcher.next_due() == crew.clock.now + 1.0


def test_the_time_until_a_worker_is_up_is_no_overload():
    crew = Harness(size=1, shed_after=1.0)
    first = crew.job()
    crew.dispatcher.submit(first)
    for _ in range(10):
        crew.clock.now += 1.0
        crew.dispatcher.expire(crew.clock.now)
    assert not first.reply.done()
    batch = crew.take(crew.worker())
    assert batch.begin() is first
    second = crew.job()
    crew.dispatcher.submit(second)
    for _ in range(5):
        crew.clock.now += 1.0
        crew.dispatcher.expire(crew.clock.now)
    assert isinstance(second.reply.exception(0), Overloaded)


@pytest.mark.parametrize("milliseconds", range(0, 200, 7))
def test_the_time_of_the_next_look_and_the_time_of_shedding_agree_to_the_last_digit(milliseconds):
    crew = Harness(shed_after=0.05)
    crew.worker()
    crew.clock.now += milliseconds / 1000
    job = crew.submit()
    crew.clock.now = crew.dispatcher.next_due()
    crew.dispatcher.expire(crew.clock.now)
    assert isinstance(job.reply.exception(0), Overloaded)
