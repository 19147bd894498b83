"""Dispatcher: where callers, workers and the supervisor meet. No I/O, no threads of its own, no lock on a job's way.

Every method may be called from any thread and returns at once. What a killed thread leaves half done, the claim of the
job shows (see `Job`), and the next thread that meets the job makes it good.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, Final
from weakref import ReferenceType

from actors.dispatch import rejections
from actors.dispatch.admission import Admission, Mode
from actors.dispatch.batch import JobBatch
from actors.dispatch.counters import Counters
from actors.dispatch.job import Abort, Job
from actors.dispatch.lane import Lane
from actors.dispatch.quarantine import Quarantine
from actors.dispatch.routing import Routing
from actors.dispatch.timers import Timers
from actors.dispatch.views import in_words, status_of, writing_of
from actors.dispatch.worker_handle import WorkerHandle, WorkerState
from actors.values.errors import DatabaseUnavailable, SupervisorStopped, WouldDeadlock
from actors.values.status import CrewStatus

if TYPE_CHECKING:
    from actors.replies.checkout import Checkout
    from actors.replies.reply import Reply

__all__ = ["Dispatcher", "Mode"]

_PORTION: Final = 1000  # jobs that are rejected in a row, before the supervisor reads its mail


class Dispatcher:
    """The jobs and the workers of one crew."""

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
        # Which jobs are the writer's, if there is one.
        self._routing = Routing()
        self.admission = Admission(
            *(name, database, size, max_queue), quarantine=quarantine or Quarantine(3, 10.0), routing=self._routing
        )
        roles = ("reader", "writer") if has_writer else (None,)
        self.lanes = tuple(Lane(clock, self.timers, self.admission, role, shed_after) for role in roles)
        """The one in which every worker serves, or every worker but the writer; and the writer's."""
        for lane in self.lanes:
            lane.writers = self.lanes[-1]
            lane.moved = self._note_moved
        self._lane = self.lanes[0]
        self._has_writer = has_writer
        self.admission.lanes = self.lanes
        self.admission.set_gates()
        # The replies of jobs for which a caller waits without a time limit. That caller may hold workers, or hold some
        # later. A reply that is dropped leaves by itself.
        self._awaited: set[ReferenceType[Reply[Any]]] = set()
        self.has_checkouts = False
        """Whether there was ever a checkout."""
        # Of all workers that there ever were, and those of them that are free for the next worker.
        self._counters: list[Counters] = []
        self._unused: list[Counters] = []
        self.stuck = 0
        """Threads of workers that were given up and have not come back."""
        self.restarts = 0
        self.failed_starts = 0

    # --- jobs -----------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Let a job wait and wake a worker for it, or reject it."""
        lane = self.lanes[self._routing.writes(job.request)] if self._has_writer else self._lane
        job.lane = lane
        if job.checkout is not None:
            self.has_checkouts = True
        try:
            refusal = lane.submit(job)
        except BaseException:  # a signal handler's own: it may have cut off the waking of a worker
            self.recover()
            lane.wake_one()
            raise
        if refusal is not None:
            job.claim(refusal)  # it may have it already
            self.admission.settle(job, refusal)

    def recover(self) -> None:
        """Make good what an exception may have cut off in a method of this class."""
        for lane in self.lanes:
            lane.recover()

    def cancel(self, job: Job) -> bool:
        """Cancel a job; say whether its reply will be rejected so."""
        abort = Abort("cancelled", self.admission.cancelled, self.clock() + self.grace)
        if self._withdraw(job, abort):
            return True
        if job.reply.done():
            return False
        if job.cancel is None:
            job.cancel = abort
        self.timers.interrupted[job] = None  # before the promise: from now on somebody follows it up
        if not job.reply.promise():  # it was answered in this moment
            self.timers.interrupted.pop(job, None)
            return job.reply.cancelled()
        self._interrupt(job)
        return True

    def interrupt(self, job: Job, abort: Abort) -> None:
        """End a job that has begun; its answer is given if it comes all the same.

        An interrupt that comes before the statement's first step is lost in SQLite: it is repeated (`follow_up`) until
        the job is done or its worker is given up.
        """
        if job.abort is None:
            job.abort = abort
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

    def _withdraw(self, job: Job, abort: Abort) -> bool:
        """Reject a job that has not begun; say whether that was so."""
        lane = job.lane
        try:
            return self._claim(job, abort)
        finally:
            owner = job.owner
            if type(owner) is Abort:
                if not job.reply.done():  # also if this was cut off, or another thread has claimed it
                    self.admission.settle(job, owner)
                if lane is not None:
                    lane.tidy()

    def _claim(self, job: Job, abort: Abort) -> bool:
        if job.claim(abort) if job.lane is None else job.lane.take_out(job, abort):
            return True
        owner = job.owner
        if isinstance(owner, JobBatch) and (back := owner.take_back()):
            claimed = job.claim(abort)
            owner.lane.requeue([each for each in back if each is not job or not claimed])
            return claimed
        return job.claim(abort)

    def set_deadline(self, job: Job, deadline: float | None) -> None:
        """Let another deadline hold for a job that runs, unless it is being interrupted."""
        if not job.is_unwanted:
            self.timers.forget(job)
            job.deadline = deadline
            self.timers.see_again(job)

    # --- waits that would never end -------------------------------------------------------

    def refuse_wait(self, job: Job | None, owner: tuple[object, ...] | None) -> WouldDeadlock | None:
        """Decide whether a wait would deadlock; if so, withdraw the job in the same step.

        A refused job never runs. A job that has begun goes on: a caller that holds workers may wait
        for it, and a thread of the crew gets an error that says so.

        Args:
            job: the job to wait for; `None` for an answer of the supervisor.
            owner: the caller that is about to wait without a time limit; `None` for a thread of the
                crew, which must not wait at all.

        Returns:
            The error for the caller to raise, and with which a withdrawn job was rejected; `None` if it may wait.
        """
        if owner is None:
            if job is not None:
                error = rejections.own_thread(self.name, job, began=False)
                if self._withdraw(job, Abort("rejected", lambda *_: error)):
                    return error
            return rejections.own_thread(self.name, job, began=True)
        if job is None:
            return None
        job.waiter = owner
        # Python calls no code of ours as the reply is dropped: a signal handler's exception would be lost there.
        self._awaited.add(ReferenceType(job.reply, self._awaited.discard))
        return self._refuse_held(job, owner)

    def _refuse_held(self, job: Job, owner: tuple[object, ...]) -> WouldDeadlock | None:
        """Reject a job whose caller itself holds all workers for it; return the error then."""
        if not self._is_held_by(owner, job):
            return None
        error = rejections.held_by_caller(self.name, job)
        return error if self._withdraw(job, Abort("rejected", lambda *_: error)) else None

    def _note_moved(self, job: Job) -> None:
        """Refuse the wait for a job that its caller's own transaction now keeps from the writer."""
        if job.waiter is not None:
            self._refuse_held(job, job.waiter)

    def refuse_waits(self) -> None:
        """Refuse the waits that now deadlock, since a worker is about to wait for its caller's next call.

        A wait may begin before its owner holds the last worker: `refuse_wait` cannot refuse it then.
        """
        for each in list(self._awaited):
            reply = each()
            job: Any = None if reply is None else reply.job
            if job is None:  # it is done
                self._awaited.discard(each)
            elif job.waiter is not None:
                self._refuse_held(job, job.waiter)

    def _is_held_by(self, owner: tuple[object, ...], job: Job) -> bool:
        """Say whether checkouts of `owner` hold all workers that could run `job`."""
        lane = job.lane
        if lane is None or job.claims:
            return False  # it runs, or another thread is about to reject it
        held = sum(
            each.checkout is not None
            and each.checkout.is_held_by(owner)
            and each.checkout.waits_for_caller
            and not each.is_unwanted
            and not each.checkout.end.done()
            for handle in tuple(lane.handles)
            for each in handle.running
        )
        return held >= (1 if lane.on_demand else self.size)

    def checkouts_of(self, owner: tuple[object, ...], *, endless: bool) -> "list[Checkout]":
        """Return the checkouts that this owner began and that are not over: all, or those without a deadline."""
        return [
            job.checkout
            for job in (*self.running(), *(job for lane in self.lanes for job in lane.waiting()))
            if job.checkout is not None and job.checkout.is_held_by(owner) and (job.deadline is None or not endless)
        ]

    # --- what is due, in the supervisor's thread ------------------------------------------

    def next_due(self) -> float | None:
        """Return when the supervisor has to call `expire` and `follow_up` again; it is rung if that changes."""
        return self.timers.next(self.clock())

    def expire(self, now: float) -> None:
        """Reject the queued jobs whose deadline has passed, and interrupt the running ones.

        With shedding, also reject the jobs at the head of a queue from which no worker takes. Of very many
        jobs only some are rejected: the others are due at once.
        """
        self.timers.begin_look(now)
        if self.timers.earliest <= now:
            self.timers.see(self.lanes)
        for job in self.timers.due(now, _PORTION):
            self._expire_one(job, now)
        for lane in self.lanes:
            lane.watch(now)
            if lane.codel is not None:
                self._shed_head(lane, lane.codel.target, now)
            lane.tidy()
        self.admission.forget_deaths(now)

    def _expire_one(self, job: Job, now: float) -> None:
        if job.reply.done() or job.deadline is None:
            return
        if job.deadline > now:  # it was given another deadline
            self.timers.see_again(job)
            return
        abort = Abort("timed_out", self.admission.timed_out, now + self.grace)
        if not self._withdraw(job, abort):
            self.interrupt(job, abort)

    def _shed_head(self, lane: Lane, target: float, now: float) -> None:
        """If no worker has taken the oldest job for twice the target, reject jobs that waited longer than it.

        Time in which no worker of the lane was up does not count: that is no overload.
        """
        waiting = [job for job in tuple(lane.jobs) if not job.claims]
        if not waiting:
            return
        look_at = now + target
        if lane.handles:
            look_at = lane.waits_since(waiting[0]) + 2 * target
            if now >= look_at:
                late = list(islice(takewhile(lambda job: now - lane.waits_since(job) > target, waiting), _PORTION))
                for job in late:
                    self._withdraw(job, self.admission.overloaded(now - lane.waits_since(job), target))
                look_at = now if len(late) == _PORTION else now + target
        self.timers.look_at(look_at)

    def follow_up(self, now: float) -> list[WorkerHandle]:
        """Interrupt again what was interrupted and still runs; return the workers to be given up."""
        given_up: list[WorkerHandle] = []
        for job in list(self.timers.interrupted):
            owner = job.owner
            if job.reply.done() or not isinstance(owner, JobBatch):
                self.timers.interrupted.pop(job, None)
            elif now >= job.give_up_at:
                given_up.append(owner.handle)
            else:
                owner.interrupt(job)
        return given_up

    # --- workers --------------------------------------------------------------------------

    def add_worker(self, handle: WorkerHandle, lane: int = 0) -> None:
        """Take note of a worker that is about to start, and in which lane it serves."""
        handle.since = self.clock()
        handle.lane = self.lanes[lane]
        try:
            handle.counters = self._unused.pop()
        except IndexError:
            self._counters.append(handle.counters)
        handle.lane.starting.append(handle)

    def worker_ready(self, handle: WorkerHandle) -> bool:
        """Let a worker whose connection is open take jobs; False where nobody wants it any more."""
        lane = handle.lane
        assert lane is not None  # since `add_worker`
        if handle.state is not WorkerState.STARTING or self.mode is Mode.STOPPED:
            return False
        handle.since = self.clock()
        if not lane.handles:
            lane.up_since = handle.since
        lane.handles.append(handle)
        handle.state = WorkerState.AWAKE
        with suppress(ValueError):
            lane.starting.remove(handle)
        return True

    def remove_worker(self, handle: WorkerHandle) -> list[Job]:
        """Strike a worker off and return its orphans, for the caller to reject: the jobs that it has begun.

        One at most as a rule. What it had taken and not begun waits again. May be called again.
        """
        lane = handle.lane
        if lane is None:
            return []
        is_first = handle.state is not WorkerState.GONE
        handle.state = WorkerState.GONE
        for places in (lane.starting, lane.handles, lane.idle):
            with suppress(ValueError):
                places.remove(handle)
        orphans = self._orphans_of(handle, lane)
        if is_first:
            self._suspect(handle, orphans)
        for each in self.lanes if self.mode is Mode.STOPPED else ():
            if not each.handles:
                self._reject_waiting(each, self.admission.stopped)  # nobody takes it any more
        lane.recover()
        if lane.jobs:
            lane.wake_all()
        return orphans

    def _orphans_of(self, handle: WorkerHandle, lane: Lane) -> list[Job]:
        batch = handle.batch
        if batch is None:
            return []
        batch.is_over = True
        batch.take_back()
        pending = []
        for job in batch.jobs:
            if job.reply.done():
                job.release()
            else:
                pending.append(job)
                lane.pass_over(job)
        lane.requeue_lost(batch, pending, (*tuple(lane.jobs), *tuple(lane.writers.jobs)))
        return [job for job in pending if job.owner is batch]

    def _suspect(self, handle: WorkerHandle, orphans: list[Job]) -> None:
        """Remember what a worker may have died of."""
        if any(job.is_unwanted for job in orphans) or (handle.batch is not None and not handle.batch.blames):
            return  # it was given up, or its connection was lost for another reason
        now = self.clock()
        for job in {job.request.sql: job for job in orphans}.values():
            self.admission.record_death(job, now, alone=len(orphans) == 1)
            assert handle.lane is not None
            handle.lane.quick.pop(job.request.sql, None)
        self.timers.look_at(now + self.admission.quarantine.within)

    def reject_orphan(self, job: Job, died: BaseException, *, executed: bool | None = None) -> None:
        """Reject a job whose worker is gone, or given up.

        Args:
            job: the job.
            died: the error, unless the job was interrupted before.
            executed: what the error of an interrupted one says.
        """
        why = job.cancel or job.abort
        if why is None:
            job.refuse(died, "died", self.admission)
        else:
            job.refuse(why.error(job, executed), why.kind, self.admission)

    def release(self, handle: WorkerHandle) -> None:
        """Let the next worker go on with the counters of one whose thread has come to its end."""
        if handle.counters in self._counters and handle.counters not in self._unused:
            self._unused.append(handle.counters)

    def abandon_start(self, handle: WorkerHandle) -> bool:
        """Strike off a worker that is still starting; say whether it was."""
        if handle.state is not WorkerState.STARTING:
            return False
        self.remove_worker(handle)
        return True

    # --- the crew -------------------------------------------------------------------------

    def suspend(self, cause: BaseException | None, lane: int = 0) -> None:
        """Refuse jobs until `resume`, and reject those that wait.

        Args:
            cause: why no worker can open the database.
            lane: which workers; without the first ones, the readers, nobody serves.
        """
        down = self.lanes[lane]
        down.cause, down.down = cause, True
        if not lane:
            self.admission.cause = cause
            if self.mode is Mode.UP:
                self.admission.mode = Mode.SUSPENDED
        self.admission.set_gates()
        for each in self.lanes if not lane else (down,):
            self._reject_waiting(each, lambda: self.admission.unavailable(down))

    def resume(self, lane: int = 0) -> None:
        """Accept jobs again after `suspend`."""
        self.lanes[lane].cause, self.lanes[lane].down = None, False
        if self.mode is Mode.SUSPENDED and not lane:
            self.admission.mode = Mode.UP
            self.admission.cause = None
        self.admission.set_gates()

    def is_down(self, lane: int) -> bool:
        """Say whether the jobs of a lane are refused."""
        return self.lanes[lane].down

    def wants_worker(self, lane: int) -> bool:
        """Say whether jobs wait in a lane."""
        return bool(self.lanes[lane].queued)

    def stop_accepting(self, cause: BaseException | None = None) -> None:
        """Refuse new jobs, and remember `cause` for their errors; workers retire when the queue is empty."""
        if self.mode in (Mode.UP, Mode.SUSPENDED):
            self.admission.cause = cause or self.admission.cause
            self.admission.mode = Mode.STOPPING
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
            self._reject_waiting(lane, self.admission.stopped)

    def close(self, cause: BaseException | None = None) -> None:
        """Refuse all from now on, and reject all jobs that wait."""
        self.admission.cause = cause or self.admission.cause
        self.admission.mode = Mode.STOPPED
        self._let_workers_retire()
        self.cancel_pending()

    def _reject_waiting(self, lane: Lane, error: Callable[[], BaseException]) -> None:
        for job in lane.waiting():
            self.admission.abort(job, Abort("rejected", lambda *_: error()))
        lane.purge()

    def running(self) -> list[Job]:
        """Return the jobs that run now, or may."""
        return [job for handle in self.handles() for job in handle.running]

    def handles(self) -> list[WorkerHandle]:
        """Return every worker that is starting or up, by its id."""
        return sorted(
            {handle for lane in self.lanes for handle in (*lane.starting, *lane.handles)},
            key=lambda handle: handle.id,
        )

    def oldest(self) -> float | None:
        """Return the monotonic seconds at which the oldest unfinished job was asked; `None` without one."""
        firsts = [job for lane in self.lanes for job in islice(lane.waiting(), 1)]
        return min((job.submitted_at for job in (*self.running(), *firsts)), default=None)

    def forget_the_parent(self) -> None:
        """In the child of a fork: close, and reject every job. No thread here will ever run one."""
        batches = [handle.batch for handle in self.handles() if handle.batch is not None]
        for lane in self.lanes:
            for places in (lane.starting, lane.handles, lane.idle):
                places.clear()
        self.admission.forget_the_parent()
        self.close(RuntimeError("this process was forked from the one that runs the crew"))
        for job in [job for batch in batches for job in batch.jobs if not job.reply.done()]:
            if not self.admission.abort(job, Abort("rejected", lambda *_: self.stopped())):
                job.refuse(self.stopped(), "rejected", self.admission)

    # --- errors ---------------------------------------------------------------------------

    def unavailable(self, lane: int = 0) -> DatabaseUnavailable:
        """Return the error of a job that the suspended crew refuses, or its writer's lane."""
        return self.admission.unavailable(self.lanes[lane])

    def stopped(self) -> SupervisorStopped:
        """Return the error of a job that the stopping or stopped crew refuses."""
        return self.admission.stopped()

    # --- looking --------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """What the crew does with jobs now."""
        return self.admission.mode

    @property
    def queued(self) -> int:
        """How many jobs wait, those included that a worker has taken and not begun."""
        return self.admission.queued

    def is_mine(self) -> bool:
        """Say whether this thread is inside one of these methods: code that interrupted it must not wait."""
        return self.admission.is_mine()

    def late(self, job: Job | None, seconds: float) -> str:
        """Return the text of a `pykka.Timeout`: where the job is, or how the crew is without one."""
        if job is None:
            return f"crew {self!r}: no answer within {seconds:g} seconds"
        return f"crew {self.name!r}: no answer to {job.request} within {seconds:g} seconds: {self._where(job)}"

    def _where(self, job: Job) -> str:
        owner, lane = job.owner, job.lane
        if owner is None and lane is not None:
            first = list(islice(lane.waiting(), _PORTION))
            ahead = str(first.index(job)) if job in first else f"more than {len(first)}"
            return f"it is queued behind {ahead} others; {in_words(self.handles(), self.size)}"
        if not isinstance(owner, JobBatch) or job not in owner.running:
            return "its answer is on the way"
        if not job.started_at:
            return f"it is queued at worker {owner.handle.id}, behind the job that runs there"
        lock = ", and waits for a lock of another connection" if owner.connection.waits_for_lock() else ""
        return f"it has run for {self.clock() - job.started_at:.3f} seconds on worker {owner.handle.id}{lock}"

    def status(self) -> CrewStatus:
        """Return a snapshot of everything."""
        admission, handles, counters = self.admission, self.handles(), Counters()
        for each in tuple(self._counters):
            counters.add(each)
        for ending, events in admission.counts.items():
            counters.count(ending, int(events))
        cause = admission.cause or self.lanes[-1].cause
        return status_of(
            handles,
            counters,
            self.clock(),
            name=self.name,
            database=self.database,
            state=self.mode.value,
            cause=None if cause is None else rejections.why(cause),
            size=self.size,
            queued=self.queued,
            running=sum(bool(handle.running) for handle in handles),
            writing=writing_of(handles),
            stuck=self.stuck,
            restarts=self.restarts,
            failed_starts=self.failed_starts,
        )

    def __repr__(self) -> str:
        handles = self.handles()
        answered = sum(counters.answered for counters in tuple(self._counters))
        counts = in_words(handles, self.size)
        return f"{self.name!r} {self.mode.value}: {counts}, {self.queued} queued, {answered} answered"
