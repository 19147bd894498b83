"""What a crew tells the callers of jobs that it does not run, or not to their end.

A new error for each caller, since raising one writes its traceback into it. Every text says which crew,
what happened, with the numbers, and what to change.
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
    from actors.dispatch.job import Job

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


def unavailable(crew: str, database: str, cause: BaseException | None, role: str | None = None) -> DatabaseUnavailable:
    """Return the error of a job that a suspended crew refuses, or one that has no worker of that role."""
    error = DatabaseUnavailable(
        f"crew {crew!r} is suspended: no {role or 'worker'} can open {database} ({why(cause)}); "
        "it goes on trying and resumes by itself"
    )
    error.__cause__ = cause
    return error


def stopped(crew: str, state: str, cause: BaseException | None) -> SupervisorStopped:
    """Return the error of a job that a stopping or stopped crew refuses."""
    because = "" if cause is None else f" ({why(cause)})"
    error = SupervisorStopped(f"crew {crew!r} is {state}{because}, and takes no more jobs")
    error.__cause__ = cause
    return error


def shut_down(crew: str, executed: bool | None) -> SupervisorStopped:
    """Return the error of a job that ran when the time limit of a shutdown came."""
    error = SupervisorStopped(f"crew {crew!r} was shut down while this job ran, and interrupted it at its time limit")
    error.executed = executed
    return error


def queue_full(crew: str, queued: int, max_queue: int, size: int) -> QueueFull:
    """Return the error of a job for which there is no place."""
    return QueueFull(
        f"crew {crew!r} has {queued} jobs queued, and max_queue is {max_queue}; ask later, "
        f"ask less at once, or start the crew with more workers (size is {size}) or a larger max_queue"
    )


def overloaded(crew: str, waited: float, shed_after: float, size: int) -> Overloaded:
    """Return the error of a job that is shed."""
    return Overloaded(
        f"crew {crew!r} is asked more than it can do: this job waited {waited:.3f} seconds, every job of late "
        f"waited longer than shed_after ({shed_after:g}), and so the oldest are rejected; ask less, or start the "
        f"crew with more workers (size is {size})"
    )


def poison(crew: str, job: "Job", deaths: int) -> PoisonQuery:
    """Return the error of a job that is held back since it kills workers."""
    return PoisonQuery(
        f"crew {crew!r}: {job.request} has killed {deaths} workers of late, and is not run for now; look at the "
        "WorkerDied errors of these to find out why, or set RestartPolicy(poison_after=…)"
    )


def cancelled(crew: str, job: "Job", executed: bool | None) -> QueryCancelled:
    """Return the error of a job that was cancelled."""
    error = QueryCancelled(f"crew {crew!r}: {job.request} was cancelled {_how_far(job, executed)}")
    error.executed = executed
    return error


def timed_out(crew: str, job: "Job", executed: bool | None, *, queued: int, size: int) -> QueryTimeout:
    """Return the error of a job whose deadline has passed."""
    assert job.deadline is not None
    if not _has_begun(job, executed):
        remedy = "ask less at once, or start the crew with more workers"
    elif executed is None:
        remedy = (
            "if it ignored its interrupt, its worker was replaced; make the statement faster, or its timeout longer"
        )
    else:
        remedy = "make the statement faster, or its timeout longer"
    error = QueryTimeout(
        f"crew {crew!r}: {job.request} had {job.deadline - job.submitted_at:g} seconds, and they ended "
        f"{_how_far(job, executed)} ({queued} queued, size {size}); {remedy}"
    )
    error.executed = executed
    return error


def own_thread(crew: str, job: "Job | None", *, began: bool) -> WouldDeadlock:
    """Return the error of a wait on one of the crew's own threads; `job` is `None` for a `stop`."""
    if job is None:
        fate = "the crew goes on with it"
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
        "would wait for yourself. It was taken out of the queue and did not run. Ask the transaction instead of the "
        "crew, or end the transactions and streams first"
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
    except Exception:  # noqa: BLE001  # a class of the user's, whose text cannot be had
        text = ""
    return f"{name}: {text}" if text else name


def without_text(error: BaseException) -> BaseException:
    """Return an error of the same class without its text, for all but the caller whose job it ended.

    The text may quote a parameter of that job: a function called from SQL may raise `SystemExit(value)`.
    How a child process ended holds no value, and is kept.
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
    # Another process tells when it began a job no earlier than with its answer.
    return bool(job.started_at) or executed is not False


def died(crew: str, worker: int, job: "Job", cause: BaseException | None, end: str | None = None) -> WorkerDied:
    """Return the error of a job whose worker is gone: the worker died of `cause`, unless `end` tells another end."""
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
