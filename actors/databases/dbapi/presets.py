"""Presets: facts about drivers that PEP 249 does not have.

A preset is found by the class of a connection, so its driver need not be imported here.
"""

import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final

from actors.databases.rows import Rows
from actors.values.requests import Query
from actors.values.result import Result

if TYPE_CHECKING:
    from actors.databases.dbapi.database import DBAPI

__all__ = ["Preset", "count_of", "preset_of", "result_of", "run_sql"]


def run_sql(connection: Any, *statements: str) -> None:
    """Run statements without rows."""
    cursor = connection.cursor()
    try:
        for sql in statements:
            cursor.execute(sql)
    finally:
        cursor.close()


def columns_of(cursor: Any) -> tuple[str, ...]:
    """Return the names of the columns of a cursor; none if it has no rows."""
    return tuple([str(column[0]) for column in cursor.description or ()])


def count_of(cursor: Any) -> int:
    """Return the number of changed rows. Drivers have -1 or `None` if they do not know it."""
    return max(cursor.rowcount or 0, 0)


def tuples(rows: Any) -> list[tuple[Any, ...]]:
    """Return rows of a driver as plain tuples."""
    if not rows or (type(rows[0]) is tuple and type(rows) is list):
        return list(rows) if type(rows) is not list else rows
    if isinstance(rows[0], dict):
        return [tuple(row.values()) for row in rows]
    return [tuple(row) for row in rows]


def result_of(cursor: Any, query: Query) -> Result:
    """Return the rows of a cursor, `max_rows` at most, or the number of changed rows."""
    max_rows = query.max_rows
    if cursor.description is None:
        # A cursor of `sqlite3` tells the last rowid of its connection after other statements, too.
        inserts = query.sql.lstrip()[:7].upper().startswith(("INSERT", "REPLACE"))
        last = getattr(cursor, "lastrowid", None) if inserts else None
        return Result((), [], count_of(cursor), last or None)
    rows = tuples(cursor.fetchall() if max_rows is None else cursor.fetchmany(max_rows + 1))
    result = Result(columns_of(cursor), rows, len(rows))
    return result if max_rows is None else result._limited(max_rows)


class CursorRows(Rows):
    """The rows of a cursor, by `fetchmany`."""

    def __init__(self, cursor: Any, fetched: Callable[[Any], list[tuple[Any, ...]]]) -> None:
        super().__init__()
        self._cursor = cursor
        self._columns = columns_of(cursor)
        self._tuples = fetched

    def next_chunk(self, most: int) -> Result:
        """Return the next rows; see `Rows`."""
        rows = self._tuples(self._cursor.fetchmany(most))
        return Result(self._columns, rows, len(rows), None, len(rows) == most)

    def keep(self) -> None:
        """Do nothing: the driver has other cursors; see `Rows`."""

    def close(self) -> None:
        """Close the cursor; see `Rows`."""
        self._cursor.close()


class Preset:
    """A driver about which nothing is known but PEP 249."""

    savepoints: ClassVar[bool] = False
    """Whether an error in a transaction can undo its own request alone."""
    is_embedded: ClassVar[bool] = False
    """Whether the database runs in this process, so that a statement may harm the connection."""
    interrupts_at_once: ClassVar[bool] = False
    """Whether `interrupt` never blocks and never hits a later statement."""
    counts_many: ClassVar[bool] = True
    """Whether the `rowcount` of `executemany` is the sum over all runs."""

    has_one_result: ClassVar[bool] = False
    """As of `DriverConnection`."""

    # The functions that `DBAPI` describes, each with the driver's connection first.
    interrupt: Callable[[Any], object] | None = None
    autocommit: Callable[[Any, bool], object] | None = None
    begin: Callable[[Any, bool, str | None], object] | None = None
    in_transaction: Callable[[Any], bool] | None = None
    script: Callable[[Any, str], int] | None = None

    def __init__(self, database: "DBAPI") -> None:
        self.database = database

    def is_lost(self, connection: Any, error: Exception) -> bool:
        """Say whether the connection says that it is closed."""
        del error
        closed = getattr(connection, "closed", False)
        return bool(closed) and not callable(closed)

    def check(self, connection: Any) -> object:
        """Do nothing: nothing is known about an idle connection."""

    def end_transaction(self, connection: Any) -> None:
        """Restore the settings that `begin` has changed."""

    def descriptor(self, connection: Any) -> int | None:
        """Return the descriptor of the connection's socket, if it is known."""
        del connection
        return None

    def rows_of(self, connection: Any, sql: str, params: Any, number: int) -> Rows:
        """Run a query, and return its rows, which the driver may keep in memory."""
        del number
        cursor = connection.cursor()
        try:
            cursor.execute(sql, params) if params else cursor.execute(sql)
            return CursorRows(cursor, self.tuples)
        except BaseException:
            cursor.close()
            raise

    def tuples(self, rows: Any) -> list[tuple[Any, ...]]:
        """Return rows of the driver as plain tuples of values that belong to no connection."""
        return tuples(rows)

    def result(self, cursor: Any, query: Query) -> Result:
        """Return the answer to a statement."""
        return result_of(cursor, query)


