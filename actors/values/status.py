"""Status: histograms of durations, and an immutable snapshot of the crew."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import zip_longest

from actors.system.nesting import inside_another_repr
from actors.values.record import Record

__all__ = ["CrewStatus", "Durations", "Histogram", "JobStatus", "WorkerStatus"]

_LISTED = 10  # waiting jobs in the text of a status
# Upper bounds in seconds, from 1 µs to about 20 minutes. Each bound is 12 % above the last.
_BOUNDS = tuple(1e-6 * 1.12**step for step in range(185))


class Durations(Record):
    """A summary of many durations, in seconds. The percentiles are exact to within 12 %."""

    count: int
    """How many durations there were."""
    p50: float
    """Half of the durations were not longer."""
    p95: float
    """95 % of the durations were not longer."""
    p99: float
    """99 % of the durations were not longer."""
    max: float
    """The longest duration. This one is exact."""


class Histogram:
    """Counts of durations, in buckets that grow by 12 %.

    It needs constant memory, and one bisection for each duration.
    """

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
        """Count all durations of another histogram."""
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        self._max = max(self._max, other._max)

    def counts(self) -> tuple[int, ...]:
        """Return how many durations are in each bucket."""
        return tuple(self._counts)

    def summary(self) -> Durations:
        """Return the percentiles of all durations recorded so far."""
        return _summary(self._counts, self._max)


def _summary(counts: Sequence[int], longest: float) -> Durations:
    total = sum(counts)
    p50, p95, p99 = (_percentile(counts, total * part, longest) for part in (0.5, 0.95, 0.99))
    return Durations(total, p50, p95, p99, longest)


def _percentile(counts: Sequence[int], rank: float, longest: float) -> float:
    seen = 0
    for bound, count in zip(_BOUNDS, counts, strict=False):
        seen += count
        if count and seen >= rank:
            return min(bound, longest)
    return longest


def _between(earlier: Sequence[int], later: Sequence[int], longest: float) -> Durations:
    """Return the percentiles of the durations that `later` counts and `earlier` does not."""
    new = [after - before for before, after in zip_longest(earlier, later, fillvalue=0)]
    highest = max((at for at, count in enumerate(new) if count > 0), default=None)
    if highest is None:
        return Durations(0, 0.0, 0.0, 0.0, 0.0)
    return _summary(new, min(longest, _BOUNDS[highest]) if highest < len(_BOUNDS) else longest)


class JobStatus(Record):
    """A job that waits, at the time of the snapshot."""

    id: int
    """The job's number. No other job of the crew ever gets it. `SupervisorRef.cancel` takes it."""
    request: str
    """The request, shortened, without parameters."""
    seconds: float
    """How long the job has waited."""
    role: str | None
    """`reader` or `writer`: which workers may run it. `None` in a crew whose workers do both."""


class WorkerStatus(Record):
    """One worker at the time of the snapshot."""

    id: int
    """The worker's number. No other worker ever gets it."""
    state: str
    """`starting`, `awake` (about to take a job), `idle` or `busy`."""
    job: str | None
    """The request that the worker runs, shortened, without parameters."""
    seconds: float
    """How long the worker has been in this state, or has run this job."""
    pid: int | None = None
    """The process in which the connection lives. `None` if it lives in this process."""
    memory: int | None = None
    """Bytes that only the child process uses. `None` if the system does not tell."""
    role: str | None = None
    """`reader` or `writer`, in a crew that has both."""
    waits_for_lock: bool = False
    """Whether the job waits for a lock that another connection to the database holds."""
    jobs: tuple[int, ...] = ()
    """The ids of the jobs that the worker has begun. The first one is that of `job`.

    Quick jobs share a worker's transaction, so there may be several."""
    node: str | None = None
    """The machine of the process, if it may be another machine: a node of a Ray cluster."""


