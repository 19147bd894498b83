"""A hypothesis state machine over the dispatcher and the unstarted supervisor.

Every rule is something that may happen to a crew. After each of them `everything_holds` looks at
the whole crew; at the end it is stopped and drained, and nobody may be left waiting.
"""

import sys
from collections import Counter
from typing import Any, ClassVar

import pykka
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.dispatcher import Mode
from actors.errors import ConnectionLost, QuerycrewError, SupervisorStopped, WorkerDied
from actors.job import QUEUED, STARTED, Job
from actors.member import MemberState
from actors.messages import Query, Status
from actors.reply import Reply
from actors.restart import RestartPolicy
from actors.result import Result
from actors.seat import SeatState
from tests.stepped import CLOCK, SteppedSupervisor, SteppedWorker

POLICY = RestartPolicy(max_restarts=3, within=10, backoff_initial=0.05, backoff_max=5, quiet_period=5, start_timeout=30)

pick = st.integers(0, 5)
"""Which one of several: taken modulo their number."""


class WithdrawnError(Exception):
    """What a caller that has withdrawn its job settles the reply with."""


class Watched:
    """A job that was submitted, and all that came of it."""

    def __init__(self, job: Job, number: int) -> None:
        self.job = job
        self.number = number
        self.started = False
        self.answer: object = None
        self.calls = 0

    @property
    def reply(self) -> Reply[Any]:
        return self.job.reply

    def note(self, reply: Reply[Any]) -> None:
        self.calls += 1

    def fate(self) -> str:
        """Return the counter in which it belongs."""
        if not self.reply.done():
            return "running" if self.started else "queued"
        error = self.reply.exception(0)
        if error is None:
            return "answered"
        if not self.started:
            return "cancelled" if isinstance(error, WithdrawnError) else "rejected"
        if isinstance(error, SupervisorStopped):
            return "rejected"
        return "died" if isinstance(error, WorkerDied) else "failed"

    def check_answer(self) -> None:
        """Once there is an answer it stays; whoever wants to be told of it is told once."""
        if self.reply.done():
            answer = self.reply._outcome
            self.answer = self.answer or answer
            assert self.answer is answer, "an answer was changed"
        assert self.calls <= self.reply.done(), "a caller was told twice"


