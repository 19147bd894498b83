"""The state machine runs clean, and finds bugs that are planted for it."""

import logging

import pytest
from hypothesis.stateful import run_state_machine_as_test

from actors.agenda import Agenda
from actors.deadlines import Deadlines
from actors.job import WITHDRAWN
from actors.member import MemberState
from tests.looking import FIND, LOOK
from tests.state_machine import CrewMachine
from tests.stepped import CLOCK, SteppedDispatcher, SteppedSupervisor, SteppedWorker


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL)


def test_whatever_happens_to_a_crew_nobody_is_left_waiting():
    run_state_machine_as_test(CrewMachine, settings=LOOK)


# --- bugs ---------------------------------------------------------------------------------


class LosesWakes(SteppedDispatcher):
    def submit(self, job):
        idle, self._lane.idle = self._lane.idle, []
        refusal = super().submit(job)
        self._lane.idle = idle
        return refusal


class ServesTheLastFirst(SteppedDispatcher):
    def take(self, member):
        jobs = self._lane.jobs
        if jobs:
            jobs.move_to_end(next(reversed(jobs)), last=False)
        return super().take(member)


class CountsFailuresAsAnswers(SteppedDispatcher):
    def finish(self, member, ok, more):
        return super().finish(member, True, more)


class ForgetsTheQueue(SteppedDispatcher):
    def _drop_queue(self, lanes=None):
        super()._drop_queue(lanes)
        return []


class NeverResumes(SteppedDispatcher):
    def resume(self, lane=0):
        pass


class ForgetsItsOrphan(SteppedWorker):
    def on_end(self, cause):
        self._dispatcher.bury(self.member)
        self._connection and self._connection.close()


class LeavesItsConnectionOpen(SteppedWorker):
    def on_end(self, cause):
        self._connection, connection = None, self._connection
        super().on_end(cause)
        self._connection = connection


class DiesInSilence(SteppedWorker):
    def on_gone(self, cause):
        pass


class NeverSleeps(SteppedSupervisor):
    def _next_alarm(self):
        return CLOCK.now


class NeverWakesUp(SteppedSupervisor):
    def _next_alarm(self):
        return None


class RunsWhatIsTooLate(SteppedDispatcher):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._admission.objection = lambda job, now: None


class _NeverRings(Agenda):
    def arm(self, at):
        self._armed = at


class ForgetsDeadlines(SteppedDispatcher):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.agenda = _NeverRings()


class KeepsTheDeadlinesOfTheDead(SteppedDispatcher):
    def bury(self, member):
        job, deadlines = member.job, self.agenda.deadlines
        if job is not None:
            self.agenda.deadlines = Deadlines()
        orphans = super().bury(member)
        self.agenda.deadlines = deadlines
        return orphans


class KeepsThePlaceOfTheWithdrawn(SteppedDispatcher):
    def _take_back(self, job):
        job.state = WITHDRAWN
        return True


class InterruptsTheNextJob(SteppedDispatcher):
    """Once more for each interrupt, whatever that worker runs by then."""

    late = ()

    def interrupt(self, job, abort):
        self.late = {job.member}
        return super().interrupt(job, abort)

    def _assign(self, member, now):
        job = super()._assign(member, now)
        if job is not None and member in self.late:
            member.interrupt()
        return job


class CancelsNothingThatRuns(SteppedDispatcher):
    def cancel_running(self, job):
        return False


class GivesWhatNobodyWants(SteppedDispatcher):
    def interrupt(self, job, abort):
        abort.wins = False
        return super().interrupt(job, abort)


class TimesOutTooEarly(SteppedDispatcher):
    def expire(self, now):
        return super().expire(now + 0.05)


class ShedsWhatHasJustCome(SteppedDispatcher):
    def _shed_head(self, lane, now, shed):
        target, lane.shedding.target = lane.shedding.target, 0.001
        super()._shed_head(lane, now, shed)
        lane.shedding.target = target


class NeverGivesUp(SteppedDispatcher):
    def follow_up(self, now):
        for job in self.agenda.aborted:
            job.member.interrupt()
        return []


class CountsALateAnswer(SteppedDispatcher):
    def finish(self, member, ok, more):
        if member.state is MemberState.GONE:
            self._tally.answered += 1
        return super().finish(member, ok, more)


class LeavesTheStuckInTheirSeats(SteppedSupervisor):
    def _give_up(self, member, now):
        member.job.reply.reject(member.job.abort.error(None))


class ForgetsWhoIsStuck(SteppedSupervisor):
    def _give_up(self, member, now):
        super()._give_up(member, now)
        self._stuck.clear()
        self._dispatcher.stuck = 0


@pytest.mark.parametrize(
    ("bug", "found"),
    [
        (LosesWakes, "a job waits while a worker sleeps"),
        (ServesTheLastFirst, "a job overtook another"),
        (CountsFailuresAsAnswers, "the counter answered is wrong"),
        (ForgetsTheQueue, "a caller is left waiting|the counter queued is wrong"),
        (NeverResumes, "suspended for no reason"),
        (ForgetsItsOrphan, "a caller is left waiting|the counter running is wrong"),
        (LeavesItsConnectionOpen, "a connection was left open"),
        (DiesInSilence, "the crew never ends|the supervisor sleeps for ever"),
        (NeverSleeps, "never sleep"),
        (RunsWhatIsTooLate, "a job was started after its deadline"),
        (ForgetsDeadlines, "nobody looks at"),
        (KeepsTheDeadlinesOfTheDead, "a deadline outlives its job"),
        (KeepsThePlaceOfTheWithdrawn, "the counter queued is wrong"),
        (InterruptsTheNextJob, "a job was interrupted that was to go on"),
        (CancelsNothingThatRuns, "cancel said False of a job that runs"),
        (GivesWhatNobodyWants, "cancel said True, and its caller got"),
        (TimesOutTooEarly, "a job timed out before its deadline|a job was interrupted that was to go on"),
        (ShedsWhatHasJustCome, "a job was shed that had not waited so long"),
        (NeverGivesUp, "a statement that ignores its interrupt was not given up"),
        (CountsALateAnswer, "the counter answered is wrong|^assert"),
        (LeavesTheStuckInTheirSeats, "the counter running is wrong|the number of stuck threads is wrong|^assert"),
        (ForgetsWhoIsStuck, "the number of stuck threads is wrong"),
        (NeverWakesUp, "nothing will start the missing workers|the supervisor sleeps for ever"),
    ],
)
def test_a_planted_bug_is_found(bug, found):
    kind = next(kind for kind in (SteppedDispatcher, SteppedWorker, SteppedSupervisor) if issubclass(bug, kind))
    crew = bug
    if kind is not SteppedSupervisor:
        crew = type("Crew", (SteppedSupervisor,), {f"{kind.__base__.__name__.lower()}_class": bug})
    machine = type("Planted", (CrewMachine,), {"crew_class": crew})
    with pytest.raises(AssertionError, match=found):
        run_state_machine_as_test(machine, settings=FIND)
