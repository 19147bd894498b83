"""What is said to the crew, and inside it: frozen values, nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pykka

from actors.frozen import Frozen, store

__all__ = ["Parameters", "Query", "Request", "Script", "Shutdown", "Status", "Subscribe", "Unsubscribe", "WorkerDown"]

Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]
"""Positional values for `?`, or values by name for `:a`, `@a` and `$a`."""

_SHOWN = 120  # characters of a statement that a repr, an error or a status shows


class Query(Frozen):
    """One SQL statement with its parameters, answered by a `Result`.

    Lists and dictionaries are copied, so a caller may go on changing its own.

    Raises:
        TypeError: `sql` is not a string, `params` is neither a sequence of values nor a
            mapping of names to values, or `timeout` is no number.
        ValueError: `sql` is empty, or `timeout` is negative or NaN.
    """

    sql: str
    """Exactly one statement; comments and a trailing semicolon are fine."""
    params: Parameters = ()
    """Never shown in a `repr`, a log, an error or a status."""
    timeout: float | None = None
    """Seconds from the asking until the answer: queue, lock and run together. `None` means the crew's default, and
    infinity none, whatever the crew's is."""

    _hidden = frozenset({"params"})

    def __init__(self, sql: str, params: Parameters = (), timeout: float | None = None) -> None:
        # By hand, since every job pays for it: the generated one and a __post_init__ take half as long again.
        if type(sql) is not str or not sql or sql.isspace():
            _check_sql("Query", sql)
        store(self, "sql", sql)
        store(self, "params", params if type(params) is tuple else _copied(params))
        if timeout is not None:
            check_timeout("Query", timeout)
        store(self, "timeout", timeout)

    def __str__(self) -> str:
        return f"Query({shorten(self.sql)!r})"


class Script(Frozen):
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


class Status(Frozen):
    """Asks for a `CrewStatus`: a snapshot of the whole crew, taken at once."""


class Subscribe(Frozen):
    """Asks that an actor be told `WorkerUp`, `WorkerLost`, `Suspended` and `Resumed`; answered by `None`.

    It is told at once which workers are up, and whether the crew is suspended; then what changes. A job's
    `DatabaseUnavailable` comes another way, and may come after the `Resumed` that ends its reason. An actor that
    has ended is forgotten by itself.
    """

    actor_ref: pykka.ActorRef[Any]
    """Who is told."""

    def __post_init__(self) -> None:
        _check_ref("Subscribe", self.actor_ref)


class Unsubscribe(Frozen):
    """Asks that an actor be told nothing more; answered by `None`."""

    actor_ref: pykka.ActorRef[Any]
    """Who was told."""

    def __post_init__(self) -> None:
        _check_ref("Unsubscribe", self.actor_ref)


Request: TypeAlias = Query | Script
"""What a worker runs on its connection."""


class WorkerDown(Frozen):
    """From a worker to its supervisor, exactly once in its life: it is gone."""

    worker_id: int
    cause: BaseException | None
    """Why it died; `None` where it was asked to go."""


class Shutdown(Frozen):
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


def check_timeout(kind: str, timeout: object) -> None:
    """Raise unless `timeout` is a number of seconds that can pass."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        message = f"{kind}(timeout) must be a number of seconds, not {type(timeout).__name__}"
        raise TypeError(message)
    if not timeout >= 0:
        message = f"{kind}(timeout={timeout}) must be 0 or more seconds"
        raise ValueError(message)


def _check_ref(kind: str, ref: object) -> None:
    if not isinstance(ref, pykka.ActorRef):
        message = f"{kind}(actor_ref) must be a pykka.ActorRef, not {type(ref).__name__}"
        raise TypeError(message)


def _copied(params: object) -> tuple[Any, ...] | dict[str, Any]:
    if isinstance(params, Mapping):
        for name in params:
            if not isinstance(name, str):
                message = f"Query(params) by name needs str names, not {type(name).__name__}"
                raise TypeError(message)
        return dict(params)
    if isinstance(params, Sequence) and not isinstance(params, (str, bytes, bytearray, memoryview)):
        return tuple(params)
    message = (
        f"Query(params) must be a sequence of values or a mapping of names to values, "
        f"not {type(params).__name__}; write (value,) for a single one"
    )
    raise TypeError(message)
