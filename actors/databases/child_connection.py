"""A connection that lives in a child process: this process's end of it."""

import fcntl
import marshal
import mmap
import os
import select
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from actors.databases.base import Answer, token_of
from actors.databases.child_host import OUT_OF_MEMORY, TICKET, WHATEVER_RUNS
from actors.databases.frames import (
    FAILED,
    HEAD,
    LOST,
    PICKLED,
    READY,
    RESULT,
    ROWS,
    frame,
    load_error,
    load_pickled,
    request_frame,
)
from actors.databases.quick import Drawn, loads, quick_write
from actors.errors import ChildProcessEnded, ConnectionLost
from actors.log import log
from actors.messages import Request
from actors.result import Result

if TYPE_CHECKING:
    import subprocess

    from actors.databases.child_process import ChildProcess

__all__ = ["ChildConnection"]

_DEPTH = 32  # jobs in the child's hands at most; far less than the tickets that a token can tell apart
_PIPE = 1 << 20  # bytes that a pipe of answers holds, if the system allows: most results then travel at one go

# While a child has many short jobs in hand, their answers are awaited together, as network cards do it: to be woken for
# each costs more than the jobs (64 outstanding: 61 thousand/s without, 70 with it).
_CROWD = 8  # jobs
_SHORT = 20e-6  # seconds that a job ran
_PAUSE = 100e-6  # seconds

_PORTION = 1 << 16  # bytes that are written at a time, as many as a pipe takes
_CLOSING = 2.0  # seconds that a child has to close its connection before it is killed

# The child's first words: it cannot import anything of ours before it has this process's path.
_BOOT = """\
import marshal, os, sys
at, left, parts = int(sys.argv[1]), int(sys.argv[2]), []
while left:
    parts.append(os.read(at, left))
    left -= len(parts[-1]) or sys.exit(1)
sys.path[:] = marshal.loads(b"".join(parts))
descriptors = map(int, [sys.argv[1], *sys.argv[3:]])
sys.argv[1:] = []
from actors.databases.child_host import main
main(*descriptors)
"""

_open: Final["weakref.WeakSet[ChildConnection]"] = weakref.WeakSet()


class _Ends:
    """This process's ends of the pipes, each closed once: a number that is used after that may be another file's."""

    def __init__(self) -> None:
        self._open: list[int] = []

    def pipe(self) -> tuple[int, int]:
        """Return a new pipe's reading and writing end."""
        reading, writing = map(_above_the_standard_streams, os.pipe())
        self._open += (reading, writing)
        return reading, writing

    def close(self, *ends: int) -> None:
        """Close those of `ends` that are open, all without any."""
        for end in ends or tuple(self._open):
            if end in self._open:
                self._open.remove(end)
                os.close(end)


def _above_the_standard_streams(end: int) -> int:
    """Return `end`, or a copy of it where a program has closed its standard streams: the child is given others."""
    if end > 2:
        return end
    copy = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(end)
    return copy


