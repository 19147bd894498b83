"""Rejections: the errors of jobs that the crew does not run, or does not run to their end.

Every caller gets a new error, since raising an error writes a traceback into it. Every text says
which crew, the event, with the numbers, and how to change it.
"""

from typing import TYPE_CHECKING

from actors.values.errors import (
    ChildProcessEnded,
    DatabaseUnavailable,
    Overloaded,
    PoisonQuery,
    QueryCancelled,
    QueryTimeout,
    QueueFull,
    SupervisorStopped,
    WorkerDied,
    WouldDeadlock,
)

if TYPE_CHECKING:
    from actors.dispatch.admission import Admission
    from actors.dispatch.job import Job
    from actors.dispatch.lane import Lane

__all__ = [
    "cancelled",
    "died",
    "held_by_caller",
    "overloaded",
    "own_thread",
    "poison",
    "queue_full",
    "shut_down",
    "stopped",
    "timed_out",
    "unavailable",
    "why",
    "without_text",
]


def unavailable(crew: "Admission", lane: "Lane") -> DatabaseUnavailable:
    """Return the error of a job that a suspended crew refuses, or a lane without a worker."""
    worker = (lane.role if lane is not crew.lanes[0] else None) or "worker"
    error = DatabaseUnavailable(
        f"crew {crew.name!r} is suspended: no {worker} can open {crew.database} ({why(lane.cause)}); "
        "it goes on trying and resumes by itself"
    )
    error.__cause__ = lane.cause
    return error


def stopped(crew: "Admission") -> SupervisorStopped:
    """Return the error of a job that a stopping or stopped crew refuses."""
    because = "" if crew.cause is None else f" ({why(crew.cause)})"
    error = SupervisorStopped(f"crew {crew.name!r} is {crew.mode.value}{because}, and takes no more jobs")
    error.__cause__ = crew.cause
    return error


def shut_down(crew: str, executed: bool | None) -> SupervisorStopped:
    """Return the error of a job that ran when the time limit of a shutdown came."""
    error = SupervisorStopped(f"crew {crew!r} was shut down while this job ran, and interrupted it at its time limit")
    error.executed = executed
    return error


def queue_full(crew: "Admission", queued: int) -> QueueFull:
    """Return the error of a job for which the queue has no room."""
    return QueueFull(
        f"crew {crew.name!r} has {queued} jobs queued, and max_queue is {crew.max_queue}; send the request later, "
        f"send fewer requests at once, or raise max_queue or the number of workers (size is {crew.size})"
    )


def overloaded(crew: "Admission", waited: float, shed_after: float) -> Overloaded:
    """Return the error of a job that is shed."""
    return Overloaded(
        f"crew {crew.name!r} is overloaded: this job waited {waited:.3f} seconds, and every recent job waited longer "
        f"than shed_after ({shed_after:g}), so the oldest jobs are rejected; send fewer requests, or raise the "
        f"number of workers (size is {crew.size})"
    )


def poison(crew: "Admission", job: "Job", deaths: int) -> PoisonQuery:
    """Return the error of a job that is held back because its statement kills workers."""
    return PoisonQuery(
        f"crew {crew.name!r}: {job.request} has killed {deaths} workers recently, and is not run for now; the "
        "WorkerDied errors of those jobs say why; RestartPolicy(poison_after=…) sets the limit"
    )


def cancelled(crew: "Admission", job: "Job", executed: bool | None) -> QueryCancelled:
    """Return the error of a job that was cancelled."""
    error = QueryCancelled(f"crew {crew.name!r}: {job.request} was cancelled {_how_far(job, executed)}")
    error.executed = executed
    return error


def timed_out(crew: "Admission", job: "Job", executed: bool | None) -> QueryTimeout:
    """Return the error of a job whose deadline has passed."""
    assert job.deadline is not None
    if not _has_begun(job, executed):
        remedy = "send fewer requests at once, or start the crew with more workers"
    elif executed is None:
        remedy = (
            "if it ignored its interrupt, its worker was replaced; make the statement faster, or its timeout longer"
        )
    else:
        remedy = "make the statement faster, or its timeout longer"
    queued = sum(len(lane.jobs) for lane in crew.lanes)
    error = QueryTimeout(
        f"crew {crew.name!r}: {job.request} had {job.deadline - job.submitted_at:g} seconds, and they ended "
        f"{_how_far(job, executed)} ({queued} queued, size {crew.size}); {remedy}"
    )
    error.executed = executed
    return error


def own_thread(crew: str, job: "Job | None", *, began: bool) -> WouldDeadlock:
    """Return the error of a wait on one of the crew's own threads; `job` is `None` for a `stop`."""
    if job is None:
        fate = "the crew goes on with the request"
    elif began:
        fate = f"{job.request} has begun and goes on"
    else:
        fate = f"{job.request} was taken out of the queue and did not run"
    error = WouldDeadlock(
        f"this thread belongs to crew {crew!r}, or a signal or finalizer interrupted it inside the crew. It would wait "
        f"for itself: {fate}. Use add_done_callback() here, or ask another crew"
    )
    error.executed = None if began else False
    return error


def held_by_caller(crew: str, job: "Job") -> WouldDeadlock:
    """Return the error of a caller whose own transactions or streams hold all workers for `job`."""
    return WouldDeadlock(
        f"crew {crew!r}: you hold all workers that could run {job.request}, with open transactions or streams, and "
        "would wait for yourself. The job was taken out of the queue and did not run. Ask the transaction instead of "
        "the crew, or end the transactions and streams first"
    )


def why(cause: BaseException | None) -> str:
    """Return a cause as a text, with its notes."""
    if cause is None:
        return "no cause is known"
    return "; ".join([_shown(cause), *getattr(cause, "__notes__", ())])


def _shown(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # a class of the user's, whose text cannot be made
        text = ""
    return f"{name}: {text}" if text else name


def without_text(error: BaseException) -> BaseException:
    """Return an error of the same class without its text.

    It is for all callers but the one whose job raised it. The text may quote a parameter of that
    job: a function called from SQL may raise `SystemExit(value)`. A `ChildProcessEnded` holds no
    value of a caller, and keeps its text.
    """
    kind = type(error)
    if kind is ChildProcessEnded:
        return error
    try:
        return kind.__new__(kind)
    except Exception:  # noqa: BLE001  # a class that cannot be made so
        return RuntimeError(kind.__name__)


def _how_far(job: "Job", executed: bool | None) -> str:
    return "while it ran" if _has_begun(job, executed) else "before it was started"


def _has_begun(job: "Job", executed: bool | None) -> bool:
    # A child process says when it began a job only with its answer.
    return bool(job.started_at) or executed is not False


def died(crew: str, worker: int, job: "Job", cause: BaseException | None, end: str | None = None) -> WorkerDied:
    """Return the error of a job whose worker is gone.

    Args:
        crew: its name.
        worker: the worker's id.
        job: the job.
        cause: the error that the worker died of; `None` if it was stopped.
        end: how the worker ended, if it did not die of `cause`.
    """
    if end is None:
        end = "was stopped" if cause is None else f"died of {_shown(cause)}"
    undone = job.checkout is not None and job.checkout.takes_no_effect
    effect = "nothing of it has taken effect" if undone else "whether it took effect is unknown"
    error = WorkerDied(
        f"crew {crew!r}: worker {worker} {end}, while it ran {job.request}; the job is not run again, and {effect}"
    )
    error.executed = False if undone else None
    error.__cause__ = cause
    return error
