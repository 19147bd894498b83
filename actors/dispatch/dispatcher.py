"""Dispatcher: the place where callers, workers and the supervisor meet.

It does no I/O, has no thread, and takes no lock on a job's way. Every method may be called from any
thread and returns at once. If a thread is killed in the middle of a method, the claim of the job
shows how far it came (see `Job`), and the next thread that meets the job completes the step.
"""

import time
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

from actors.dispatch import aborts, rejections, views
from actors.dispatch.admission import Admission, Mode
from actors.dispatch.batch import JobBatch
from actors.dispatch.deadlocks import Deadlocks
from actors.dispatch.expiry import Expiry
from actors.dispatch.job import Abort, Job
from actors.dispatch.job_ids import JobIds
from actors.dispatch.lane import Lane
from actors.dispatch.quarantine import Quarantine
from actors.dispatch.roster import Roster
from actors.dispatch.routing import Routing
from actors.dispatch.timers import Timers
from actors.dispatch.worker_handle import WorkerHandle
from actors.values.errors import DatabaseUnavailable, SupervisorStopped, WouldDeadlock
from actors.values.status import CrewStatus

if TYPE_CHECKING:
    from actors.replies.checkout import Checkout
    from actors.replies.reply import Reply

__all__ = ["Dispatcher", "Mode"]


