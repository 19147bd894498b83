"""What is said to the crew, and inside it: frozen values, nothing else."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar, TypeVarTuple

import pykka

from actors.values.checks import check_bool, check_timeout, check_whole, checked_path
from actors.values.parameters import PLAIN, Parameters, copied, copied_rows
from actors.values.record import Record, store

__all__ = [
    "REQUESTS",
    "Backup",
    "Call",
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

    Lists, dictionaries and buffers are copied, so a caller may go on changing its own.

    Raises:
        TypeError: `sql` is not a string, `params` is neither a sequence of values nor a
            mapping of names to values, a value is a buffer of a class that is refused,
            `timeout` is no number, or `max_rows` no whole one.
        ValueError: `sql` is empty, `timeout` is negative or NaN, `max_rows` is negative, or there are `params` and
            `many`.
    """

    sql: str
    """Exactly one statement; comments and a trailing semicolon are fine."""
    params: Parameters = ()
    """Never shown in a `repr`, a log, an error or a status.

    A `bytearray`, `memoryview`, `array.array` or `mmap` becomes `bytes`. A NumPy number becomes a
    Python number, and a NumPy array is refused. A value without a buffer is left to the driver."""
    timeout: float | None = None
    """Seconds from the asking until the answer: queue, lock and run together. `None` means the crew's default, and
    infinity none, whatever the crew's is."""
    many: tuple[Parameters, ...] | None = None
    """Parameters for each of many runs, instead of `params`: all of them take effect, or none. The `rowcount` is the
    sum."""
    max_rows: int | None = None
    """The most rows that the `Result` is to hold; it says whether there were more (`truncated`). `None` is no limit."""

    _hidden = frozenset({"params", "many"})

    def __init__(
        self,
        sql: str,
        params: Parameters = (),
        timeout: float | None = None,
        *,
        many: Iterable[Parameters] | None = None,
        max_rows: int | None = None,
    ) -> None:
        # By hand, since every job pays for it: the generated one and a __post_init__ take half as long again.
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

    def __str__(self) -> str:
        return f"Query({shorten(self.sql)!r})"


class Script(Record):
    """Several SQL statements, run one after the other on one connection.

    Their rows are not kept: the `Result` that answers it has no rows, and its
    `rowcount` is the number of rows that all statements together changed. Each
    statement commits by itself unless the script says `BEGIN` and `COMMIT`; after
    an error the statements before it stay done.

    Raises:
        TypeError: `sql` is not a string.
        ValueError: `sql` is empty.
    """

    sql: str
    """Statements separated by semicolons; no parameters."""
    timeout: float | None = None
    """Seconds from the asking until the answer, as for `Query`."""

    def __post_init__(self) -> None:
        _check_sql("Script", self.sql)
        if self.timeout is not None:
            check_timeout("Script", self.timeout)

    def __str__(self) -> str:
        return f"Script({shorten(self.sql)!r})"


class Transaction(Record):
    """Queries that take effect together, or not at all; answered by the list of their results.

    They run one after the other on one connection, in a transaction that has the right to write from its beginning
    (`BEGIN IMMEDIATE`). After an error none of them has taken effect; a note of the error says which one it was.

    Raises:
        TypeError: `queries` is no sequence of `Query`.
        ValueError: `queries` is empty, or one of them has a `timeout` of its own.
    """

    queries: tuple[Query, ...]
    """What is run, in that order. None of them may begin or end a transaction."""
    readonly: bool
    """Whether they only read: all of them see the same state of the database, and nobody waits for them."""
    timeout: float | None
    """Seconds from the asking until the answer, as for `Query`."""

    def __init__(self, queries: Iterable[Query], *, readonly: bool = False, timeout: float | None = None) -> None:
        store(self, "queries", _checked_queries(queries))
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
    """A function that is called with the driver's connection, inside a transaction; answered by what it returns.

    For work that needs Python between statements: `Call(move, 5, 7)` calls `move(connection, 5, 7)` on a worker. If it
    raises, its caller gets that, and nothing has taken effect. What it changes of the connection itself is gone
    afterwards. In a crew of child processes the function has to be importable there, and what it returns be sendable.
    A thread gets the very objects in `args`, a child gets copies: do not change them until the
    call has returned.

    Raises:
        TypeError: `function` cannot be called.
    """

    function: Callable[..., T]
    """What is called. It must not end the transaction, nor keep the connection."""
    args: tuple[Any, ...]
    """What it is called with, behind the connection. Never shown."""
    readonly: bool
    """Whether it only reads."""
    timeout: float | None
    """Seconds from the asking until the answer, as for `Query`."""

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
        """What stands for a statement where one is told: the function's name."""
        function = unbound(self.function)
        name = getattr(function, "__qualname__", type(function).__qualname__)
        return f"{getattr(function, '__module__', None)}.{name}"

    def __str__(self) -> str:
        return f"Call({self.sql})"

    def __repr__(self) -> str:
        # The `repr` of a partial function, or of a method's object, may show a parameter.
        return f"Call({self.sql}, readonly={self.readonly}, timeout={self.timeout})"


