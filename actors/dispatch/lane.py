"""Lane: the jobs that wait, and the workers that take them in batches.

No lock is taken on the way of a job. `deque.append`, `deque.popleft`, `list.append` and `list.pop`
are one step of the interpreter each, and a job that lies in two places has one claim (see `Job`).
"""

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain, filterfalse, islice
from operator import methodcaller
from typing import TYPE_CHECKING, Final

from actors.dispatch.batch import JobBatch
from actors.dispatch.codel import CoDel
from actors.dispatch.counters import Events
from actors.dispatch.job import Abort, Job
from actors.dispatch.stealing import NEGLIGIBLE, Stealing
from actors.dispatch.worker_handle import WorkerHandle, WorkerState
from actors.values.requests import Query

if TYPE_CHECKING:
    from actors.dispatch.admission import Admission
    from actors.dispatch.timers import Timers

__all__ = ["Lane"]

_TOGETHER: Final = 32  # jobs in a batch of a lane with several workers
_TOGETHER_ALONE: Final = 128  # jobs in a batch of the writer's lane
_IDLE: Final = WorkerState.IDLE
_BUSY: Final = WorkerState.BUSY
_GONE: Final = WorkerState.GONE


class Lane:
    """A queue of jobs, first in first out, and a stack of idle workers, last in first out.

    The worker that became idle last has the warmest caches.

    **No wake is lost.** A worker that becomes idle puts itself on the idle list before it looks at
    the queue once more. A caller puts its job into the queue before it looks at the idle list. So
    one of the two sees the other.
    """

    __slots__ = (
        *("_most", "_wake_last", "admission", "cause", "clock", "codel", "down", "gate", "handles", "idle", "is_over"),
        *("jobs", "on_demand", "on_reroute", "quick", "role", "starting", "stealing", "timers", "tombstones"),
        *("up_since", "wanted", "writers"),
    )

    writers: "Lane"
    """The lane of the worker that writes. Where there is no such worker, this lane."""

    def __init__(
        self,
        clock: Callable[[], float],
        timers: "Timers",
        admission: "Admission",
        role: str | None = None,
        shed_after: float | None = None,
    ) -> None:
        self.clock = clock
        self.timers = timers
        self.admission = admission
        self.role = role
        """The role of its workers, if there are several lanes: `reader` or `writer`."""
        self.on_demand = role == "writer"
        """Whether its worker starts with the first job that needs one. Then it has one worker at
        most, which takes all waiting jobs together, quick or not."""
        self._most = _TOGETHER_ALONE if self.on_demand else _TOGETHER
        self.jobs: deque[Job] = deque()
        """The jobs that wait, oldest first. Some may be claimed already: workers skip these."""
        self.tombstones = Events()
        """Counts the events that may have left a claimed job in the queue."""
        self.idle: list[WorkerHandle] = []
        """The workers that wait for a wake. The last one to become idle is at the end."""
        # Takes the last idle worker out of the list and wakes it, in one step of the interpreter. A
        # thread that is killed, or that runs a finalizer, never loses a wake.
        self._wake_last = map(methodcaller("wake"), iter(self.idle.pop, None)).__next__
        self.starting: list[WorkerHandle] = []
        """Its workers that still open their connections."""
        self.handles: list[WorkerHandle] = []
        """Its workers that are up."""
        self.gate: Admission | None = None
        """Looks at each job that is submitted or begun; `None` while there is no reason to."""
        self.is_over = False
        """Whether workers that find no job retire."""
        self.down = False
        """Whether its jobs are refused, because no worker of it can open the database."""
        self.cause: BaseException | None = None
        """Why it is down."""
        self.codel = None if shed_after is None else CoDel(shed_after)
        """Whether the queue stands; `None` if no job is ever shed."""
        self.wanted: Callable[[], object] = lambda: None
        """Called when a job waits and there is no worker."""
        self.on_reroute: Callable[[Job], object] = lambda _: None
        """Called when a job waits for the writer, after a reader had begun it."""
        self.quick: dict[str, float] = {}
        """Texts of statements that were quick when they ran last, and the seconds of each."""
        self.up_since = 0.0
        """Monotonic seconds at which a worker of it came up after there was none."""
        self.stealing = Stealing(self)

    # --- submitting, from any thread ------------------------------------------------------

    def submit(self, job: Job) -> Abort | None:
        """Put a job into the queue and wake a worker for it.

        Returns:
            Why the job is refused; `None` if it is accepted.
        """
        gate = self.gate
        if gate is not None:
            return gate.submit(job, self)
        self.jobs.append(job)
        if self.gate is not None:  # the crew has stopped, or was suspended, in this moment
            refusal = self.gate.refusal_of(job, self)
            if refusal is not None and self.take_out(job, refusal):
                return refusal
        if job.deadline is not None and job.deadline < self.timers.earliest:
            self.timers.note(job.deadline)
        self.wake_one()
        return None

    def reroute(self, job: Job, batch: JobBatch) -> None:
        """Let the writer run a job that `batch` has claimed. The job writes, and nothing of it ran.

        The crew may be suspended in this moment and have rejected all waiting jobs. So the job is
        put into the queue before this thread looks whether it may wait there.
        """
        writers = self.writers
        self.admission.routing.note_writing(job.request)
        job.move_to(writers, batch)
        if job.is_unwanted:
            self.admission.end_unwanted(job)
        writers.jobs.append(job)
        refusal = self.admission.refusal_of_accepted(writers)
        if refusal is not None:
            self.admission.abort(job, refusal)
            return
        if job.deadline is not None:
            self.timers.reschedule(job)
        writers.wake_one()
        self.on_reroute(job)

    def requeue(self, jobs: Iterable[Job]) -> None:
        """Put jobs of which nothing ran back into their own lanes, before all others.

        The crew may be suspended in this moment and have rejected all waiting jobs. So the jobs are
        put into the queue before this thread looks whether they may wait there.
        """
        for lane in (self, self.writers):
            back = [job for job in jobs if job.lane is lane]
            if back:
                lane.tombstones.happened()  # another place may hold a job too, and claim it from there
                lane.jobs.extendleft(reversed(back))
                for job in back:
                    if job.is_unwanted:
                        self.admission.end_unwanted(job)
                    if job.deadline is not None:
                        self.timers.reschedule(job)
                    refusal = self.admission.refusal_of_accepted(lane)
                    if refusal is not None:
                        self.admission.abort(job, refusal)
                lane.wake_all()
            if lane is self.writers:
                return

    def requeue_lost(self, batch: JobBatch, jobs: list[Job], queued: Iterable[Job] = ()) -> None:
        """Put the jobs of a batch back that nothing has claimed, and that lie nowhere else.

        If one of them is lost, all are put back, before the others: they may be older. So a job may
        lie in the queue twice.

        Args:
            batch: the batch.
            jobs: its jobs that are not settled.
            queued: the jobs that lie in a queue.
        """
        if jobs:
            taken = {job for other in self.batches() if other is not batch for job in tuple(other.jobs)}
            waiting = [job for job in jobs if not job.claims and job not in taken]
            if not {*waiting}.issubset(queued):
                self.requeue(waiting)

    # --- waking ---------------------------------------------------------------------------

    def wake_one(self) -> None:
        """Wake the worker that became idle last, if there is one."""
        if self.idle:
            try:  # noqa: SIM105  # a `with suppress` would cost as much as the rest
                self._wake_last()
            except IndexError:  # another thread has woken it
                pass
        elif not self.handles:
            self._ask_for_worker()

    def wake_all(self) -> None:
        """Wake every worker that may sleep."""
        for handle in tuple(self.handles):
            if handle.state is _IDLE:
                handle.wake()
        self._ask_for_worker()

    def _ask_for_worker(self) -> None:
        if not self.handles and not self.starting:
            self.wanted()

    # --- taking, in a worker's thread -----------------------------------------------------

    def take(self, handle: WorkerHandle) -> JobBatch | None:
        """Give a worker its next batch.

        Returns:
            The batch; `None` if the worker is idle now, retired or gone. Then it holds nothing.
        """
        if handle.state is _GONE:
            return None
        if handle.state is _IDLE and handle in self.idle:
            # No job has woken it. A worker that runs must leave the list: its wake would be lost.
            with suppress(ValueError):
                self.idle.remove(handle)
        handle.state = _BUSY
        while True:
            batch = handle.batch
            if batch is None or batch.jobs:
                batch = handle.batch = JobBatch(handle, self)
            batch.now = handle.since = self.clock()
            if len(self.handles) > 1:
                self.stealing.take_stalled(batch)
            self._take_share(batch)
            if batch.jobs or self.stealing.steal(batch):
                return batch
            if self.is_over:
                handle.state = WorkerState.RETIRED
                return None
            handle.state = _IDLE
            self.idle.append(handle)
            if not self.jobs and not self.stealing.has_target(batch.now):
                self.stealing.ask_for_watch(batch.now)
                return None
            try:
                self.idle.remove(handle)
            except ValueError:  # it is being woken
                return None
            handle.state = _BUSY

    def _take_share(self, batch: JobBatch) -> None:
        """Take a fair share of the queue, and more of statements that take nearly no time."""
        jobs, waiting = batch.jobs, len(self.jobs)
        if not waiting or jobs:
            return
        try:  # a `with suppress` would cost as much as taking a job
            first = self.jobs[0].request
            most = min(waiting, self._most) if self.on_demand or first.sql in self.quick else 1
            # One step of the interpreter: at a kill, each job lies in the queue or in the batch.
            jobs.extend(islice(iter(self.jobs.popleft, None), most))
        except IndexError:  # other workers were faster
            pass
        if len(jobs) > 1:
            kept = self.batch_size(jobs, -(-waiting // (len(self.handles) or 1)))
            if kept < len(jobs):
                # The other jobs wait again, in their order.
                self.jobs.extendleft(islice(iter(jobs.pop, None), len(jobs) - kept))
        if self.jobs:
            self.wake_one()
        elif self.idle and len(jobs) > 1:
            self.stealing.ask_for_watch(batch.now)

    def batch_size(self, jobs: list[Job], fair_share: int) -> int:
        """Return how many of the first jobs may run together.

        Args:
            jobs: oldest first.
            fair_share: how many jobs of the queue are fair for this worker.
        """
        if self.on_demand:
            return next((number for number, job in enumerate(jobs) if not self._may_share(job)), len(jobs)) or 1
        quick, size, seconds = self.quick, 0, 0.0
        for job in jobs:
            request = job.request
            if type(request) is not Query or request.many is not None:
                break
            takes = quick.get(request.sql)
            if takes is None or (size >= fair_share and seconds > NEGLIGIBLE):
                break
            seconds += takes
            size += 1
        return size or 1

    def _may_share(self, job: Job) -> bool:
        """Say whether a job may share a batch with others."""
        return job.checkout is None and (self.gate is None or not self.gate.suspects(job))

    # --- counting -------------------------------------------------------------------------

    def waits_since(self, job: Job) -> float:
        """Return the monotonic seconds since which a job has waited while a worker was up."""
        return max(job.submitted_at, self.up_since)

    @property
    def in_batches(self) -> int:
        """An upper bound, cheap to get, of the number of jobs that wait in batches."""
        return sum(len(batch.jobs) for batch in self.batches())

    @property
    def queued(self) -> int:
        """How many jobs wait.

        These are the jobs that nothing has claimed, and the jobs in a child behind the running one.
        """
        batches = self.batches()
        behind = sum(max(0, len(batch.running) - 1) for batch in batches)
        if int(self.tombstones) or any(handle.was_recalled for handle in tuple(self.handles)):
            return len(self.waiting()) + behind  # some may lie in the queue and in a batch
        return len(self.jobs) + len({job for batch in batches for job in batch.waiting()}) + behind

    @property
    def free(self) -> int:
        """How many workers are about to take a job, or would take one."""
        if self.on_demand and not self.handles:
            return 1  # the worker that is about to start
        batches = self.batches()
        return len(self.handles) - len(batches) + sum(batch.is_done for batch in batches)

    def waiting(self) -> list[Job]:
        """Return all jobs that nothing has claimed, oldest first, also those in batches."""
        places = (tuple(self.jobs), *(batch.waiting() for batch in self.batches()))
        return list(dict.fromkeys(job for place in places for job in place if not job.claims))

    def first_waiting(self, most: int) -> list[Job]:
        """Return the first of the jobs that wait, oldest first. The cost is that of a short queue.

        Jobs that were cancelled leave the queue later. So there may be fewer than `most`.
        """
        try:
            first = list(islice(self.jobs, 2 * most))
        except RuntimeError:  # another thread has changed the queue, after a garbage collection
            first = list(tuple(self.jobs)[: 2 * most])
        in_batches = (job for batch in self.batches() for job in batch.waiting())
        waiting = dict.fromkeys(job for job in chain(in_batches, first) if not job.claims and job.lane is self)
        return sorted(waiting, key=lambda job: job.submitted_at)[:most]

    def batches(self) -> list[JobBatch]:
        """Return the batches of its workers."""
        return [batch for handle in tuple(self.handles) if (batch := handle.batch) is not None]

    # --- taking jobs out ------------------------------------------------------------------

    def recall(self) -> None:
        """Put all jobs back into the queue that a connection was given and has not begun."""
        for batch in self.batches():
            if back := batch.take_back():
                self.requeue(back)

    def take_out(self, job: Job, abort: Abort) -> bool:
        """Let `abort` claim a job that may lie in the queue; say whether it has the claim."""
        self.tombstones.happened()  # before the claim, so that the job is not counted as waiting
        return job.claim(abort)

    def tidy(self) -> None:
        """Remove the claimed jobs from the queue, if there are more of them than others."""
        if int(self.tombstones) > len(self.jobs) // 2:
            self.purge()

    def purge(self) -> None:
        """Remove the claimed jobs from the queue."""
        tombstones = Events()
        tombstones.happened()  # until the claimed jobs have left the queue
        self.tombstones = tombstones
        claimed = {job for job in tuple(self.jobs) if job.claims}
        for job in claimed:
            self.settle_aborted(job)
        jobs = self.jobs
        with suppress(IndexError):  # other threads have taken some
            # One step of the interpreter: each job goes from the end to the head, or is dropped. So
            # the order stays. The jobs are counted within that step: no other thread adds one in
            # between.
            counted = map(islice, (iter(jobs.pop, None),), map(len, (jobs,)))
            jobs.extendleft(filterfalse(claimed.__contains__, chain.from_iterable(counted)))
        tombstones.undone()

    # --- after a kill ---------------------------------------------------------------------

    def settle_aborted(self, job: Job) -> None:
        """Settle a job that an abort has claimed.

        The aborting thread may have been killed before it settled the job.
        """
        owner = job.owner
        if type(owner) is Abort:
            if job.reply.done():
                job.release()
            else:
                job.reject(owner, self.admission)

    def recover(self) -> None:
        """Wake the workers that a killed thread was about to wake."""
        for handle in tuple(self.handles):
            if handle.state is _IDLE and handle not in self.idle:
                handle.wake()
        if self.jobs and self.idle:  # the supervisor, which calls this, knows whether workers are missing
            self.wake_one()
