"""What a worker needs of a database: `Database` and `Connection`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

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
from actors.values.requests import Call, Query, Request, Transaction
from actors.values.result import Result

if TYPE_CHECKING:
    from actors.databases.executor import Batch, Task

__all__ = [
    "Connection",
    "Database",
    "Executes",
    "NeedsWriter",
    "Sealed",
    "checked",
    "close",
    "errors_of",
    "existing",
    "lanes_of",
    "usable",
]


class NeedsWriter(Exception):
    """Raised by a connection that only reads: the statement writes, and is one for the writer. Nothing of it ran."""


class Sealed:
    """An answer that was made ready to be sent before it took effect; see `Connection.seal_with`."""

    __slots__ = ()


def _nothing(*_: object) -> None:
    """Do nothing."""


class Connection:
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

    Threads:
        `connect()` and all methods run in the worker's thread, one call at a time, except for those
        that say "from any thread". They may block: only the worker waits.

    Errors:
        `ConnectionLost`, raised from the driver's error, says that nothing more can run here. The
        worker closes the connection and another worker opens a new one; the caller gets
        `WorkerDied`. Any other `Exception` is the request's own error: its caller gets it, nothing
        of the request is left behind, and the connection is good. A `BaseException` ends the
        worker, too.
    """

    plain_values: ClassVar[bool] = False
    """Whether all values of all rows are None, int, float, str or bytes. From a child process they travel faster then.
    """
    reads_only: bool = False
    """Whether nothing can be written on it, so that it does no harm to begin a request again."""
    warnings: tuple[str, ...] = ()
    """What was asked for when it was opened and cannot be had."""
    pid: int | None = None
    """The process in which it lives, if that is another one on this machine."""

    # --- what a database of your own needs ------------------------------------------------

    def execute(self, request: Request | Step) -> Any:
        """Run a request to its end, or perform a step.

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
        """End the request that runs, soon. From any thread; never blocks, never raises.

        It is called only while `execute` runs, and `execute` is not over for the crew before this
        has returned. It may come before the first statement of the request, in the middle, or as
        the request ends. It must not end a later request. It comes again every 20 ms until
        `execute` has returned or raised; which error that raises does not matter.

        The base class does nothing: after `RestartPolicy.grace` the worker is given up.
        """
        return  # without this a type checker takes it for abstract

    def close(self) -> None:
        """Close, and undo what is open. Never raises; may be called twice.

        The base class does nothing.
        """
        return  # as above

    # --- what a database may do in another way --------------------------------------------

    def run(self, batch: "Batch") -> None:
        """Run the jobs of a batch: begin each, and say what became of it.

        The base class runs one after the other by `execute`. A database may run several together, and answer in any
        order.

        Raises:
            ConnectionLost: nothing more can run here. What was begun and has no answer is lost with it.
        """
        while (task := batch.begin()) is not None:
            self.run_one(batch, task)

    def run_one(self, batch: "Batch", task: "Task") -> None:
        """Run a job that was begun by `execute`, and say what became of it; for `run`.

        Raises:
            ConnectionLost: nothing more can run here.
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
        """End one job that was begun: the `Task` itself is its identity. As `interrupt`, which the base class calls."""
        del task
        self.interrupt()

    def recall(self, most: int | None = None) -> list[Any]:
        """Return so many tasks at most that were begun from a batch, and that provably will never run here.

        For connections that hand jobs on to another process. Each task is let go by its own batch, which may be a
        later one than the caller knows (`Batch.let_go`); what another thread has let go is not returned. From any
        thread; never blocks.
        """
        del most
        return []

    def check(self) -> None:
        """Raise `ConnectionLost` if nothing can run here, else return at once. Before a batch is taken."""
        return  # as above

    def refresh(self) -> None:
        """Make the connection as new, if a job has changed it. Behind each batch.

        Raises:
            ConnectionLost: that did not work; no job is concerned.
        """
        return  # as above

    def fetch_ahead(self) -> None:
        """After rows of a stream were answered, and more may come: fetch those that will be asked for next."""
        return  # as above

    def abandon(self) -> None:
        """End by force what runs elsewhere: nobody waits for it. From any thread; never blocks, never raises."""
        return  # as above

    def waits_for_lock(self) -> bool:
        """Say whether it waits for a lock that another connection holds. From any thread."""
        return False

    on_end: Callable[..., object] = _nothing
    """Set by the worker: called once what runs elsewhere is gone, from any thread."""
    on_wait: Callable[..., object] = _nothing
    """Set by a child process: called again and again while it waits for a lock."""

    def seal_with(self, pack: Callable[[Any, Any], Any]) -> bool:
        """Let `pack(value, request)` make what a request that writes is answered by, before it is committed.

        So an answer that cannot be packed undoes the request. Say whether this connection does that.
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


class _Completed(Connection):
    """A connection of a class that does not derive from `Connection`."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        for name in ("execute", "interrupt", "close", "plain_values"):
            if hasattr(connection, name):
                setattr(self, name, getattr(connection, name))


