"""The page for the author of a database: `Database` opens connections, `Connection` runs requests.

Write a class with `name`, `max_size` and `connect`, which returns an object with an `execute`. That
is enough. Every other method of `Connection` has a default; override it to do more.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from actors.databases.answers import checked
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
from actors.values.errors import ConnectionLost
from actors.values.requests import Query, Request
from actors.values.result import Result

if TYPE_CHECKING:
    from actors.databases.executor import Batch, Task

__all__ = ["Connection", "Database", "Executes", "NeedsWriter"]


class Executes(Protocol):
    """The least that a connection can do; see `Connection.execute`."""

    def execute(self, request: Any, /) -> Any:
        """Run a request, or perform a step, and return its answer. In the worker's thread."""
        ...


class Database(Protocol):
    """A small immutable value that knows how to reach a database.

    `str(database)` names the database and shows no secret. `ChildProcess` pickles it. Optional
    attributes and methods:

    * `errors`: a tuple of the classes of the driver's errors, for `SupervisorRef.errors`. Without
      it `db.errors` is `(Exception,)`.
    * `lanes()`: a tuple of two databases, for the workers that read and for the worker that writes.
      Without it every worker does everything.
    * `default_size`: how many workers a crew has if the program does not say. Without it there is
      one for each CPU.
    * `restart`: the `RestartPolicy` of a crew if the program gives none.
    * `max_size_in_children`: the most child processes, or actors on a Ray cluster, that can share
      this database. Without it `max_size` holds for them, too.
    * `existing()`: the database to connect to after the first worker was up. It must not create a
      database again that has disappeared.
    """

    @property
    def name(self) -> str:
        """A short name for the crew, its threads and its log lines."""
        ...

    @property
    def max_size(self) -> int | None:
        """The most workers that can share this database; `None` for any number."""
        ...

    def connect(self) -> Executes:
        """Open a connection, or raise. In the worker's thread; may block.

        The connection derives from `Connection`, or is any object with an `execute`.
        """
        ...


class NeedsWriter(Exception):
    """Raised by a connection that only reads: the statement writes. Nothing of it ran.

    The crew hands the job to the worker that writes.
    """


def _nothing(*_: object) -> None:
    pass


