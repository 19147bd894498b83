"""Requests to the crew, and messages inside the crew. All of them are immutable values."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar, TypeVarTuple

import pykka

from actors.values.checks import check_bool, check_isolation, check_timeout, check_whole, checked_path
from actors.values.parameters import PLAIN, Parameters, copied, copied_rows
from actors.values.record import Record, store

__all__ = [
    "REQUESTS",
    "Backup",
    "Call",
    "Cancel",
    "Interactive",
    "Parameters",
    "Query",
    "Request",
    "Script",
    "Shutdown",
    "Status",
    "Stream",
    "Subscribe",
    "Transaction",
    "Unsubscribe",
    "WaitUntilUp",
    "WorkerDown",
]

T = TypeVar("T")
Args = TypeVarTuple("Args")

_SHOWN = 120  # characters of a statement that a repr, an error or a status shows


class Query(Record):
    """One SQL statement with its parameters, answered by a `Result`.

    Lists, dictionaries and buffers are copied. The caller may change its own objects afterwards.

    Raises:
        TypeError: `sql` is not a string, `params` is neither a sequence of values nor a
            mapping of names to values, a value is a buffer of a class that is refused,
            `timeout` is not a number, or `max_rows` is not a whole number.
        ValueError: `sql` is empty, `timeout` is negative or NaN, `max_rows` is negative, or both
            `params` and `many` were given.
    """

    sql: str
    """Exactly one statement. Comments and a trailing semicolon are allowed."""
    params: Parameters = ()
    """Never shown in a `repr`, a log, an error or a status.

    A `bytearray`, `memoryview`, `array.array` or `mmap` becomes `bytes`. A NumPy number becomes a
    Python number, and a NumPy array is refused. A value without a buffer goes to the driver
    unchanged."""
    timeout: float | None = None
    """Seconds from `ask` until the answer. The time in the queue, the wait for a lock and the run
    count together. `None` means the crew's default. Infinity means no limit, even if the crew has
    a default."""
    many: tuple[Parameters, ...] | None = None
    """Parameters for each of many runs, instead of `params`. Either all runs take effect, or none
    does. The `rowcount` is the sum over all runs."""
    max_rows: int | None = None
    """The largest number of rows in the `Result`. `Result.truncated` says whether there were more.
    `None` is no limit."""
    arrow: bool = False
    """Whether the answer holds columns instead of rows, for `Result.to_arrow`. DuckDB makes them
    without tuples. A database that cannot do so answers by rows, and `to_arrow` makes columns of
    them."""

    _hidden = frozenset({"params", "many"})

    def __init__(
        self,
        sql: str,
        params: Parameters = (),
        timeout: float | None = None,
        *,
        many: Iterable[Parameters] | None = None,
        max_rows: int | None = None,
        arrow: bool = False,
    ) -> None:
        # Written by hand, since every job pays for it. The constructor of `Record` with a
        # `__post_init__` takes half as long again.
        if type(sql) is not str or not sql or sql.isspace():
            _check_sql("Query", sql)
        store(self, "sql", sql)
        if type(params) is not tuple or (params and not PLAIN.issuperset(map(type, params))):
            params = copied(params, "Query")
        store(self, "params", params)
        if timeout is not None:
            check_timeout("Query", timeout)
            store(self, "timeout", timeout)
        if many is not None:
            if self.params:
                message = "Query(params, many) cannot have both"
                raise ValueError(message)
            store(self, "many", copied_rows(many))
        if max_rows is not None:
            check_whole("Query", "max_rows", max_rows, at_least=0)
            store(self, "max_rows", max_rows)
        if arrow is not False:
            store(self, "arrow", check_bool("Query", "arrow", arrow))

    def __str__(self) -> str:
        return f"Query({shorten(self.sql)!r})"


class Script(Record):
    """Several SQL statements, run one after the other on one connection.

    The rows of the statements are not kept. The `Result` has no rows, and its `rowcount` is the
    number of rows that all statements together changed. Each statement commits by itself unless
    the script contains `BEGIN` and `COMMIT`. After an error, the earlier statements keep their
    effect.

    Raises:
        TypeError: `sql` is not a string.
        ValueError: `sql` is empty.
    """

    sql: str
    """Statements separated by semicolons, without parameters."""
    timeout: float | None = None
    """Seconds from `ask` until the answer, as in a `Query`."""

    def __post_init__(self) -> None:
        _check_sql("Script", self.sql)
        if self.timeout is not None:
            check_timeout("Script", self.timeout)

    def __str__(self) -> str:
        return f"Script({shorten(self.sql)!r})"


class Transaction(Record):
    """Queries that take effect together, or not at all; answered by the list of their results.

    The queries run one after the other on one connection. The transaction has the right to write
    from its beginning (`BEGIN IMMEDIATE`). After an error, no query has taken effect, and a note of
    the error names the query that failed.

    Raises:
        TypeError: `queries` is not a sequence of `Query`.
        ValueError: `queries` is empty, or one of them has a `timeout` of its own.
    """

    queries: tuple[Query, ...]
    """The queries, in the order in which they run. No query may begin or end a transaction."""
    readonly: bool
    """Whether the queries only read. Then all queries see the same state of the database, and no
    writer waits for them."""
    timeout: float | None
    """Seconds from `ask` until the answer, as in a `Query`."""
    isolation: str | None
    """The isolation level, such as `"repeatable read"`. `None` is the database's own. SQLite knows
    only `"serializable"`."""

    def __init__(
        self,
        queries: Iterable[Query],
        *,
        readonly: bool = False,
        timeout: float | None = None,
        isolation: str | None = None,
    ) -> None:
        store(self, "queries", _checked_queries(queries))
        store(self, "isolation", check_isolation("Transaction", isolation))
        store(self, "readonly", check_bool("Transaction", "readonly", readonly))
        if timeout is not None:
            check_timeout("Transaction", timeout)
        store(self, "timeout", timeout)

    @property
    def sql(self) -> str:
        """The text of all statements."""
        return ";\n".join(query.sql for query in self.queries)

    def __str__(self) -> str:
        count = len(self.queries)
        return f"Transaction({count} {'query' if count == 1 else 'queries'}, {shorten(self.sql)!r})"


class Call(Record, Generic[T]):
    """A function that a worker calls with the driver's connection, inside a transaction.

    The answer is the function's return value. Use a `Call` for work that needs Python between
    statements: `Call(move, 5, 7)` calls `move(connection, 5, 7)` on a worker.

    If the function raises, the caller gets the error, and nothing has taken effect. If the function
    changes settings of the connection, the next job does not see the changes.

    In a crew of child processes the function must be importable in the child, and its return value
    must be sendable. A worker thread gets the objects in `args` themselves, and a child gets
    copies. Do not change the objects until the call has returned.

    Raises:
        TypeError: `function` cannot be called.
    """

    function: Callable[..., T]
    """The function. It must not end the transaction, and must not keep the connection."""
    args: tuple[Any, ...]
    """The arguments after the connection. Never shown in a `repr`, a log, an error or a status."""
    readonly: bool
    """Whether the function only reads."""
    timeout: float | None
    """Seconds from `ask` until the answer, as in a `Query`."""

    def __init__(
        self,
        function: Callable[[Any, *Args], T],
        *args: *Args,
        readonly: bool = False,
        timeout: float | None = None,
    ) -> None:
        if not callable(function):
            message = f"Call(function) must be callable, not {type(function).__name__}"
            raise TypeError(message)
        store(self, "function", function)
        store(self, "args", args)
        store(self, "readonly", check_bool("Call", "readonly", readonly))
        if timeout is not None:
            check_timeout("Call", timeout)
        store(self, "timeout", timeout)

    @property
    def sql(self) -> str:
        """The function's name, which a status and an error show in the place of a statement."""
        function = unbound(self.function)
        name = getattr(function, "__qualname__", type(function).__qualname__)
        return f"{getattr(function, '__module__', None)}.{name}"

    def __str__(self) -> str:
        return f"Call({self.sql})"

    def __repr__(self) -> str:
        # The `repr` of a partial function, or of the object of a method, may show a parameter.
        return f"Call({self.sql}, readonly={self.readonly}, timeout={self.timeout})"


