"""What a worker needs of a database: `Database` and `Connection`."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from actors.databases.steps import (
    Begin,
    Close,
    Commit,
    CopyPages,
    Deallocate,
    Declare,
    Execute,
    Fetch,
    KeepCopy,
    OpenBackup,
    Step,
)
from actors.messages import Request
from actors.result import Result

__all__ = [
    "Answer",
    "Connection",
    "Database",
    "Grouping",
    "NeedsWriter",
    "Pipelined",
    "Ticketed",
    "Unrunnable",
    "errors_of",
    "existing",
    "lanes_of",
    "token_of",
]


class NeedsWriter(Exception):
    """Raised by a connection that only reads: the statement writes, and is one for the writer. Nothing of it ran."""


def token_of(ticket: int) -> int:
    """Return the byte that stands for a ticket where jobs are claimed; never 0."""
    return ticket % 255 + 1


class Connection(Protocol):
    """One open connection, used by one worker: the base class for a database of your own.

    Write `execute` for the requests and steps that your database can serve, and hand all others to
    `super().execute(request)`, which refuses them with an error that names them. The caller gets
    that error, and the connection and its worker go on. An object with no more than an `execute` is
    a connection, too.

        class MyConnection(Connection):
            def execute(self, request):
                match request:
                    case Query():
                        cursor = self._driver.execute(request.sql, request.params)
                        return Result(tuple(names_of(cursor)), cursor.fetchall(), cursor.rowcount)
                    case _:
                        return super().execute(request)

    Requests are `Query`, `Script`, `Transaction` and `Call`. For `db.transaction()` a connection
    takes the steps `Begin`, `Execute`, `Commit` and `Close`; for a `Stream` it takes `Declare`,
    `Fetch`, `Deallocate` and `Close`; for a `Backup` it takes `OpenBackup`, `CopyPages`, `KeepCopy`
    and `Close`. What each step does stands in its class.

    An attribute `plain_values = True` says that all values of all rows are None, int, float, str or
    bytes. From a child process they travel faster then.

    Threads:
        `connect()`, `execute` and `close` run in the worker's thread, one call at a time. They may
        block: only the worker waits. `interrupt` comes from any other thread.

    Errors:
        `ConnectionLost`, raised from the driver's error, says that nothing more can run here. The
        worker closes the connection and another worker opens a new one; the caller gets
        `WorkerDied`. Any other `Exception` is the request's own error: its caller gets it, nothing
        of the request is left behind, and the connection is good. A `BaseException` ends the
        worker, too.
    """

    def execute(self, request: Request | Step) -> Any:
        """Run a request to its end, or perform a step. In the worker's thread.

        A request leaves the connection clean: no transaction is open, no lock is held, and the
        settings are those of before. A step may leave open what later steps need; after `Close` the
        connection is clean.

        The base class answers `Close`, since nothing is open, and refuses all else.

        Returns:
            A `Result` of plain values: it goes to another thread, so it must hold nothing of the
            connection, such as a cursor or a generator. For a `Transaction` a list of them, one for
            each query; for a `Call` the value that its function returned. `Result.rows` is a list
            of tuples. A connection need not look at `Query.max_rows`: the crew leaves out the rows
            that are too many, and sets `truncated`.

        Raises:
            ConnectionLost: nothing more can run here.
            Exception: the request failed.
        """
        if isinstance(request, Close):
            return Result()
        message = f"{type(self).__name__} takes no {_kind_of(request)}"
        raise TypeError(message)

    def interrupt(self) -> None:
        """End what is running, soon. From any thread; never blocks, never raises.

        The crew holds a lock meanwhile. The interrupt may meet the connection in any state: before
        the first statement of a request, in the middle of it, as it ends, between two steps, or
        closed. So it must be harmless when nothing runs, and it must not end a later request. It
        comes again every 20 ms until `execute` has returned or raised; which error that raises does
        not matter.

        The base class does nothing: after `RestartPolicy.grace` the worker is given up.
        """
        return  # without this a type checker takes it for abstract

    def close(self) -> None:
        """Close, and undo what is open. In the worker's thread; never raises; may be called twice.

        The base class does nothing.
        """
        return  # as above


def _kind_of(request: Request | Step) -> str:
    match request:
        case Begin() | Commit():
            return "interactive transactions"
        case Execute():
            return f"{type(request.request).__name__} in an interactive transaction"
        case Declare() | Fetch() | Deallocate():
            return "streams"
        case OpenBackup() | CopyPages() | KeepCopy():
            return "backups"
    return type(request).__name__


class Answer(NamedTuple):
    """What became of a job that was sent."""

    ticket: int
    """The job's."""
    value: Any
    """What it was answered by, as of `Connection.execute`."""
    error: BaseException | None
    """Its error, if it failed: an `Exception`, once the connection is open."""
    seconds: float
    """How long it ran."""


