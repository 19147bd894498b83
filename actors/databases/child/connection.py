"""A connection that lives in a child process: this process's end of it."""

import marshal
import time
from collections.abc import Callable
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from actors.databases.base import Connection, Database, NeedsWriter
from actors.databases.child.claims import token_of, tokens_of
from actors.databases.child.frames import (
    ANSWERS,
    BESIDE,
    COUNT,
    DONE,
    FAILED,
    FIRST_BYTE,
    FLUSH,
    HEAD,
    LARGE,
    LOST,
    MAGIC,
    PICKLED,
    READY,
    RESULT,
    RETURNED,
    ROWS,
    RUNNING_JOB,
    SPECIFICATION,
    STEP,
    WAITS,
    frame,
)
from actors.databases.child.process import PIPE, Child, Inbound, Peer
from actors.databases.child.requests_codec import Item, item_of, jobs_frame
from actors.databases.child.results_codec import load_error, load_pickled
from actors.databases.child.syscalls import loads
from actors.databases.steps import Step
from actors.system.log import log
from actors.values.errors import ChildProcessEnded, ConnectionLost, ResultLost
from actors.values.requests import Request
from actors.values.result import Result

if TYPE_CHECKING:
    from actors.databases.executor import Batch

__all__ = ["ChildConnection", "ChildSpecification"]

_MOST: Final = 128  # jobs that the child has at most
# Seconds. A child that waits for a lock says so several times in this time.
_WAITING: Final = 0.1
# Seconds. After a job that ran for less time, the next answer is awaited without sleeping.
_SHORT: Final = 20e-6
_PATIENCE: Final = 0.002  # seconds; then the child is asked to send the answers that it keeps
_MOST_PATIENCE: Final = 0.1
# Seconds. A child with nothing to run must say so. It is killed after twice this time of silence.
_SILENCE: Final = 0.5
_LONGEST_RECALL: Final = 0.1  # seconds; taking jobs back never blocks

Sink: TypeAlias = Callable[[int, Any, BaseException | None, float], object]
"""Takes an answer: its ticket, a value or an error, and the seconds that it ran."""


class ChildSpecification(Protocol):
    """The child that a connection starts. `ChildProcess` is one. `str` of it shows no secret."""

    @property
    def name(self) -> str:
        """The name that the list of processes shows for the child."""
        ...

    @property
    def home(self) -> str | None:
        """The folder at which relative module paths begin; `None` if it is gone."""
        ...

    @property
    def database(self) -> Database:
        """The database that the child opens."""
        ...

    @property
    def memory_limit(self) -> int | None:
        """Bytes that the child may have for its data; `None` is no limit."""
        ...

    @property
    def start_timeout(self) -> float:
        """Seconds after which a child that has not opened its connection is killed."""
        ...