def usable(connection: Any) -> Connection:
    """Return what a database has opened as a connection, with the defaults of `Connection` for what it lacks.

    Raises:
        TypeError: it has no `execute`.
    """
    if isinstance(connection, Connection):
        return connection
    if not callable(getattr(connection, "execute", None)):
        message = f"connect() must return a connection, with a method execute(), not {type(connection).__name__}"
        raise TypeError(message)
    return _Completed(connection)


def close(opened: Any) -> None:
    """Close what a database has opened, usable or not."""
    connection = opened if isinstance(opened, Connection) else _Completed(opened)
    connection.close()


def checked(value: Any, request: Request | Step, connection: Connection) -> Any:
    """Return the answer of a connection as its caller gets it: `max_rows` is kept here at last.

    Raises:
        TypeError: a request is not answered so.
    """
    if isinstance(value, Sealed):
        return value
    if isinstance(request, Execute):
        request = request.request
    if type(value) is Result and not isinstance(request, Transaction):
        return _limited(value, request.max_rows) if isinstance(request, Query) else value
    if isinstance(request, (Begin, Commit, Deallocate, Close)):
        return Result()
    if isinstance(request, Transaction):
        return _all_limited(value, request, connection)
    if isinstance(request, Call):
        return value
    message = (
        f"{_class_of(connection)}.execute() must return a Result, not {type(value).__name__}: "
        "what belongs to a connection or a thread cannot be sent to another"
    )
    raise TypeError(message)


def _all_limited(value: Any, transaction: Transaction, connection: Connection) -> list[Result]:
    queries = transaction.queries
    if type(value) is list and len(value) == len(queries) and all(type(each) is Result for each in value):
        return [_limited(each, query.max_rows) for each, query in zip(value, queries, strict=True)]
    message = (
        f"{_class_of(connection)}.execute() must return for a Transaction a list with a Result for each of its "
        f"queries, {len(queries)} here"
    )
    raise TypeError(message)


def _class_of(connection: Connection) -> str:
    return type(connection.connection if isinstance(connection, _Completed) else connection).__name__


def _limited(result: Result, most: int | None) -> Result:
    """Return a result without the rows that are too many; `rowcount` stays what the driver told."""
    if most is None or len(result.rows) <= most:
        return result
    return Result(result.columns, result.rows[:most], result.rowcount, result.lastrowid, True)


class Executes(Protocol):
    """The least that a connection can do; see `Connection.execute`, which gives the rest its defaults."""

    def execute(self, request: Any, /) -> Any:
        """Run a request, or perform a step, and return its answer. In the worker's thread."""
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

    def connect(self) -> Executes:
        """Open a connection that can serve, or raise. In the worker's thread; may block.

        Derive it from `Connection`. An object that has an `execute` will do.
        """
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