def unbound(function: Callable[..., Any]) -> Any:
    """Return the function inside all layers of `functools.partial`."""
    while isinstance(function, partial):
        function = function.func
    return function


class Stream(Record):
    """One SQL statement that reads, answered by a `RowStream` that fetches rows as they are taken.

    Use a stream for a result that does not fit into memory. The stream's worker serves no other
    caller until the stream ends. So give the stream a `timeout`.

    Raises:
        TypeError: `sql` is not a string, `params` is neither a sequence nor a mapping, or `chunk`
            is not a whole number.
        ValueError: `sql` is empty, `chunk` is less than 1, or `timeout` is negative or NaN.
    """

    sql: str
    """Exactly one statement. The statement must only read."""
    params: Parameters
    """As for `Query`."""
    chunk: int
    """How many rows are fetched at a time."""
    timeout: float | None
    """Seconds from `ask` until the last row is taken. `None` means the crew's default. Infinity
    means no limit."""
    arrow: bool
    """Whether the chunks hold columns instead of rows, as for `Query`; see `RowStream.chunks`."""

    _hidden = frozenset({"params"})

    def __init__(
        self,
        sql: str,
        params: Parameters = (),
        *,
        chunk: int = 2000,
        timeout: float | None = None,
        arrow: bool = False,
    ) -> None:
        _check_sql("Stream", sql)
        store(self, "sql", sql)
        store(self, "params", copied(params, "Stream"))
        check_whole("Stream", "chunk", chunk, at_least=1)
        store(self, "chunk", chunk)
        if timeout is not None:
            check_timeout("Stream", timeout)
        store(self, "timeout", timeout)
        store(self, "arrow", check_bool("Stream", "arrow", arrow))

    def __str__(self) -> str:
        return f"Stream({shorten(self.sql)!r})"


