"""A connection that lives in a child process: this process's end of it."""

import marshal
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from actors.databases.base import Answer, token_of
from actors.databases.child import PIPE, Child, Inbound
from actors.databases.child_host import WHATEVER_RUNS
from actors.databases.frames import (
    FAILED,
    FIRST_BYTE,
    HEAD,
    LOST,
    MAGIC,
    PICKLED,
    READY,
    RESULT,
    ROWS,
    WAITS,
    frame,
    load_error,
    load_pickled,
    request_frame,
)
from actors.databases.quick import loads
from actors.databases.steps import Step
from actors.errors import ConnectionLost, ResultLost
from actors.log import log
from actors.messages import Request
from actors.result import Result

if TYPE_CHECKING:
    from actors.databases.child_process import ChildProcess

__all__ = ["ChildConnection"]

_DEPTH = 24  # jobs in the child's hands at most; far less than the tickets that a token can tell apart
_GROUP = 128  # the same where the child runs jobs together that wait together: as many as tokens can tell apart
_TOGETHER = 1 << 18  # bytes of frames that are worth to be put together for one system call

_WAITING = 0.1  # seconds since the child last told that it waits for a lock: it tells several times as often

_SHORT = 20e-6  # seconds that a job ran which is worth to wait for the next one without sleeping


