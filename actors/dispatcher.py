"""Dispatcher: who waits, who is idle, who runs what. One lock, no I/O, no threads of its own.

Every method may be called from any thread and returns at once.

The lock is re-entrant and every step inside it is ordered so that it can be cut off anywhere:

1. A signal handler, or an asynchronous exception, may raise in the middle of a method. A job is
   therefore written down in its new place before it leaves the old one, and whoever meets it in
   both places can tell from `Job.state`.
2. A finalizer that the garbage collector runs in the middle of a method may call another one, in
   the same thread. With a plain lock it would wait for itself.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum

from actors.errors import DatabaseUnavailable, QuerycrewError, QueueFull, SupervisorStopped
from actors.job import NEW, QUEUED, STARTED, WITHDRAWN, Job
from actors.member import Member, MemberState
from actors.status import CrewStatus, Histogram, WorkerStatus

__all__ = ["Dispatcher", "Mode"]


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


# A global is found in a third of the time that a member of an enum takes.
_UP = Mode.UP
_AWAKE = MemberState.AWAKE
_BUSY = MemberState.BUSY
_GONE = MemberState.GONE


class Dispatcher:
    """The one table of truth: a job is queued, or runs on one worker, or is settled."""

    def __init__(
        self,
        name: str,
        database: str,
        size: int,
        max_queue: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.database = database
        self.size = size
        self.max_queue = max_queue
        self.clock = clock
        self._lock = threading.RLock()
        self._mode = Mode.UP
        # Why it is suspended or stopped, for the errors of the jobs that are refused.
        self._cause: BaseException | None = None
        # First in, first out. Holds withdrawn jobs too; they are counted and skipped.
        self._queue: deque[Job] = deque()
        self._withdrawn_in_queue = 0
        # Those that left the queue to be rejected, and may not have been yet.
        self._dropped: list[Job] = []
        # Every worker that is starting or up, by its id.
        self._members: dict[int, Member] = {}
        # Those that wait to be woken, the last one to become idle at the end: it is woken first.
        self._idle: list[Member] = []
        self._submitted = self._answered = self._failed = self._died = 0
        self._rejected = self._withdrawn = 0
        self.restarts = 0
        self.failed_starts = 0
        self._wait_times = Histogram()
        self._run_times = Histogram()

    # --- jobs -----------------------------------------------------------------------------

    def submit(self, job: Job) -> QuerycrewError | None:
        """Accept `job` and wake a worker for it, or return why it is refused."""
        with self._lock:
            self._submitted += 1
            if self._mode is not _UP or self.max_queue is not None:
                refusal = self._refusal()
                if refusal is not None:
                    self._rejected += 1
                    return refusal
            self._queue.append(job)
            job.state = QUEUED
            if self._idle:
                self._wake_one()
            return None

    def withdraw(self, job: Job) -> bool:
        """Take back a job that nobody has started; say whether that was so."""
        with self._lock:
            # Its caller may have been interrupted in the middle of `submit`: make good the waking.
            self._match()
            if job.state is not QUEUED and not (job.state is NEW and job in self._queue):
                return False
            job.state = WITHDRAWN
            self._withdrawn += 1
            self._withdrawn_in_queue += 1
            if self._withdrawn_in_queue * 2 > len(self._queue) + 16:
                # Their memory is given back too, at a cost that stays constant for each.
                self._queue = deque(kept for kept in self._queue if kept.state is not WITHDRAWN)
                self._withdrawn_in_queue = 0
            return True

    def take(self, member: Member) -> Job | None:
        """Give `member` its next job; without one it is idle, or retired."""
        with self._lock:
            return self._assign(member, self.clock())

    def finish(self, member: Member, ok: bool, more: bool) -> Job | None:
        """Note that the job of `member` is done; give it the next one if it wants `more`."""
        with self._lock:
            if member.state is _GONE:
                return None
            now = self.clock()
            job = member.job
            if job is not None:
                member.job = None
                if ok:
                    self._answered += 1
                else:
                    self._failed += 1
                self._run_times.record(now - job.started_at)
            if more:
                return self._assign(member, now)
            member.state = _AWAKE
            member.since = now
            return None

    def interrupt(self, job: Job) -> bool:
        """Interrupt `job` if it runs, and surely no other; say whether it did."""
        with self._lock:
            for member in self._members.values():
                if member.job is job:
                    member.interrupt()
                    return True
            return False

    # --- workers --------------------------------------------------------------------------

    def enlist(self, member: Member) -> None:
        """Take note of a worker that is about to start."""
        with self._lock:
            member.since = self.clock()
            self._members[member.id] = member

    def report(self, member: Member) -> bool:
        """Let a worker whose connection is open take jobs; False where nobody wants it any more."""
        with self._lock:
            if member.state is not MemberState.STARTING or self._mode is Mode.STOPPED:
                return False
            member.state = _AWAKE
            member.since = self.clock()
            return True

    def bury(self, member: Member) -> Job | None:
        """Strike a worker off and return the job that it was running; may be called again."""
        with self._lock:
            # Each step may be repeated: whoever cuts this off, the next one who buries makes it good.
            if member.state is not _GONE:
                if member.state is MemberState.IDLE and member in self._idle:
                    self._idle.remove(member)
                member.state = _GONE
                if member.job is not None:
                    self._died += 1
            if member.job is not None and self._queue and self._queue[0] is member.job:
                self._queue.popleft()
            self._members.pop(member.id, None)
            self._match()
            return member.job

    def dismiss(self, member: Member) -> bool:
        """Strike off a worker that is still starting; say whether it was."""
        with self._lock:
            if member.state is not MemberState.STARTING:
                return False
            self.bury(member)
            return True

    # --- the crew -------------------------------------------------------------------------

    def suspend(self, cause: BaseException | None) -> list[Job]:
        """Refuse jobs until `resume`; return those that were queued, for the caller to reject."""
        with self._lock:
            self._cause = cause
            if self._mode is Mode.UP:
                self._mode = Mode.SUSPENDED
            return self._drop_queue()

    def resume(self) -> None:
        """Accept jobs again after `suspend`."""
        with self._lock:
            if self._mode is Mode.SUSPENDED:
                self._mode = Mode.UP
                self._cause = None

    def stop_accepting(self) -> None:
        """Refuse new jobs; workers retire when the queue is empty."""
        with self._lock:
            if self._mode in (Mode.UP, Mode.SUSPENDED):
                self._mode = Mode.STOPPING
            self._wake_all()

    def cancel_pending(self) -> list[Job]:
        """Empty the queue; return what was in it, for the caller to reject."""
        with self._lock:
            return self._drop_queue()

    def running(self) -> list[Job]:
        """Return the jobs that run now."""
        with self._lock:
            return [member.job for member in self._members.values() if member.job is not None]

    def forget_dropped(self) -> None:
        """For whoever has rejected all the jobs that it was given: let go of them."""
        self._dropped = []

    def close(self, cause: BaseException | None = None) -> list[Job]:
        """Refuse all from now on; return what was queued, for the caller to reject."""
        with self._lock:
            self._mode = Mode.STOPPED
            self._cause = cause or self._cause
            self._wake_all()
            return self._drop_queue()

    def forget_the_parent(self) -> list[Job]:
        """In the child of a fork: close, and return every job that nobody here will ever run.

        The lock may have been held by a thread that does not exist here.
        """
        self._lock = threading.RLock()
        running = [member.job for member in self._members.values() if member.job is not None]
        self._died += len(running)
        self._members.clear()
        self._idle.clear()
        queued = self.close(RuntimeError("this process was forked from the one that runs the crew"))
        return running + queued

    # --- errors, a new one for each caller, since raising one writes its traceback into it ---

    def unavailable(self) -> DatabaseUnavailable:
        """Return the error of a job that the suspended crew refuses."""
        error = DatabaseUnavailable(
            f"crew {self.name!r} is suspended: no worker can open {self.database} "
            f"({_text(self._cause)}); it goes on trying and resumes by itself"
        )
        error.__cause__ = self._cause
        return error

    def stopped(self) -> SupervisorStopped:
        """Return the error of a job that the stopping or stopped crew refuses."""
        why = "" if self._cause is None else f" ({_text(self._cause)})"
        error = SupervisorStopped(f"crew {self.name!r} is {self._mode.value}{why}, and takes no more jobs")
        error.__cause__ = self._cause
        return error

    # --- looking --------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """What the crew does with jobs now."""
        return self._mode

    @property
    def queued(self) -> int:
        """How many jobs wait."""
        return len(self._queue) - self._withdrawn_in_queue

    def is_mine(self) -> bool:
        """Say whether this thread is inside one of these methods: code that interrupted it must not wait."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]

    def status(self) -> CrewStatus:
        """Return a snapshot of everything."""
        with self._lock:
            now = self.clock()
            workers = tuple(
                WorkerStatus(
                    member.id,
                    member.state.value,
                    str(member.job.request) if member.job is not None else None,
                    max(0.0, now - member.since),
                )
                for member in sorted(self._members.values(), key=lambda member: member.id)
            )
            return CrewStatus(
                name=self.name,
                database=self.database,
                state=self._mode.value,
                cause=None if self._cause is None else _text(self._cause),
                size=self.size,
                workers=workers,
                queued=self.queued,
                running=sum(member.job is not None for member in self._members.values()),
                submitted=self._submitted,
                answered=self._answered,
                failed=self._failed,
                died=self._died,
                rejected=self._rejected,
                withdrawn=self._withdrawn,
                restarts=self.restarts,
                failed_starts=self.failed_starts,
                wait=self._wait_times.summary(),
                run=self._run_times.summary(),
            )

    def __repr__(self) -> str:
        with self._lock:
            states = [member.state for member in self._members.values()]
            busy, idle = states.count(MemberState.BUSY), states.count(MemberState.IDLE)
            up = len(states) - states.count(MemberState.STARTING)
            return (
                f"{self.name!r} {self._mode.value}: {up} of {self.size} workers "
                f"({busy} busy, {idle} idle), {self.queued} queued, {self._answered} answered"
            )

    # --- inside the lock ------------------------------------------------------------------

    def _refusal(self) -> QuerycrewError | None:
        match self._mode:
            case Mode.UP:
                return self._queue_full() if self.max_queue is not None else None
            case Mode.SUSPENDED:
                return self.unavailable()
            case _:
                return self.stopped()

    def _queue_full(self) -> QueueFull | None:
        if self.max_queue is None or self.queued < self.max_queue:
            return None
        # A job that a free worker is about to take does not count: max_queue=0 means "now or never".
        free = sum(member.state in (MemberState.AWAKE, MemberState.IDLE) for member in self._members.values())
        if self.queued < self.max_queue + free:
            return None
        return QueueFull(
            f"crew {self.name!r} has {self.queued} jobs queued, and max_queue is {self.max_queue}; ask later, "
            f"ask less at once, or start the crew with more workers (size is {self.size}) or a larger max_queue"
        )

    def _assign(self, member: Member, now: float) -> Job | None:
        if member.state is not _BUSY:
            if member.state is _GONE:
                return None
            if member.state is MemberState.IDLE and member in self._idle:
                self._idle.remove(member)  # it was woken by hand, or the waking was cut off half-way
        queue = self._queue
        while queue:
            job = queue[0]
            if job.state is QUEUED or job.state is NEW:
                job.state = STARTED
                job.started_at = member.since = now
                member.job = job
                queue.popleft()
                member.state = _BUSY
                self._wait_times.record(now - job.submitted_at)
                return job
            queue.popleft()
            if job.state is WITHDRAWN:
                self._withdrawn_in_queue -= 1
        self._withdrawn_in_queue = 0
        member.since = now
        if self._mode in (Mode.STOPPING, Mode.STOPPED):
            member.state = MemberState.RETIRED
        else:
            member.state = MemberState.IDLE
            self._idle.append(member)
        return None

    def _match(self) -> None:
        """Wake as many workers as there are jobs; what was cut off half-way is made good here."""
        for _ in range(min(self.queued, len(self._idle))):
            self._wake_one()

    def _wake_all(self) -> None:
        while self._idle:
            self._wake_one()

    def _wake_one(self) -> None:
        if not self._idle:  # a finalizer may have come in since the caller looked
            return
        member = self._idle[-1]
        # Woken before it is struck off: a spurious wake is harmless, one that is missing is not.
        member.wake()
        if self._idle and self._idle[-1] is member:  # a finalizer may have come in between
            self._idle.pop()
        member.state = _AWAKE

    def _drop_queue(self) -> list[Job]:
        dropped = [job for job in self._queue if job.state is QUEUED or job.state is NEW]
        # Remembered until `forget_dropped`: whoever has to reject them may be killed before it is done.
        self._dropped = self._dropped + dropped
        self._queue = deque()
        self._withdrawn_in_queue = 0
        count = len(dropped)
        self._rejected += count  # in one step: nothing is called in between
        for job in dropped:
            job.state = WITHDRAWN
        return list(self._dropped)


def _text(error: BaseException | None) -> str:
    if error is None:
        return "no cause is known"
    return "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