def _level(isolation: str | None, levels: frozenset[str], database: str) -> str:
    """Return the isolation level for a statement. Raise `ValueError` if the database lacks it."""
    if isolation is None:
        return ""
    if isolation not in levels:
        message = f"isolation={isolation!r}: {database} has {', '.join(sorted(levels))}"
        raise ValueError(message)
    return f"ISOLATION LEVEL {isolation.upper()}"


_LEVELS: Final = frozenset({"read uncommitted", "read committed", "repeatable read", "serializable"})


class _SQLite3(Preset):
    """`sqlite3` of the standard library."""

    savepoints = True
    is_embedded = True
    interrupts_at_once = True

    # SQLITE_IOERR, SQLITE_CORRUPT and SQLITE_NOTADB.
    _LOST: Final = frozenset({10, 11, 26})

    def interrupt(self, connection: Any) -> None:
        connection.interrupt()

    def autocommit(self, connection: Any, on: bool) -> None:
        connection.isolation_level = None if on else "DEFERRED"

    def begin(self, connection: Any, readonly: bool, isolation: str | None) -> None:
        _level(isolation, frozenset({"serializable"}), "SQLite")
        if readonly:
            run_sql(connection, "PRAGMA query_only = 1", "BEGIN")
        else:
            run_sql(connection, "BEGIN IMMEDIATE")

    def end_transaction(self, connection: Any) -> None:
        run_sql(connection, "PRAGMA query_only = 0")

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection.in_transaction)

    def is_lost(self, connection: Any, error: Exception) -> bool:
        del connection
        code = getattr(error, "sqlite_errorcode", None)
        return "closed database" in str(error) or (code is not None and code & 0xFF in self._LOST)

    def script(self, connection: Any, sql: str) -> int:
        # `executescript` would commit an open transaction first.
        from actors.databases.sqlite.sql_text import is_blank, statements_of

        changed = 0
        cursor = connection.cursor()
        try:
            for statement in statements_of(sql):
                if not is_blank(statement):
                    cursor.execute(statement)
                    changed += 0 if cursor.description else count_of(cursor)
                    cursor.fetchall()
        finally:
            cursor.close()
        return changed


class _Server(Preset):
    """A database server, which a socket reaches."""

    savepoints = True

    def check(self, connection: Any) -> object:
        """Raise if the server has closed an idle connection. Takes a microsecond."""
        descriptor = self.descriptor(connection)
        if descriptor is None or descriptor < 0:
            message = "the connection is closed"
            raise ConnectionResetError(message)
        poll = select.poll()
        poll.register(descriptor, _HANGS_UP)
        if poll.poll(0):
            message = "the server has closed the idle connection"
            raise ConnectionResetError(message)
        return None


# `POLLRDHUP` exists only on Linux.
_HANGS_UP: Final = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class _Psycopg2(_Server):
    """psycopg2, for PostgreSQL."""

    counts_many = False

    def interrupt(self, connection: Any) -> None:
        connection.cancel()

    def autocommit(self, connection: Any, on: bool) -> None:
        connection.autocommit = on

    def begin(self, connection: Any, readonly: bool, isolation: str | None) -> None:
        level = _level(isolation, _LEVELS, "PostgreSQL")
        run_sql(connection, f"BEGIN {level} {'READ ONLY' if readonly else ''}")

    def in_transaction(self, connection: Any) -> bool:
        return not connection.closed and bool(connection.get_transaction_status())

    def is_lost(self, connection: Any, error: Exception) -> bool:
        del error
        return bool(connection.closed)

    def descriptor(self, connection: Any) -> int | None:
        return None if connection.closed else int(connection.fileno())

    def script(self, connection: Any, sql: str) -> int:
        # PostgreSQL runs all statements, as one transaction unless the script has BEGIN and COMMIT.
        cursor = connection.cursor()
        try:
            cursor.execute(sql)
            return 0 if cursor.description else count_of(cursor)
        finally:
            cursor.close()

    def tuples(self, rows: Any) -> list[tuple[Any, ...]]:
        return [tuple([bytes(value) if type(value) is memoryview else value for value in row]) for row in rows]

    def result(self, cursor: Any, query: Query) -> Result:
        result = result_of(cursor, query)
        if cursor.description and any(column[1] == _BYTEA for column in cursor.description):
            result.rows = self.tuples(result.rows)
        result.lastrowid = None  # an object identifier, which tables no longer have
        return result

    def rows_of(self, connection: Any, sql: str, params: Any, number: int) -> Rows:
        """Declare a cursor on the server: rows come from there chunk by chunk."""
        if not self.in_transaction(connection):
            run_sql(connection, "BEGIN READ ONLY")
        name = f"querycrew_{number}"
        cursor = connection.cursor()
        try:
            declare = f"DECLARE {name} NO SCROLL CURSOR FOR {sql}"
            cursor.execute(declare, params) if params else cursor.execute(declare)
        finally:
            cursor.close()
        return _ServerRows(connection, name, self.tuples)


_BYTEA: Final = 17  # PostgreSQL's number of the type


