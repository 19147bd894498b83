"""The state machine runs clean, and finds bugs that are planted for it."""

import logging

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.state_machine import CrewMachine
from tests.stepped import CLOCK, SteppedDispatcher, SteppedSupervisor, SteppedWorker

# Without the phase that explains a failure: it traces every line.
LOOK = settings(
    max_examples=300, stateful_step_count=50, deadline=None, phases=(Phase.reuse, Phase.generate, Phase.shrink)
)
# Always the same examples, so that a planted bug is found in each run or in none.
FIND = settings(
    max_examples=300,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    report_multiple_bugs=False,
)


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
        self._lane.jobs.rotate(1)
        return super().take(member)


class CountsFailuresAsAnswers(SteppedDispatcher):
    def finish(self, member, ok, more):
        return super().finish(member, True, more)


class ForgetsTheQueue(SteppedDispatcher):
    def _drop_queue(self):
        super()._drop_queue()
        return []


class NeverResumes(SteppedDispatcher):
    def resume(self):
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
