"""The scripted database.

It writes down where each statement ran, and breaks when the killer says so.
"""

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
    """A statement has heeded its interrupt."""


class Scripted:
    """A database without a database. It costs the least time, so that the run tries the crew."""

    name = "chaos"
    max_size = None
    checkouts = False
    """Whether it takes transactions and streams."""

    def __init__(self) -> None:
        self.doomed: deque[int] = deque()
        """For the next statements: how each breaks its worker."""
        self.doomed_openings: deque[int] = deque()
        """For the next openings: how each fails."""
        # One list a connection, which only its own thread appends to.
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
        """Let the next statement break its worker.

        Only one at a time: if no statement met it, all of them would come at once.
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
        """Return the number of every statement that was started, as often as it was."""
        return [number for ran in self._ran for number in ran]

    def twice(self) -> int:
        """Return how many statements were started more than once."""
        return sum(count > 1 for count in Counter(self.ran()).values())

    def never_ran(self, acknowledged: set[int]) -> list[str]:
        """Say which statements were answered, and have not run."""
        return [f"{number} was answered and never ran" for number in acknowledged.difference(self.ran())]

    def not_undone(self, denied: set[int]) -> list[str]:
        """Return the statements that took effect although their callers heard that they did not."""
        return []


class NumberedConnection:
    """A user's own connection, with the fewest methods that a connection must have."""

    def __init__(self, doomed: deque[int], ran: list[int]) -> None:
        self._doomed = doomed
        self._ran = ran
        # Not an event: a thread that is killed in the middle of setting one leaves it locked.
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
    """Wait, in a way that a kill does not hurt."""
    gate = threading.Lock()
    gate.acquire()
    gate.acquire(timeout=seconds)


def _next(dooms: deque[int]) -> int | None:
    with suppress(IndexError):
        return dooms.popleft() if dooms else None
    return None
