"""All errors of the crew. Each error says whether the statement took effect."""

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
    """The base class of all errors that the crew itself raises.

    Errors of the driver (`apsw.SQLError` and the like) reach the caller unchanged and do not derive
    from this class. `db.errors` contains this class and the driver's error classes. So one clause
    catches every error of the crew and of the database:

        try:
            db.ask(Query("INSERT INTO books VALUES (?)", (title,)))
        except db.errors as error:
            print("not stored:", error)

    For SQLite that is `(QuerycrewError, apsw.Error)`, on threads and in child processes. The clause
    does not catch a `TypeError`, `ValueError`, `KeyError` or `OverflowError` of parameters that do
    not fit, a `MemoryError`, or an error of your own function in a `Call` or called by SQL.
    """

    executed: bool | None = False
    """`False`: the statement never started, or was undone. `True`: the statement took effect.
    `None`: the crew cannot know."""


class QueueFull(QuerycrewError):
    """The queue already holds `max_queue` jobs. This job was not accepted."""


class Overloaded(QueueFull):
    """The crew is overloaded. This job waited longer than `shed_after` and was rejected.

    The job never started. All recent jobs waited longer than `shed_after`, too.
    """


class QueryTimeout(QuerycrewError, TimeoutError, pykka.Timeout):
    """The deadline passed while the job was queued, waited for a lock, or ran.

    `executed` tells three cases apart:

    * `False`: the statement never started, or it was interrupted and undone.
    * `None`: the worker was given up because the statement ignored the interrupt, or the job was
      a `Script`.
    * `True`: the statement was done in time, and its result is lost. The `__cause__` is the
      `ResultLost`.
    """


class QueryCancelled(QuerycrewError, CancelledError):
    """The job was cancelled.

    `executed` is `False` if the statement never started, or was interrupted and undone. It is
    `True` if the statement was done before the interrupt reached it. It is `None` in the same cases
    as in a `QueryTimeout`.
    """


class WorkerDied(QuerycrewError, pykka.ActorDeadError):
    """The worker died while it ran this job. The `__cause__` is the reason of its death.

    The job does not run again. The crew does not know whether it took effect.
    """

    executed: bool | None = None


class PoisonQuery(QuerycrewError):
    """The statement was rejected, since it recently killed several workers. It did not run."""


class ChildProcessEnded(QuerycrewError):
    """A worker's child process, or its Ray actor, ended. The text says how.

    This is the cause of a `WorkerDied`.
    """

    executed: bool | None = None


class RemoteError(QuerycrewError):
    """An error whose class cannot be sent from a child. The text shows class and message."""


class ResultLost(QuerycrewError):
    """The job was done, and its result is lost. The text says why.

    Most often the result was lost on its way from a child process. A child packs the answer of a
    write to SQLite before it commits the write. An error of packing therefore undoes the write, and
    the caller gets that error instead. A request inside a transaction takes effect if the
    transaction does. Its `executed` is `None`.
    """

    executed: bool | None = True

    @classmethod
    def of(cls, request: object, error: BaseException) -> "ResultLost":
        """Return the error for the lost result of `request`, which was done."""
        lost = cls(f"{request} was done, and its result is lost: {type(error).__name__}: {error}")
        lost.__cause__ = error
        return lost


class DatabaseUnavailable(QuerycrewError, ConnectionError):
    """The crew is suspended, since no worker can open the database. `__cause__` is the reason.

    One worker keeps trying, and the crew resumes by itself.
    """


class SupervisorStopped(QuerycrewError, pykka.ActorDeadError):
    """The crew is stopping or stopped, and did not run this job to its end."""


class TransactionLeftOpen(QuerycrewError):
    """The request left a transaction open. The crew rolled the transaction back.

    The next job gets a clean connection. After a `Script`, `executed` is `None`, since earlier
    statements of the script may have been committed.
    """


class TransactionBroken(QuerycrewError):
    """A transaction of the crew was ended from inside. All of it was rolled back.

    A statement of a `Transaction`, or the function of a `Call`, must not commit or roll back.
    """


class SessionClosed(QuerycrewError):
    """The transaction, or the stream, is over. It takes no more requests."""


class WouldDeadlock(QuerycrewError, RuntimeError):
    """The wait would never end. The crew refuses it.

    A thread of the crew would wait for its own crew, or a caller would wait for workers that the
    caller's own transactions and streams hold.
    """


class ConnectionLost(Exception):
    """A connection raises it to its worker: nothing more can run on the connection.

    The driver's error is the `__cause__`. This error never reaches a caller. The caller of the
    running job gets a `WorkerDied`.
    """

    begun: bool
    """Whether the job may have begun. If not, the job waits again for another worker."""
    blames: bool
    """Whether the statement may be the reason. If not, `PoisonQuery` does not count this death."""

    def __init__(self, *args: object, begun: bool = True, blames: bool = True) -> None:
        super().__init__(*args)
        self.begun = begun
        self.blames = blames
