"""Functions for the campaign's `Call`s.

The module takes little memory, since a child imports it.
"""

from typing import TYPE_CHECKING, Any

import apsw

if TYPE_CHECKING:
    from tests.support.faulty_child_database import Broken

__all__ = [
    "INSERT",
    "insert_and_read",
    "insert_and_return",
    "insert_and_return_broken",
    "insert_orphans",
    "insert_regardless",
    "nothing",
    "open_or_not",
    "rows_of",
]

INSERT = "INSERT INTO written(number, part) VALUES (?, ?)"


def nothing(connection: apsw.Connection) -> None:
    """Do nothing; the connection is opened anew behind it."""


def insert_and_read(connection: apsw.Connection, number: int, rows: int, read: int) -> list[tuple[object, ...]]:
    """Insert some rows, and return some others."""
    connection.executemany(INSERT, [(number, part) for part in range(rows)])
    return connection.execute("SELECT i, word FROM seed WHERE i <= ?", (read,)).fetchall()


def insert_orphans(connection: apsw.Connection, number: int, rows: int) -> None:
    """Insert some rows, and some that cannot be committed."""
    connection.executemany(INSERT, [(number, part) for part in range(rows)])
    connection.execute("INSERT INTO orphans VALUES (?)", (number,))


def open_or_not(connection: apsw.Connection) -> None:
    """Let a third of all connections fail to open."""
    from random import random

    if random() < 1 / 3:
        message = "this connection does not open"
        raise ConnectionRefusedError(message)


def insert_regardless(connection: apsw.Connection, number: int, rows: int) -> int:
    """Insert some rows, one by one and with reads in between, and heed no interrupt."""
    done = 0
    for part in range(rows):
        connection.execute(INSERT, (number, part))
        try:
            connection.execute("SELECT sum(length(word)) FROM seed WHERE i < 500").fetchall()
        except apsw.InterruptError:
            continue
        done += 1
    return done


def rows_of(connection: apsw.Connection, sql: str, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Run statements, and return their rows."""
    return connection.execute(sql, params).fetchall()


def insert_and_return(connection: apsw.Connection, number: int, size: int) -> bytes:
    """Insert a row, and return many bytes."""
    connection.execute(INSERT, (number, 0))
    return bytes(size)


def insert_and_return_broken(connection: apsw.Connection, number: int, rows: int) -> "Broken":
    """Insert some rows, and return a value that only arrives on a thread."""
    from tests.support.faulty_child_database import Broken

    connection.executemany(INSERT, [(number, part) for part in range(rows)])
    return Broken()
