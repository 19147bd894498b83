"""A scripted database: the test says how each connection and each statement behaves."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from actors.values.errors import ConnectionLost
from actors.values.requests import Request
from actors.values.result import Result


class Gate:
    """A statement that waits here until the test lets it go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> Result:
        self.entered.set()
        assert self.opened.wait(30), "the test never opened the gate"
        return Result(("gate",), [("passed",)], 1)


def lost(cause: BaseException | None = None) -> ConnectionLost:
    """Return the error of a connection that is of no more use."""
    error = ConnectionLost("scripted")
    error.__cause__ = cause or OSError("the scripted connection broke")
    return error


@dataclass(frozen=True)
class FakeDatabase:
    """A database without a database.

    `statements` maps the text of a query to its effect: a value to answer, an exception to raise,
    or a function to call without arguments. Any other text is answered with itself. `opening` holds
    the effects of the next attempts to connect, first in first out. `None` succeeds. When `opening`
    is empty, every attempt succeeds.
    """

    statements: dict[str, Any] = field(default_factory=dict)
    opening: deque[BaseException | Callable[[], object] | None] = field(default_factory=deque)
    connections: list["FakeConnection"] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    name: str = "fake"
    max_size: int | None = None

    def __str__(self) -> str:
        return "FakeDatabase()"

    def connect(self) -> "FakeConnection":
        step = self.opening.popleft() if self.opening else None
        if isinstance(step, BaseException):
            raise step
        if step is not None:
            step()
        connection = FakeConnection(self)
        self.connections.append(connection)
        return connection

    @property
    def open_connections(self) -> int:
        return sum(not connection.closed for connection in self.connections)


class FakeConnection:
    def __init__(self, database: FakeDatabase) -> None:
        self.database = database
        self.closed = False
        self.interrupted = threading.Event()

    def execute(self, request: Request) -> Any:
        self.database.ran.append(request.sql)
        step = self.database.statements.get(request.sql, Result(("sql",), [(request.sql,)], 1))
        if isinstance(step, BaseException):
            raise step
        return step() if callable(step) else step

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.closed = True