class ChildConnection:
    """A connection in a child process, which takes jobs ahead while it runs another.

    Used by one thread, except for `recall`, `interrupt` and `abandon`, which may come from any until `close`.

    Jobs are sent with a token each; see `child_host`. `recall` draws tokens back.
    """

    depth = _DEPTH
    """How many jobs it takes at most, the running one included."""

    def __init__(self, database: "ChildProcess") -> None:
        self._database = database
        self._ends = _Ends()
        self._ended: ChildProcessEnded | None = None
        self._closed = False
        self._ticket = 0
        self._drawn = Drawn()
        # The ticket of the last answer, and how long that job ran.
        self._answered = 0
        self._seconds = 0.0
        # What was read and not looked at yet: a part of `_buffer`. Enough for most answers at one go, since each read
        # may have to wait for the interpreter, for 5 ms if another thread computes. Mapped: what is unused is free.
        self._buffer = mmap.mmap(-1, _PIPE)
        self._filled = 0
        self._answers: deque[Answer] = deque()
        # Of a result that comes in several frames.
        self._rows: list[tuple[Any, ...]] = []
        self.on_end: Callable[[], object] = lambda: None
        """Called once the child has ended, for whatever reason, in a thread of the child's own."""
        self._process = self._start()
        self._watcher = threading.Thread(target=self._watch, name=f"querycrew-child-{self.pid}", daemon=True)
        _open.add(self)
        try:
            self._watcher.start()
            self._tell_what_to_do()
            self._await_ready(time.monotonic() + database.start_timeout)
        except BaseException:
            self._kill()
            if self._watcher.ident is None:  # no thread could be started
                self._process.wait()
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The child's process number."""
        return self._process.pid

    # --- starting -------------------------------------------------------------------------

    def _start(self) -> "subprocess.Popen[bytes]":
        import subprocess

        ends = self._ends
        try:
            jobs, self._jobs = ends.pipe()
            self._replies, answers = ends.pipe()
            self._tokens_back, self._tokens = ends.pipe()
            control, self._control = ends.pipe()
            lifeline, self._lifeline = ends.pipe()
            for end in (self._jobs, self._tokens_back, self._control):
                os.set_blocking(end, False)
            with suppress(OSError, AttributeError):
                fcntl.fcntl(self._replies, fcntl.F_SETPIPE_SZ, _PIPE)
            theirs = (jobs, answers, self._tokens_back, control, lifeline)
            self._path = marshal.dumps([entry for entry in sys.path if isinstance(entry, str)])
            command = [sys.executable, *(["-I"] if sys.flags.isolated else []), "-c", _BOOT]
            command += map(str, [jobs, len(self._path), answers, self._tokens_back, control, lifeline])
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=theirs, process_group=0)
            ends.close(jobs, answers, control, lifeline)
        except BaseException:
            ends.close()
            raise
        return process

    def _tell_what_to_do(self) -> None:
        import pickle

        specification = pickle.dumps((self._database.database, self._database.memory_limit))
        with suppress(BrokenPipeError):  # it has ended; the wait for its first word will tell how
            self._write(self._path + frame(0, 0, specification))

    def _await_ready(self, deadline: float) -> None:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                limit = self._database.start_timeout
                message = f"child process {self.pid} did not open {self._database.database} within {limit:g} seconds"
                raise TimeoutError(message)
            if not _wait(self._replies, select.POLLIN, left):
                continue
            try:
                [(kind, body)] = self._read_first()
            except ConnectionLost as lost:
                raise (lost.__cause__ or lost) from None
            except ValueError:
                continue  # not the whole frame yet
            if kind == READY:
                return
            raise load_error(body) if kind == FAILED else _unreadable(self.pid)

    def _read_first(self) -> list[tuple[int, bytes]]:
        self._read()
        found = []
        if self._filled >= HEAD.size:
            length, _, kind, _ = HEAD.unpack_from(self._buffer)
            if self._filled >= HEAD.size + length:
                found.append((kind, bytes(self._buffer[HEAD.size : HEAD.size + length])))
                self._filled = 0
        return found

    # --- Connection -----------------------------------------------------------------------

    def execute(self, request: Request) -> Any:
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
            if not self._closed:
                with suppress(OSError):
                    os.write(self._control, TICKET.pack(WHATEVER_RUNS))
            self._closed = True  # before any number of a pipe may be another file's
            self._ends.close(self._jobs)
            if self._watcher.ident is not None:
                self._reap()
            self._ends.close()
            _open.discard(self)
        except Exception as error:  # noqa: BLE001  # nothing more can be done about it
            log(__name__, "error", "close_failed", database=self._database, error=error)

    def interrupt(self, ticket: int | None = None) -> None:
        """End the job with this ticket, or the last one; a job that is over by then is none. See `Connection`."""
        with suppress(OSError):  # a full pipe, as of a stopped child: it has interrupts enough
            if not self._closed:
                os.write(self._control, TICKET.pack(self._ticket if ticket is None else ticket))

    # --- Pipelined ------------------------------------------------------------------------

    def offer(self, tokens: bytes) -> None:
        """Let jobs be begun, once they are sent, or taken back; see `Pipelined`."""
        if not self._closed:
            quick_write(self._tokens, tokens)

    def send(self, jobs: Sequence[tuple[int, Request]]) -> None:
        """Send jobs that were offered; see `Pipelined`."""
        self._check_open()
        self._ticket = jobs[-1][0]
        try:
            self._write(b"".join([request_frame(ticket, request) for ticket, request in jobs]))
        except BrokenPipeError:
            raise self._lost() from self._reap()

    def check(self) -> None:
        """Raise `ConnectionLost` if the child has ended; see `Pipelined`."""
        if self._ended is not None:
            raise self._lost() from self._ended

    def receive(self) -> list[Answer]:
        """Return the answers that have come, waiting for one if there is none; see `Pipelined`."""
        self._check_open()
        if self._ticket - self._answered > _CROWD and self._seconds < _SHORT:
            time.sleep(_PAUSE)
        while not self._answers:
            self._read()
            self._parse()
        answers = list(self._answers)
        self._answered, _, _, self._seconds = answers[-1]
        self._answers.clear()
        return answers

    def recall(self, most: int) -> bytes:
        """Take jobs back that the child has not begun, the oldest first; see `Pipelined`."""
        return b"" if self._closed else self._drawn.read(self._tokens_back, most)

    def recalled(self) -> None:
        """Note that what was taken back is dealt with; see `Pipelined`."""
        self._drawn.clear()

    def abandon(self) -> None:
        """Kill the child; see `Pipelined`."""
        if not self._closed:
            self._kill()

    # --- reading and writing --------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        """Write all of `data`, and read meanwhile: the child may have to be rid of an answer before it can read."""
        at = 0
        while at < len(data):
            try:
                at += quick_write(self._jobs, data if len(data) <= _PORTION else data[at : at + _PORTION])
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._jobs, select.POLLOUT)
                poll.register(self._replies, select.POLLIN)
                if any(end == self._replies for end, _ in poll.poll()):
                    self._read()
                    self._parse()

    def _read(self) -> None:
        """Read what has come into the buffer, waiting for it.

        Raises:
            ConnectionLost: the child has ended.
        """
        room = memoryview(self._buffer)[self._filled :]
        got = os.readv(self._replies, [room])
        room.release()
        if not got:
            raise self._lost() from self._reap()
        self._filled += got

    def _parse(self) -> None:
        """Turn all whole frames of the buffer into answers; keep the beginning of the next, and room for its rest.

        Raises:
            ConnectionLost: the child says so, or what it sent cannot be read.
        """
        at, size, wanted = 0, self._filled, 0
        view = memoryview(self._buffer)
        try:
            while size - at >= HEAD.size:
                length, ticket, kind, seconds = HEAD.unpack_from(view, at)
                end = at + HEAD.size + length
                if end > size:
                    wanted = HEAD.size + length
                    break
                self._take(kind, ticket, view[at + HEAD.size : end], seconds)
                at = end
            rest = bytes(view[at:size])
            if wanted > len(self._buffer) or (len(self._buffer) > _PIPE and wanted <= _PIPE):
                self._buffer = mmap.mmap(-1, max(wanted, _PIPE))
        except ConnectionLost:
            raise
        except Exception as error:  # noqa: BLE001  # whatever cannot be loaded: nothing behind it can be trusted
            raise self._lost() from _unreadable(self.pid, error)
        self._buffer[: len(rest)] = rest
        self._filled = len(rest)

    def _take(self, kind: int, ticket: int, body: memoryview, seconds: float) -> None:
        value: Any = None
        error: Exception | None = None
        if kind == RESULT:
            value = Result(*loads(body))
            if self._rows:
                value.rows = [*self._rows, *value.rows]
        elif kind == ROWS:
            self._rows += loads(body)
            return
        elif kind == PICKLED:
            value = load_pickled(body)
        else:
            raised = load_error(body)
            if kind == LOST or not isinstance(raised, Exception):
                raise self._lost() from raised
            error = raised
        self._rows = []
        self._answers.append(Answer(ticket, value, error, seconds))

    # --- the end --------------------------------------------------------------------------

    def _watch(self) -> None:
        """Wait for the end of the child, in a thread of its own: an idle one that is killed is noticed at once."""
        code = self._process.wait()
        self._ended = ChildProcessEnded(_how(self.pid, code))
        self.on_end()

    def _check_open(self) -> None:
        if self._closed:
            raise self._lost() from self._reap()

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(f"child process {self.pid}")

    def _kill(self) -> None:
        with suppress(OSError):
            self._process.kill()

    def _reap(self) -> ChildProcessEnded:
        """Wait for the end of the child, and help if it does not come; say how it ended."""
        self._watcher.join(_CLOSING)
        if self._watcher.is_alive():
            log(__name__, "warning", "child_killed", pid=self.pid, database=self._database)
            self._kill()
            self._watcher.join()
        return self._ended or ChildProcessEnded(f"child process {self.pid} ended, and nobody can say how")

    def forget_the_parent(self) -> None:
        """In the child of a fork: let go of the pipes, whose ends here would keep the other side from noticing."""
        self._closed = True
        self._ends.close()
        self._process.returncode = 0  # it is no child of this process: nobody here shall wait for it


def _wait(descriptor: int, event: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(min(seconds, 3600) * 1000))


def _how(pid: int, code: int) -> str:
    if code < 0:
        import signal

        with suppress(ValueError):
            name = signal.Signals(-code).name
            hint = ", by hand or because the system ran out of memory" if name == "SIGKILL" else ""
            return f"child process {pid} was killed by {name}{hint}"
        return f"child process {pid} was killed by signal {-code}"
    if code == OUT_OF_MEMORY:
        return f"child process {pid} ran out of memory"
    return f"child process {pid} ended with exit code {code}"


def _unreadable(pid: int, error: BaseException | None = None) -> ConnectionError:
    why = "" if error is None else f" ({type(error).__name__}: {error})"
    return ConnectionError(f"child process {pid} sent what cannot be read{why}")


def _after_fork_in_child() -> None:
    for connection in list(_open):
        connection.forget_the_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
