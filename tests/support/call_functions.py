"""Functions for `Call`, at the top level of a module, as child processes need them."""

import contextvars
import os
import threading
from typing import Any

import apsw

from tests.support.faulty_child_database import Broken


def move(connection: apsw.Connection, old: int, new: int) -> int:
    """Change one number into another; return how many there are."""
    connection.execute("DELETE FROM kept WHERE number = ?", (old,))
    if connection.changes() != 1:
        raise LookupError(f"there is no {old}")
    connection.execute("INSERT INTO kept VALUES (?)", (new,))
    return connection.execute("SELECT count(*) FROM kept").get


def insert_and_return_a_lock(connection: apsw.Connection, number: int) -> Any:
    connection.execute("INSERT INTO kept VALUES (?)", (number,))
    return threading.Lock()


def insert_and_return_bytes(connection: apsw.Connection, number: int, size: int) -> bytes:
    connection.execute("INSERT INTO kept(number) VALUES (?)", (number,))
    return bytes(size)


def insert_and_return_broken(connection: apsw.Connection, number: int) -> Broken:
    """Insert a number, and return a value that cannot be put together in another process."""
    connection.execute("INSERT INTO kept VALUES (?)", (number,))
    return Broken()


def return_it(connection: apsw.Connection, value: Any) -> Any:
    """Return the argument."""
    return value


def return_an_error(connection: apsw.Connection) -> ValueError:
    return ValueError("a value, and nothing that was raised")


def end_it(connection: apsw.Connection, how: str) -> None:
    connection.execute("INSERT INTO kept VALUES (77)")
    connection.execute(how)


def spoil(connection: apsw.Connection) -> None:
    """Leave behind every change that a function can make to a connection."""
    connection.execute("CREATE TEMP TABLE left_behind(x)")
    connection.create_scalar_function("left_behind", lambda: 1)
    connection.set_row_trace(lambda cursor, row: ("spoilt",))
    connection.set_exec_trace(lambda cursor, sql, bindings: False)
    connection.set_busy_timeout(0)
    connection.set_authorizer(lambda *args: apsw.SQLITE_DENY)
    connection.set_progress_handler(lambda: True, 1)


def bound(connection: apsw.Connection, what: str) -> Any:
    """Return something that belongs to the connection."""
    match what:
        case "connection":
            return connection
        case "cursor":
            return connection.execute("SELECT 1")
        case "in a list":
            return [1, connection.execute("SELECT 1")]
        case "generator":
            return (row for row in connection.execute("SELECT 1"))


def harmful(connection: apsw.Connection) -> None:
    """Let SQL call functions that raise an error with their argument, for `on_connect`."""
    for error in (ValueError, SystemExit, apsw.CorruptError):

        def harm(value: Any, error: type[BaseException] = error) -> None:
            raise error(value)

        connection.create_scalar_function(f"raise_{error.__name__}", harm)


def raise_it(connection: apsw.Connection, error: type[BaseException], value: Any) -> None:
    raise error(value)


def where(connection: apsw.Connection) -> int:
    return os.getpid()


def close(connection: apsw.Connection) -> None:
    connection.close(True)


def wait_for_ever(connection: apsw.Connection) -> None:
    connection.execute(
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    ).fetchall()


def execute(connection: apsw.Connection, sql: str) -> None:
    connection.execute(sql).fetchall()


def rows_of(connection: apsw.Connection, sql: str) -> list[Any]:
    return connection.execute(sql).fetchall()


def last_rowid_after(connection: apsw.Connection, sql: str) -> int:
    connection.execute(sql).fetchall()
    return connection.execute("SELECT last_insert_rowid()").get


def insert_around(connection: apsw.Connection, insert: str, ends: list[str]) -> None:
    """Insert, end the transaction by hand, and insert again."""
    connection.execute(insert, (1,))
    for sql in ends:
        connection.execute(sql)
    connection.execute(insert, (2,))


def sum_twice(connection: apsw.Connection, path: str) -> int:
    """Read half of a table, let another connection change and write back all of it.

    Read the rest.
    """
    read = connection.execute("SELECT number FROM kept")
    found = sum(number for (number,) in (next(read) for _ in range(50)))
    other = apsw.Connection(path)
    other.execute("UPDATE kept SET number = 2")
    other.close()
    return found + sum(number for (number,) in read)


def return_in_containers(connection: apsw.Connection) -> Any:
    return {"a": [1, (2, threading.Lock())]}


def insert_into_kept(connection: apsw.Connection, number: int) -> None:
    connection.execute("INSERT INTO kept VALUES (?)", (number,))


def context_of_the_call(connection: apsw.Connection) -> dict[str, Any]:
    """Return the context variables that the function sees."""
    return {variable.name: value for variable, value in contextvars.copy_context().items()}


def insert_and_fail(connection: apsw.Connection, number: int) -> None:
    connection.execute("INSERT INTO kept VALUES (?)", (number,))
    raise LookupError(number)


def insert_it(connection: apsw.Connection, number: int) -> int:
    connection.execute("INSERT INTO kept VALUES (?)", (number,))
    return number


CURSORS: list[apsw.Cursor] = []


def leave_a_writing_cursor(connection: apsw.Connection) -> None:
    """Leave a statement in the middle of its work: nothing can be released meanwhile."""
    CURSORS.append(connection.execute("INSERT INTO kept VALUES (50), (51), (52) RETURNING number"))


def end_it_only(connection: apsw.Connection, how: str) -> None:
    connection.execute(how)


def run_it(connection: apsw.Connection, sql: str) -> list[tuple[object, ...]]:
    return connection.execute(sql).fetchall()


def leave_a_reading_cursor_and_run(connection: apsw.Connection, sql: str) -> None:
    CURSORS.append(connection.execute("SELECT number FROM kept"))
    next(CURSORS[-1])
    connection.execute(sql)


def insert_later(connection: Any, number: int) -> Any:
    """Return a generator, which would use the connection in the thread of its reader."""
    return (connection.cursor().execute(f"INSERT INTO kept VALUES ({each})") for each in [number])


def insert_both(connection: Any, first: int, second: int) -> int:
    """Insert two numbers by any driver's connection, and return their sum."""
    # A cursor of DuckDB is another connection, outside the transaction.
    runner = connection if hasattr(connection, "execute") else connection.cursor()
    for number in (first, second):
        runner.execute(f"INSERT INTO kept VALUES ({number})")
    return first + second