def unbound(function: Callable[..., Any]) -> Any:
    """Return the function that a partial one calls in the end."""
    while isinstance(function, partial):
        function = function.func
    return function


class Stream(Record):
    """One SQL statement that reads, whose rows come as they are taken; answered by a `RowStream`.

    For results that do not fit into memory. Its worker is for nobody else until the stream ends, which is why a
    `timeout` is worth having.

    Raises:
        TypeError: `sql` is not a string, `params` neither a sequence nor a mapping, `chunk` no whole number.
        ValueError: `sql` is empty, `chunk` less than 1, `timeout` negative or NaN.
    """

    sql: str
    """Exactly one statement, which only reads."""
    params: Parameters
    """As for `Query`."""
    chunk: int
    """How many rows are fetched at a time."""
    timeout: float | None
    """Seconds from the asking until the last row is taken. `None` means the crew's default, and infinity none."""

    _hidden = frozenset({"params"})

    def __init__(self, sql: str, params: Parameters = (), *, chunk: int = 2000, timeout: float | None = None) -> None:
        _check_sql("Stream", sql)
        store(self, "sql", sql)
        store(self, "params", copied(params, "Stream"))
        check_whole("Stream", "chunk", chunk, at_least=1)
        store(self, "chunk", chunk)
        if timeout is not None:
            check_timeout("Stream", timeout)
        store(self, "timeout", timeout)

    def __str__(self) -> str:
        return f"Stream({shorten(self.sql)!r})"


class Backup(Record):
    """A copy of the whole database, as it is now, to a file; answered by a `Result` with its pages and bytes.

    It is taken by a worker that reads, while others read and write. The file is written beside its place and put there
    at the end: what was there before is lost only to a whole copy.

    Raises:
        TypeError: `path` is no path, `pages` no whole number, `progress` cannot be called.
        ValueError: `path` is empty, `pages` less than 1, `timeout` negative or NaN.
    """

    path: str
    """Where the copy will stand, absolute."""
    pages: int
    """How many pages are copied at a time; between them it can be cancelled."""
    progress: Callable[[int, int], object] | None
    """Called on a worker's thread with how many pages are copied, and how many there are; keep it short. If it raises,
    the backup fails with that."""
    timeout: float | None
    """Seconds from the asking until the answer, as for `Query`."""

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
        """What stands for a statement where one is told."""
        return f"backup to {self.path}"

    def __str__(self) -> str:
        return f"Backup({shorten(self.path)!r})"


class Interactive(Record):
    """A transaction whose statements come one by one: see `SupervisorRef.transaction`."""

    readonly: bool
    timeout: float | None
    wait: float | None = None
    """Seconds from the asking until it has begun; `None` is no limit of its own."""

    @property
    def sql(self) -> str:
        """What stands for a statement where one is told."""
        return "an interactive transaction, readonly" if self.readonly else "an interactive transaction"

    def __str__(self) -> str:
        options = ["readonly=True"] if self.readonly else []
        if self.wait is not None:
            options.append(f"wait={self.wait:g}")
        return f"transaction({', '.join(options)})"


class Status(Record):
    """Asks for a `CrewStatus`: a snapshot of the whole crew, taken at once."""


class Subscribe(Record):
    """Asks that an actor be told `WorkerUp`, `WorkerLost`, `Suspended` and `Resumed`; answered by `None`.

    It is told at once which workers are up, and whether the crew is suspended; then what changes. A job's
    `DatabaseUnavailable` comes another way, and may come after the `Resumed` that ends its reason. An actor that
    has ended is forgotten by itself.
    """

    actor_ref: pykka.ActorRef[Any]
    """Who is told."""

    def __post_init__(self) -> None:
        _check_ref("Subscribe", self.actor_ref)


class Unsubscribe(Record):
    """Asks that an actor be told nothing more; answered by `None`."""

    actor_ref: pykka.ActorRef[Any]
    """Who was told."""

    def __post_init__(self) -> None:
        _check_ref("Unsubscribe", self.actor_ref)


Request: TypeAlias = Query | Script | Transaction | Call[Any] | Stream | Backup | Interactive
"""What a worker runs on its connection."""

REQUESTS = (Query, Script, Transaction, Call, Stream, Backup)
"""What a crew can be asked, for `isinstance`."""


def can_be_told(message: object) -> bool:
    """Say whether `tell` takes `message`: any request but a `Stream`, whose rows somebody must read."""
    return isinstance(message, REQUESTS) and not isinstance(message, Stream)


class WaitUntilUp(Record):
    """From `SupervisorRef.wait` to the supervisor."""

    reply: Any
    """Settled once a worker has opened the database, or cannot."""


class WorkerDown(Record):
    """From a worker to its supervisor, exactly once in its life: it is gone."""

    worker_id: int
    cause: BaseException | None
    """Why it died; `None` where it was asked to go."""


class Shutdown(Record):
    """From `SupervisorRef.shutdown` to the supervisor."""

    cancel_pending: bool
    timeout: float | None
    """Seconds until running jobs are interrupted; `None` for never."""


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