class Unrunnable:
    """Stands for a request that did not arrive."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error
        """Why; what it is answered by."""


Ticketed: TypeAlias = tuple[int, Request | Step | Unrunnable]
"""A job as a connection knows it: its ticket, and what is to be run."""


class Grouping(Connection, Protocol):
    """A connection that runs jobs together that wait together: in one transaction, for the price of one."""

    is_stale: bool
    """Whether a job has changed it, so that `refresh` makes it as new."""
    held_over: "deque[Ticketed]"
    """Jobs that were drawn and did not belong to the group, or of which nothing has taken effect: the first ones of
    the next."""

    def execute_group(self, first: Ticketed, draw: Callable[[], Ticketed | None]) -> list[Answer]:
        """Run a job, and with it others that wait, if it can share a transaction. In the worker's thread.

        None of them is answered before all that took effect is durable. What fails, or is interrupted, is undone alone.

        Args:
            first: what is run in any case; one of `held_over`, if there is any, which the caller takes out.
            draw: gives another job that waits, `None` if there is none; never waits.

        Returns:
            Answers, one at least, of `first` and what was drawn; the others are held over.

        Raises:
            ConnectionLost: nothing more can run here; which of them took effect is unknown.
        """
        ...

    def interrupt(self, ticket: int | None = None) -> None:
        """End the job with this ticket, soon, begun or not, or whatever runs. From any thread; never raises."""
        ...

    def waits_for_lock(self) -> bool:
        """Say whether it waits for a lock that another connection holds. From any thread."""
        ...

    def refresh(self) -> None:
        """Make the connection as new, if a job has changed it. In the worker's thread, between two jobs.

        Raises:
            ConnectionLost: that did not work; no job is concerned.
        """
        ...


class Pipelined(Connection, Protocol):
    """A connection that lives elsewhere, and takes jobs ahead while it runs another.

    Each job has a ticket, a number that grows. A job that was sent is *begun* there, or taken back here, never both:
    what arbitrates that must hold whatever dies (see `child_host`). Jobs are begun in the order of their sending, and
    answered in it; what was begun and not answered when the other end died is at most one, or one group (`Grouping`).
    """

    on_end: Callable[[], object]
    """To be set by the worker: called once the other end is gone, from any thread."""

    @property
    def groups(self) -> bool:
        """Whether jobs are run in groups (`Grouping`), so that one may be answered before another that came first."""
        ...

    @property
    def depth(self) -> int:
        """How many jobs it takes at most, the running one included; at most 128."""
        ...

    @property
    def pid(self) -> int | None:
        """The process in which it lives, if that is on this machine."""
        ...

    def offer(self, tokens: bytes) -> None:
        """Let the jobs with these tokens be begun, once they are sent, or taken back. As `recall`."""
        ...

    def send(self, jobs: Sequence[tuple[int, Request | Step]]) -> None:
        """Send jobs that were offered, one at least, with their tickets. In the worker's thread.

        What cannot be sent is answered in its turn, with that error.

        Raises:
            ConnectionLost: the other end is gone.
        """
        ...

    def receive(self) -> Sequence[Answer]:
        """Return one answer or more, waiting for the first. In the worker's thread.

        Raises:
            ConnectionLost: the other end is gone; all answers that it gave were received before.
        """
        ...

    def recall(self, most: int) -> bytes:
        """Take back so many jobs at most that are not begun; return their tokens.

        Those offered first are taken first. What was returned is returned again until `recalled`: whoever takes jobs
        back may be cut off. From any thread, under a lock of the caller's; never blocks, never raises.
        """
        ...

    def recalled(self) -> None:
        """Note that what was returned is dealt with. As `recall`."""
        ...

    def interrupt(self, ticket: int | None = None) -> None:
        """End the job with this ticket, soon, begun or not. From any thread; never blocks, never raises."""
        ...

    def check(self) -> None:
        """Raise `ConnectionLost` if the other end is gone, else return at once. In the worker's thread."""
        ...

    def abandon(self) -> None:
        """End the other end by force: nobody waits for it any more. From any thread; never blocks, never raises."""
        ...


class Database(Protocol):
    """A small frozen value that knows how to reach a database.

    `str()` of it names the database and shows no secret. It may have an attribute `errors`: a tuple
    of the classes of its driver's errors, for `SupervisorRef.errors`. To be used in children
    (`ChildProcess`), it must be possible to pickle it.
    """

    @property
    def name(self) -> str:
        """A short name for the crew, its threads and its log lines."""
        ...

    @property
    def max_size(self) -> int | None:
        """The most workers that can share this database; `None` for any number."""
        ...

    def connect(self) -> Connection:
        """Open a connection that can serve, or raise. In the worker's thread; may block."""
        ...


def lanes_of(database: Database) -> tuple[Database, ...]:
    """Return what the workers of each lane connect to: those that read, and the one that writes.

    A database whose connections all do everything has one lane, and need not say so: it has no method `lanes`, or
    one that returns nothing but the database.
    """
    lanes: Callable[[], tuple[Database, ...]] | None = getattr(database, "lanes", None)
    return (database,) if lanes is None else lanes()


def existing(database: Database) -> Database:
    """Return what to connect to once somebody was connected: where that is gone, nothing new is to take its place.

    A database that makes what is not there may have a method `existing` for that.
    """
    make: Callable[[], Database] | None = getattr(database, "existing", None)
    return database if make is None else make()


def errors_of(database: Database) -> tuple[type[BaseException], ...]:
    """Return the classes of the errors that the driver of a database raises.

    A database may have an attribute `errors` with a tuple of them. The driver of a database that has
    none may raise any `Exception`.

    Raises:
        TypeError: the attribute is no such tuple.
    """
    errors: object = getattr(database, "errors", (Exception,))
    if isinstance(errors, tuple) and all(isinstance(each, type) and issubclass(each, BaseException) for each in errors):
        return errors
    message = f"{type(database).__name__}.errors must be a tuple of classes of exceptions"
    raise TypeError(message)
