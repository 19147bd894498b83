"""DBAPI: a database that a driver of PEP 249 reaches."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from actors.values.record import Record, store
from actors.values.requests import unbound

if TYPE_CHECKING:
    from actors.databases.dbapi.connection import DBAPIConnection

__all__ = ["DBAPI"]

Function: TypeAlias = Callable[..., Any]

_OPTIONS: Final = ("interrupt", "is_lost", "check", "autocommit", "begin", "in_transaction", "script")


@final
class DBAPI(Record):
    """A database that any driver of PEP 249 reaches: `DBAPI(connect, *args, **kwargs)`.

    Each worker calls `connect(*args, **kwargs)` in its own thread, and uses the connection in that
    thread alone. Statements go to the driver unchanged, so placeholders are the driver's own.

    PEP 249 has no cancel, no autocommit and no sign of a lost connection. querycrew knows these for
    `sqlite3`, `psycopg2` and `PyMySQL`, by the class of the connection. For other drivers, or
    to replace a preset, pass the functions below. Each of them is called with the driver's
    connection first. A value of these names that is no function goes to `connect`, such as
    `autocommit=True`.

    * `interrupt(connection)` ends the running statement. It may block, since a thread of its own
      calls it. The next job waits until it has returned. Without it a statement that misses its
      deadline costs its worker, or its child in `ChildProcess(DBAPI(…))`.
    * `is_lost(connection, error)` says whether the connection is of no more use. Without it a
      connection is lost if it says that it is closed, or if its rollback fails.
    * `check(connection)` raises, or returns `False`, if an idle connection is of no more use. It is
      called before jobs are begun, so it should take microseconds.
    * `autocommit(connection, on)` turns autocommit on or off. Without it every query is followed
      by `connection.commit()`.
    * `begin(connection, readonly, isolation)` begins a transaction by a statement, while autocommit
      is on. It raises `ValueError` for a missing feature. `COMMIT` and `ROLLBACK` end it.
      Without it readonly transactions and isolation levels are refused.
    * `in_transaction(connection)` says whether a transaction is open.
    * `script(connection, sql)` runs a `Script`, and returns the number of changed rows. Without it
      a `Script` is refused.

    Raises:
        TypeError: `connect` cannot be called.
    """

    connect_function: Function
    """The driver's `connect`."""
    args: tuple[Any, ...]
    """Its arguments. Never shown."""
    kwargs: tuple[tuple[str, Any], ...]
    """Its keyword arguments. Only their names are shown."""
    interrupt: Function | None = None
    is_lost: Function | None = None
    check: Function | None = None
    autocommit: Function | None = None
    begin: Function | None = None
    in_transaction: Function | None = None
    script: Function | None = None

    def __init__(self, connect: Function, /, *args: Any, **kwargs: Any) -> None:
        if not callable(connect):
            message = f"DBAPI(connect) must be the function connect of a driver, not {type(connect).__name__}"
            raise TypeError(message)
        store(self, "connect_function", connect)
        store(self, "args", args)
        for name in _OPTIONS:
            if callable(kwargs.get(name)):
                store(self, name, kwargs.pop(name))
        store(self, "kwargs", tuple(kwargs.items()))

    @property
    def name(self) -> str:
        """The name of the driver."""
        return _module_of(self.connect_function)

    @property
    def max_size(self) -> int | None:
        """Any number, but one for a database of `sqlite3` in memory."""
        places = (*self.args[:1], dict(self.kwargs).get("database"))
        return 1 if self.name == "sqlite3" and (":memory:" in places or "" in places) else None

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The `Error` of the module of `connect`, or of a package around it; else `Exception`."""
        function = unbound(self.connect_function)
        module = str(getattr(function, "__module__", "")).lstrip("_")
        while module:
            error = getattr(sys.modules.get(module), "Error", None)
            if isinstance(error, type) and issubclass(error, Exception):
                return (error,)
            module = module.rpartition(".")[0]
        return (Exception,)

    def __str__(self) -> str:
        function = unbound(self.connect_function)
        name = getattr(function, "__name__", type(function).__name__)
        return f"DBAPI({self.name}.{'connect' if isinstance(function, type) else name})"

    def __repr__(self) -> str:
        # Any argument may hold a password.
        shown = [*("…" for _ in self.args), *(f"{name}=…" for name, _ in self.kwargs)]
        shown += [f"{name}={_name(getattr(self, name))}" for name in _OPTIONS if getattr(self, name) is not None]
        return f"{str(self)[:-1]}{''.join(f', {each}' for each in shown)})"

    def connect(self) -> "DBAPIConnection":
        """Open a connection of the driver.

        Raises:
            Exception: the driver's own. Its text shows no password.
        """
        from actors.databases.dbapi.connection import DBAPIConnection  # few programs need it

        return DBAPIConnection(self)


def _name(function: Function) -> str:
    return str(getattr(unbound(function), "__qualname__", "…"))


def _module_of(connect: Function) -> str:
    """Return the name of the driver's module, as a program imports it."""
    function = unbound(connect)
    module = str(getattr(function, "__module__", None) or type(function).__module__)
    return module.partition(".")[0].lstrip("_") or "dbapi"