class Backup(Record):
    """A copy of the whole database to a file, answered by a `Result` with its `pages` and `bytes`.

    The copy has the state of the database when the backup begins. A reader makes it, while other
    workers read and write. The reader writes a file beside `path` and renames it at the end. So a
    file that stood at `path` before is only ever replaced by a complete copy.

    Raises:
        TypeError: `path` is not a path, `pages` is not a whole number, or `progress` cannot be
            called.
        ValueError: `path` is empty, `pages` is less than 1, or `timeout` is negative or NaN.
    """

    path: str
    """The absolute path of the copy."""
    pages: int
    """How many pages are copied in one step. The backup can be cancelled between two steps."""
    progress: Callable[[int, int], object] | None
    """Called on a worker's thread with the number of pages copied and the number of all pages. Keep
    it short. If it raises, the backup fails with that error."""
    timeout: float | None
    """Seconds from `ask` until the answer, as in a `Query`."""

    _hidden = frozenset({"progress"})

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        pages: int = 1000,
        progress: Callable[[int, int], object] | None = None,
        timeout: float | None = None,
    ) -> None:
        store(self, "path", checked_path("Backup", path))
        check_whole("Backup", "pages", pages, at_least=1)
        store(self, "pages", pages)
        if progress is not None and not callable(progress):
            message = f"Backup(progress) must be a function, not {type(progress).__name__}"
            raise TypeError(message)
        store(self, "progress", progress)
        if timeout is not None:
            check_timeout("Backup", timeout)
        store(self, "timeout", timeout)

    @property
    def sql(self) -> str:
        """The text that a status and an error show in the place of a statement."""
        return f"backup to {self.path}"

    def __str__(self) -> str:
        return f"Backup({shorten(self.path)!r})"


class Interactive(Record):
    """A transaction whose requests come one by one. See `SupervisorRef.transaction`."""

    readonly: bool
    timeout: float | None
    wait: float | None = None
    """Seconds from `begin` until the transaction has begun. `None` is no separate limit."""
    isolation: str | None = None
    """As for a `Transaction`."""

    @property
    def sql(self) -> str:
        """The text that a status and an error show in the place of a statement."""
        return "an interactive transaction, readonly" if self.readonly else "an interactive transaction"

    def __str__(self) -> str:
        options = ["readonly=True"] if self.readonly else []
        if self.isolation is not None:
            options.append(f"isolation={self.isolation!r}")
        if self.wait is not None:
            options.append(f"wait={self.wait:g}")
        return f"transaction({', '.join(options)})"


