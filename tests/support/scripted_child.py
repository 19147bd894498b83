"""A child process without a process: the parent's connection is real, a test plays the child."""

import ctypes
import marshal
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from actors.databases.child import connection as child_connection
from actors.databases.child.claims import TOKEN
from actors.databases.child.connection import ChildConnection
from actors.databases.child.database import ChildProcess
from actors.databases.child.frames import ANSWERS, DONE, ERROR, HEAD, JOBS, READY, STEP, frame
from actors.databases.child.results_codec import error_frame, lost_frame
from actors.databases.sqlite.database import SQLite
from actors.values.errors import ChildProcessEnded, ConnectionLost

__all__ = ["ScriptedChild", "connected"]


class ScriptedChild:
    """Both ends of the pipes, as `ChildConnection` sees them. The child's own steps stand below."""

    def __init__(self, home: str | None = None, name: str = "", *, reads_only: bool = True) -> None:
        self.pid = 4711
        self.path = b""
        self.closed = False
        self.ended: ChildProcessEnded | None = None
        self.on_end: Callable[[], object] = lambda: None
        self.script: deque[Callable[[], object]] = deque()
        """The acts of the child. It does one each time when the parent waits for a message."""
        self.interrupted: list[int] = []
        """The tickets that the parent wanted interrupted, in this order."""
        self.tokens: deque[int] = deque()
        """One for each job that was offered; both sides draw them."""
        self.frames: deque[tuple[int, int, int]] = deque()
        """The frames that were sent and are not done: first ticket, number of jobs, and kind."""
        self.begun: list[int] = []
        """The tickets of the jobs that it has begun, in this order."""
        self.kept: list[tuple[int, float, Any]] = []
        """Answers that have not left it."""
        self.seconds = 1e-5
        """How long each job runs."""
        self._inbound = bytearray()
        self._outbound = bytearray(frame(READY, 0, marshal.dumps(((), reads_only))))

    # --- the parent's side ----------------------------------------------------------------

    def write(self, data: bytes, at: int) -> int:
        if self.ended is not None:
            raise BrokenPipeError
        self._inbound += data[at:]
        while len(self._inbound) >= HEAD.size:
            _, length, ticket, kind, count = HEAD.unpack_from(self._inbound)
            if len(self._inbound) < HEAD.size + length:
                break
            del self._inbound[: HEAD.size + length]
            if kind in (JOBS, STEP):
                self.frames.append((ticket, int(count), kind))
        return len(data) - at

    def wait_to_write(self, seconds: float | None = None) -> bool:
        raise AssertionError("it can always be written to")

    def read(self, address: int, room: int, seconds: float | None = None, *, eager: bool = False) -> int | None:
        while not self._outbound and self.ended is None:
            if not self.script:
                assert seconds is not None, "the worker's thread would wait here for ever"
                return None
            self.script.popleft()()
            if seconds is not None:
                break
        if not self._outbound:
            return 0 if self.ended is not None else None
        got = min(room, len(self._outbound))
        ctypes.memmove(address, bytes(self._outbound[:got]), got)
        del self._outbound[:got]
        return got

    def offer(self, tokens: bytes) -> None:
        self.tokens.extend(token for (token,) in TOKEN.iter_unpack(tokens))

    def recall(self, most: int) -> list[int]:
        return [self.tokens.popleft() for _ in range(min(most, len(self.tokens)))]

    def interrupt(self, ticket: int) -> None:
        self.interrupted.append(ticket)

    def kill(self) -> None:
        self.die()

    def reap(self) -> ChildProcessEnded:
        return self.ended or ChildProcessEnded("it ended")

    def close(self) -> None:
        self.closed = True

    # --- the child's side -----------------------------------------------------------------

    def begin(self) -> int | None:
        """Draw a token; return its ticket, or `None`. The job runs until `answer` or `fail`."""
        while self.frames:
            first, count, kind = self.frames[0]
            if kind == STEP and first not in self.begun:
                self.begun.append(first)
                return first
            if kind == JOBS and self.tokens and self.tokens[0] < first + count:
                self.begun.append(self.tokens.popleft())
                return self.begun[-1]
            self.flush(DONE)  # nothing of it is left
            self.frames.popleft()
        return None

    def answer(self, value: object = 1) -> None:
        """Answer the job that was begun last. The answer stays here until `flush`."""
        self.kept.append((self.begun[-1], self.seconds, (("x",), [(value,)], 1, None, False)))

    def reroute(self) -> None:
        self.kept.append((self.begun[-1], 0.0, None))

    def fail(self, error: Exception) -> None:
        self._outbound += error_frame(ERROR, self.begun[-1], error, self.seconds)

    def flush(self, kind: int = ANSWERS) -> None:
        self._outbound += frame(kind, 0, marshal.dumps(self.kept))
        self.kept.clear()

    def run(self) -> None:
        """Run all that is there, and say so."""
        while self.begin() is not None:
            self.answer()

    def lose(self, lost: ConnectionLost) -> None:
        """Say that the connection is lost, and end."""
        if self.kept:
            self.flush()
        self._outbound += lost_frame(lost)
        self.die()

    def say(self, data: bytes) -> None:
        self._outbound += data

    def die(self) -> None:
        """End, as after `kill -9`: all bytes that were not sent are lost."""
        if self.ended is None:
            self.ended = ChildProcessEnded("child process 4711 was killed by SIGKILL")


def connected(
    monkeypatch: Any, *, reads_only: bool, script: Iterable[Callable[[], object]] = ()
) -> tuple[ChildConnection, ScriptedChild]:
    """Return a connection, open, and the child at its other end."""
    child = ScriptedChild(reads_only=reads_only)
    monkeypatch.setattr(child_connection, "Child", lambda home, name: child)
    connection = ChildConnection(ChildProcess(SQLite()))
    child.script.extend(script)
    return connection, child
