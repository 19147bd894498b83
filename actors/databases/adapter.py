"""How a worker uses the database of any author, which may leave out almost everything."""

from collections.abc import Callable
from typing import Any, Final

from actors.databases.base import Connection, Database
from actors.values.restart import RestartPolicy

__all__ = [
    "close",
    "default_size",
    "errors_of",
    "existing",
    "lanes_of",
    "max_size_in_children",
    "restart_policy",
    "usable",
]


_SET_BY_THE_CREW: Final = ("on_end", "on_wait")


class _Completed(Connection):
    """Gives the defaults of `Connection` to an object of another class.

    Each public method and attribute that the object has stands in the place of the default.
    """

    def __init__(self, connection: Any) -> None:
        self.completes = connection
        for name in vars(Connection):
            if not name.startswith("_") and name not in _SET_BY_THE_CREW and hasattr(connection, name):
                setattr(self, name, getattr(connection, name))


def usable(connection: Any) -> Connection:
    """Return an opened connection, with the defaults of `Connection` for the methods it lacks.

    Raises:
        TypeError: the object has no `execute`.
    """
    if isinstance(connection, Connection):
        return connection
    if not callable(getattr(connection, "execute", None)):
        message = f"connect() must return a connection, with a method execute(), not {type(connection).__name__}"
        raise TypeError(message)
    return _Completed(connection)


def close(opened: Any) -> None:
    """Close an object that `connect` has returned, whether it is usable or not."""
    connection = opened if isinstance(opened, Connection) else _Completed(opened)
    connection.close()


def lanes_of(database: Database) -> tuple[Database, ...]:
    """Return the database of each lane: of the workers that read, and of the worker that writes.

    A database without a method `lanes` has one lane, in which every worker does everything.
    """
    lanes: Callable[[], tuple[Database, ...]] | None = getattr(database, "lanes", None)
    return (database,) if lanes is None else lanes()


def existing(database: Database) -> Database:
    """Return the database to connect to after the first worker was up; see `Database`."""
    make: Callable[[], Database] | None = getattr(database, "existing", None)
    return database if make is None else make()


def default_size(database: Database) -> int | None:
    """Return how many workers a crew on this database has by default; see `Database`."""
    size: int | None = getattr(database, "default_size", None)
    return size


def restart_policy(database: Database) -> RestartPolicy:
    """Return when a crew on this database replaces workers by default; see `Database`."""
    policy: RestartPolicy = getattr(database, "restart", None) or RestartPolicy()
    return policy


def max_size_in_children(database: Database) -> int | None:
    """Return the most child processes that can share a database; see `Database`."""
    most: int | None = getattr(database, "max_size_in_children", database.max_size)
    return most


def errors_of(database: Database) -> tuple[type[BaseException], ...]:
    """Return the classes of the errors that the driver of a database raises; see `Database`.

    Raises:
        TypeError: the attribute `errors` is not a tuple of classes of exceptions.
    """
    errors: object = getattr(database, "errors", (Exception,))
    if isinstance(errors, tuple) and all(isinstance(each, type) and issubclass(each, BaseException) for each in errors):
        return errors
    message = f"{type(database).__name__}.errors must be a tuple of classes of exceptions"
    raise TypeError(message)
