"""Admission: which jobs are not run, and why."""

import threading
from enum import Enum
from typing import TYPE_CHECKING

from actors.dispatch import rejections
from actors.dispatch.counters import ENDINGS, Ending, Events
from actors.dispatch.job import Abort, Job
from actors.dispatch.quarantine import Quarantine
from actors.dispatch.routing import Routing
from actors.values.errors import DatabaseUnavailable, QueryCancelled, QueryTimeout, SupervisorStopped

if TYPE_CHECKING:
    from actors.dispatch.lane import Lane

__all__ = ["Admission", "Mode"]


class Mode(Enum):
    """What the crew does with jobs.

    `UP` ⇄ `SUSPENDED`; both → `STOPPING` → `STOPPED`.
    """

    UP = "up"
    """Accepts jobs and runs them."""
    SUSPENDED = "suspended"
    """No worker is up and none is about to be: refuses jobs with `DatabaseUnavailable`."""
    STOPPING = "stopping"
    """Refuses jobs; those accepted before are still run."""
    STOPPED = "stopped"
    """Refuses jobs and runs none."""


class Admission:
    """Decides about each job that is asked and about each that a worker begins.

    A lane asks it only while there is a reason to: it is the lane's `gate` then. Its lock makes `max_queue` exact; a
    crew without `max_queue` takes it only while it is suspended, stopping, or has lost workers.
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
        self.mode = Mode.UP
        self.cause: BaseException | None = None
        """Why the crew is suspended or stopped, for the errors of the jobs that are refused."""
        self.lanes: tuple[Lane, ...] = ()
        self.counts: dict[Ending, Events] = {ending: Events() for ending in ENDINGS}
        """The ends of jobs that no worker has run to their end."""
        self._lock = threading.RLock()

    # --- the gate -------------------------------------------------------------------------

    def set_gates(self) -> None:
        """Let each lane ask about its jobs, or not. After each change of what `refusal_of` and `objection` look at."""
        always = self.mode is not Mode.UP or self.max_queue is not None or bool(self.quarantine.deaths)
        for lane in self.lanes:
            lane.gate = self if always or lane.down or lane.codel is not None else None

    def forget_the_parent(self) -> None:
        """In the child of a fork: a thread that is not here may hold the lock."""
        self._lock = threading.RLock()

    def is_mine(self) -> bool:
        """Say whether this thread is inside `submit`: code that interrupted it must not wait."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]

    def submit(self, job: Job, lane: "Lane") -> Abort | None:
        """Let a job wait, or return why it is refused; see `Lane.submit`."""
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
        """Return why a job is not accepted, whatever waits."""
        if self.mode is Mode.SUSPENDED:
            return Abort("rejected", lambda *_: self.unavailable(self.lanes[0]))
        if self.mode is not Mode.UP:
            return Abort("rejected", lambda *_: self.stopped())
        if lane.down:
            return Abort("rejected", lambda *_: self.unavailable(lane))
        return self._poison(job, job.submitted_at)

    def refusal_of_accepted(self, lane: "Lane") -> Abort | None:
        """Return why a job that was accepted cannot wait again, or for the writer."""
        if self.mode is Mode.STOPPED:
            return Abort("rejected", lambda *_: self.stopped())
        if self.mode is Mode.SUSPENDED:
            return Abort("rejected", lambda *_: self.unavailable(self.lanes[0]))
        return Abort("rejected", lambda *_: self.unavailable(lane)) if lane.down else None

    def objection(self, job: Job, now: float) -> Abort | None:
        """Return why a job that is about to begin must not."""
        if job.deadline is not None and job.deadline <= now:
            return Abort("timed_out", self.timed_out)
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
        return self.overloaded(waited, codel.target)

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
        """Let go of deaths that are long past."""
        if self.quarantine.deaths:
            self.quarantine.forget(now)
            self.set_gates()

    def _poison(self, job: Job, now: float) -> Abort | None:
        deaths = self.quarantine.deaths_of(job.request, now) if self.quarantine.deaths else 0
        return Abort("rejected", lambda *_: rejections.poison(self.name, job, deaths)) if deaths else None

    def _queue_full(self, lane: "Lane") -> Abort | None:
        most = self.max_queue
        if most is None or sum(len(each.jobs) + each.in_batches for each in self.lanes) < most:
            return None
        if len(lane.jobs) >= most and int(lane.tombstones):
            lane.purge()
        # A job that a free worker is about to take does not count: max_queue=0 means "now or never".
        left = {each: each.queued - each.free for each in self.lanes}
        if left[lane] < 0 or sum(max(0, waiting) for waiting in left.values()) < most:
            return None
        queued = self.queued
        return Abort("rejected", lambda *_: rejections.queue_full(self.name, queued, most, self.size))

    @property
    def queued(self) -> int:
        """How many jobs wait, those included that a worker has taken and not begun."""
        return sum(lane.queued for lane in self.lanes)

    # --- ending jobs that no worker runs --------------------------------------------------

    def abort(self, job: Job, abort: Abort) -> bool:
        """Reject a job that has not begun; say whether that was so. From any thread."""
        if not (job.claim(abort) if job.lane is None else job.lane.take_out(job, abort)):
            return False
        self.settle(job, abort)
        return True

    def settle(self, job: Job, abort: Abort) -> None:
        """Reject a job that `abort` has claimed. A thread that is killed here leaves it to `Lane.pass_over`."""
        job.refuse(abort.error(job, False), abort.kind, self)

    def count(self, ending: "Ending", jobs: int = 1) -> None:
        """Count a job that no worker has ended, or take it back. From any thread."""
        events = self.counts[ending]
        if jobs > 0:
            events.happened()
        else:
            events.undone()

    def end_unwanted(self, job: Job) -> None:
        """Reject a job that was interrupted, and that nothing has begun: it waits again.

        The thread that interrupts says so in the job before it looks at the claim. The thread that gives the claim
        back does so before it looks into the job. So one of the two sees the other.
        """
        abort = job.cancel or job.abort
        if abort is not None:
            self.abort(job, abort)

    # --- errors ---------------------------------------------------------------------------

    def unavailable(self, lane: "Lane") -> DatabaseUnavailable:
        """Return the error of a job that the suspended crew refuses, or one of its lanes."""
        role = lane.role if lane is not self.lanes[0] else None
        return rejections.unavailable(self.name, self.database, lane.cause, role)

    def stopped(self) -> SupervisorStopped:
        """Return the error of a job that the stopping or stopped crew refuses."""
        return rejections.stopped(self.name, self.mode.value, self.cause)

    def cancelled(self, job: Job, executed: bool | None) -> QueryCancelled:
        """Return the error of a job that was cancelled."""
        return rejections.cancelled(self.name, job, executed)

    def timed_out(self, job: Job, executed: bool | None) -> QueryTimeout:
        """Return the error of a job whose deadline has passed."""
        queued = sum(len(lane.jobs) for lane in self.lanes)
        return rejections.timed_out(self.name, job, executed, queued=queued, size=self.size)

    def overloaded(self, waited: float, target: float) -> Abort:
        """Return why a job is shed after it has waited longer than the target."""
        return Abort("shed", lambda *_: rejections.overloaded(self.name, waited, target, self.size))
