"""Lane: the jobs that wait, and the workers that take them in batches.

No lock is taken on the way of a job: `deque.append`, `deque.popleft`, `list.append` and `list.pop` are one step of the
interpreter each, and a job that lies in two places has one claim (see `Job`).
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
from actors.dispatch.worker_handle import WorkerHandle, WorkerState
from actors.values.requests import Query

if TYPE_CHECKING:
    from actors.dispatch.admission import Admission
    from actors.dispatch.timers import Timers

__all__ = ["Lane"]

_TOGETHER: Final = 32  # jobs in a batch of a lane with several workers
_TOGETHER_ALONE: Final = 128  # the same of the lane that writes
_STALLED: Final = 0.005  # seconds after which what is left of a batch is taken by others before newer jobs
_NEXT_TO_NOTHING: Final = 0.0002  # seconds for which it is not worth the while to wake another worker
_IDLE: Final = WorkerState.IDLE
_BUSY: Final = WorkerState.BUSY
_GONE: Final = WorkerState.GONE


class Lane:
    """Jobs, first in first out; idle workers, last in first out, since the last one's caches are warm.

    A worker that becomes idle puts itself on the idle list before it looks at the queue once more. A caller puts its
    job into the queue before it looks at the idle list. So one of the two sees the other, and no wake is lost.
    """

    __slots__ = (
        *("_looked_at", "_most", "_wake_last", "_watch_at", "admission", "cause", "clock", "codel", "down", "gate"),
        *("handles", "idle", "is_over", "jobs", "moved", "on_demand", "quick", "role", "starting", "timers"),
        *("tombstones", "up_since", "wanted", "writers"),
    )

    writers: "Lane"
    """The lane of the worker that writes: this one, where there is no other."""

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
        """What its workers do, where there is more than one lane: `reader` or `writer`."""
        self.on_demand = role == "writer"
        """Whether it has no worker before the first job that needs one. Then it has one at most, which takes what
        waits together, quick or not."""
        self._most = _TOGETHER_ALONE if self.on_demand else _TOGETHER
        self.jobs: deque[Job] = deque()
        """The jobs that wait, oldest first. Some of them may be claimed already: these are passed over."""
        self.tombstones = Events()
        """Counts what may have left a claimed job in the queue."""
        self.idle: list[WorkerHandle] = []
        """Those that wait to be woken, the last one to become idle at the end."""
        # Takes it out of the list and wakes it, in one step of the interpreter: a thread that is killed, or that runs
        # a finalizer, never keeps a wake.
        self._wake_last = map(methodcaller("wake"), iter(self.idle.pop, None)).__next__
        self.starting: list[WorkerHandle] = []
        """Its workers that still open their connections."""
        self.handles: list[WorkerHandle] = []
        """Its workers that are up."""
        self.gate: Admission | None = None
        """Looks at each job that is asked and begun, where there is a reason to. `None` most of the time."""
        self.is_over = False
        """Whether workers that find no job retire."""
        self.down = False
        """Whether its jobs are refused, since no worker of it can open the database."""
        self.cause: BaseException | None = None
        """Why it is down."""
        self.codel = None if shed_after is None else CoDel(shed_after)
        """Whether the queue stands; `None` where nothing is ever shed."""
        self.wanted: Callable[[], object] = lambda: None
        """Called when a job waits and there is no worker."""
        self.moved: Callable[[Job], object] = lambda _: None
        """Called when a job waits again, since it writes."""
        self.quick: dict[str, float] = {}
        """Texts of statements that took little time when they ran last, and how many seconds."""
        self._looked_at = 0
        self.up_since = 0.0
        """When a worker of it came up after there was none. Monotonic seconds."""
        # When the supervisor looks whether a batch has stalled while a worker is idle.
        self._watch_at = 0.0

    # --- asking ---------------------------------------------------------------------------

    def submit(self, job: Job) -> Abort | None:
        """Let a job wait, and wake a worker for it, or return why it is refused. From any thread."""
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
        """Let the writer run a job that `batch` has claimed and that turned out to write: nothing of it ran."""
        writers = self.writers
        self.admission.routing.note_writing(job.request)
        job.lane = writers
        job.unclaim(batch)
        if job.is_unwanted:
            self.admission.end_unwanted(job)
        writers.jobs.append(job)
        refusal = self.admission.refusal_of_accepted(writers)  # behind that: the lane may close in this moment
        if refusal is not None:
            self.admission.abort(job, refusal)
            return
        if job.deadline is not None:
            self.timers.see_again(job)
        writers.wake_one()
        self.moved(job)

    def requeue(self, jobs: Iterable[Job]) -> None:
        """Let jobs wait again, before all others, of which nothing ran. Each goes to its own lane."""
        for lane in (self, self.writers):
            back = [job for job in jobs if job.lane is lane]
            if back:
                lane.tombstones.happened()  # another place may hold it, and claim it from there
                lane.jobs.extendleft(reversed(back))
                for job in back:
                    if job.is_unwanted:
                        self.admission.end_unwanted(job)
                    if job.deadline is not None:
                        self.timers.see_again(job)
                    # Behind all that: the crew may be suspended in this moment, and have rejected all that waits.
                    refusal = self.admission.refusal_of_accepted(lane)
                    if refusal is not None:
                        self.admission.abort(job, refusal)
                lane.wake_all()
            if lane is self.writers:
                return

    def requeue_lost(self, batch: JobBatch, jobs: list[Job], queued: Iterable[Job] = ()) -> None:
        """Let jobs of a batch wait again that nothing has claimed, and that lie neither in `queued` nor in a batch.

        Those of the batch that lie in `queued` are put before them once more: they may be older.
        """
        if jobs:
            others = (each for each in map(_batch_of, tuple(self.handles)) if each is not None and each is not batch)
            taken = {job for other in others for job in tuple(other.jobs)}
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
        """Give a worker its next batch. Without one it is idle, or retired, and holds nothing."""
        if handle.state is _GONE:
            return None
        if handle.state is _IDLE and handle in self.idle:
            # Something else than a job has woken it. A worker that runs must not be woken in the place of an idle one.
            with suppress(ValueError):
                self.idle.remove(handle)
        handle.state = _BUSY
        while True:
            batch = handle.batch
            if batch is None or batch.jobs:
                batch = handle.batch = JobBatch(handle, self)
            batch.now = handle.since = self.clock()
            # What is left where a job takes long was asked before what waits here.
            self._take_stalled(batch)
            self._fill(batch)
            if batch.jobs or self._steal(batch):
                return batch
            if self.is_over:
                handle.state = WorkerState.RETIRED
                return None
            handle.state = _IDLE
            self.idle.append(handle)
            if not self.jobs and not self._is_worth_stealing(batch.now):
                self._watch_others(batch.now)
                return None
            try:
                self.idle.remove(handle)
            except ValueError:  # it is being woken
                return None
            handle.state = _BUSY

    def _fill(self, batch: JobBatch) -> None:
        """Take this worker's fair share of what waits, and more than that of what takes next to no time."""
        jobs, waiting = batch.jobs, len(self.jobs)
        if not waiting or jobs:
            return
        try:  # a `with suppress` would cost as much as taking a job
            first = self.jobs[0].request
            most = min(waiting, self._most) if self.on_demand or first.sql in self.quick else 1
            # One step of the interpreter: nobody can be killed with a job in hand that is nowhere written down.
            jobs.extend(islice(iter(self.jobs.popleft, None), most))
        except IndexError:  # others were faster
            pass
        if len(jobs) > 1:
            self._put_back(batch, self._usable(jobs, -(-waiting // (len(self.handles) or 1))))
        if self.jobs:
            self.wake_one()
        elif self.idle and len(jobs) > 1:
            self._watch_others(batch.now)

    def _usable(self, jobs: list[Job], share: int) -> int:
        """Return how many of the first jobs may be run together; `share` is the fair one of this worker."""
        if self.on_demand:
            return next((number for number, job in enumerate(jobs) if not self._is_sociable(job)), len(jobs)) or 1
        quick, usable, seconds = self.quick, 0, 0.0
        for job in jobs:
            request = job.request
            if type(request) is not Query or request.many is not None:
                break
            takes = quick.get(request.sql)
            if takes is None or (usable >= share and seconds > _NEXT_TO_NOTHING):
                break
            seconds += takes
            usable += 1
        return usable or 1

    def _is_sociable(self, job: Job) -> bool:
        """Say whether a job may be taken with others at all."""
        return job.checkout is None and (self.gate is None or not self.gate.suspects(job))

    def _put_back(self, batch: JobBatch, kept: int) -> None:
        """Let all jobs but the first wait again, in their order."""
        jobs = batch.jobs
        if kept < len(jobs):
            self.jobs.extendleft(islice(iter(jobs.pop, None), len(jobs) - kept))

    def _take_stalled(self, batch: JobBatch) -> None:
        """Look at one other worker, another one each time: its batch may wait behind a job that takes long."""
        handles = self.handles
        if len(handles) < 2:  # nobody else
            return
        self._looked_at += 1
        try:
            other = handles[self._looked_at % len(handles)].batch
        except IndexError:  # one has just gone
            return
        if other is not None and len(other.jobs) > 1 and batch.now >= other.now + _STALLED:
            self._take_from(other, batch)

    def _steal(self, batch: JobBatch) -> bool:
        """Take what another worker has taken and not begun, if that is worth the while; say whether there was any."""
        return any(
            other is not batch and self._is_much(other, batch.now) and self._take_from(other, batch)
            for other in self._larger_batches()
        )

    def _take_from(self, other: JobBatch, batch: JobBatch) -> bool:
        jobs = other.waiting()
        if jobs:
            # The other worker may be about to put some of them back, which cannot be run together.
            del jobs[self._usable(jobs, len(jobs)) :]
        else:
            jobs = other.take_back((len(other.jobs) + 1) // 2)
        batch.jobs.extend(jobs)
        return bool(batch.jobs)

    def _larger_batches(self) -> list[JobBatch]:
        # The only job of a batch is about to begin.
        return [batch for batch in map(_batch_of, tuple(self.handles)) if batch is not None and len(batch.jobs) > 1]

    def _is_worth_stealing(self, now: float) -> bool:
        """Say whether an idle worker has anything to take from a batch here; of children `watch` knows."""
        return any(batch.waiting() and self._is_much(batch, now) for batch in self._larger_batches())

    def _is_much(self, batch: JobBatch, now: float) -> bool:
        """Say whether what is left of a batch takes longer than it costs to take some of it, or has stalled."""
        left = max(len(batch.waiting()), len(batch.running) - 1)
        try:
            takes = self.quick.get(batch.jobs[-1].request.sql, _STALLED)
        except IndexError:  # it has just ended
            return False
        return left > 0 and (left * takes > _NEXT_TO_NOTHING or now >= batch.now + _STALLED)

    def _watch_others(self, now: float) -> None:
        """Let the supervisor look for a batch that stalls while a worker is idle."""
        if now >= self._watch_at and self._larger_batches():
            self._watch_at = now + _STALLED
            self.timers.look_at(self._watch_at)

    def watch(self, now: float) -> None:
        """Wake an idle worker for what is left of a batch that has stalled, here or in another process."""
        self._watch_at = 0.0  # first: a worker that becomes idle from now on asks for the next look
        if self.idle and not self.jobs:
            if any(self._is_much(batch, now) for batch in self._larger_batches()):
                self.wake_one()
            self._watch_others(now)

    def waits_since(self, job: Job) -> float:
        """Return since when a job has waited although a worker was up."""
        return max(job.submitted_at, self.up_since)

    # --- looking, and making good ---------------------------------------------------------

    def pass_over(self, job: Job) -> None:
        """Settle a job that was aborted before it began, if the thread that did so was killed in the middle."""
        owner = job.owner
        if type(owner) is Abort:
            if job.reply.done():
                job.release()
            else:
                self.admission.settle(job, owner)

    @property
    def in_batches(self) -> int:
        """How many jobs wait in batches at most, which costs little to say."""
        return sum(len(batch.jobs) for batch in map(_batch_of, tuple(self.handles)) if batch is not None)

    @property
    def queued(self) -> int:
        """How many jobs wait: those that nothing has claimed, and those in a child behind the one that runs."""
        handles = tuple(self.handles)
        batches = [batch for batch in map(_batch_of, handles) if batch is not None]
        behind = sum(max(0, len(batch.running) - 1) for batch in batches)
        if int(self.tombstones) or any(handle.was_recalled for handle in handles):
            return len(self.waiting()) + behind  # some may lie in the queue and in a batch
        return len(self.jobs) + len({job for batch in batches for job in batch.waiting()}) + behind

    @property
    def free(self) -> int:
        """How many workers are about to take a job, or would."""
        if self.on_demand and not self.handles:
            return 1  # the one that is about to be started
        return sum(batch is None or batch.is_done for batch in map(_batch_of, tuple(self.handles)))

    def waiting(self) -> list[Job]:
        """Return all jobs that nothing has claimed, oldest first: those in batches as well."""
        places = (tuple(self.jobs), *map(_waiting_in, tuple(self.handles)))
        return list(dict.fromkeys(job for place in places for job in place if not job.claims))

    def recall(self) -> None:
        """Let all jobs wait here that a connection was given and has not begun."""
        for batch in map(_batch_of, tuple(self.handles)):
            if batch is not None and (back := batch.take_back()):
                self.requeue(back)

    def take_out(self, job: Job, abort: Abort) -> bool:
        """Let `abort` claim a job that may lie in the queue; say whether it has the claim."""
        self.tombstones.happened()  # before the claim, so that the job is not counted as waiting
        return job.claim(abort)

    def tidy(self) -> None:
        """Let go of claimed jobs in the queue, if there are more of them than others."""
        if int(self.tombstones) > len(self.jobs) // 2:
            self.purge()

    def purge(self) -> None:
        """Let go of claimed jobs in the queue."""
        tombstones = Events()
        tombstones.happened()  # until they have left
        self.tombstones = tombstones
        claimed = {job for job in tuple(self.jobs) if job.claims}
        for job in claimed:
            self.pass_over(job)
        jobs = self.jobs
        with suppress(IndexError):  # others have taken some
            # One step of the interpreter: each job goes from the end to the head, or nowhere. So the order stays. They
            # are counted within that step: no other thread adds one in between.
            counted = map(islice, (iter(jobs.pop, None),), map(len, (jobs,)))
            jobs.extendleft(filterfalse(claimed.__contains__, chain.from_iterable(counted)))
        tombstones.undone()

    def recover(self) -> None:
        """Make good what a thread has left that was killed in the middle of a method."""
        for handle in tuple(self.handles):
            if handle.state is _IDLE and handle not in self.idle:
                handle.wake()
        if self.jobs and self.idle:  # the supervisor, which calls this, knows whether workers are missing
            self.wake_one()


def _batch_of(handle: WorkerHandle) -> JobBatch | None:
    return handle.batch


def _waiting_in(handle: WorkerHandle) -> list[Job]:
    return [] if handle.batch is None else handle.batch.waiting()
