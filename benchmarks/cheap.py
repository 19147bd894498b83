"""A database that costs next to nothing: what is measured on it is the crew alone."""

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
        # A worker at the gate takes one of these to pass: nobody waits for a lock that all of them share.
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
        """Nothing here runs for long."""

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def blocked_crew(size: int) -> Iterator[tuple[SupervisorRef, Callable[[], None]]]:
    """Start a crew whose workers all wait at a gate; also give what opens it, to be called once."""
    database = CheapDatabase()

    def let_go() -> None:
        for _ in range(size):
            database.passes.put(None)

    with Supervisor.start(database, size=size) as ref:
        for _ in range(size):
            ref.tell(Query(_GATE))
        for _ in range(size):
            database.arrived.acquire()
        yield ref, let_go