class Connection:
    """One open connection of one worker: the base class for a database of your own.

    Write `execute` for the requests and steps that your database can serve. Hand all other requests
    to `super().execute(request)`: it refuses them with an error that names them. The caller gets
    that error; the connection and its worker go on. An object with only an `execute` is a
    connection, too.

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
    and `Close`. The class of each step describes it.

    Threads:
        `connect()` and all methods run in the worker's thread, one call at a time. A method that
        may be called from any thread says so. Methods may block: only the worker waits.

    Errors:
        `ConnectionLost`, raised from the driver's error, says that the connection is of no more
        use. The worker closes it, and another worker opens a new one. The caller gets `WorkerDied`.
        `ConnectionLost(begun=False)` says that the job was not begun: it waits again.
        `ConnectionLost(blames=False)` says that the statement is not to blame.
        Any other `Exception` is the error of the request: its caller gets it, nothing of the
        request is left behind, and the connection is good. A `BaseException` ends the worker, too.
    """

    plain_values: ClassVar[bool] = False
    """Whether all values of all rows are None, int, float, str or bytes. Such rows travel faster
    from a child process."""
    reads_only: bool = False
    """Whether it cannot write, so that beginning a request twice does no harm."""
    warnings: tuple[str, ...] = ()
    """The options that the database could not fulfil, one sentence each. The crew logs them."""
    pid: int | None = None
    """The number of the process in which it lives, if that is another process."""
    node: str | None = None
    """The machine of that process, if it may be another machine."""

    # --- the methods that most databases need ---------------------------------------------

    def execute(self, request: Request | Step) -> Any:
        """Run a request to its end, or perform a step.

        A request leaves the connection clean: no transaction is open, no lock is held, and all
        settings are as before. A step may leave a transaction or a cursor open for later steps;
        after `Close` the connection is clean.

        The base class answers `Close`, since nothing is open, and refuses every other request.

        Returns:
            A `Result` of plain values. It goes to another thread, so it must not hold a cursor or a
            generator. `Result.rows` is a list of tuples. A `Transaction` is answered by a list with
            one `Result` for each query, a `Call` by the value that its function returned. A
            connection may ignore `Query.max_rows`: the crew cuts the rows and sets `truncated`.

        Raises:
            ConnectionLost: the connection is of no more use.
            Exception: the request failed.
        """
        if isinstance(request, Close):
            return Result()
        message = f"{type(self).__name__} takes no {_kind_of(request)}"
        raise TypeError(message)

    def interrupt(self) -> None:
        """End the running request soon. From any thread; never blocks, never raises.

        The crew calls it only while `execute` runs, and waits for its return before the next
        request begins. The call may come before the first statement of the request, in the middle,
        or at the end. It must not end a later request. The crew repeats it every 20 ms until
        `execute` has returned or raised; `execute` may raise any error then.

        The base class does nothing: the worker is given up after `RestartPolicy.grace`.
        """
        return  # without this a type checker takes it for abstract

    def close(self) -> None:
        """Close the connection, and undo an open transaction. Never raises; may be called twice.

        The base class does nothing.
        """
        return  # as above

    # --- optional: batches, interrupts of one job, other processes ------------------------

    def run(self, batch: "Batch") -> None:
        """Run the jobs of a batch: begin each job, then end it by one method of the batch.

        The base class runs one job after the other by `execute`. A database may run several jobs
        together, and end them in any order.

        Raises:
            ConnectionLost: the connection is of no more use. Jobs that were begun and not ended are
                lost with it.
        """
        while (task := batch.begin()) is not None:
            self.run_one(batch, task)

    def run_one(self, batch: "Batch", task: "Task") -> None:
        """Run a begun job by `execute`, and end it. For `run`.

        Raises:
            ConnectionLost: the connection is of no more use.
        """
        request = task.request
        try:
            value = self.execute(request)
            if type(value) is not Result or type(request) is not Query or request.max_rows is not None:
                value = checked(value, request, self)
        except ConnectionLost as lost:
            if not lost.begun:
                batch.give_back(task)
            raise
        except NeedsWriter:
            batch.reroute(task)
        except Exception as error:  # noqa: BLE001  # the statement's own error goes to its caller
            batch.fail(task, error)
        else:
            batch.answer(task, value)
        finally:
            del task, request  # the error leads to this frame, if a function of the user's has raised it

    def cancel(self, task: Any) -> None:
        """End one begun job soon. From any thread; never blocks, never raises.

        Args:
            task: the identity of the job. A database that cancels late, over a second connection,
                uses it so that a late cancel cannot hit the next job.

        The base class calls `interrupt`.
        """
        del task
        self.interrupt()

    def recall(self, most: int | None = None) -> list[Any]:
        """Take begun jobs back that provably will never run here, `most` at most; return them.

        For connections that hand jobs on to another process. Each job is let go by its own batch,
        which may be a later batch than the caller knows (`Batch.let_go`). A job that another thread
        has let go is not returned. From any thread; never blocks.
        """
        del most
        return []

    def check(self) -> None:
        """Raise `ConnectionLost` if the connection is of no more use. Called before each batch."""
        return  # as above

    def refresh(self) -> None:
        """Restore the settings that a job has changed. Called after each batch.

        Raises:
            ConnectionLost: that failed. No job is lost with it.
        """
        return  # as above

    def fetch_ahead(self) -> None:
        """Fetch the next rows of a stream before the caller asks for them."""
        return  # as above

    def abandon(self) -> None:
        """Kill the process of the connection. From any thread; never blocks, never raises."""
        return  # as above

    def waits_for_lock(self) -> bool:
        """Say whether it waits for a lock that another connection holds. From any thread."""
        return False

    on_end: Callable[..., object] = _nothing
    """Set by the worker. Call it once the process of the connection is gone. From any thread."""
    on_wait: Callable[..., object] = _nothing
    """Set by a child process. Call it several times a second while a request waits for a lock."""

    def seal_with(self, pack: Callable[[Any, Any], Any]) -> bool:
        """Pack the answer of a request that writes by `pack(value, request)`, before its commit.

        So an answer that cannot be packed undoes the request. Return whether this connection does
        so.
        """
        del pack
        return False


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
