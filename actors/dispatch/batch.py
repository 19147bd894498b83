"""JobBatch: the jobs that one worker has taken, and what becomes of each."""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from actors.databases.executor import Batch
from actors.dispatch.job import Job
from actors.values.rejection import Rejection, detached
from actors.values.requests import Query

if TYPE_CHECKING:
    from actors.dispatch.lane import Lane
    from actors.dispatch.worker_handle import WorkerHandle

__all__ = ["JobBatch"]

_QUICK: Final = 0.001  # seconds: a statement that last took longer runs alone
_LONGEST_TEXT: Final = 2000  # characters of a text that is remembered
_REMEMBERED: Final = 4096  # texts of quick statements


class JobBatch(Batch):
    """The jobs that one worker has taken.

    A job in it that has not begun still waits: another worker, a cancel or its deadline may claim it first.
    """

    __slots__ = ("_left", "blames", "handle", "is_over", "jobs", "lane", "now")

    def __init__(self, handle: "WorkerHandle", lane: "Lane") -> None:
        super().__init__(handle.connection)
        self.handle = handle
        self.lane = lane
        self.jobs: list[Job] = []
        """Oldest first. Nobody changes it once the worker has begun the first."""
        self._left: Iterator[Job] | None = None
        self.now = 0.0
        """Monotonic seconds: when its last job ended, or the worker took it."""
        self.is_over = False
        """Whether its worker begins nothing more."""
        self.blames = True
        """Whether its worker may have died of what it ran."""

    def __len__(self) -> int:
        return len(self.jobs)

    # --- in the worker's thread -----------------------------------------------------------

    @property
    def was_taken_back(self) -> bool:  # type: ignore[override]  # nobody sets it
        """Whether another thread may have struck jobs off `running`."""
        return self.is_over or self.handle.was_recalled

    def begin(self) -> Job | None:
        """Claim the next job that may be run, and note that it runs; see `Batch`."""
        lane, left = self.lane, self._left
        if left is None:
            left = self._left = iter(self.jobs)
        for job in left:
            claims = job.claims
            if claims:
                lane.pass_over(job)
                continue
            claims.append(self)
            if claims[0] is not self:
                job.step_back(self)
            elif self.is_over:
                job.unclaim(self)
                lane.requeue([job])
                return None
            elif (lane.gate is None and (job.deadline is None or job.deadline > self.now)) or not self._refuses(job):
                if job.deadline is not None and not job.seen and job.deadline < lane.timers.earliest:
                    lane.timers.note(job.deadline)
                job.started_at = self.now
                self.running.append(job)
                if job.abort is None and job.cancel is None:
                    return job
                self.fail(job, InterruptedError("interrupted before it was started"))
        return None

    def hand_over(self) -> Job | None:
        """Claim the next job for another process; see `Batch`."""
        job = self.begin()
        if job is not None and self.running[0] is not job:
            job.started_at = 0.0  # another one runs before it
        return job

    def answer(self, job: Job, value: Any, seconds: float | None = None) -> None:
        """Answer a job; see `Batch`."""
        if self.lane.gate is not None:
            self.lane.admission.clear(job)
        self._end(job, value, seconds)

    def fail(self, job: Job, error: BaseException, seconds: float | None = None) -> None:
        """Answer a job with its own error; see `Batch`."""
        error.add_note(f"querycrew: crew {self.lane.admission.name!r}, {job.request}")
        self._end(job, Rejection(detached(error)), seconds)

    def reroute(self, job: Job) -> None:
        """Let the writer run a job of which nothing ran; see `Batch`."""
        if self.lane is self.lane.writers:
            message = f"{type(self.connection).__name__} asks for a worker that writes, and no other one does"
            self.fail(job, RuntimeError(message))
            return
        self._leave(job)
        job.started_at = 0.0
        self.lane.reroute(job, self)

    def give_back(self, *jobs: Job) -> None:
        """Let jobs wait again, before all others; see `Batch`."""
        for job in jobs:
            self._leave(job)
            self.let_go(job)
        self.lane.requeue(jobs)

    def close(self) -> None:
        """Make good what threads have left that were killed as they took jobs back: these wait again.

        Raises:
            RuntimeError: the connection has begun jobs and did not say what became of them, or has left jobs.
        """
        if self.handle.was_recalled:
            for job in tuple(self.running):  # the connection has answered all others
                self._leave(job)
                self.let_go(job)
            left = [job for job in self.jobs if not job.reply.done()]
            for job in left:
                self.lane.pass_over(job)
            self.lane.requeue_lost(self, left)
        elif self.running:
            message = f"run() of {type(self.connection).__name__} has left {len(self.running)} jobs without an answer"
            raise RuntimeError(message)
        elif not self.is_over and next(self._left or iter(self.jobs), None) is not None:
            # Its worker ends, and so all jobs that nobody has claimed wait again.
            message = f"run() of {type(self.connection).__name__} has ended before begin() returned None"
            raise RuntimeError(message)
        self.forget()

    def forget(self) -> None:
        """Let go of the jobs, which lead back to this batch: the cycle collector need not find them.

        A batch is used once: a thread that comes late with a job of it finds that it has no claim any more.
        """
        self._left = None
        self.jobs.clear()
        self.handle.batch = None

    def _end(self, job: Job, outcome: Any, seconds: float | None) -> None:
        self._leave(job)
        lane, counters, request = self.lane, self.handle.counters, job.request
        now = lane.clock()
        if seconds is None:
            began = self.now
            seconds = now - began
        else:
            began = now - seconds
            if self.running and not self.running[0].started_at:
                self.running[0].started_at = now  # the next one there begins now
        self.now = now
        counters.wait_times.record(began - job.submitted_at)
        counters.run_times.record(seconds)
        if type(request) is Query:
            if seconds > _QUICK or request.sql not in lane.quick:
                self._note_duration(request, seconds)
            else:
                lane.quick[request.sql] = seconds
        if job.seen:
            lane.timers.forget(job)
        job.finish(outcome, counters)

    def _note_duration(self, query: Query, seconds: float) -> None:
        """Remember whether a statement is quick, so that it may be taken together with others."""
        quick, sql = self.lane.quick, query.sql
        if query.many is not None:
            return
        if seconds > _QUICK:
            quick.pop(sql, None)
        elif len(sql) <= _LONGEST_TEXT:
            if len(quick) >= _REMEMBERED:
                quick.clear()
            quick[sql] = seconds

    def _refuses(self, job: Job) -> bool:
        """Reject a job that is claimed and not to be run, if there is an objection."""
        objection = self.lane.admission.objection(job, self.now)
        if objection is None:
            return False
        if job.seen:
            self.lane.timers.forget(job)
        job.refuse(objection.error(job, False), objection.kind, self.handle.counters)
        return True

    # --- from any thread ------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """Whether no job in it runs or waits."""
        return not self.running and not self.waiting()

    def waiting(self) -> list[Job]:
        """Return the jobs in it that nothing has claimed, oldest first, without those that wait for the writer now."""
        lane = self.lane
        return [job for job in tuple(self.jobs) if not job.claims and job.lane is lane]

    def take_back(self, most: int | None = None) -> list[Job]:
        """Return so many jobs at most, oldest first, that the connection was given and has provably not begun.

        Nothing claims them then. The connection may run a later batch by now, whose jobs they are. A thread that is
        killed here delays them until that batch is done; see `close`.
        """
        self.handle.was_recalled = True
        back: list[Job] = self.connection.recall(most)
        return back

    def let_go(self, job: Job) -> bool:
        """Give up the claim of a job that will never run here; see `Batch`."""
        job.started_at = 0.0
        is_let_go = job.unclaim(self)
        with suppress(ValueError):  # last: what a killed thread leaves in it, `close` finds
            self.running.remove(job)
        return is_let_go