class ChildConnection(Connection):
    """A connection in a child process, which is sent the jobs of a batch together.

    One thread uses it. Methods that `Connection` allows from any thread may be called until
    `close`.
    """

    def __init__(self, specification: ChildSpecification) -> None:
        self._specification = specification
        # The ticket of the last job that was sent. `_seconds` is how long the last job ran that was
        # answered.
        self._ticket = 0
        # The ticket of the step that a job performs, which is not itself sent; `None` while a batch
        # runs.
        self._step: int | None = None
        self._seconds = float("inf")
        # The jobs that the child has, each with its batch, by their tickets, oldest first.
        self._tasks: dict[int, tuple[Batch, Any]] = {}
        # One for each thread that takes jobs back at this moment.
        self._recalls: list[None] = []
        # How many frames of jobs the child has not answered by DONE.
        self._frames = 0
        self._sink: Sink = _nowhere
        # Bytes that were read and not parsed yet. It has room for most answers, since each read
        # may have to wait for the interpreter, for 5 ms if another thread computes.
        self._inbound = Inbound(PIPE)
        self._filled = 0
        # When the child last said that its job waits for a lock.
        self._waited_at = 0.0
        # The rows of a result that comes in several frames, as far as they have come.
        self._rows: list[tuple[Any, ...]] = []
        # Why a part of that result cannot be loaded.
        self._unloadable: Exception | None = None
        # Why the child's answers can be read no further.
        self._failure: ConnectionLost | None = None
        start, where = self._peer()
        # Called here: a thread that is killed as a method returns its value would lose the child.
        self._child: Peer = start(*where)
        self.pid = self._child.pid
        try:
            self._open(time.monotonic() + specification.start_timeout)
        except BaseException:
            self._child.kill()
            self.close()
            raise

    def _peer(self) -> tuple[Callable[..., Peer], tuple[Any, ...]]:
        """Return the function that starts the other end, and its arguments."""
        return Child, (self._specification.home, self._specification.name)

    def _packed_specification(self) -> bytes:
        import pickle

        return pickle.dumps((self._specification.database, self._specification.memory_limit))

    @property
    def on_end(self) -> Callable[..., object]:
        """Called once the child has ended; see `Connection`."""
        return self._child.on_end

    @on_end.setter
    def on_end(self, tell: Callable[..., object]) -> None:
        self._child.on_end = tell

    def _open(self, deadline: float) -> None:
        """Send the specification to the child, and wait for its first frame."""
        heard: list[BaseException | None] = []
        self._sink = lambda _ticket, _value, error, _seconds: heard.append(error)
        specification = frame(SPECIFICATION, 0, self._packed_specification())
        try:
            self._write(self._child.path + specification, deadline - time.monotonic())
            while not heard:
                if self._failure is not None:
                    raise self._failure
                if not self._read(deadline - time.monotonic()):
                    wanted = self._specification
                    message = f"{self._child} did not open {wanted.database} within {wanted.start_timeout:g} seconds"
                    raise TimeoutError(message)
                self._parse()
        except ConnectionLost as lost:
            raise (lost.__cause__ or lost) from None
        if heard[0] is not None:
            raise heard[0]

    # --- Connection -----------------------------------------------------------------------

    def execute(self, request: Request | Step) -> Any:
        """Run `request`, or perform a step; see `Connection`."""
        self._check_open()
        answers: list[tuple[Any, BaseException | None]] = []
        self._sink = lambda _ticket, value, error, _seconds: answers.append((value, error))
        ticket = self._ticket + 1
        sent = jobs_frame(ticket, [item_of(request)[0]], STEP)
        self._step = self._ticket = ticket
        self._frames += 1
        try:
            self._write(sent)
            self._collect()
        finally:
            self._sink = _nowhere  # the sink holds the answer, and its error refers to the frame of the caller
        [(value, error)] = answers
        if error is not None:
            raise error
        return value

    def run(self, batch: "Batch") -> None:
        """Send the jobs of a batch, and hand on their answers; see `Connection`."""
        self._check_open()
        self._step = None
        self._sink = self._hand_on
        try:
            while self._send_some(batch):
                self._collect()
                if self._tasks:  # all jobs that are left were recalled
                    self._wait_for_recalls()
                    self._tasks.clear()
        except ConnectionLost as lost:
            batch.give_back(*self._unbegun(has_begun=lost.begun))
            raise
        finally:
            self._sink = _nowhere  # an idle worker holds nothing of its last jobs

    def _send_some(self, batch: "Batch") -> bool:
        """Send some jobs of a batch, not too large together; say whether there was any."""
        tasks: list[Any] = []
        items: list[Item] = []
        size = 0
        while size <= LARGE and len(items) < _MOST and (task := batch.hand_over()) is not None:
            item, length = item_of(task.request)
            size += length
            tasks.append(task)
            items.append(item)
        if not tasks:
            return False
        if size > LARGE and len(tasks) > 1:  # the last job is large, and may find no memory: it travels alone
            self._send(batch, tasks[:-1], items[:-1])
            self._send(batch, tasks[-1:], items[-1:])
        else:
            self._send(batch, tasks, items)
        return True

    def _hand_on(self, ticket: int, value: Any, error: BaseException | None, seconds: float) -> None:
        batch, task = self._tasks.pop(ticket)
        if error is None:
            batch.answer(task, value, seconds)
        elif isinstance(error, NeedsWriter):
            batch.reroute(task)
        else:
            batch.fail(task, error, seconds)

    def _unbegun(self, *, has_begun: bool) -> list[Any]:
        """After a loss: return the tasks that did nothing, and the unanswered ones of a reader.

        Args:
            has_begun: whether the child may have begun the last task that it took.
        """
        recalled = [task for _, task in self._draw_back(_MOST)]
        self._wait_for_recalls()
        taken = [task for _, task in self._tasks.values()]
        last = len(taken) - has_begun
        # A reader changed nothing, and the answers of these tasks never left the child.
        harmless = taken[:last] if self.reads_only or len(taken) == 1 else []
        return [*harmless, *recalled]

    def cancel(self, task: Any) -> None:
        """End one job; see `Connection`."""
        ticket = next((ticket for ticket, (_, other) in tuple(self._tasks.items()) if other is task), self._step)
        if ticket is not None:  # else the job was answered at this moment
            self._child.interrupt(ticket)

    def interrupt(self) -> None:
        """End the running job; see `Connection`."""
        self._child.interrupt(self._ticket)

    def recall(self, most: int | None = None) -> list[Any]:
        """Take jobs back that the child has not begun, the oldest first; see `Connection`."""
        self._recalls.append(None)
        try:
            drawn = self._draw_back(_MOST if most is None else most)
            return [task for batch, task in drawn if batch.let_go(task)]
        finally:
            self._recalls.pop()

    def _draw_back(self, most: int) -> "list[tuple[Batch, Any]]":
        """Draw up to `most` tokens back; remove and return their jobs, each with its batch."""
        tokens = self._child.recall(most)
        tickets = {token_of(ticket): ticket for ticket in tuple(self._tasks)} if tokens else {}
        # The thread of the connection lets go the jobs that it has removed in the meantime.
        drawn = [self._tasks.pop(tickets[token], None) for token in tokens if token in tickets]
        return [each for each in drawn if each is not None]

    def _wait_for_recalls(self) -> None:
        """Give other threads time to let go the jobs whose tokens they have drawn.

        A thread that takes longer does no harm: only one of the two threads lets a job go
        (`Batch.let_go`).
        """
        until = time.monotonic() + _LONGEST_RECALL  # a thread that is killed in the middle may leave its mark
        while self._recalls and time.monotonic() < until:
            time.sleep(0)

    def close(self) -> None:
        """Let the child close its connection and end; kill it if it does not. See `Connection`."""
        try:
            self._child.interrupt(RUNNING_JOB)
            self._child.close()
        except Exception as error:  # noqa: BLE001  # nothing more can be done about it
            log(__name__, "error", "close_failed", database=self._specification, error=error)

    def check(self) -> None:
        """Raise `ConnectionLost` if the child has ended; see `Connection`."""
        if self._child.ended is not None:
            raise self._lost() from self._child.ended

    def abandon(self) -> None:
        """Kill the child; see `Connection`."""
        self._child.kill()

    def waits_for_lock(self) -> bool:
        """Say whether the job waits for a lock that another connection holds. From any thread."""
        return time.monotonic() - self._waited_at < _WAITING

    # --- sending and collecting -----------------------------------------------------------

    def _send(self, batch: "Batch", tasks: list[Any], items: list[Item]) -> None:
        """Send jobs, which may be recalled from now on."""
        ticket = self._ticket + 1
        try:
            sent = jobs_frame(ticket, items)
        except MemoryError:  # the only job of this frame is very large
            for task in tasks:
                batch.fail(task, MemoryError("this process has no memory to send these parameters"))
            return
        self._ticket += len(tasks)
        self._tasks.update(zip(range(ticket, ticket + len(tasks)), zip(repeat(batch), tasks), strict=False))
        self._frames += 1
        self._child.offer(tokens_of(ticket, len(tasks)))
        self._write(sent)

    def _collect(self) -> None:
        """Take answers until the child has done all that it was sent."""
        patience, is_silent = _PATIENCE, False
        while self._frames:
            if self._failure is not None:
                raise self._failure
            if self._step is not None:
                self._read_on()
            elif len(self._tasks) > 1:
                if self._read_on(patience):
                    patience = _PATIENCE
                else:  # an answer may wait for another one
                    self._child.interrupt(FLUSH)
                    patience = min(2 * patience, _MOST_PATIENCE)
            elif self._read_on(_SILENCE) or self._tasks:
                is_silent = False
            elif is_silent:
                raise self._stopped()
            else:
                is_silent = True

    def _stopped(self) -> ConnectionLost:
        """Kill a child that hangs, and return the error. All its jobs were taken back."""
        self._child.kill()
        lost = self._lost(begun=False, blames=False)
        lost.__cause__ = ChildProcessEnded(f"{self._child} did not answer, and was killed")
        return lost

    # --- reading and writing --------------------------------------------------------------

    def _write(self, data: bytes, seconds: float | None = None) -> None:
        """Write all of `data`, and read in between: the child may have to send an answer first.

        If the child is gone, nothing is written and nothing raised: the next read tells that,
        behind the answers that the child gave before.
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

    def _read_on(self, seconds: float | None = None) -> bool:
        """Read and parse once; say whether anything came in time. An error goes to `_failure`."""
        try:
            came = self._read(seconds)
            self._parse()
        except ConnectionLost as error:
            self._failure = error
            return True
        return came

    def _read(self, seconds: float | None = None) -> bool:
        """Read the bytes that are there, or wait for them; say whether any came in time.

        Raises:
            ConnectionLost: the child has ended.
        """
        inbound = self._inbound
        place, room = inbound.address + self._filled, inbound.size - self._filled
        got = self._child.read(place, room, seconds, eager=self._seconds < _SHORT)
        if got == 0:
            raise self._lost() from self._child.reap()
        self._filled += got or 0
        return got is not None

    def _parse(self) -> None:
        """Handle all whole frames that were read; keep the beginning of the next frame.

        Raises:
            ConnectionLost: the child says so, or has sent an unreadable frame.
        """
        at, size, wanted = 0, self._filled, 0
        view = memoryview(self._inbound.bytes)
        try:
            while size - at >= HEAD.size:
                magic, length, ticket, kind, seconds = HEAD.unpack_from(view, at)
                _require(magic == MAGIC and ticket <= self._ticket, "no frame of a job that it was sent")
                end = at + HEAD.size + length
                if end > size:
                    wanted = HEAD.size + length
                    break
                self._take(kind, ticket, view[at + HEAD.size : end], seconds)
                at = end
            _require(at == size or view[at] == FIRST_BYTE, "no frame")
            larger, smaller = wanted > self._inbound.size, self._inbound.size > PIPE >= wanted
            if at == 0 and not larger and not smaller:
                return  # there is room for the rest of this frame
            rest = bytes(view[at:size])
            if larger or smaller:
                self._inbound = Inbound(max(wanted, PIPE))
        except ConnectionLost:
            raise
        except Exception as error:  # noqa: BLE001  # whatever cannot be loaded: nothing behind it can be trusted
            message = f"{self._child} sent a frame that cannot be read ({type(error).__name__}: {error})"
            raise self._lost() from ConnectionError(message)
        self._inbound.bytes[: len(rest)] = rest
        self._filled = len(rest)

    def _take(self, kind: int, ticket: int, body: memoryview, seconds: float) -> None:
        """Handle one frame."""
        if kind in (ANSWERS, DONE):
            self._take_answers(body)
            self._frames -= kind == DONE
        elif kind == WAITS:
            self._waited_at = time.monotonic()
        elif kind in (RESULT, ROWS, PICKLED, BESIDE):
            self._take_result(kind, ticket, body, seconds)
        elif kind == LOST:
            begun, blames = bool(body[0] & 1), bool(body[0] & 2)
            raise self._lost(begun=begun, blames=blames) from load_error(body[1:], BaseException)
        elif kind == RETURNED:
            self._take_back(marshal.loads(body))
        elif kind == READY:
            self._take_facts(*marshal.loads(body))
            self._sink(ticket, None, None, 0.0)
        else:
            error = load_error(body, BaseException if kind == FAILED else Exception)
            self._rows, self._unloadable = [], None
            self._sink(ticket, None, error, seconds)

    def _take_answers(self, body: memoryview) -> None:
        """Hand on small results of several jobs."""
        sink, seconds = self._sink, self._seconds
        for ticket, seconds, result in loads(body):
            if result is None:
                sink(ticket, None, NeedsWriter(), seconds)
            else:
                sink(ticket, Result(*(loads(result) if type(result) is bytes else result)), None, seconds)
        self._seconds = seconds

    def _take_facts(self, warnings: tuple[str, ...], reads_only: bool, *_: Any) -> None:
        """Take note of the facts about the open connection."""
        self.warnings, self.reads_only = warnings, reads_only

    def _take_back(self, tickets: list[int]) -> None:
        """Return jobs that the other end had claimed to the queue."""
        tasks = [self._tasks.pop(ticket) for ticket in tickets if ticket in self._tasks]  # the others were answered
        for batch, task in reversed(tasks):  # each goes to the head of the queue
            batch.give_back(task)

    def _take_result(self, kind: int, ticket: int, body: memoryview, seconds: float) -> None:
        """Hand on a result, or keep a part of one."""
        value: Any = None
        try:
            if kind == BESIDE:
                value = load_pickled(body[COUNT.size :], self._child.buffers(*COUNT.unpack_from(body)))
            else:
                value = load_pickled(body) if kind == PICKLED else loads(body)
        except Exception as failure:  # the frames before and after this frame are whole
            if kind in (RESULT, ROWS) and not isinstance(failure, MemoryError):
                raise
            self._unloadable = failure
        if kind == ROWS:
            self._rows += value or ()
            return
        rows, unloadable = self._rows, self._unloadable
        self._rows, self._unloadable = [], None
        self._seconds = seconds
        if unloadable is not None:
            lost = ResultLost(f"the job was done, and its result cannot be loaded here ({type(unloadable).__name__})")
            lost.__cause__ = unloadable
            self._sink(ticket, None, lost, seconds)
            return
        if kind == RESULT:
            value = Result(*value)
            if rows:
                value.rows = [*rows, *value.rows]
        self._sink(ticket, value, None, seconds)

    # --- the end --------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._child.closed:
            raise self._lost() from self._child.reap()

    def _lost(self, **flags: bool) -> ConnectionLost:
        return ConnectionLost(str(self._child), **flags)


def _nowhere(*_: object) -> None:
    """Take an answer for which nothing waits."""


def _require(right: bool, what: str) -> None:
    if not right:
        raise ValueError(what)
