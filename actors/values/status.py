"""What the crew counts and shows: counters, histograms, and the frozen snapshot of it all."""

from bisect import bisect_left

from actors.system.nesting import inside_another_repr
from actors.values.record import Record

__all__ = ["CrewStatus", "Durations", "Histogram", "WorkerStatus"]

# Upper bounds in seconds, each 12 % above the last, from 1 µs to about 20 minutes.
_BOUNDS = tuple(1e-6 * 1.12**step for step in range(185))


class Durations(Record):
    """A summary of many durations, in seconds; percentiles are true to within 12 %."""

    count: int
    """How many durations there were."""
    p50: float
    """Half of them took no longer."""
    p95: float
    """95 % of them took no longer."""
    p99: float
    """99 % of them took no longer."""
    max: float
    """The longest, exactly."""


class Histogram:
    """Counts of durations in buckets that grow by 12 %: constant memory, one bisection a record."""

    __slots__ = ("_counts", "_max")

    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS) + 1)
        self._max = 0.0

    def record(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(_BOUNDS, seconds)] += 1
        if seconds > self._max:  # noqa: PLR1730  # max() takes three times as long
            self._max = seconds

    def add(self, other: "Histogram") -> None:
        """Count all durations of another one."""
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        self._max = max(self._max, other._max)

    def summary(self) -> Durations:
        """Return the percentiles of all durations recorded so far."""
        total = sum(self._counts)
        p50, p95, p99 = (self._percentile(total * part) for part in (0.5, 0.95, 0.99))
        return Durations(total, p50, p95, p99, self._max)

    def _percentile(self, rank: float) -> float:
        seen = 0
        for bound, count in zip(_BOUNDS, self._counts, strict=False):
            seen += count
            if count and seen >= rank:
                return min(bound, self._max)
        return self._max


class WorkerStatus(Record):
    """One worker, as it was when the snapshot was taken."""

    id: int
    """Never used again for another worker."""
    state: str
    """`starting`, `awake` (about to take a job), `idle` or `busy`."""
    job: str | None
    """The request it runs, shortened, without parameters."""
    seconds: float
    """How long it has been in this state, or has run this job."""
    pid: int | None = None
    """The child process in which its connection lives; `None` where that is this process."""
    memory: int | None = None
    """Bytes that only the child process uses, if the system tells."""
    role: str | None = None
    """`reader` or `writer`, in a crew that has both."""
    waits_for_lock: bool = False
    """Whether its job waits for a lock that another connection to the database holds."""


class CrewStatus(Record):
    """A snapshot of the crew, taken in one step. At a prompt it looks as `print` shows it.

    The counters add up: `submitted` = `queued` + `running` + `answered` + `failed` +
    `died` + `rejected` + `cancelled` + `timed_out` + `shed`.
    """

    name: str
    """The crew's name."""
    database: str
    """The database, without secrets."""
    state: str
    """`up`, `suspended` (no worker can open the database), `stopping` or `stopped`."""
    cause: str | None
    """Why it is suspended or stopped, or has no writer."""
    size: int
    """How many workers the crew wants to have."""
    workers: tuple[WorkerStatus, ...]
    """Those that there are, in the order of their ids."""
    queued: int
    """Jobs that wait for a worker."""
    running: int
    """Jobs that a worker runs."""
    writing: str | None
    """The job of ours that holds the database's write lock, or is about to take it: what the writer runs, unless it
    waits for a lock that somebody else holds. Shortened, without parameters."""
    submitted: int
    """All jobs ever asked, refused ones included."""
    answered: int
    """Jobs that gave a result."""
    failed: int
    """Jobs that gave an error of their statement; their workers lived."""
    died: int
    """Jobs whose worker died."""
    rejected: int
    """Jobs that never ran: queue full, database unavailable, crew stopped."""
    cancelled: int
    """Jobs that were cancelled, queued or running."""
    timed_out: int
    """Jobs whose deadline passed, queued or running."""
    shed: int
    """Jobs that waited longer than `shed_after` in a queue that stood."""
    stuck: int
    """Threads of workers that were given up, because their statement ignored its interrupt, and still run."""
    restarts: int
    """Workers started in the place of one that was lost."""
    failed_starts: int
    """Starts of workers that did not get as far as an open connection."""
    warnings: tuple[str, ...]
    """What was asked for when the database was opened and cannot be had, such as a setting without effect."""
    wait: Durations
    """How long jobs waited in the queue."""
    run: Durations
    """How long jobs ran."""

    @property
    def _slots(self) -> int:
        """How many workers there are when all are there: the writer is one more, once it was needed."""
        return self.size + any(worker.role == "writer" for worker in self.workers)

    def __repr__(self) -> str:
        return super().__repr__() if inside_another_repr() else str(self)

    def __str__(self) -> str:
        counts = ("submitted", "answered", "failed", "died", "rejected", "cancelled", "timed_out", "shed")
        crew = ("restarts", "failed_starts", "stuck")
        lines = [
            f"{self.name}: {self.state}, {self.database}" + (f" ({self.cause})" if self.cause else ""),
            f"  {len(self.workers)} of {self._slots} workers, {self.queued} queued, {self.running} running",
            *(
                "  " + ", ".join(f"{name.replace('_', ' ')} {getattr(self, name)}" for name in names)
                for names in (counts, crew)
            ),
            f"  wait  {_milliseconds(self.wait)}",
            f"  run   {_milliseconds(self.run)}",
        ]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        lines += [_line(worker) for worker in self.workers]
        return "\n".join(lines)


def _line(worker: WorkerStatus) -> str:
    child = "" if worker.pid is None else f"pid {worker.pid}  "
    memory = "" if worker.memory is None else f"{worker.memory / 1e6:.1f} MB  "
    state = f"{worker.role or 'worker'} {worker.id:<4} {worker.state:<8} {worker.seconds:8.3f} s"
    waits = " (waits for a lock)" if worker.waits_for_lock else ""
    return f"  {state}  {child}{memory}{worker.job or ''}{waits}".rstrip()


def _milliseconds(times: Durations) -> str:
    parts = ((name, getattr(times, name) * 1e3) for name in ("p50", "p95", "p99", "max"))
    return "  ".join(f"{name} {value:.3f} ms" for name, value in parts)
