"""Overload: a queue that stands sheds its oldest jobs."""

import math

import pytest

from actors.dispatcher import Dispatcher
from actors.job import Job
from actors.member import Member
from actors.reply import Reply
from actors.shedding import Shedding
from supervisor import Overloaded, Query, QueueFull, Status, Supervisor
from tests.fakes import FakeDatabase, Gate


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (math.nan, ValueError), ("1", TypeError)]
)
def test_shed_after_is_checked(value, error):
    with pytest.raises(error, match="shed_after"):
        Supervisor.start(shed_after=value)


def test_a_queue_that_was_short_once_in_an_interval_does_not_stand():
    shedding = Shedding(1.0)
    assert not shedding.stands(5.0, 10.0) or shedding.stands(0.5, 10.1) is False
    assert shedding.stands(0.5, 10.2) is False
    assert shedding.stands(5.0, 10.3) is False
    assert shedding.stands(5.0, 11.1) is False


def test_a_queue_in_which_every_job_of_an_interval_waited_too_long_stands_until_one_did_not():
    shedding = Shedding(1.0)
    shedding.stands(0.1, 10.0)
    shedding.stands(2.0, 11.0)
    shedding.stands(2.0, 11.5)
    assert shedding.stands(2.0, 12.1) is True
    assert shedding.stands(0.9, 12.2) is True
    assert shedding.stands(0.5, 12.3) is False


def crew_under(load, *, seconds=30.0, shed_after=1.0):
    """Drive a dispatcher in virtual time: one worker serves a job a 10 ms; return the waits of those that ran."""
    now = [0.0]
    dispatcher = Dispatcher("crew", "db", 1, None, lambda: now[0], shed_after=shed_after)
    member = Member(1, lambda: None, lambda: None)
    dispatcher.enlist(member)
    dispatcher.report(member)
    waits, shed, due = [], 0, 0.0
    job = None
    while now[0] < seconds:
        while due <= now[0]:
            dispatcher.submit(Job(Query("SELECT 1"), Reply(), due))
            due += 0.01 / load
        job = dispatcher.take(member) if job is None else dispatcher.finish(member, True, True)
        shed += len(member.dropped)
        member.dropped.clear()
        if job is not None:
            waits.append(now[0] - job.submitted_at)
        now[0] += 0.01
    return waits, shed


def test_with_three_times_the_load_the_answered_jobs_wait_about_as_long_as_wanted():
    waits, shed = crew_under(3.0)
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