class _ServerRows(Rows):
    """The rows of a cursor of PostgreSQL."""

    def __init__(self, connection: Any, name: str, fetched: Callable[[Any], list[tuple[Any, ...]]]) -> None:
        super().__init__()
        self._connection = connection
        self._name = name
        self._tuples = fetched

    def next_chunk(self, most: int) -> Result:
        cursor = self._connection.cursor()
        try:
            cursor.execute(f"FETCH {most} FROM {self._name}")
            rows = self._tuples(cursor.fetchall())
            return Result(columns_of(cursor), rows, len(rows), None, len(rows) == most)
        finally:
            cursor.close()

    def keep(self) -> None:
        """Do nothing: the server keeps the cursor beside other statements."""

    def close(self) -> None:
        """Close the cursor, unless an error has ended its transaction."""
        with suppress(Exception):
            if self._connection.get_transaction_status() == _IN_TRANSACTION:
                run_sql(self._connection, f"CLOSE {self._name}")


_IN_TRANSACTION: Final = 2  # psycopg2.extensions.TRANSACTION_STATUS_INTRANS


class _PyMySQL(_Server):
    """PyMySQL, for MySQL and MariaDB."""

    has_one_result = True

    # The server is gone; lost during a query; packets out of order; the same, of newer servers.
    _LOST: Final = frozenset({0, 2006, 2013, 2014, 2055, 4031})

    def interrupt(self, connection: Any) -> None:
        """Kill the running query over a second connection."""
        database = self.database
        other = database.connect_function(*database.args, **dict(database.kwargs))
        try:
            run_sql(other, f"KILL QUERY {connection.thread_id()}")
        finally:
            other.close()

    def autocommit(self, connection: Any, on: bool) -> None:
        connection.autocommit(on)

    def begin(self, connection: Any, readonly: bool, isolation: str | None) -> None:
        level = _level(isolation, _LEVELS, "MySQL")
        before = [f"SET TRANSACTION {level}"] if level else []
        run_sql(connection, *before, f"START TRANSACTION READ {'ONLY' if readonly else 'WRITE'}")

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection.server_status & 1)  # SERVER_STATUS_IN_TRANS, as of the last answer

    def is_lost(self, connection: Any, error: Exception) -> bool:
        code = error.args[0] if error.args else None
        return not connection.open or code in self._LOST

    def descriptor(self, connection: Any) -> int | None:
        sock = getattr(connection, "_sock", None)
        return None if sock is None else int(sock.fileno())

    def rows_of(self, connection: Any, sql: str, params: Any, number: int) -> Rows:
        """Read the rows from the socket as they are taken."""
        del number
        from pymysql.cursors import SSCursor  # type: ignore[import-untyped]  # its connection is open, so it is here

        cursor = connection.cursor(SSCursor)
        try:
            cursor.execute(sql, params) if params else cursor.execute(sql)
        except BaseException:
            cursor.close()
            raise
        return _SocketRows(cursor, lambda: self.interrupt(connection))


class _SocketRows(Rows):
    """Rows that lie in a socket: they must be read before the next statement."""

    def __init__(self, cursor: Any, kill: Callable[[], object]) -> None:
        super().__init__()
        self._cursor = cursor
        self._kill = kill
        self._columns = columns_of(cursor)
        # The rows that are left, once they are in memory.
        self._kept: list[tuple[Any, ...]] | None = None
        self._is_over = False

    def next_chunk(self, most: int) -> Result:
        if self._kept is None:
            rows = tuples(self._cursor.fetchmany(most))
        else:
            rows, self._kept = self._kept[:most], self._kept[most:]
        self._is_over = self._is_over or len(rows) < most
        return Result(self._columns, rows, len(rows), None, len(rows) == most)

    def keep(self) -> None:
        if self._kept is None:
            self._kept = tuples(list(self._cursor.fetchall()))
            self._is_over = True

    def close(self) -> None:
        """End the query on the server if it has more rows, since closing reads all of them."""
        cursor, self._kept = self._cursor, []
        if not self._is_over:
            self._is_over = True
            with suppress(Exception):  # without it closing takes longer
                self._kill()
            with suppress(Exception):  # the error of the killed query
                cursor.close()
            # PyMySQL reads that error, and takes the result for unread afterwards.
            result = getattr(cursor, "_result", None)
            if result is not None:
                result.unbuffered_active = False
        cursor.close()


_PRESETS: Final[dict[str, type[Preset]]] = {"sqlite3": _SQLite3, "psycopg2": _Psycopg2, "pymysql": _PyMySQL}


def preset_of(database: "DBAPI", connection: Any) -> Preset:
    """Return the preset for the class of a connection, or for a class that it derives from."""
    for kind in type(connection).__mro__:
        preset = _PRESETS.get(kind.__module__.partition(".")[0])
        if preset is not None:
            return preset(database)
    return Preset(database)


def shut_down(descriptor: int) -> None:
    """End the traffic of a socket, so that a thread that waits for it goes on. Never blocks."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
        sock.shutdown(socket.SHUT_RDWR)
