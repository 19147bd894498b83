"""Views: the crew, its workers and a job as a status, a `repr` or an error text shows them."""

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from actors.dispatch.batch import JobBatch
from actors.dispatch.counters import ENDINGS, Counters
from actors.dispatch.job import Job
from actors.dispatch.lane import Lane
from actors.dispatch.worker_handle import WorkerHandle, WorkerState
from actors.values.status import CrewStatus, JobStatus, WorkerStatus

__all__ = ["in_words", "status_of", "waiting_in", "where_is", "writing_of"]

_SHOWN: Final = 100  # waiting jobs of a lane that a status names
_COUNTED: Final = 1000  # waiting jobs among which a job's place in the queue is counted


def status_of(handles: Sequence[WorkerHandle], counters: Counters, now: float, **facts: Any) -> CrewStatus:
    """Return the snapshot of a crew.

    Args:
        handles: its workers, by their ids.
        counters: the ends of its jobs.
        now: monotonic seconds.
        facts: the other fields of `CrewStatus`.
    """
    aborts: dict[str, Any] = {ending: getattr(counters, ending) for ending in ENDINGS}
    return CrewStatus(
        **facts,
        **aborts,
        submitted=sum(aborts.values()) + facts["queued"] + facts["running"],
        workers=tuple(_status_of(handle, now) for handle in handles),
        warnings=tuple(dict.fromkeys(text for handle in handles for text in handle.connection.warnings)),
        wait=counters.wait_times.summary(),
        run=counters.run_times.summary(),
        wait_counts=counters.wait_times.counts(),
        run_counts=counters.run_times.counts(),
    )


def _status_of(handle: WorkerHandle, now: float) -> WorkerStatus:
    running = handle.running
    since = running[0].started_at if running and running[0].started_at else handle.since
    return WorkerStatus(
        handle.id,
        handle.state.value,
        str(running[0].request) if running else None,
        max(0.0, now - since),
        handle.connection.pid,
        None,
        None if handle.lane is None else handle.lane.role,
        bool(running) and handle.connection.waits_for_lock(),
        tuple(job.reply.id for job in running if job.reply.id is not None),
        handle.connection.node,
    )


def waiting_in(lanes: Sequence[Lane], now: float) -> tuple[JobStatus, ...]:
    """Return the oldest jobs that wait in each lane."""
    return tuple(
        JobStatus(job.reply.id or 0, str(job.request), max(0.0, now - job.submitted_at), lane.role)
        for lane in lanes
        for job in lane.first_waiting(_SHOWN)
    )


def writing_of(handles: Sequence[WorkerHandle]) -> Job | None:
    """Return the job that holds the database's write lock, or is about to take it."""
    for handle in handles:
        running = handle.running
        if handle.lane is not None and handle.lane.on_demand and running:
            return None if handle.connection.waits_for_lock() else running[0]
    return None


def in_words(handles: Sequence[WorkerHandle], size: int) -> str:
    """Return in words how many workers of `size` are up, busy and idle."""
    states = [handle.state for handle in handles]
    busy, idle = states.count(WorkerState.BUSY), states.count(WorkerState.IDLE)
    up = len(states) - states.count(WorkerState.STARTING)
    size += any(handle.lane is not None and handle.lane.on_demand for handle in handles)
    return f"{up} of {size} workers ({busy} busy, {idle} idle)"


def where_is(job: Job, handles: Sequence[WorkerHandle], size: int, now: float) -> str:
    """Return where a job is that has no answer yet."""
    owner, lane = job.owner, job.lane
    if owner is None and lane is not None:
        first = list(islice(lane.waiting(), _COUNTED))
        ahead = str(first.index(job)) if job in first else f"more than {len(first)}"
        return f"it is queued behind {ahead} others; {in_words(handles, size)}"
    if not isinstance(owner, JobBatch) or job not in owner.running:
        return "its answer is on the way"
    if not job.started_at:
        return f"it is queued at worker {owner.handle.id}, behind the job that runs there"
    lock = ", and waits for a lock of another connection" if owner.connection.waits_for_lock() else ""
    return f"it has run for {now - job.started_at:.3f} seconds on worker {owner.handle.id}{lock}"
