"""JobBatch: the jobs that one worker has taken, and how each of them ends."""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from actors.databases.executor import Batch
from actors.dispatch.job import Job
from actors.values.places import note_request
from actors.values.rejection import Rejection, detached
from actors.values.requests import Query

if TYPE_CHECKING:
    from actors.dispatch.lane import Lane
    from actors.dispatch.worker_handle import WorkerHandle

__all__ = ["JobBatch"]

_QUICK: Final = 0.001  # seconds; a statement that last took longer runs alone
_LONGEST_TEXT: Final = 2000  # characters of a text that is remembered
_REMEMBERED: Final = 4096  # texts of quick statements


class JobBatch(Batch):
    """The jobs that one worker has taken.

    A job in it that has not begun still waits. Another worker, a cancel or its deadline may claim
    it first.
    """

    __slots__ = ("_left", "blames", "handle", "is_over", "jobs", "lane", "now")

    def __init__(self, handle: "WorkerHandle", lane: "Lane") -> None:
        super().__init__(handle.connection)
        self.handle = handle
        self.lane = lane
        self.jobs: list[Job] = []
        """Oldest first. Nobody changes it once the worker has begun the first job."""
        self._left: Iterator[Job] | None = None
        self.now = 0.0
        """Monotonic seconds at which its last job ended, or at which the worker took the batch."""
        self.is_over = False
        """Whether its worker begins nothing more. `WorkerHandle.end_batch` sets it."""
        self.blames = True
        """Whether its worker may have died of a job in it."""

    def __len__(self) -> int:
        return len(self.jobs)

    # --- in the worker's thread -----------------------------------------------------------

    @property
    def was_taken_back(self) -> bool:  # type: ignore[override]  # nobody sets it
        """Whether another thread may have removed jobs from `running`."""
        return self.is_over or self.handle.was_recalled

    def begin(self) -> Job | None:
        """Claim the next job that may be run, and note that it runs; see `Batch`.

        The race with `WorkerHandle.end_batch`: this thread claims the job before it looks whether
        the batch is over. The other thread ends the batch before it looks at the claims. So the job
        is an orphan, or it waits again, and never both.
        """
        lane, left = self.lane, self._left
        if left is None:
            left = self._left = iter(self.jobs)
        for job in left:
            if not job.claim(self):
                lane.settle_aborted(job)
            elif self.is_over:
                job.unclaim(self)
                lane.requeue([job])
                return None
            elif (lane.gate is None and (job.deadline is None or job.deadline > self.now)) or not self._refuses(job):
                if job.deadline is not None and not job.is_scheduled and job.deadline < lane.timers.earliest:
                    lane.timers.note(job.deadline)
                job.start(self.now)
                self.running.append(job)
                if job.abort is None and job.cancel is None:
                    return job
                self.fail(job, InterruptedError("interrupted before it was started"))
        return None

    def hand_over(self) -> Job | None:
        """Claim the next job for another process; see `Batch`."""
        job = self.begin()
        if job is not None and self.running[0] is not job:
            job.forget_start()  # another one runs before it
        return job

    def answer(self, job: Job, value: Any, seconds: float | None = None) -> None:
        """Answer a job; see `Batch`."""
        if self.lane.gate is not None:
            self.lane.admission.clear(job)
        self._end(job, value, seconds)

    def fail(self, job: Job, error: BaseException, seconds: float | None = None) -> None:
        """Answer a job with its own error; see `Batch`."""
        if job.abort is None:  # else the error of the abort names the request
            note_request(error, self.lane.admission.name, job.request)
        self._end(job, Rejection(detached(error)), seconds)

    def complete(self, job: Job, outcome: Any) -> None:
        """Answer a job with its outcome: a value, or a `Rejection`."""
        if type(outcome) is Rejection:
            self.fail(job, outcome.error)
        else:
            self.answer(job, outcome)

    def complete_again(self, job: Job, outcome: Any) -> None:
        """Repeat a `complete` that may have been cut off at any step."""
        if job.reply.done():
            job.release()
            return
        if job not in self.running:
            self.running.append(job)
        self.complete(job, outcome)

    def reroute(self, job: Job) -> None:
        """Let the writer run a job of which nothing ran; see `Batch`."""
        if self.lane is self.lane.writers:
            message = f"{type(self.connection).__name__} asks for a worker that writes, and there is no other worker"
            self.fail(job, RuntimeError(message))
            return
        self._leave(job)
        job.forget_start()
        self.lane.reroute(job, self)

    def give_back(self, *jobs: Job) -> None:
        """Put jobs back into their lanes, before all others; see `Batch`."""
        for job in jobs:
            self._leave(job)
            self.let_go(job)
        self.lane.requeue(jobs)

    def close(self) -> None:
        """Check that every job has ended, and forget them.

        A thread may have been killed while it took jobs back from this batch. The jobs that it left
        here wait again.

        Raises:
            RuntimeError: the connection has not ended every job that it began, or has left jobs.
        """
        if self.handle.was_recalled:
            for job in tuple(self.running):  # the connection has answered all others
                self._leave(job)
                self.let_go(job)
            left = [job for job in self.jobs if not job.reply.done()]
            for job in left:
                self.lane.settle_aborted(job)
            self.lane.requeue_lost(self, left)
        elif self.running:
            message = f"run() of {type(self.connection).__name__} has left {len(self.running)} jobs without an answer"
            raise RuntimeError(message)
        elif not self.is_over and next(self._left or iter(self.jobs), None) is not None:
            # Its worker ends, and then all jobs that nothing has claimed wait again.
            message = f"run() of {type(self.connection).__name__} has ended before begin() returned None"
            raise RuntimeError(message)
        self.forget()

    def forget(self) -> None:
        """Drop the jobs, which refer to this batch, so that no reference cycle is left.

        A batch is used once. A thread that comes late with a job of it finds no claim of the batch.
        """
        self._left = None
        self.jobs.clear()
        self.handle.batch = None

    def drop(self) -> None:
        """Forget all jobs, also the running ones: they are rejected by now."""
        self.running.clear()
        self.forget()

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
                self.running[0].start(now)  # the next job in the other process begins now
        self.now = now
        counters.wait_times.record(began - job.submitted_at)
        counters.run_times.record(seconds)
        if type(request) is Query:
            if seconds > _QUICK or request.sql not in lane.quick:
                self._note_duration(request, seconds)
            else:
                lane.quick[request.sql] = seconds
        if job.is_scheduled:
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
        """Reject a claimed job if it must not begin; say whether this was so."""
        objection = self.lane.admission.objection(job, self.now)
        if objection is None:
            return False
        if job.is_scheduled:
            self.lane.timers.forget(job)
        job.reject(objection, self.handle.counters)
        return True

    # --- from any thread ------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """Whether no job in it runs or waits."""
        return not self.running and not self.waiting()

    def waiting(self) -> list[Job]:
        """Return the jobs in it that nothing has claimed, oldest first.

        A job that was rerouted waits for the writer, and is not among them.
        """
        lane = self.lane
        return [job for job in tuple(self.jobs) if not job.claims and job.lane is lane]

    def take_back(self, most: int | None = None) -> list[Job]:
        """Take back jobs that the connection was given and has provably not begun.

        Nothing claims the returned jobs. By now the connection may run a later batch: then they are
        jobs of that batch. A thread that is killed here delays the jobs until that batch is done;
        see `close`.

        Args:
            most: how many jobs to take back; `None` for all.

        Returns:
            The jobs, oldest first.
        """
        self.handle.was_recalled = True
        back: list[Job] = self.connection.recall(most)
        return back

    def let_go(self, job: Job) -> bool:
        """Give up the claim of a job that will never run here; see `Batch`."""
        job.forget_start()
        is_let_go = job.unclaim(self)
        with suppress(ValueError):  # last: `close` finds the job here if this thread is killed before
            self.running.remove(job)
        return is_let_go
