"""An unknown driver of PEP 249, on `sqlite3`, and functions for `DBAPI`."""

import sqlite3
import threading
from typing import Any

paramstyle = "qmark"


class Error(Exception):
    """The base of the errors of this driver."""


class Connection:
    """Has the methods of PEP 249 alone: no autocommit, no cancel, no sign of a loss."""

    def __init__(self, path: str) -> None:
        self._driver = sqlite3.connect(path, timeout=0)
        self._driver.isolation_level = "IMMEDIATE"
        self.thread = threading.get_ident()

    def _real(self) -> sqlite3.Connection:
        assert threading.get_ident() == self.thread, "one thread uses the connection"
        return self._driver

    def cursor(self) -> Any:
        return Cursor(self._real().cursor())

    def commit(self) -> None:
        self._real().commit()

    def rollback(self) -> None:
        self._real().rollback()

    def close(self) -> None:
        self._real().close()


class Cursor:
    """Errors are of the class `Error`."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._cursor, name)
        return self._translated(value) if callable(value) else value

    def _translated(self, function: Any) -> Any:
        def run(*args: Any) -> Any:
            try:
                return function(*args)
            except sqlite3.Error as error:
                raise Error(str(error)) from error

        return run


def connect(path: str) -> Connection:
    return Connection(path)


class _Uncounted(Cursor):
    rowcount = None


class _Uncounting(Connection):
    def cursor(self) -> Any:
        return _Uncounted(self._real().cursor())


def connect_without_counts(path: str) -> Connection:
    """Connect by a driver that has `None` in the place of a number of rows."""
    return _Uncounting(path)


def connect_freely(path: str) -> sqlite3.Connection:
    """Connect by `sqlite3`, from a module that is not the driver's."""
    return sqlite3.connect(path, timeout=0)


def interrupt(connection: Connection) -> None:
    connection._driver.interrupt()


def dead(connection: Any) -> bool:
    """A check: every idle connection is of no more use."""
    return False


def raising(connection: Any) -> None:
    message = "pinged in vain"
    raise Error(message)


def lost(connection: Any, error: Exception) -> bool:
    return "nowhere" in str(error)


def do_nothing(connection: Any) -> None:
    """An interrupt without an effect."""
