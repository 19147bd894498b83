"""The scripted database: it notes the statements that ran, and breaks when the killer wants it."""

import threading
from asyncio import CancelledError
from collections import Counter, deque
from contextlib import suppress
from random import Random

from actors.values.errors import ConnectionLost
from actors.values.requests import Query, Request
from actors.values.result import Result
from supervisor import SupervisorRef

GRACE = 0.05  # seconds until a worker is given up

_ENDINGS = (SystemExit, KeyboardInterrupt, GeneratorExit, CancelledError)


class Killed(BaseException):
    """The killer's asynchronous exception."""


class StatementFailed(Exception):
    """A statement's own error."""


class StatementInterrupted(Exception):
    """A statement that its interrupt ended."""


class Scripted:
    """A database without data. It is very quick, so the run tests the crew."""

    name = "chaos"
    max_size = None
    checkouts = False
    """Whether the database supports transactions and streams."""

    def __init__(self) -> None:
        self.doomed: deque[int] = deque()
        """The ways in which the next statements break their workers."""
        self.doomed_openings: deque[int] = deque()
        """The ways in which the next openings fail."""
        # One list for each connection. Only the connection's thread appends to it.
        self._ran: list[list[int]] = []

    def __str__(self) -> str:
        return f"{type(self).__name__}()"

    def connect(self) -> "NumberedConnection":
        doom = _next(self.doomed_openings)
        if doom is not None:
            raise _ENDINGS[0]("opening") if doom else OSError("opening")
        ran: list[int] = []
        self._ran.append(ran)
        return NumberedConnection(self.doomed, ran)

    def doom(self, ref: SupervisorRef, random: Random) -> bool:
        """Let the next statement break its worker, unless an earlier order still waits.

        With more orders, the breaks would come all together after a quiet period.
        """
        if self.doomed:
            return False
        self.doomed.append(random.randrange(len(_ENDINGS) + 1))
        return True

    def doom_opening(self, random: Random) -> bool:
        """Let the next opening fail."""
        if self.doomed_openings:
            return False
        self.doomed_openings.append(random.randrange(2))
        return True

    def spare(self) -> None:
        """Break nothing more."""
        self.doomed.clear()
        self.doomed_openings.clear()

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
        """Return the number of every started statement, once for each start."""
        return [number for ran in self._ran for number in ran]

    def twice(self) -> int:
        """Return how many statements were started more than once."""
        return sum(count > 1 for count in Counter(self.ran()).values())

    def never_ran(self, acknowledged: set[int]) -> list[str]:
        """Return the statements that were answered and have not run."""
        return [f"{number} was answered and never ran" for number in acknowledged.difference(self.ran())]

    def not_undone(self, denied: set[int]) -> list[str]:
        """Return the statements that took effect in spite of the outcome `executed=False`."""
        return []


class NumberedConnection:
    """A connection that a user wrote, with the required methods only."""

    def __init__(self, doomed: deque[int], ran: list[int]) -> None:
        self._doomed = doomed
        self._ran = ran
        # An event is no choice here: a thread that is killed while it sets an event leaves it
        # locked.
        self._interrupted = False

    def execute(self, request: Request) -> Result:
        if not isinstance(request, Query):
            raise TypeError(request)
        self._interrupted = False
        self._ran.append(request.params[0])  # type: ignore[index]
        doom = _next(self._doomed)
        if doom is not None:
            if doom >= len(_ENDINGS):
                raise ConnectionLost("doomed") from OSError("the connection broke")
            raise _ENDINGS[doom]("doomed")
        match request.sql:
            case "fail":
                raise StatementFailed(request.params)
            case "deaf":
                wait(2 * GRACE)
            case "last":
                for _ in range(20):
                    wait(0.001)
                    if self._interrupted:
                        raise StatementInterrupted(request.params)
        return Result(("number",), [request.params], 1)  # type: ignore[list-item]

    def interrupt(self) -> None:
        self._interrupted = True

    def close(self) -> None:
        pass


def wait(seconds: float) -> None:
    """Wait in a way that is safe if the thread is killed."""
    gate = threading.Lock()
    gate.acquire()
    gate.acquire(timeout=seconds)


def _next(dooms: deque[int]) -> int | None:
    with suppress(IndexError):
        return dooms.popleft() if dooms else None
    return None