class Status(Record):
    """Ask for a `CrewStatus`: a snapshot of the whole crew, taken in one step."""


class Cancel(Record):
    """Cancel the job with an id, as `SupervisorRef.cancel` does. The answer is a `bool`.

    Raises:
        TypeError: the id is not a whole number.
    """

    job_id: int
    """The job's id, as `Status` shows it."""

    def __post_init__(self) -> None:
        if type(self.job_id) is not int:
            message = f"Cancel(job_id) must be the number of a job, not {type(self.job_id).__name__}"
            raise TypeError(message)


class Subscribe(Record):
    """Ask the crew to send its events to an actor.

    The events are `WorkerUp`, `WorkerLost`, `Suspended` and `Resumed`.
    The answer is `None`. The actor gets an event at once for each worker that is up, and one if the
    crew is suspended. Afterwards it gets an event for each change. The crew forgets an actor that
    has ended.

    A job's `DatabaseUnavailable` travels another way. It may arrive after the `Resumed` that ended
    its reason.
    """

    actor_ref: pykka.ActorRef[Any]
    """The actor that gets the events."""

    def __post_init__(self) -> None:
        _check_ref("Subscribe", self.actor_ref)


class Unsubscribe(Record):
    """Ask the crew to send no more events to an actor. The answer is `None`."""

    actor_ref: pykka.ActorRef[Any]
    """The actor that gets no more events."""

    def __post_init__(self) -> None:
        _check_ref("Unsubscribe", self.actor_ref)


Request: TypeAlias = Query | Script | Transaction | Call[Any] | Stream | Backup | Interactive
"""A request that a worker runs on its connection."""

REQUESTS = (Query, Script, Transaction, Call, Stream, Backup)
"""The classes of requests that `ask` hands to a worker, for `isinstance`."""


def can_be_told(message: object) -> bool:
    """Say whether `tell` takes `message`.

    That is a `Cancel`, or any request but a `Stream`, whose rows need a reader.
    """
    return isinstance(message, (*REQUESTS, Cancel)) and not isinstance(message, Stream)


class WaitUntilUp(Record):
    """Message from `SupervisorRef.wait` to the supervisor."""

    reply: Any
    """The supervisor settles it once a worker has opened the database, or cannot open it."""


class WorkerDown(Record):
    """Message from a worker to its supervisor, sent exactly once: the worker is gone."""

    worker_id: int
    cause: BaseException | None
    """The reason of its death. `None` if the supervisor asked the worker to stop."""
    was_idle: bool = False
    """Whether its connection was good before, and ended between two jobs."""


class Shutdown(Record):
    """Message from `SupervisorRef.shutdown` to the supervisor."""

    cancel_pending: bool
    timeout: float | None
    """Seconds until running jobs are interrupted. `None` is never."""


def shorten(sql: str) -> str:
    """Return `sql` on one line and short enough to stand in an error or a status."""
    line = " ".join(sql[: 4 * _SHOWN].split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def _check_sql(kind: str, sql: object) -> None:
    if not isinstance(sql, str):
        message = f"{kind}(sql) must be a str, not {type(sql).__name__}"
        raise TypeError(message)
    if not sql or sql.isspace():
        message = f"{kind}(sql) is empty: it must hold a statement"
        raise ValueError(message)


def _checked_queries(queries: object) -> tuple[Query, ...]:
    if isinstance(queries, (str, Query)) or not isinstance(queries, Iterable):
        message = f"Transaction(queries) must be a sequence of Query, not {type(queries).__name__}"
        raise TypeError(message)
    checked = tuple(queries)
    for query in checked:
        if not isinstance(query, Query):
            message = f"Transaction(queries) must hold Query alone, not {type(query).__name__}"
            raise TypeError(message)
        if query.timeout is not None:
            message = "a Query of a Transaction cannot have a timeout of its own: give it to the Transaction"
            raise ValueError(message)
    if not checked:
        message = "Transaction(queries) is empty: it must hold a Query"
        raise ValueError(message)
    return checked


def _check_ref(kind: str, ref: object) -> None:
    if not isinstance(ref, pykka.ActorRef):
        message = f"{kind}(actor_ref) must be a pykka.ActorRef, not {type(ref).__name__}"
        raise TypeError(message)