class CrewMachine(RuleBasedStateMachine):
    """Everything that may happen to a crew, in any order."""

    crew_class: ClassVar[type[SteppedSupervisor]] = SteppedSupervisor

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[int, Watched] = {}
        self.last_started = 0
        self.stops: list[Reply[bool]] = []
        self.steps = 0
        self.exception_outside = sys.exc_info()[1]

    @initialize(
        size=st.integers(1, 3),
        max_queue=st.sampled_from([None, None, 0, 2]),
        lives_for=st.sampled_from([0, 10, 20, 30, 1000]),
    )
    def start(self, size: int, max_queue: int | None, lives_for: int) -> None:
        self.lives_for = lives_for  # steps until it may be stopped: most bugs need a while
        self.crew = self.crew_class(size, max_queue, POLICY)
        self.ref = self.crew.actor_ref
        self.dispatcher = self.crew.dispatcher
        self.dispatcher.on_submit = self.submitted
        self.dispatcher.on_start = self.started
        self.crew.launch()
        self.crew.run(self.crew.on_start)

    # --- what the dispatcher tells --------------------------------------------------------

    def submitted(self, job: Job, refusal: QuerycrewError | None) -> None:
        self.jobs[id(job)] = Watched(job, len(self.jobs) + 1)

    def started(self, job: Job) -> None:
        watched = self.jobs[id(job)]
        assert not watched.started, "a job was started twice"
        assert not watched.reply.done(), "a job was started that is settled"
        assert watched.number > self.last_started, "a job overtook another"
        watched.started = True
        self.last_started = watched.number

    # --- callers --------------------------------------------------------------------------

    @rule(number=st.integers(1, 3), watch=st.booleans())
    def ask(self, number: int, watch: bool) -> None:
        for _ in range(number):
            reply = self.ref.ask(Query("SELECT 1"), block=False)
            if watch:  # a callback also changes the order in which a worker answers and takes its next job
                watched = next(each for each in self.jobs.values() if each.reply is reply)
                reply.add_done_callback(watched.note)

    @rule()
    def tell(self) -> None:
        self.ref.tell(Query("SELECT 1"))

    @precondition(lambda self: self.in_state(QUEUED))
    @rule(pick=pick)
    def withdraw(self, pick: int) -> None:
        waiting = self.in_state(QUEUED)
        job = waiting[pick % len(waiting)].job
        assert self.dispatcher.withdraw(job)
        assert job.reply.reject(WithdrawnError())

    @precondition(lambda self: self.in_state(STARTED))
    @rule(pick=pick)
    def withdraw_too_late(self, pick: int) -> None:
        begun = self.in_state(STARTED)
        assert not self.dispatcher.withdraw(begun[pick % len(begun)].job)

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

    @precondition(lambda self: self.launched())
    @rule(pick=pick, error=st.sampled_from([OSError("no"), SystemExit()]))
    def a_worker_fails_to_open_the_database(self, pick: int, error: BaseException) -> None:
        self.one_of(self.launched(), pick).open(error)

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
        self.one_of(self.paused(), pick).end_job(outcome)

    @precondition(lambda self: self.up())
    @rule(pick=pick, cause=st.sampled_from([OSError("died"), SystemExit(), KeyboardInterrupt()]))
    def a_worker_dies(self, pick: int, cause: BaseException) -> None:
        self.one_of(self.up(), pick).die(cause)

    # --- the supervisor -------------------------------------------------------------------

    @precondition(lambda self: self.crew.has_mail)
    @rule()
    def the_supervisor_reads_its_mail(self) -> None:
        self.crew.read()

    @rule(seconds=st.sampled_from([0.02, 0.1, 1.0, 6.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        CLOCK.now += seconds

    @rule(turns=st.integers(1, 3), seconds=st.sampled_from([0.0, 0.0, 0.11, 6.0]))
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
        self.ref.shutdown(wait=False, cancel_pending=cancel_pending, timeout=timeout)

    @precondition(lambda self: self.steps > self.lives_for and not self.crew.ended)
    @rule()
    def the_supervisor_dies(self) -> None:
        self.crew.end(SystemExit())

    # --- what always holds ----------------------------------------------------------------

    @invariant()
    def everything_holds(self) -> None:
        self.steps += 1
        self.counters_add_up()
        self.answers_stay_as_they_are()
        self.a_job_is_on_one_worker_at_most()
        self.no_job_waits_while_a_worker_that_could_run_it_sleeps()
        self.it_is_suspended_only_while_nobody_is_up()
        self.the_supervisor_sleeps_only_if_something_will_wake_it()
        self.a_worker_that_has_ended_has_closed_its_connection()

    def counters_add_up(self) -> None:
        fates = Counter(watched.fate() for watched in self.jobs.values())
        status = self.dispatcher.status()
        assert status.submitted == len(self.jobs) == sum(fates.values())
        for name in ("queued", "running", "answered", "failed", "died", "rejected", "cancelled", "timed_out", "shed"):
            assert getattr(status, name) == fates[name], f"the counter {name} is wrong"

    def answers_stay_as_they_are(self) -> None:
        for watched in self.jobs.values():
            watched.check_answer()

    def a_job_is_on_one_worker_at_most(self) -> None:
        running = [id(worker.member.job) for worker in self.paused()]
        assert len(running) == len(set(running)), "a job runs twice"
        known = {id(job) for job in self.dispatcher.running()}
        assert known <= set(running)

    def no_job_waits_while_a_worker_that_could_run_it_sleeps(self) -> None:
        states = Counter(member.state for member in self.dispatcher._members.values())
        assert states[MemberState.IDLE] == len(self.dispatcher._lane.idle)
        if self.dispatcher._lane.idle:
            assert self.dispatcher.queued <= states[MemberState.AWAKE], "a job waits while a worker sleeps"
        for worker in self.up():
            if worker.member.state is MemberState.AWAKE:
                assert worker.has_mail, "it was woken, and nothing makes it look for a job"

    def it_is_suspended_only_while_nobody_is_up(self) -> None:
        if self.dispatcher.mode is Mode.SUSPENDED:
            assert self.dispatcher.queued == 0
            assert not any(seat.state is SeatState.UP for seat in self.crew._seats), "suspended for no reason"

    def the_supervisor_sleeps_only_if_something_will_wake_it(self) -> None:
        if self.crew.ended or not self.crew.actor_inbox.empty():
            return
        states = {seat.state for seat in self.crew._seats}
        alarm = self.crew.actor_inbox.alarm
        if states != {SeatState.UP} and self.dispatcher.mode in (Mode.UP, Mode.SUSPENDED):
            assert alarm is not None, "nothing will start the missing workers"
        assert alarm is not None or SeatState.UP in states, "the supervisor sleeps for ever"

    def a_worker_that_has_ended_has_closed_its_connection(self) -> None:
        for worker in self.crew.database.workers:
            open_still = worker._connection is not None and not worker._connection.closed
            assert not (worker.ended and open_still), "a connection was left open"

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
            worker.end_job(Result())
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

    # --- who there is ---------------------------------------------------------------------

    def in_state(self, state: object) -> list[Watched]:
        return [each for each in self.jobs.values() if each.job.state is state and not each.reply.done()]

    def alive(self) -> list[SteppedWorker]:
        return [worker for worker in self.crew.database.workers if not worker.ended]

    def launched(self) -> list[SteppedWorker]:
        return [worker for worker in self.alive() if not worker.opened]

    def up(self) -> list[SteppedWorker]:
        return [worker for worker in self.alive() if worker.opened]

    def paused(self) -> list[SteppedWorker]:
        return [worker for worker in self.up() if worker.is_paused]

    def reading(self) -> list[SteppedWorker]:
        return [worker for worker in self.up() if not worker.is_paused and worker.has_mail]

    @staticmethod
    def one_of(workers: list[SteppedWorker], pick: int) -> SteppedWorker:
        return workers[pick % len(workers)]
