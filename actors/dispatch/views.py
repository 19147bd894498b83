"""Views: what a status and a `repr` tell of the workers."""

from collections.abc import Sequence
from typing import Any

from actors.dispatch.counters import ENDINGS, Counters
from actors.dispatch.worker_handle import WorkerHandle, WorkerState
from actors.values.status import CrewStatus, WorkerStatus

__all__ = ["in_words", "status_of", "writing_of"]


def status_of(handles: Sequence[WorkerHandle], counters: Counters, now: float, **facts: Any) -> CrewStatus:
    """Return the snapshot of a crew.

    Args:
        handles: its workers, by their ids.
        counters: what has become of its jobs.
        now: monotonic seconds.
        facts: the other fields of `CrewStatus`.
    """
    endings: dict[str, Any] = {ending: getattr(counters, ending) for ending in ENDINGS}
    return CrewStatus(
        **facts,
        **endings,
        submitted=sum(endings.values()) + facts["queued"] + facts["running"],
        workers=tuple(_status_of(handle, now) for handle in handles),
        warnings=tuple(dict.fromkeys(text for handle in handles for text in handle.connection.warnings)),
        wait=counters.wait_times.summary(),
        run=counters.run_times.summary(),
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
    )


def writing_of(handles: Sequence[WorkerHandle]) -> str | None:
    """Return the job that holds the database's write lock, or is about to take it."""
    for handle in handles:
        running = handle.running
        if handle.lane is not None and handle.lane.on_demand and running:
            return None if handle.connection.waits_for_lock() else str(running[0].request)
    return None


def in_words(handles: Sequence[WorkerHandle], size: int) -> str:
    """Return how many workers there are of `size`, and what they do."""
    states = [handle.state for handle in handles]
    busy, idle = states.count(WorkerState.BUSY), states.count(WorkerState.IDLE)
    up = len(states) - states.count(WorkerState.STARTING)
    size += any(handle.lane is not None and handle.lane.on_demand for handle in handles)
    return f"{up} of {size} workers ({busy} busy, {idle} idle)"
