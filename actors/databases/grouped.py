"""Grouped: a connection of this process that takes jobs ahead, to run those together that wait together."""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from actors.databases.base import Answer, Grouping, Ticketed, token_of
from actors.databases.steps import Step
from actors.errors import ConnectionLost
from actors.messages import Request

__all__ = ["Grouped"]

_DEPTH: Final = 128  # jobs in a group at most; the most that tokens can tell apart


class Grouped:
    """What `Pipelined` asks for, without another process: the worker's own thread runs what it was sent in `receive`.

    Tokens are in a deque: whoever takes one out has the job. That is one step of the interpreter, as is handing it on
    to the place where it is found again by the next one, if whoever takes jobs back is killed.
    """

    depth = _DEPTH
    """How many jobs it takes at most, the running ones included."""
    groups = True
    """What came first may be answered last."""
    pid = None
    """It lives in this process."""

    def __init__(self, connection: Grouping) -> None:
        self.connection = connection
        self.on_end: Callable[[], object] = lambda: None
        """Never called: there is no other end."""
        # Of jobs that may be begun or taken back, oldest first.
        self._tokens: deque[int] = deque()
        # Of those that were taken back and are not dealt with.
        self._drawn: deque[int] = deque()
        # What was sent, oldest first; some of it may have been taken back.
        self._sent: deque[Ticketed] = deque()

    # --- Connection -----------------------------------------------------------------------

    @property
    def is_stale(self) -> bool:
        """Whether it is made as new before the next job."""
        return self.connection.is_stale

    def execute(self, request: Request | Step) -> Any:
        """Run `request`; see `Connection`."""
        return self.connection.execute(request)

    def close(self) -> None:
        """Close; see `Connection`."""
        self.connection.close()

    # --- Pipelined ------------------------------------------------------------------------

    def offer(self, tokens: bytes) -> None:
        """Let jobs be begun, once they are sent, or taken back; see `Pipelined`."""
        self._tokens.extend(tokens)

    def send(self, jobs: Sequence[tuple[int, Request | Step]]) -> None:
        """Send jobs that were offered; see `Pipelined`."""
        self._sent.extend(jobs)

    def receive(self) -> Sequence[Answer]:
        """Run what was sent, and return the answers; see `Pipelined`."""
        held_over = self.connection.held_over
        first = held_over.popleft() if held_over else self._draw()
        if first is None:
            message = "nothing was sent"
            raise ConnectionLost(message)
        answers = self.connection.execute_group(first, self._draw)
        if not self._tokens:
            self._sent.clear()  # what is left was taken back, and is not to be kept
        return answers

    def recall(self, most: int) -> bytes:
        """Take jobs back that are not begun; see `Pipelined`."""
        with suppress(IndexError):  # there were fewer
            # The last ones first, so that what stays is begun in the order of the asking.
            self._drawn.extendleft(islice(iter(self._tokens.pop, None), most))
        return bytes(self._drawn)

    def recalled(self) -> None:
        """Note that what was taken back is dealt with; see `Pipelined`."""
        self._drawn.clear()

    def interrupt(self, ticket: int | None = None) -> None:
        """End a job, begun or not; see `Pipelined`."""
        self.connection.interrupt(ticket)

    def waits_for_lock(self) -> bool:
        """Say whether it waits for a lock that another connection holds. From any thread."""
        return self.connection.waits_for_lock()

    def check(self) -> None:
        """Return: it is in this process. See `Pipelined`."""

    def abandon(self) -> None:
        """Do nothing: a thread cannot be ended by force. See `Pipelined`."""

    def _draw(self) -> Ticketed | None:
        """Return the next job that is to be begun and was not taken back, if there is one."""
        try:
            token = self._tokens.popleft()
        except IndexError:
            self._sent.clear()  # these were taken back
            return None
        while self._sent:
            job = self._sent.popleft()
            if token_of(job[0]) == token:
                return job
        return None
