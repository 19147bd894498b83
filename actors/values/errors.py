"""Every error of the crew, each saying whether the statement took effect."""

from concurrent.futures import CancelledError

import pykka

__all__ = [
    "ChildProcessEnded",
    "ConnectionLost",
    "DatabaseUnavailable",
    "Overloaded",
    "PoisonQuery",
    "QueryCancelled",
    "QueryTimeout",
    "QuerycrewError",
    "QueueFull",
    "RemoteError",
    "ResultLost",
    "SessionClosed",
    "SupervisorStopped",
    "TransactionBroken",
    "TransactionLeftOpen",
    "WorkerDied",
    "WouldDeadlock",
]


class QuerycrewError(Exception):
    """The base of all errors that the crew itself raises.

    Errors of the driver (`apsw.SQLError` and the like) pass through unchanged and do not derive
    from this class. `db.errors` has this class and those of the driver, so that one clause catches
    every error that the crew or the database answers:

        try:
            db.ask(Query("INSERT INTO books VALUES (?)", (title,)))
        except db.errors as error:
            print("not stored:", error)

    For SQLite that is `(QuerycrewError, apsw.Error)`, on threads and in child processes. Other errors
    pass: a `TypeError`, `ValueError`, `KeyError` or `OverflowError` of parameters that do not fit, a
    `MemoryError`, and the error of a function of yours, in a `Call` or called by SQL.
    """

    executed: bool | None = False
    """`False`: the statement never started, or was undone. `True`: it took effect.
    `None`: nobody can know."""


class QueueFull(QuerycrewError):
    """The queue holds `max_queue` jobs already; this one was not accepted."""


class Overloaded(QueueFull):
    """The queue stands, and this job had waited longer than `shed_after`: it was rejected unstarted."""


class QueryTimeout(QuerycrewError, TimeoutError, pykka.Timeout):
    """The deadline passed: in the queue, waiting for a lock, or while the statement ran.

    `executed` is `False`: it never started, or it was interrupted and undone. It is `None` where its
    worker had to be given up, since the statement ignored the interrupt, and after a `Script`. It is `True`
    where the statement was done in time, and its result is lost (`ResultLost`, the `__cause__`).
    """


class QueryCancelled(QuerycrewError, CancelledError):
    """The job was cancelled.

    `executed` is `False`: it never started, or it was interrupted and undone. It is `True` where the
    statement was done before the interrupt reached it, and `None` as for `QueryTimeout`.
    """


class WorkerDied(QuerycrewError, pykka.ActorDeadError):
    """The worker died while it ran this job; `__cause__` says of what.

    The job is not run again. Whether it took effect is unknown.
    """

    executed: bool | None = None


class PoisonQuery(QuerycrewError):
    """This statement has killed several workers of late: it was rejected before it could kill another."""


class ChildProcessEnded(QuerycrewError):
    """A child process ended that was to serve; the text says how. The cause of a `WorkerDied`."""

    executed: bool | None = None


class RemoteError(QuerycrewError):
    """An error of a class that cannot be sent from a child process; the text says what it was."""


class ResultLost(QuerycrewError):
    """The job was done, and its result is lost, most often on its way from a child process; the text says why.

    What a job writes to SQLite is packed before it is committed, so its own error comes first, and undoes it.
    A request inside of a transaction takes effect if the transaction does: `executed` is then `None`.
    """

    executed: bool | None = True

    @classmethod
    def of(cls, what: object, error: BaseException) -> "ResultLost":
        """Return the error that tells why the result of what was done is lost."""
        lost = cls(f"{what} was done, and its result is lost: {type(error).__name__}: {error}")
        lost.__cause__ = error
        return lost


class DatabaseUnavailable(QuerycrewError, ConnectionError):
    """The crew is suspended: no worker can open the database, for `__cause__`.

    One worker goes on trying, and the crew resumes by itself.
    """


class SupervisorStopped(QuerycrewError, pykka.ActorDeadError):
    """The crew is stopping or stopped, and this job was not, or not wholly, run."""


class TransactionLeftOpen(QuerycrewError):
    """The request ended inside a transaction, which was rolled back.

    The next job gets a clean connection. `executed` is `None` after a `Script`,
    whose earlier statements may have been committed.
    """


class TransactionBroken(QuerycrewError):
    """A statement of a `Transaction`, or the function of a `Call`, ended it by hand: all of it was rolled back."""


class SessionClosed(QuerycrewError):
    """The transaction, or the stream, is over, and takes no more steps."""


class WouldDeadlock(QuerycrewError, RuntimeError):
    """A worker of the crew was asked to wait for its own crew."""


class ConnectionLost(Exception):
    """Raised by a connection to its worker: nothing more can run on it.

    The driver's error is the `__cause__`. Never reaches a caller: it becomes the `WorkerDied` of the job that was
    running.
    """

    begun: bool
    """Whether the job may have begun. If not, it waits again for another worker."""
    blames: bool
    """Whether the statement may be the reason. If not, it is never held back with `PoisonQuery`."""

    def __init__(self, *args: object, begun: bool = True, blames: bool = True) -> None:
        super().__init__(*args)
        self.begun = begun
        self.blames = blames