class Dispatcher:
    """The jobs and the workers of one crew.

    Its parts: `Lane` (the queue), `Admission` (which jobs are not run), `Roster` (the workers),
    `Timers` and `Expiry` (jobs whose time is over), `Deadlocks` (waits that would never end).
    """

    def __init__(
        self,
        name: str,
        database: str,
        size: int,
        max_queue: int | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        grace: float = 0.5,
        shed_after: float | None = None,
        quarantine: Quarantine | None = None,
        has_writer: bool = False,
    ) -> None:
        self.name = name
        self.database = database
        self.size = size
        self.clock = clock
        self.grace = grace
        """Seconds that an interrupted statement has to end before its worker is given up."""
        self.timers = Timers()
        self.job_ids = JobIds()
        # Which jobs are the writer's, if there is one.
        self._routing = Routing()
        self.admission = Admission(
            *(name, database, size, max_queue), quarantine=quarantine or Quarantine(3, 10.0), routing=self._routing
        )
        self.deadlocks = Deadlocks(self.admission, self._withdraw)
        roles = ("reader", "writer") if has_writer else (None,)
        self.lanes = tuple(Lane(clock, self.timers, self.admission, role, shed_after) for role in roles)
        """One lane for all workers; with a writer, the readers' lane and the writer's."""
        for lane in self.lanes:
            lane.writers = self.lanes[-1]
            lane.on_reroute = self.deadlocks.refuse_rerouted
        self._lane = self.lanes[0]
        self._has_writer = has_writer
        self.admission.lanes = self.lanes
        self.admission.set_gates()
        self.roster = Roster(self.admission, self.timers, clock)
        self._expiry = Expiry(self.admission, self.timers, grace, withdraw=self._withdraw, interrupt=self.interrupt)
        self.has_checkouts = False
        """Whether there was ever a checkout."""
        self.stuck = 0
        """Threads of workers that were given up and have not come back."""
        self.restarts = 0
        self.failed_starts = 0

    # --- jobs -----------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Put a job into its lane and wake a worker for it, or reject it."""
        lane = self.lanes[self._routing.writes(job.request)] if self._has_writer else self._lane
        job.lane = lane
        if job.checkout is not None:
            self.has_checkouts = True
        try:
            refusal = lane.submit(job)
        except BaseException:  # a signal handler raised: it may have cut off the waking of a worker
            self.recover()
            lane.wake_one()
            raise
        if refusal is not None:
            job.claim(refusal)  # it may have it already
            job.reject(refusal, self.admission)

    def recover(self) -> None:
        """Complete the steps of this class that an exception or a kill may have cut off."""
        for lane in self.lanes:
            lane.recover()

    def cancel(self, job: Job) -> bool:
        """Cancel a job; say whether its reply will be rejected with `QueryCancelled`.

        The race with an answer: the cancel marks the job, and is followed up, before it takes the
        promise. If the answer came first, there is no promise to take.
        """
        why = aborts.cancelled(self.admission, self.clock() + self.grace)
        if self._withdraw(job, why):
            return True
        if job.reply.done():
            return False
        job.mark(why)
        self.timers.interrupted[job] = None  # before the promise: from now on `Expiry` follows it up
        if not job.reply.promise():  # it was answered in this moment
            self.timers.interrupted.pop(job, None)
            return job.reply.cancelled()
        self._interrupt(job)
        return True

    def id_of(self, reply: "Reply[Any]") -> int:
        """Return the id of a reply's job."""
        return self.job_ids.id_of(reply)

    def cancel_by_id(self, job_id: int) -> bool:
        """Cancel the job with this id, as `cancel` does; say whether it will be cancelled.

        Raises:
            LookupError: no job has ever had this id.
        """
        try:
            reply = self.job_ids.reply_of(job_id)
        except LookupError as error:
            message = f"crew {self.name!r}: {error}; `Status` shows the ids"
            raise LookupError(message) from None
        return reply is not None and reply.cancel()

    def interrupt(self, job: Job, why: Abort) -> None:
        """End a job that has begun. If it still gives an answer, the caller gets the answer.

        SQLite loses an interrupt that comes before the statement's first step. So
        `Expiry.follow_up` repeats it until the job is done or its worker is given up.
        """
        job.mark(why)
        self.timers.interrupted[job] = None
        self._interrupt(job)

    def _interrupt(self, job: Job) -> None:
        owner = job.owner
        if isinstance(owner, JobBatch):
            owner.interrupt(job)
        elif owner is None:
            self.admission.end_unwanted(job)
        if job.checkout is not None:
            job.checkout.interrupt()
        self.timers.look_at(self.clock())

    def _withdraw(self, job: Job, why: Abort) -> bool:
        """Reject a job that has not begun; say whether it had not.

        The job is settled even if this call is cut off, or if another abort has claimed the job.
        """
        lane = job.lane
        try:
            return self._claim(job, why)
        finally:
            owner = job.owner
            if type(owner) is Abort:
                if not job.reply.done():
                    job.reject(owner, self.admission)
                if lane is not None:
                    lane.tidy()

    def _claim(self, job: Job, why: Abort) -> bool:
        """Claim a job for an abort, in the queue, or in a connection that has not begun it."""
        if job.claim(why) if job.lane is None else job.lane.take_out(job, why):
            return True
        owner = job.owner
        if isinstance(owner, JobBatch) and (back := owner.take_back()):
            claimed = job.claim(why)
            owner.lane.requeue([each for each in back if each is not job or not claimed])
            return claimed
        return job.claim(why)

    def set_deadline(self, job: Job, deadline: float | None) -> None:
        """Give a running job another deadline, unless it is being interrupted."""
        if not job.is_unwanted:
            self.timers.forget(job)
            job.deadline = deadline
            self.timers.reschedule(job)

    # --- waits ----------------------------------------------------------------------------

    def refuse_wait(self, job: Job | None, owner: tuple[object, ...] | None) -> WouldDeadlock | None:
        """Withdraw the job of a wait that would deadlock; see `Deadlocks.refuse`."""
        return self.deadlocks.refuse(job, owner)

    def refuse_waits(self) -> None:
        """Refuse all waits that deadlock now; see `Deadlocks.refuse_all`."""
        self.deadlocks.refuse_all()

    def checkouts_of(self, owner: tuple[object, ...], *, endless: bool) -> "list[Checkout]":
        """Return the checkouts that this owner began and that are not over.

        Args:
            owner: the caller; see `current_owner`.
            endless: whether to leave out the checkouts that have a deadline.
        """
        return [
            job.checkout
            for job in (*self.running(), *(job for lane in self.lanes for job in lane.waiting()))
            if job.checkout is not None and job.checkout.is_held_by(owner) and (job.deadline is None or not endless)
        ]

    # --- in the supervisor's thread -------------------------------------------------------

    def next_due(self) -> float | None:
        """Return when the supervisor has to call `expire` and `follow_up` again.

        `Timers.notify` tells the supervisor when that changes.
        """
        return self.timers.next(self.clock())

    def expire(self, now: float) -> None:
        """End the jobs whose deadline has passed, and the jobs to shed; see `Expiry.expire`."""
        self._expiry.expire(now)

    def follow_up(self, now: float) -> list[WorkerHandle]:
        """Repeat interrupts, and return the workers to give up; see `Expiry.follow_up`."""
        return self._expiry.follow_up(now)

    # --- workers --------------------------------------------------------------------------

    def add_worker(self, handle: WorkerHandle, lane: int = 0) -> None:
        """Note a worker that is about to start, and in which lane it serves."""
        self.roster.add_worker(handle, self.lanes[lane])

    def worker_ready(self, handle: WorkerHandle) -> bool:
        """Let a worker whose connection is open take jobs; say whether it may."""
        return self.roster.worker_ready(handle)

    def abandon_start(self, handle: WorkerHandle) -> bool:
        """Remove a worker that is still starting; say whether it was."""
        return self.roster.abandon_start(handle)

    def remove_worker(self, handle: WorkerHandle) -> list[Job]:
        """Remove a worker and return its orphans; see `Roster.remove_worker`."""
        return self.roster.remove_worker(handle)

    def reject_orphan(self, job: Job, died: BaseException, *, executed: bool | None = None) -> None:
        """Reject a job whose worker is gone, or given up.

        Args:
            job: the job.
            died: the error, unless the job was interrupted before.
            executed: the `executed` of the error, if the job was interrupted before.
        """
        job.reject(job.why or aborts.died(died), self.admission, executed)

    def release(self, handle: WorkerHandle) -> None:
        """Let the next worker use the counters of a worker whose thread has ended."""
        self.roster.release(handle)

    # --- the crew -------------------------------------------------------------------------

    def suspend(self, cause: BaseException | None, lane: int = 0) -> None:
        """Refuse jobs until `resume`, and reject the jobs that wait.

        Args:
            cause: why no worker can open the database.
            lane: the lane that has no worker. Without the first lane, the whole crew is suspended.
        """
        down = self.lanes[lane]
        if not lane:
            self.admission.cause = cause
        down.cause, down.down = cause, True
        self.admission.set_gates()
        for each in self.lanes if not lane else (down,):
            self.admission.reject_waiting(each, lambda crew: aborts.unavailable(crew, down))

    def resume(self, lane: int = 0) -> None:
        """Accept jobs again after `suspend`."""
        if self.mode is Mode.SUSPENDED and not lane:
            self.admission.cause = None
        self.lanes[lane].cause, self.lanes[lane].down = None, False
        self.admission.set_gates()

    def is_down(self, lane: int) -> bool:
        """Say whether the jobs of a lane are refused."""
        return self.lanes[lane].down

    def wants_worker(self, lane: int) -> bool:
        """Say whether jobs wait in a lane."""
        return bool(self.lanes[lane].queued)

    def stop_accepting(self, cause: BaseException | None = None) -> None:
        """Refuse new jobs, and remember `cause` for their errors.

        Workers retire when the queue is empty.
        """
        if self.admission.end is None:
            self.admission.cause = cause or self.admission.cause
            self.admission.end = Mode.STOPPING
        self._let_workers_retire()

    def _let_workers_retire(self) -> None:
        self.admission.set_gates()
        for lane in self.lanes:
            lane.is_over = True
            lane.wake_all()

    def cancel_pending(self) -> None:
        """Reject all jobs that wait."""
        for lane in self.lanes:
            lane.recall()
            self.admission.reject_waiting(lane, aborts.stopped)

    def close(self, cause: BaseException | None = None) -> None:
        """Refuse all jobs from now on, and reject all jobs that wait."""
        self.admission.cause = cause or self.admission.cause
        self.admission.end = Mode.STOPPED
        self._let_workers_retire()
        self.cancel_pending()

    def running(self) -> list[Job]:
        """Return the jobs that run now, or may run."""
        return [job for handle in self.handles() for job in handle.running]

    def handles(self) -> list[WorkerHandle]:
        """Return every worker that is starting or up, by its id."""
        return self.roster.handles()

    def oldest(self) -> float | None:
        """Return when the oldest unfinished job was submitted.

        In monotonic seconds; `None` if there is no such job.
        """
        firsts = [job for lane in self.lanes for job in islice(lane.waiting(), 1)]
        return min((job.submitted_at for job in (*self.running(), *firsts)), default=None)

    def forget_the_parent(self) -> None:
        """In the child of a fork: close, and reject every job.

        No thread of this process will run one.
        """
        batches = [handle.batch for handle in self.handles() if handle.batch is not None]
        for lane in self.lanes:
            for places in (lane.starting, lane.handles, lane.idle):
                places.clear()
        self.admission.forget_the_parent()
        self.close(RuntimeError("this process was forked from the process that runs the crew"))
        for job in [job for batch in batches for job in batch.jobs if not job.reply.done()]:
            if not self.admission.abort(job, aborts.stopped(self.admission)):
                job.reject(aborts.stopped(self.admission), self.admission)

    # --- errors ---------------------------------------------------------------------------

    def unavailable(self, lane: int = 0) -> DatabaseUnavailable:
        """Return the error of a job that a suspended crew refuses, or a lane that is down."""
        return rejections.unavailable(self.admission, self.lanes[lane])

    def stopped(self) -> SupervisorStopped:
        """Return the error of a job that a stopping or stopped crew refuses."""
        return rejections.stopped(self.admission)

    # --- looking --------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """How the crew treats jobs now."""
        return self.admission.mode

    @property
    def queued(self) -> int:
        """How many jobs wait. A job that a worker has taken and not begun still waits."""
        return self.admission.queued

    def is_mine(self) -> bool:
        """Say whether this thread is inside a method of the crew.

        Code that interrupted it there must not wait.
        """
        return self.admission.is_mine()

    def late(self, job: Job | None, seconds: float) -> str:
        """Return the text of a `pykka.Timeout`.

        It says where the job is. Without a job, it says how the crew is.
        """
        if job is None:
            return f"crew {self!r}: no answer within {seconds:g} seconds"
        where = views.where_is(job, self.handles(), self.size, self.clock())
        return f"crew {self.name!r}: no answer to {job.request} within {seconds:g} seconds: {where}"

    def status(self) -> CrewStatus:
        """Return a snapshot of everything."""
        handles = self.handles()
        cause = self.admission.cause or self.lanes[-1].cause
        writing = views.writing_of(handles)
        return views.status_of(
            handles,
            self.roster.totals(),
            self.clock(),
            name=self.name,
            database=self.database,
            state=self.mode.value,
            cause=None if cause is None else rejections.why(cause),
            size=self.size,
            queued=self.queued,
            running=sum(bool(handle.running) for handle in handles),
            writing=None if writing is None else str(writing.request),
            writing_id=None if writing is None else writing.reply.id,
            waiting=views.waiting_in(self.lanes, self.clock()),
            stuck=self.stuck,
            restarts=self.restarts,
            failed_starts=self.failed_starts,
        )

    def __repr__(self) -> str:
        answered = sum(counters.answered for counters in tuple(self.roster.counters))
        counts = views.in_words(self.handles(), self.size)
        return f"{self.name!r} {self.mode.value}: {counts}, {self.queued} queued, {answered} answered"