class CrewStatus(Record):
    """A snapshot of the crew, taken in one step. A prompt shows it as `print` does.

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
    """The reason why the crew is suspended or stopped, or has no writer."""
    size: int
    """How many workers the crew wants to have."""
    workers: tuple[WorkerStatus, ...]
    """The workers that exist, in the order of their ids."""
    queued: int
    """Jobs that wait for a worker."""
    running: int
    """Jobs that a worker runs."""
    writing: str | None
    """The job of this crew that holds the database's write lock, or is about to take it.

    That is the job of the writer, unless the job waits for a lock that another connection holds.
    Shortened, without parameters."""
    submitted: int
    """All requests that the crew ever got, including the refused ones."""
    answered: int
    """Jobs that ended with a result."""
    failed: int
    """Jobs that ended with an error of their statement. Their workers survived."""
    died: int
    """Jobs whose worker died."""
    rejected: int
    """Jobs that never ran. The queue was full, the database unavailable, or the crew stopped."""
    cancelled: int
    """Jobs that were cancelled while queued or running."""
    timed_out: int
    """Jobs whose deadline passed while queued or running."""
    shed: int
    """Jobs that were rejected as `Overloaded`, after they waited longer than `shed_after`."""
    stuck: int
    """Threads that still run although the crew gave up their workers.

    The crew gives a worker up if its statement ignores the interrupt."""
    restarts: int
    """Workers that were started to replace a lost worker."""
    failed_starts: int
    """Starts of workers that failed before the connection was open."""
    warnings: tuple[str, ...]
    """Options that could not be applied when the database was opened.

    An example is a setting without effect."""
    wait: Durations
    """How long jobs waited in the queue."""
    run: Durations
    """How long jobs ran."""
    writing_id: int | None = None
    """The id of the job in `writing`."""
    waiting: tuple[JobStatus, ...] = ()
    """The oldest of the jobs that wait, at most 100 of each lane."""
    wait_counts: tuple[int, ...] = ()
    """How many jobs are in each bucket of `wait`. See `waits_since`."""
    run_counts: tuple[int, ...] = ()
    """How many jobs are in each bucket of `run`. See `runs_since`."""

    _hidden = frozenset({"run_counts", "wait_counts"})

    def waits_since(self, earlier: "CrewStatus") -> Durations:
        """Return how long the jobs waited that were begun after an earlier snapshot of the crew.

        All values are exact to within 12 %, also `max`.
        """
        return _between(earlier.wait_counts, self.wait_counts, self.wait.max)

    def runs_since(self, earlier: "CrewStatus") -> Durations:
        """Return how long the jobs ran that ended after an earlier snapshot of the crew.

        All values are exact to within 12 %, also `max`.
        """
        return _between(earlier.run_counts, self.run_counts, self.run.max)

    @property
    def _slots(self) -> int:
        """The number of workers of a complete crew. A writer that was started counts, too."""
        return self.size + any(worker.role == "writer" for worker in self.workers)

    def __repr__(self) -> str:
        return super().__repr__() if inside_another_repr() else str(self)

    def __str__(self) -> str:
        counts = (  # each line fits a terminal of 80 columns
            ("submitted", "answered", "failed", "died"),
            ("rejected", "cancelled", "timed_out", "shed"),
            ("restarts", "failed_starts", "stuck"),
        )
        lines = [
            f"{self.name}: {self.state}, {self.database}" + (f" ({self.cause})" if self.cause else ""),
            f"  {len(self.workers)} of {self._slots} workers, {self.queued} queued, {self.running} running",
            *(
                "  " + ", ".join(f"{name.replace('_', ' ')} {getattr(self, name)}" for name in names)
                for names in counts
            ),
            f"  wait  {_milliseconds(self.wait)}",
            f"  run   {_milliseconds(self.run)}",
        ]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        lines += [_line(worker) for worker in self.workers]
        lines += [f"  job {job.id:<6} waits    {job.seconds:8.3f} s  {job.request}" for job in self.waiting[:_LISTED]]
        if self.waiting and self.queued > _LISTED:
            lines.append(f"  and {self.queued - _LISTED} more jobs wait")
        return "\n".join(lines)


def _line(worker: WorkerStatus) -> str:
    child = "" if worker.pid is None else f"pid {worker.pid}  "
    child += "" if worker.node is None else f"on {worker.node}  "
    memory = "" if worker.memory is None else f"{worker.memory / 1e6:.1f} MB  "
    state = f"{worker.role or 'worker'} {worker.id:<4} {worker.state:<8} {worker.seconds:8.3f} s"
    waits = " (waits for a lock)" if worker.waits_for_lock else ""
    return f"  {state}  {child}{memory}{_job_of(worker)}{waits}".rstrip()


def _job_of(worker: WorkerStatus) -> str:
    if worker.job is None:
        return ""
    more = f" and {len(worker.jobs) - 1} more" if len(worker.jobs) > 1 else ""
    return f"job {worker.jobs[0]}{more}: {worker.job}" if worker.jobs else worker.job


def _milliseconds(times: Durations) -> str:
    parts = ((name, getattr(times, name) * 1e3) for name in ("p50", "p95", "p99", "max"))
    return "  ".join(f"{name} {value:.3f} ms" for name, value in parts)
