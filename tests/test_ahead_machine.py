"""The state machine of jobs sent ahead runs clean, and finds bugs that are planted for it."""

import pytest
from hypothesis.stateful import run_state_machine_as_test

from actors.ahead import Ahead
from actors.databases.base import token_of
from actors.dispatcher import Dispatcher
from actors.job import QUEUED
from actors.lane import Lane
from tests.ahead_machine import AheadMachine
from tests.looking import FIND, LOOK
from tests.pipelined_desk import child_of


def test_whatever_happens_to_jobs_that_are_sent_ahead_each_is_run_once_at_most_and_answered():
    run_state_machine_as_test(AheadMachine, settings=LOOK)


# --- bugs ---------------------------------------------------------------------------------


class TakesBackWithoutATokenOfTheChild(Ahead):
    """Whatever is ahead, whether the child has begun it or not."""

    def recall(self, member, most=None, *, all_of_them=False):
        child = child_of(member) if member.pipeline is not None else None
        if child is None or all_of_them:
            return super().recall(member, most, all_of_them=all_of_them)
        child.tokens = type(child.tokens)(token_of(job.ticket) for job in member.in_hand())
        return super().recall(member, most)


class TakesBackTheLast(Ahead):
    def recall(self, member, most=None, *, all_of_them=False):
        return super().recall(member, None if all_of_them else most, all_of_them=True)


class PutsBackAndKeeps(Ahead):
    def recall(self, member, most=None, *, all_of_them=False):
        ahead = member.ahead.copy()
        number = super().recall(member, most, all_of_them=all_of_them)
        if not all_of_them:
            member.ahead.extend(job for job in ahead if job not in member.ahead and job is not member.job)
        return number


class NeverSteals(Ahead):
    def steal(self):
        return False


class GivesMoreThanItTakes(Ahead):
    def room(self, member):
        return super().room(member) and len(self._lane)


class ForgetsTheJobsOfTheDead(Ahead):
    def recall(self, member, most=None, *, all_of_them=False):
        return 0 if all_of_them else super().recall(member, most)


class _NeverMatches(Lane):
    __slots__ = ()

    def match(self):
        pass


class PutsBackAtTheSideOfASleeper(Dispatcher):
    def bury(self, member):
        self._lane.__class__ = _NeverMatches
        try:
            return super().bury(member)
        finally:
            self._lane.__class__ = Lane


class InterruptsTheNext(Dispatcher):
    """Not the job that was meant, but the one behind it."""

    def interrupt(self, job, abort):
        job.ticket += 1
        try:
            return super().interrupt(job, abort)
        finally:
            job.ticket -= 1


class LosesWhatTheLastOfAClosedCrewHadAhead(Dispatcher):
    def bury(self, member):
        orphans = super().bury(member)
        member.dropped.clear()
        return orphans


class CountsTheOrphansOfTheDeadAgain(Dispatcher):
    def bury(self, member):
        orphans = super().bury(member)
        self._tally.died += len(orphans)
        return orphans


class CancelsTooLittle(Dispatcher):
    """Nothing that was sent ahead, begun or not."""

    def _take_back_from_worker(self, job):
        pass


class ForgetsWhatItInterruptedAndTookBack(Dispatcher):
    def expire(self, now):
        for job in list(self.agenda.aborted):
            if job.state is QUEUED:
                del self.agenda.aborted[job]
        return super().expire(now)


@pytest.mark.parametrize(
    "bug",
    [
        *(TakesBackWithoutATokenOfTheChild, TakesBackTheLast, PutsBackAndKeeps, NeverSteals, GivesMoreThanItTakes),
        *(ForgetsTheJobsOfTheDead, PutsBackAtTheSideOfASleeper, InterruptsTheNext),
        *(LosesWhatTheLastOfAClosedCrewHadAhead, CountsTheOrphansOfTheDeadAgain, CancelsTooLittle),
        ForgetsWhatItInterruptedAndTookBack,
    ],
)
def test_a_planted_bug_is_found(bug):
    kind = "ahead_class" if issubclass(bug, Ahead) else "dispatcher_class"
    machine = type("Planted", (AheadMachine,), {kind: bug})
    # By whichever of the invariants it breaks first.
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=FIND)
