"""Admission: which jobs are not run."""

import threading
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from actors.dispatch import aborts
from actors.dispatch.counters import ENDINGS, Ending, Events
from actors.dispatch.job import Abort, Job
from actors.dispatch.quarantine import Quarantine
from actors.dispatch.routing import Routing

if TYPE_CHECKING:
    from actors.dispatch.lane import Lane

__all__ = ["Admission", "Mode"]


class Mode(Enum):
    """How the crew treats jobs.

    `UP` ⇄ `SUSPENDED`; both → `STOPPING` → `STOPPED`.
    """

    UP = "up"
    """Accepts jobs and runs them."""
    SUSPENDED = "suspended"
    """No worker is up, and none is about to be. Refuses jobs with `DatabaseUnavailable`."""
    STOPPING = "stopping"
    """Refuses jobs. Runs the jobs that were accepted before."""
    STOPPED = "stopped"
    """Refuses jobs and runs none."""


class Admission:
    """Decides about each submitted job, and about each job that a worker begins.

    `Lane.gate` is this object while a job may be refused, and `None` at other times: then no job
    asks. Its lock makes `max_queue` exact. A crew without `max_queue` takes the lock only while it
    is suspended, stopping, or has lost workers.
    """

    def __init__(
        self,
        name: str,
        database: str,
        size: int,
        max_queue: int | None,
        *,
        quarantine: Quarantine,
        routing: Routing,
    ) -> None:
        self.name = name
        self.database = database
        self.size = size
        self.max_queue = max_queue
        self.quarantine = quarantine
        """Which statements have killed workers."""
        self.routing = routing
        """Which requests write."""
        self.end: Mode | None = None
        """`STOPPING` or `STOPPED` once the crew stops."""
        self.cause: BaseException | None = None
        """Why the crew is suspended or stopped, for the errors of the jobs that are refused."""
        self.lanes: tuple[Lane, ...] = ()
        self.counts: dict[Ending, Events] = {ending: Events() for ending in ENDINGS}
        """The ends of jobs that no worker has run to their end."""
        self._lock = threading.RLock()

    @property
    def mode(self) -> Mode:
        """How the crew treats jobs now. A crew is suspended while its first lane is down."""
        return self.end or (Mode.SUSPENDED if self.lanes[0].down else Mode.UP)

    # --- the gate -------------------------------------------------------------------------

    def set_gates(self) -> None:
        """Make each lane ask about its jobs, or not.

        Call it after each change of a fact that `refusal_of` and `objection` look at.
        """
        always = self.mode is not Mode.UP or self.max_queue is not None or bool(self.quarantine.deaths)
        for lane in self.lanes:
            lane.gate = self if always or lane.down or lane.codel is not None else None

    def forget_the_parent(self) -> None:
        """In the child of a fork: replace the lock, which a thread of the parent may hold."""
        self._lock = threading.RLock()

    def is_mine(self) -> bool:
        """Say whether this thread is inside `submit`.

        Code that interrupted it there must not wait.
        """
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]

    def submit(self, job: Job, lane: "Lane") -> Abort | None:
        """Put a job into its lane, or return why it is refused; see `Lane.submit`."""
        with self._lock:
            refusal = self.refusal_of(job, lane) or self._queue_full(lane)
            if refusal is not None:
                return refusal
            lane.jobs.append(job)
        refusal = self.refusal_of(job, lane)
        if refusal is not None and lane.take_out(job, refusal):
            return refusal
        if job.deadline is not None and job.deadline < lane.timers.earliest:
            lane.timers.note(job.deadline)
        if lane.codel is not None:
            lane.timers.look_at(job.submitted_at + 2 * lane.codel.target)
        lane.wake_one()
        return None

    def refusal_of(self, job: Job, lane: "Lane") -> Abort | None:
        """Return why a job is not accepted, however many wait."""
        mode = self.mode
        if mode is Mode.SUSPENDED:
            return aborts.unavailable(self, self.lanes[0])
        if mode is not Mode.UP:
            return aborts.stopped(self)
        if lane.down:
            return aborts.unavailable(self, lane)
        return self._poison(job, job.submitted_at)

    def refusal_of_accepted(self, lane: "Lane") -> Abort | None:
        """Return why a job that was accepted cannot wait again, or wait for the writer."""
        mode = self.mode
        if mode is Mode.STOPPED:
            return aborts.stopped(self)
        if mode is Mode.SUSPENDED:
            return aborts.unavailable(self, self.lanes[0])
        return aborts.unavailable(self, lane) if lane.down else None

    def objection(self, job: Job, now: float) -> Abort | None:
        """Return why a job that is about to begin must not begin."""
        if job.deadline is not None and job.deadline <= now:
            return aborts.timed_out(self)
        lane = job.lane
        if lane is None or lane.gate is None:
            return None
        poison = self._poison(job, now)
        if poison is not None:
            return poison
        codel = lane.codel
        if codel is None:
            return None
        waited = now - lane.waits_since(job)
        if not codel.stands(waited, now) or waited <= codel.target:
            return None
        return aborts.overloaded(self, waited, codel.target)

    def suspects(self, job: Job) -> bool:
        """Say whether a worker has died while it ran the statement of this job."""
        return bool(self.quarantine.deaths) and self.quarantine.suspects(job.request)

    def clear(self, job: Job) -> None:
        """Note that the statement of a job was answered."""
        if self.quarantine.deaths:
            self.quarantine.clear(job.request)

    def record_death(self, job: Job, now: float, *, alone: bool) -> None:
        """Note that a worker died while it ran a job, alone or together with others."""
        self.quarantine.record(job.request, now, alone=alone)
        self.set_gates()

    def forget_deaths(self, now: float) -> None:
        """Forget the deaths that are older than the quarantine's window."""
        if self.quarantine.deaths:
            self.quarantine.forget(now)
            self.set_gates()

    def _poison(self, job: Job, now: float) -> Abort | None:
        deaths = self.quarantine.deaths_of(job.request, now) if self.quarantine.deaths else 0
        return aborts.poison(self, deaths) if deaths else None

    def _queue_full(self, lane: "Lane") -> Abort | None:
        most = self.max_queue
        if most is None or sum(len(each.jobs) + each.in_batches for each in self.lanes) < most:
            return None
        if len(lane.jobs) >= most and int(lane.tombstones):
            lane.purge()
        # A job that a free worker is about to take does not count, so max_queue=0 means "now or
        # never".
        left = {each: each.queued - each.free for each in self.lanes}
        if left[lane] < 0 or sum(max(0, waiting) for waiting in left.values()) < most:
            return None
        return aborts.queue_full(self, self.queued)

    @property
    def queued(self) -> int:
        """How many jobs wait. A job that a worker has taken and not begun still waits."""
        return sum(lane.queued for lane in self.lanes)

    # --- ending jobs that no worker runs --------------------------------------------------

    def abort(self, job: Job, abort: Abort) -> bool:
        """Reject a job that has not begun; say whether it had not. From any thread.

        A thread that is killed between the claim and the rejection leaves the job to
        `Lane.settle_aborted`.
        """
        if not (job.claim(abort) if job.lane is None else job.lane.take_out(job, abort)):
            return False
        job.reject(abort, self)
        return True

    def reject_waiting(self, lane: "Lane", why: Callable[["Admission"], Abort]) -> None:
        """Reject all jobs that wait in a lane, each with an error of its own."""
        for job in lane.waiting():
            self.abort(job, why(self))
        lane.purge()

    def end_unwanted(self, job: Job) -> None:
        """Reject a job that waits again, if it was interrupted before.

        The race: the interrupting thread marks the job before it looks at the claim. The thread
        that gives the claim back does so before it looks for the mark. So one of the two sees the
        other.
        """
        why = job.why
        if why is not None:
            self.abort(job, why)

    def count(self, ending: "Ending", jobs: int = 1) -> None:
        """Count a job that no worker has ended; for -1 job, take one back. From any thread."""
        events = self.counts[ending]
        if jobs > 0:
            events.happened()
        else:
            events.undone()
