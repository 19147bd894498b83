"""Aborts: every reason for which the dispatcher ends a job early, with error and counter.

Each function returns an `Abort`. Whether a job ends for that reason, `Admission` and the dispatcher
decide. How it ends then, `Job.finish` and `Job.reject` decide.
"""

from typing import TYPE_CHECKING, Final

from actors.dispatch import rejections
from actors.dispatch.job import Abort

if TYPE_CHECKING:
    from actors.dispatch.admission import Admission
    from actors.dispatch.lane import Lane

__all__ = [
    "cancelled",
    "died",
    "overloaded",
    "poison",
    "queue_full",
    "shut_down",
    "stopped",
    "timed_out",
    "unavailable",
    "would_deadlock",
]

_NEVER: Final = float("inf")


def unavailable(crew: "Admission", lane: "Lane") -> Abort:
    """End a job whose lane is down."""
    return Abort("rejected", lambda *_: rejections.unavailable(crew, lane))


def stopped(crew: "Admission") -> Abort:
    """End a job because the crew stops, or has stopped."""
    return Abort("rejected", lambda *_: rejections.stopped(crew))


def shut_down(crew: "Admission", give_up_at: float) -> Abort:
    """End a job that runs when the time limit of a shutdown comes."""
    return Abort("rejected", lambda _, executed: rejections.shut_down(crew.name, executed), give_up_at)


def poison(crew: "Admission", deaths: int) -> Abort:
    """End a job whose statement has killed so many workers."""
    return Abort("rejected", lambda job, _: rejections.poison(crew, job, deaths))


def queue_full(crew: "Admission", queued: int) -> Abort:
    """End a job for which the queue has no room."""
    return Abort("rejected", lambda *_: rejections.queue_full(crew, queued))


def overloaded(crew: "Admission", waited: float, target: float) -> Abort:
    """End a job that has waited longer than `shed_after` in a queue that stands."""
    return Abort("shed", lambda *_: rejections.overloaded(crew, waited, target))


def timed_out(crew: "Admission", give_up_at: float = _NEVER) -> Abort:
    """End a job whose deadline has passed."""
    return Abort("timed_out", lambda job, executed: rejections.timed_out(crew, job, executed), give_up_at)


def cancelled(crew: "Admission", give_up_at: float = _NEVER) -> Abort:
    """End a job that its caller has cancelled."""
    return Abort("cancelled", lambda job, executed: rejections.cancelled(crew, job, executed), give_up_at)


def would_deadlock(error: BaseException) -> Abort:
    """End a job whose caller would wait for itself. The caller raises the same error."""
    return Abort("rejected", lambda *_: error)


def died(error: BaseException) -> Abort:
    """End a job whose worker died, or was given up."""
    return Abort("died", lambda *_: error)
