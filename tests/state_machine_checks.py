"""What always holds in the state machine's crew, whatever has just happened to it."""

from collections import Counter
from typing import TYPE_CHECKING

from actors.dispatcher import Mode
from actors.member import MemberState
from actors.seat import SeatState
from tests.stepped import CLOCK

if TYPE_CHECKING:
    from tests.state_machine import CrewMachine

_LATE = 0.0101  # seconds that a deadline may be looked at too late
_AGAIN = 0.0201  # seconds between two looks at a statement that was interrupted
_COUNTERS = ("queued", "running", "answered", "failed", "died", "rejected", "cancelled", "timed_out", "shed")


def everything_holds(machine: "CrewMachine") -> None:
    for check in (
        *(answers_stay_as_they_are, counters_add_up, a_job_is_on_one_worker_at_most, nobody_sits_on_anothers_seat),
        *(no_job_waits_while_a_worker_that_could_run_it_sleeps, it_is_suspended_only_while_nobody_is_up),
        *(the_supervisor_sleeps_only_if_something_will_wake_it, what_is_due_is_looked_at, what_is_stuck_is_given_up),
        *(nothing_is_kept_of_a_job_that_is_done, a_worker_that_has_ended_has_closed_its_connection),
    ):
        check(machine)


def counters_add_up(machine: "CrewMachine") -> None:
    fates = Counter(watched.fate() for watched in machine.jobs.values())
    status = machine.dispatcher.status()
    assert status.submitted == len(machine.jobs) == sum(fates.values())
    for name in _COUNTERS:
        assert getattr(status, name) == fates[name], f"the counter {name} is wrong"


def answers_stay_as_they_are(machine: "CrewMachine") -> None:
    for watched in machine.jobs.values():
        watched.check_answer(CLOCK.now, machine.shed_after)


def a_job_is_on_one_worker_at_most(machine: "CrewMachine") -> None:
    running = [id(worker.member.job) for worker in machine.paused()]
    assert len(running) == len(set(running)), "a job runs twice"
    known = {id(job) for job in machine.dispatcher.running()}
    assert known <= set(running)


def nobody_sits_on_anothers_seat(machine: "CrewMachine") -> None:
    assert len(machine.dispatcher._members) <= machine.dispatcher.size, "there are more workers than seats"


def no_job_waits_while_a_worker_that_could_run_it_sleeps(machine: "CrewMachine") -> None:
    dispatcher = machine.dispatcher
    states = Counter(member.state for member in dispatcher._members.values())
    assert states[MemberState.IDLE] == len(dispatcher._lane.idle)
    if dispatcher._lane.idle:
        assert dispatcher.queued <= states[MemberState.AWAKE], "a job waits while a worker sleeps"
    for worker in machine.up():
        if worker.member.state is MemberState.AWAKE:
            assert worker.has_mail, "it was woken, and nothing makes it look for a job"


def it_is_suspended_only_while_nobody_is_up(machine: "CrewMachine") -> None:
    if machine.dispatcher.mode is Mode.SUSPENDED:
        assert machine.dispatcher.queued == 0
        assert not any(seat.state is SeatState.UP for seat in machine.crew._seats), "suspended for no reason"


def the_supervisor_sleeps_only_if_something_will_wake_it(machine: "CrewMachine") -> None:
    crew = machine.crew
    if crew.ended or not crew.actor_inbox.empty():
        return
    states = {seat.state for seat in crew._seats}
    alarm = crew.actor_inbox.alarm
    if states != {SeatState.UP} and machine.dispatcher.mode in (Mode.UP, Mode.SUSPENDED):
        assert alarm is not None, "nothing will start the missing workers"
    assert alarm is not None or SeatState.UP in states, "the supervisor sleeps for ever"


def what_is_due_is_looked_at(machine: "CrewMachine") -> None:
    """While the supervisor sleeps nothing is due, and it wakes up when something is."""
    crew = machine.crew
    if crew.ended or crew.has_mail:
        return
    alarm = float("inf") if crew.actor_inbox.alarm is None else crew.actor_inbox.alarm
    for watched in machine.jobs.values():
        if watched.reply.done():
            continue
        if watched.job.deadline is not None and watched.interrupted_at is None:
            assert alarm <= watched.job.deadline + _LATE, "nobody looks at a deadline"
        if machine.shed_after is not None and not watched.started:
            assert alarm <= watched.job.submitted_at + 2 * machine.shed_after + _LATE, "nobody looks at the queue"


def what_is_stuck_is_given_up(machine: "CrewMachine") -> None:
    crew = machine.crew
    if crew.ended or crew.has_mail:
        return
    for watched in machine.jobs.values():
        if watched.interrupted_at is not None and not watched.reply.done():
            late = CLOCK.now - watched.interrupted_at
            assert late < machine.dispatcher.grace + _AGAIN, "a statement that ignores its interrupt was not given up"
            assert crew.actor_inbox.alarm is not None, "nobody looks at a statement that was interrupted"
    stuck = sum(worker.member.state is MemberState.GONE for worker in machine.paused())
    if not machine.forced:
        assert machine.dispatcher.status().stuck == stuck, "the number of stuck threads is wrong"


def nothing_is_kept_of_a_job_that_is_done(machine: "CrewMachine") -> None:
    pending = {watched.job for watched in machine.jobs.values() if not watched.reply.done()}
    assert set().union(*machine.dispatcher.agenda.deadlines._slots.values()) <= pending, "a deadline outlives its job"
    assert set(machine.dispatcher.agenda.aborted) <= pending, "an interrupt outlives its job"


def a_worker_that_has_ended_has_closed_its_connection(machine: "CrewMachine") -> None:
    for worker in machine.crew.database.workers:
        open_still = worker._connection is not None and not worker._connection.closed
        assert not (worker.ended and open_still), "a connection was left open"
