"""A hypothesis state machine over the dispatcher and the unstarted supervisor.

Every rule is something that may happen to a crew. After each of them `state_machine_checks` looks at
the whole crew; at the end it is stopped and drained, and nobody may be left waiting.
"""

import sys
from typing import ClassVar

import pykka
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.errors import ConnectionLost, QueryCancelled, QuerycrewError, SupervisorStopped
from actors.job import QUEUED, STARTED
from actors.messages import Query, Status
from actors.reply import Reply
from actors.restart import RestartPolicy
from actors.result import Result
from tests.state_machine_checks import everything_holds
from tests.stepped import CLOCK, SteppedSupervisor
from tests.watched import WatchedCrew, WithdrawnError

POLICY = RestartPolicy(
    max_restarts=3, within=10, backoff_initial=0.05, backoff_max=5, quiet_period=5, start_timeout=30, grace=0.5
)

pick = st.integers(0, 5)
"""Which one of several: taken modulo their number."""

timeouts = st.sampled_from([None, None, 0, 0.03, 0.2, 1.0])
"""Seconds; short ones end while a job waits, longer ones while it runs."""


class CrewMachine(WatchedCrew, RuleBasedStateMachine):
    """Everything that may happen to a crew, in any order."""

    crew_class: ClassVar[type[SteppedSupervisor]] = SteppedSupervisor

    def __init__(self) -> None:
        super().__init__()
        self.stops: list[Reply[bool]] = []
        self.steps = 0
        self.failed_in_callback: AssertionError | None = None
        self.exception_outside = sys.exc_info()[1]

    @initialize(
        size=st.integers(1, 3),
        max_queue=st.sampled_from([None, None, 0, 2]),
        lives_for=st.sampled_from([0, 10, 20, 30, 1000]),
        timeout=st.sampled_from([None, None, 0.1]),
        shed_after=st.sampled_from([None, None, 0.05]),
    )
    def start(
        self, size: int, max_queue: int | None, lives_for: int, timeout: float | None, shed_after: float | None
    ) -> None:
        self.lives_for = lives_for  # steps until it may be stopped: most bugs need a while
        self.watch(self.crew_class(size, max_queue, POLICY, timeout=timeout, shed_after=shed_after), shed_after)
        self.crew.launch()
        self.crew.run(self.crew.on_start)

    # --- callers --------------------------------------------------------------------------

    @rule(number=st.integers(1, 3), watch=st.booleans(), timeout=timeouts)
    def ask(self, number: int, watch: bool, timeout: float | None) -> None:
        for _ in range(number):
            reply = self.ref.ask(Query("SELECT 1", timeout=timeout), block=False)
            if watch:  # a callback also changes the order in which a worker answers and takes its next job
                reply.add_done_callback(self.watched(reply).note)

    @rule(pick=pick)
    def ask_with_a_callback_that_cancels_another(self, pick: int) -> None:
        reply = self.ref.ask(Query("SELECT 1"), block=False)

        def cancel_another(_: object) -> None:
            pending = self.pending()
            try:
                if pending:
                    self.cancel(self.one_of(pending, pick))
            except AssertionError as error:  # what a callback raises is logged, and no more
                self.failed_in_callback = error

        reply.add_done_callback(cancel_another)

    @precondition(lambda self: self.steps % 3 == 0)
    @rule(timeout=timeouts)
    def ask_and_give_up_at_once(self, timeout: float | None) -> None:
        before = len(self.jobs)
        with pytest.raises((pykka.Timeout, QuerycrewError)) as caught:
            self.ref.ask(Query("SELECT 1", timeout=timeout), timeout=0)
        (watched,) = list(self.jobs.values())[before:]
        watched.cancelled = type(caught.value) is pykka.Timeout
        assert watched.reply.done()

    @rule(timeout=timeouts)
    def tell(self, timeout: float | None) -> None:
        self.ref.tell(Query("SELECT 1", timeout=timeout))

    @precondition(lambda self: self.steps % 3 == 0 and self.in_state(QUEUED))  # most jobs are wanted
    @rule(pick=pick)
    def cancel_a_job_that_waits(self, pick: int) -> None:
        watched = self.one_of(self.in_state(QUEUED), pick)
        assert self.cancel(watched) is True, "cancel said False of a job that waits"
        error = watched.reply.exception(0)
        assert isinstance(error, QueryCancelled)
        assert error.executed is False

    @precondition(lambda self: self.steps % 3 == 0 and self.in_state(STARTED))
    @rule(pick=pick)
    def cancel_a_job_that_runs(self, pick: int) -> None:
        watched = self.one_of(self.in_state(STARTED), pick)
        assert self.cancel(watched) is True, "cancel said False of a job that runs"
        assert watched.interrupted_at is not None, "a job was cancelled and not interrupted"

    @precondition(lambda self: self.steps % 5 == 0 and self.done())
    @rule(pick=pick)
    def cancel_a_job_that_is_done(self, pick: int) -> None:
        assert self.one_of(self.done()[-6:], pick).reply.cancel() is False

    @precondition(lambda self: self.steps % 5 == 0 and self.in_state(QUEUED))
    @rule(pick=pick)
    def withdraw(self, pick: int) -> None:
        job = self.one_of(self.in_state(QUEUED), pick).job
        assert self.dispatcher.withdraw(job)
        assert job.reply.reject(WithdrawnError())

    @precondition(lambda self: self.in_state(STARTED))
    @rule(pick=pick)
    def withdraw_too_late(self, pick: int) -> None:
        assert not self.dispatcher.withdraw(self.one_of(self.in_state(STARTED), pick).job)

    @rule()
    def look(self) -> None:
        status = self.ref.ask(Status())
        assert len(status.workers) <= status.size
        assert status.state in repr(self.ref)
        assert status.name in str(status)

    @rule(message=st.sampled_from(["nonsense", None, Query("SELECT 1")]))
    def write_to_the_supervisor(self, message: object) -> None:
        if not self.crew.ended:
            self.crew.hear(message)

    # --- workers --------------------------------------------------------------------------

    @precondition(lambda self: self.launched())
    @rule(pick=pick)
    def a_worker_opens_the_database(self, pick: int) -> None:
        self.one_of(self.launched(), pick).open()

    @precondition(lambda self: self.steps % 3 == 0 and self.launched())
    @rule(pick=pick, error=st.sampled_from([OSError("no"), SystemExit()]))
    def a_worker_fails_to_open_the_database(self, pick: int, error: BaseException) -> None:
        self.one_of(self.launched(), pick).open(error)

    @precondition(lambda self: self.steps % 3 == 0)
    @rule(number=st.integers(1, 3))
    def the_system_gives_no_more_threads(self, number: int) -> None:
        self.crew.database.failing_launches = number

    @precondition(lambda self: self.reading())
    @rule(pick=pick)
    def a_worker_reads_its_mail(self, pick: int) -> None:
        self.one_of(self.reading(), pick).read()

    @precondition(lambda self: self.paused())
    @rule(pick=pick, outcome=st.sampled_from([Result(), Result(), ValueError("no such table"), ConnectionLost("gone")]))
    def a_job_ends(self, pick: int, outcome: Result | BaseException) -> None:
        self.end_job(self.one_of(self.paused(), pick), outcome)

    @precondition(lambda self: self.interrupted_workers())
    @rule(pick=pick)
    def a_statement_heeds_its_interrupt(self, pick: int) -> None:
        self.end_job(self.one_of(self.interrupted_workers(), pick), InterruptedError())

    @precondition(lambda self: self.up())
    @rule(pick=pick, cause=st.sampled_from([OSError("died"), SystemExit(), KeyboardInterrupt()]))
    def a_worker_dies(self, pick: int, cause: BaseException) -> None:
        self.one_of(self.up(), pick).die(cause)

    # --- the supervisor -------------------------------------------------------------------

    @precondition(lambda self: self.crew.has_mail)
    @rule()
    def the_supervisor_reads_its_mail(self) -> None:
        self.crew.read()

    @rule(seconds=st.sampled_from([0.02, 0.05, 0.1, 0.3, 1.0, 6.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        CLOCK.now += seconds

    @rule(turns=st.integers(1, 3), seconds=st.sampled_from([0.0, 0.0, 0.02, 0.11, 0.6, 6.0]))
    def everybody_but_the_running_jobs_goes_on(self, turns: int, seconds: float) -> None:
        for _ in range(turns):
            CLOCK.now += seconds
            self.go_on()

    @precondition(lambda self: self.steps > self.lives_for)
    @rule()
    def stop(self) -> None:
        self.stops.append(self.ref.stop(block=False))

    @precondition(lambda self: self.steps > self.lives_for)
    @rule(cancel_pending=st.booleans(), timeout=st.sampled_from([None, 0, 5]))
    def shutdown(self, cancel_pending: bool, timeout: float | None) -> None:
        self.forced |= timeout is not None
        self.ref.shutdown(wait=False, cancel_pending=cancel_pending, timeout=timeout)

    @precondition(lambda self: self.steps > self.lives_for and not self.crew.ended)
    @rule()
    def the_supervisor_dies(self) -> None:
        self.crew.end(SystemExit())

    # --- what always holds ----------------------------------------------------------------

    @invariant()
    def it_holds(self) -> None:
        self.steps += 1
        if self.failed_in_callback is not None:
            raise self.failed_in_callback
        everything_holds(self)

    # --- the end --------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "crew"):
            return
        try:
            if sys.exc_info()[1] is self.exception_outside:  # otherwise a rule has failed: let that be seen
                self.drain()
                self.check_that_all_is_over()
        finally:
            for actor in (self.crew, *self.crew.database.workers):
                actor.retire()

    def drain(self) -> None:
        self.stops.append(self.ref.stop(block=False))
        while self.go_on() or self.anything_ends():
            pass

    def go_on(self) -> bool:
        """Let everybody who has something to do go on once; say whether there was anybody."""
        launched, reading, reads = self.launched(), self.reading(), self.crew.has_mail
        for worker in launched:
            worker.open()
        for worker in reading:
            worker.read()
        if reads:
            self.crew.read()
        return bool(launched or reading or reads)

    def anything_ends(self) -> bool:
        """Let every running job end; say whether there was any."""
        paused = self.paused()
        for worker in paused:
            self.end_job(worker, Result())
        return bool(paused)

    def check_that_all_is_over(self) -> None:
        assert self.crew.ended, "the crew never ends"
        assert self.ref.wait_until_ended(0)
        assert not self.alive(), "a worker never ends"
        assert all(watched.reply.done() for watched in self.jobs.values()), "a caller is left waiting"
        assert all(stopped.get(timeout=0) in (True, False) for stopped in self.stops)
        assert isinstance(self.ref.ask(Query("SELECT 1"), block=False).exception(0), SupervisorStopped)
        ours = {self.crew.actor_urn, *(worker.actor_urn for worker in self.crew.database.workers)}
        assert not ours & {ref.actor_urn for ref in pykka.ActorRegistry.get_all()}
