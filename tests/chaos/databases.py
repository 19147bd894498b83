"""Databases that write down which statement ran where, and break when the killer wants it."""

import sqlite3
import threading
from asyncio import CancelledError
from collections import deque
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from actors.databases.base import Connection
from actors.databases.sqlite import SQLite
from actors.errors import ConnectionLost
from actors.messages import Query, Request
from actors.result import Result

GRACE = 0.05  # seconds until a worker is given up

# Takes some milliseconds.
_COUNTING = (
    "FROM (WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 30000) "
    "SELECT max(i) AS largest FROM n) WHERE largest > 0"
)
_ENDINGS = (SystemExit, KeyboardInterrupt, GeneratorExit, CancelledError)


class Killed(BaseException):
    """The killer's asynchronous exception."""


class StatementFailed(Exception):
    """A statement's own error."""


class StatementInterrupted(Exception):
    """A statement has heeded its interrupt."""


class Scripted:
    """A database without a database: the cheapest there is, so that the crew is what is tried."""

    name = "chaos"
    max_size = None
    fails = StatementFailed

    def __init__(self) -> None:
        self.doomed: deque[int] = deque()
        """For the next statements: how each breaks its worker."""
        self.doomed_openings: deque[int] = deque()
        """For the next openings: how each fails."""
        # One list a connection, which only its own thread appends to.
        self._ran: list[list[int]] = []

    def __str__(self) -> str:
        return f"{type(self).__name__}()"

    def connect(self) -> Connection:
        doom = _next(self.doomed_openings)
        if doom is not None:
            raise _ENDINGS[0]("opening") if doom else OSError("opening")
        ran: list[int] = []
        self._ran.append(ran)
        return NumberedConnection(self.open(), self.doomed, ran)

    def open(self) -> Any:
        return ScriptedConnection()

    def request(self, number: int, timeout: float | None = None) -> Query:
        """Return a statement that answers its number; one in fifty fails."""
        return Query("fail" if self.must_fail(number) else "answer", (number,), timeout)

    def lasting(self, number: int, timeout: float | None) -> Query:
        """Return a statement that takes some milliseconds, unless it is interrupted."""
        return Query("last", (number,), timeout)

    def deaf(self, number: int, timeout: float | None) -> Query:
        """Return a statement that ignores its interrupt until its worker is given up."""
        return Query("deaf", (number,), timeout)

    def must_fail(self, number: int) -> bool:
        return number % 50 == 49

    def ran(self) -> list[int]:
        """Return the number of every statement that was started, as often as it was."""
        return [number for ran in self._ran for number in ran]

    def never_ran(self, acknowledged: set[int]) -> list[str]:
        """Say which statements were answered, and have not run."""
        return [f"{number} was answered and never ran" for number in acknowledged.difference(self.ran())]

    def not_undone(self, denied: set[int]) -> list[str]:
        """Say which statements have taken effect, though their callers were told that they have not."""
        return []


class NumberedSQLite(Scripted):
    """A real file; one statement in twenty writes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._database = SQLite(path, synchronous="off")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE written(number INTEGER)")

    def open(self) -> Any:
        connection = self._database.connect()
        connection.connection.create_scalar_function("pause", _pause)
        return connection

    def request(self, number: int, timeout: float | None = None) -> Query:
        if self.must_fail(number):
            return Query("SELECT no_such_column, ?", (number,), timeout)
        if _writes(number):
            return Query("INSERT INTO written VALUES (?) RETURNING number", (number,), timeout)
        return Query("SELECT ?", (number,), timeout)

    def lasting(self, number: int, timeout: float | None) -> Query:
        if _writes(number):
            return Query(f"INSERT INTO written SELECT ? {_COUNTING} RETURNING number", (number,), timeout)
        return Query(f"SELECT ? {_COUNTING}", (number,), timeout)

    def deaf(self, number: int, timeout: float | None) -> Query:
        return Query("SELECT pause(?)", (number,), timeout)

    def never_ran(self, acknowledged: set[int]) -> list[str]:
        with closing(sqlite3.connect(self._path)) as connection:
            written = [number for (number,) in connection.execute("SELECT number FROM written")]
            checked = connection.execute("PRAGMA integrity_check").fetchone()[0]
        wrong = super().never_ran(acknowledged)
        wrong += [
            f"{number} was acknowledged and is not there" for number in {*filter(_writes, acknowledged)} - {*written}
        ]
        if len(written) != len(set(written)):
            wrong.append("something was written twice")
        if checked != "ok":
            wrong.append(checked)
        return wrong

    def not_undone(self, denied: set[int]) -> list[str]:
        with closing(sqlite3.connect(self._path)) as connection:
            written = {number for (number,) in connection.execute("SELECT number FROM written")}
        return [f"{number} is there, and was said to be undone" for number in denied & written]


class NumberedConnection:
    """Writes down what runs on another connection, and breaks it when that is its doom."""

    def __init__(self, connection: Any, doomed: deque[int], ran: list[int]) -> None:
        self._connection = connection
        self._doomed = doomed
        self._ran = ran

    def execute(self, request: Request) -> Result:
        assert isinstance(request, Query)
        self._ran.append(request.params[0])
        doom = _next(self._doomed)
        if doom is not None:
            if doom >= len(_ENDINGS):
                raise ConnectionLost("doomed") from OSError("the connection broke")
            raise _ENDINGS[doom]("doomed")
        return self._connection.execute(request)

    def interrupt(self) -> None:
        self._connection.interrupt()

    def close(self) -> None:
        self._connection.close()


class ScriptedConnection:
    def __init__(self) -> None:
        # Not an event: a thread that is killed in the middle of setting one leaves it locked.
        self._interrupted = False

    def execute(self, request: Query) -> Result:
        self._interrupted = False
        match request.sql:
            case "fail":
                raise StatementFailed(request.params)
            case "deaf":
                _pause()
            case "last":
                for _ in range(20):
                    _wait(0.001)
                    if self._interrupted:
                        raise StatementInterrupted(request.params)
        return Result(("number",), [request.params], 1)

    def interrupt(self) -> None:
        self._interrupted = True

    def close(self) -> None:
        pass


def _wait(seconds: float) -> None:
    gate = threading.Lock()
    gate.acquire()
    gate.acquire(timeout=seconds)


def _pause(number: int = 0) -> int:
    """Do nothing, for longer than a worker may ignore its interrupt."""
    _wait(2 * GRACE)
    return number


def _writes(number: int) -> bool:
    return number % 20 == 0


def _next(dooms: deque[int]) -> int | None:
    with suppress(IndexError):
        return dooms.popleft() if dooms else None
    return None
