"""The state machine's crew under watch: its jobs and all that came of them, its workers and where they are."""

from typing import Any, TypeVar

from actors.errors import (
    Overloaded,
    QueryCancelled,
    QuerycrewError,
    QueryTimeout,
    QueueFull,
    SupervisorStopped,
    WorkerDied,
)
from actors.job import QUEUED, Job
from actors.reply import Reply
from actors.result import Result
from supervisor import SupervisorRef
from tests.stepped import CLOCK, SteppedDispatcher, SteppedSupervisor, SteppedWorker

T = TypeVar("T")


class WithdrawnError(Exception):
    """What a caller that has withdrawn its job settles the reply with."""


class Watched:
    """A job that was submitted, and all that came of it."""

    def __init__(self, job: Job, number: int) -> None:
        self.job = job
        self.number = number
        self.started = False
        self.cancelled = False
        """Its caller has called `cancel`, and that has said, or is about to say, True."""
        self.interrupted_at: float | None = None
        """When its statement was interrupted first."""
        self.outcome: Result | BaseException | None = None
        """What its statement gave, once it has ended."""
        self.answer: object = None
        self.calls = 0

    @property
    def reply(self) -> Reply[Any]:
        return self.job.reply

    def note(self, reply: Reply[Any]) -> None:
        self.calls += 1

    def is_due(self, now: float) -> bool:
        return self.job.deadline is not None and self.job.deadline <= now

    def fate(self) -> str:
        """Return the counter in which it belongs."""
        if not self.reply.done():
            return "running" if self.started else "queued"
        match self.reply.exception(0):
            case None:
                return "answered"
            case QueryTimeout():
                return "timed_out"
            case QueryCancelled() | WithdrawnError():
                return "cancelled"
            case Overloaded():
                return "shed"
            case SupervisorStopped():
                return "rejected"
            case WorkerDied():
                return "died"
        return "failed" if self.started else "rejected"

    def check_answer(self, now: float, shed_after: float | None) -> None:
        """Once there is an answer it stays; whoever wants to be told of it is told once."""
        assert self.calls <= self.reply.done(), "a caller was told twice"
        if not self.reply.done():
            return
        answer = self.reply._outcome
        assert self.answer is None or self.answer is answer, "an answer was changed"
        if self.answer is None:
            self.answer = answer
            self._check_error(self.reply.exception(0), now, shed_after)

    def _check_error(self, error: BaseException | None, now: float, shed_after: float | None) -> None:
        if self.cancelled:
            assert isinstance(error, QueryCancelled), f"cancel said True, and its caller got {error!r}"
        match error:
            case QueryTimeout():
                assert self.is_due(now), "a job timed out before its deadline"
            case QueryCancelled():
                assert self.cancelled, "a job was cancelled that its caller wanted"
            case Overloaded():
                assert not self.started, "a job was shed that had been started"
                assert shed_after is not None
                assert now - self.job.submitted_at > shed_after, "a job was shed that had not waited so long"
        if isinstance(error, QuerycrewError) and not isinstance(error, WorkerDied):
            assert error.executed is self._executed(), f"{error!r} says {error.executed}, not {self._executed()}"

    def _executed(self) -> bool | None:
        if not self.started:
            return False
        if isinstance(self.outcome, Result):
            return True
        # What has not come back may have done anything; so may what was lost with its connection.
        return False if type(self.outcome) in (ValueError, InterruptedError) else None


class WatchedCrew:
    """A crew, every job that it was ever asked, and what the dispatcher tells of them."""

    crew: SteppedSupervisor
    ref: SupervisorRef
    dispatcher: SteppedDispatcher

    def watch(self, crew: SteppedSupervisor, shed_after: float | None) -> None:
        self.crew = crew
        self.ref = crew.actor_ref
        self.dispatcher = crew.dispatcher
        self.shed_after = shed_after
        self.jobs: dict[int, Watched] = {}
        self.last_started = 0
        self.forced = False
        """A shutdown has a time limit: what runs may be interrupted."""
        self.dispatcher.on_submit = self.submitted
        self.dispatcher.on_start = self.started
        self.dispatcher.on_interrupt = self.interrupted

    # --- what the dispatcher tells --------------------------------------------------------

    def submitted(self, job: Job, refusal: QuerycrewError | None) -> None:
        if isinstance(refusal, QueueFull):
            assert len(self.in_state(QUEUED)) >= (self.dispatcher.max_queue or 0), "a place was not free at once"
        self.jobs[id(job)] = Watched(job, len(self.jobs) + 1)

    def started(self, job: Job) -> None:
        watched = self.jobs[id(job)]
        assert not watched.started, "a job was started twice"
        assert not watched.reply.done(), "a job was started that is settled"
        assert not watched.cancelled, "a job was started that is cancelled"
        assert not watched.is_due(CLOCK.now), "a job was started after its deadline"
        assert watched.number > self.last_started, "a job overtook another"
        watched.started = True
        self.last_started = watched.number

    def interrupted(self, job: Job) -> None:
        watched = self.jobs[id(job)]
        wanted = watched.cancelled or watched.is_due(CLOCK.now) or self.forced
        assert wanted, "a job was interrupted that was to go on"
        if watched.interrupted_at is None:
            watched.interrupted_at = CLOCK.now

    # --- who there is ---------------------------------------------------------------------

    def in_state(self, state: object) -> list[Watched]:
        return [each for each in self.jobs.values() if each.job.state is state and not each.reply.done()]

    def watched(self, reply: Reply[Any]) -> Watched:
        return next(each for each in self.jobs.values() if each.reply is reply)

    def pending(self) -> list[Watched]:
        return [each for each in self.jobs.values() if not each.reply.done()]

    def done(self) -> list[Watched]:
        return [each for each in self.jobs.values() if each.reply.done()]

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

    def interrupted_workers(self) -> list[SteppedWorker]:
        return [worker for worker in self.paused() if self.jobs[id(worker.member.job)].interrupted_at is not None]

    @staticmethod
    def one_of(several: list[T], pick: int) -> T:
        return several[pick % len(several)]

    # --- what several rules do ------------------------------------------------------------

    def cancel(self, watched: Watched) -> bool:
        before, watched.cancelled = watched.cancelled, True
        said = watched.reply.cancel()
        watched.cancelled = said or before
        return said

    def end_job(self, worker: SteppedWorker, outcome: Result | BaseException) -> None:
        self.jobs[id(worker.member.job)].outcome = outcome
        worker.end_job(outcome)