class ChildConnection:
    """A connection in a child process, which takes jobs ahead while it runs another.

    Used by one thread, except for what `Pipelined` allows from any, which may come until `close`.
    """

    def __init__(self, database: "ChildProcess") -> None:
        self._database = database
        self.groups: bool = getattr(database.database, "groups", False)
        """Whether the child runs jobs together that wait together."""
        self.depth = _GROUP if self.groups else _DEPTH
        """How many jobs it takes at most, those that run included."""
        # The ticket of the last job that was sent, of the last that was answered, and how long that one ran.
        self._ticket = 0
        self._answered = 0
        self._seconds = float("inf")
        # What was read and not looked at yet. Enough for most answers at one go, since each read may have to wait for
        # the interpreter, for 5 ms if another thread computes.
        self._inbound = Inbound(PIPE)
        self._filled = 0
        self._answers: deque[Answer] = deque()
        # When the child last said that its job waits for a lock.
        self._waited_at = 0.0
        # Of a result that comes in several frames.
        self._rows: list[tuple[Any, ...]] = []
        # Why a part of it cannot be loaded.
        self._unloadable: Exception | None = None
        self.warnings: tuple[str, ...] = ()
        """What was asked for over there and cannot be had."""
        # Why nothing more can be read.
        self._failure: ConnectionLost | None = None
        self._child = Child(database.home, database.name)
        try:
            self._open(time.monotonic() + database.start_timeout)
        except BaseException:
            self._child.kill()
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The child's process number."""
        return self._child.pid

    @property
    def on_end(self) -> Callable[[], object]:
        """Called once the child has ended; see `Pipelined`."""
        return self._child.on_end

    @on_end.setter
    def on_end(self, tell: Callable[[], object]) -> None:
        self._child.on_end = tell

    def _open(self, deadline: float) -> None:
        """Tell the child what to do, and wait for its first word."""
        import pickle

        specification = pickle.dumps((self._database.database, self._database.memory_limit))
        try:
            self._write(self._child.path + frame(0, 0, specification), deadline - time.monotonic())
            while not self._answers:
                if self._failure is not None:
                    raise self._failure
                if not self._read(deadline - time.monotonic()):
                    limit = self._database.start_timeout
                    which = f"child process {self.pid} did not open {self._database.database}"
                    message = f"{which} within {limit:g} seconds"
                    raise TimeoutError(message)
                self._parse()
        except ConnectionLost as lost:
            raise (lost.__cause__ or lost) from None
        _, _, error, _ = self._answers.popleft()
        if error is not None:
            raise error

    # --- Connection -----------------------------------------------------------------------

    def execute(self, request: Request | Step) -> Any:
        """Run `request`; see `Connection`."""
        ticket = self._ticket + 1
        self.offer(bytes([token_of(ticket)]))
        self.send([(ticket, request)])
        [answer] = self.receive()
        if answer.error is not None:
            raise answer.error
        return answer.value

    def close(self) -> None:
        """Let the child close its connection and end; kill it if it does not. See `Connection`."""
        try:
            self._child.interrupt(WHATEVER_RUNS)
            self._child.close()
        except Exception as error:  # noqa: BLE001  # nothing more can be done about it
            log(__name__, "error", "close_failed", database=self._database, error=error)

    def interrupt(self, ticket: int | None = None) -> None:
        """End the job with this ticket, or the last one; a job that is over by then is none. See `Connection`."""
        self._child.interrupt(self._ticket if ticket is None else ticket)

    def waits_for_lock(self) -> bool:
        """Say whether the job waits for a lock that another connection holds. From any thread."""
        return time.monotonic() - self._waited_at < _WAITING

    # --- Pipelined ------------------------------------------------------------------------

    def offer(self, tokens: bytes) -> None:
        """Let jobs be begun, once they are sent, or taken back; see `Pipelined`."""
        self._child.offer(tokens)

    def send(self, jobs: Sequence[tuple[int, Request | Step]]) -> None:
        """Send jobs that were offered; see `Pipelined`."""
        self._check_open()
        self._ticket = jobs[-1][0]
        frames = [request_frame(ticket, request) for ticket, request in jobs]
        if sum(map(len, frames)) <= _TOGETHER:
            frames = [b"".join(frames)]
        for data in frames:
            self._write(data)

    def check(self) -> None:
        """Raise `ConnectionLost` if the child has ended; see `Pipelined`."""
        if self._child.ended is not None:
            raise self._lost() from self._child.ended

    def receive(self) -> list[Answer]:
        """Return the answers that have come, waiting for one if there is none; see `Pipelined`."""
        self._check_open()
        while not self._answers:
            if self._failure is not None:
                raise self._failure
            self._read_on()
        answers = list(self._answers)
        self._answers.clear()
        self._seconds = answers[-1].seconds
        return answers

    def recall(self, most: int) -> bytes:
        """Take jobs back that the child has not begun, the oldest first; see `Pipelined`."""
        return self._child.recall(most)

    def recalled(self) -> None:
        """Note that what was taken back is dealt with; see `Pipelined`."""
        self._child.recalled()

    def abandon(self) -> None:
        """Kill the child; see `Pipelined`."""
        self._child.kill()

    # --- reading and writing --------------------------------------------------------------

    def _write(self, data: bytes, seconds: float | None = None) -> None:
        """Write all of `data`, and read meanwhile: the child may have to be rid of an answer before it can read.

        If the child is gone, nothing is written and nothing raised: whoever reads learns of that, behind the answers
        that it gave before.
        """
        at = 0
        while at < len(data) and self._failure is None:
            try:
                at += self._child.write(data, at)
            except BlockingIOError:
                if self._child.wait_to_write(seconds):
                    self._read_on()
                elif seconds is not None:
                    return
            except BrokenPipeError:
                return

    def _read_on(self) -> None:
        """Read and parse once. What goes wrong is raised by `receive`, once the answers before it are taken."""
        try:
            self._read()
            self._parse()
        except ConnectionLost as error:
            self._failure = error

    def _read(self, seconds: float | None = None) -> bool:
        """Read what has come, waiting for it for so many seconds at most; say whether anything has.

        Raises:
            ConnectionLost: the child has ended.
        """
        inbound = self._inbound
        place, room, eager = inbound.address + self._filled, inbound.size - self._filled, self._seconds < _SHORT
        got = self._child.read(place, room, seconds, eager=eager)
        if got == 0:
            raise self._lost() from self._child.reap()
        self._filled += got or 0
        return got is not None

    def _parse(self) -> None:
        """Turn all whole frames that were read into answers; keep the beginning of the next, and room for its rest.

        Raises:
            ConnectionLost: the child says so, or what it sent cannot be read.
        """
        at, size, wanted = 0, self._filled, 0
        view = memoryview(self._inbound.bytes)
        try:
            while size - at >= HEAD.size:
                magic, length, ticket, kind, seconds = HEAD.unpack_from(view, at)
                expected = self.groups or self._answered <= ticket
                _require(magic == MAGIC and expected and ticket <= self._ticket, "no frame of a job that it was sent")
                end = at + HEAD.size + length
                if end > size:
                    wanted = HEAD.size + length
                    break
                self._take(kind, ticket, view[at + HEAD.size : end], seconds)
                at = end
            _require(at == size or view[at] == FIRST_BYTE, "no frame")
            larger, smaller = wanted > self._inbound.size, self._inbound.size > PIPE >= wanted
            if at == 0 and not larger and not smaller:
                return  # in the middle of a frame, for which there is room
            rest = bytes(view[at:size])
            if larger or smaller:
                self._inbound = Inbound(max(wanted, PIPE))
        except ConnectionLost:
            raise
        except Exception as error:  # noqa: BLE001  # whatever cannot be loaded: nothing behind it can be trusted
            message = f"child process {self.pid} sent what cannot be read ({type(error).__name__}: {error})"
            raise self._lost() from ConnectionError(message)
        self._inbound.bytes[: len(rest)] = rest
        self._filled = len(rest)

    def _take(self, kind: int, ticket: int, body: memoryview, seconds: float) -> None:
        """Turn a frame into an answer, or into a part of one."""
        value: Any = None
        error: BaseException | None = None
        if kind == WAITS:
            self._waited_at = time.monotonic()
            return
        if kind in (RESULT, ROWS, PICKLED):
            try:
                value = load_pickled(body) if kind == PICKLED else loads(body)
            except Exception as failure:  # the frames before and behind it are whole
                if kind != PICKLED and not isinstance(failure, MemoryError):
                    raise
                self._unloadable = failure
            if kind == ROWS:
                self._rows += value or ()
                return
            value, error = self._whole(kind, value)
        elif kind == LOST:
            raise self._lost() from load_error(body, BaseException)
        elif kind == READY:
            self.warnings = marshal.loads(body)
        else:
            error = load_error(body, BaseException if kind == FAILED else Exception)
        self._rows, self._unloadable = [], None
        self._answered = ticket
        self._answers.append(Answer(ticket, value, error, seconds))

    def _whole(self, kind: int, value: Any) -> tuple[Any, ResultLost | None]:
        """Return the value of an answer whose last frame has come, or why it cannot be had."""
        if self._unloadable is not None:
            failure = self._unloadable
            lost = ResultLost(f"the job was done, and its result cannot be loaded here ({type(failure).__name__})")
            lost.__cause__ = failure
            return None, lost
        if kind == RESULT:
            value = Result(*value)
            if self._rows:
                value.rows = [*self._rows, *value.rows]
        return value, None

    # --- the end --------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._child.closed:
            raise self._lost() from self._child.reap()

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(f"child process {self.pid}")


def _require(right: bool, what: str) -> None:
    if not right:
        raise ValueError(what)
