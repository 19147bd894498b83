"""A database that costs almost nothing: a measurement on it shows the crew alone."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from actors.values.requests import Request
from supervisor import Query, Result, Supervisor, SupervisorRef

__all__ = ["CheapDatabase", "blocked_crew"]

_GATE = "wait at the gate"
_ANSWER = Result(("answer",), [(42,)], 1)


class CheapDatabase:
    """Answers everything with the same result, except for a query that waits at its gate."""

    name = "cheap"
    max_size = None

    def __init__(self) -> None:
        # A worker at the gate takes one of these to pass. So no worker waits for a shared lock.
        self.passes: SimpleQueue[None] = SimpleQueue()
        self.arrived = threading.Semaphore(0)

    def connect(self) -> "CheapDatabase":
        return self

    def execute(self, request: Request) -> Result:
        if request.sql is _GATE:
            self.arrived.release()
            self.passes.get()
        return _ANSWER

    def interrupt(self) -> None:
        """Do nothing, since no query runs for long."""

    def close(self) -> None:
        """Do nothing, since no connection is open."""


@contextmanager
def blocked_crew(size: int) -> Iterator[tuple[SupervisorRef, Callable[[], None]]]:
    """Start a crew whose workers all wait at a gate; also give a function that opens it once."""
    database = CheapDatabase()

    def release() -> None:
        for _ in range(size):
            database.passes.put(None)

    with Supervisor.start(database, size=size) as ref:
        for _ in range(size):
            ref.tell(Query(_GATE))
        for _ in range(size):
            database.arrived.acquire()
        yield ref, release
