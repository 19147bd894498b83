"""Child processes in memory: both real ends of a connection, and pipes that are lists of bytes.

A read or a write of a pipe is one step, as it is one step of the kernel. A killed child takes no
further step. The bytes that it has written can still be read.
"""

import ctypes
from collections.abc import Callable
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any, ClassVar, NoReturn

from greenlet import GreenletExit

from actors.databases.child.claims import TOKEN
from actors.databases.child.frames import HEAD, OUT_OF_MEMORY, TICKET
from actors.databases.child.host import Host
from actors.databases.child.main import _connect
from actors.databases.child.requests import Requests
from actors.values.errors import ChildProcessEnded
from tests.worlds.system import stage

_CLOSING = 2.0  # seconds


class Pipe:
    """Bytes on their way."""

    def __init__(self, capacity: int) -> None:
        self.data = bytearray()
        self.closed = False
        """Whether one of its ends is."""
        self._capacity = capacity

    def write_some(self, data: bytes) -> int:
        """Write as much as there is room for, at once."""
        if self.closed:
            raise BrokenPipeError
        room = self._capacity - len(self.data)
        if room <= 0:
            raise BlockingIOError
        self.data += data[:room]
        return min(room, len(data))

    def write(self, data: bytes) -> None:
        """Write all, waiting for room."""
        at = 0
        while at < len(data):
            stage().wait(lambda: self.closed or len(self.data) < self._capacity)
            at += self.write_some(data[at:])

    def read_now(self, most: int) -> bytes:
        """Read the bytes that are there."""
        got = bytes(self.data[:most])
        del self.data[:most]
        return got

    def read(self, most: int) -> bytes:
        """Wait for bytes and read them; return no bytes once the other end is closed."""
        stage().wait(lambda: self.data or self.closed)
        return self.read_now(most)


class Process:
    """A child process: its pipes, its tasks, and its end."""

    def __init__(self, number: int, capacity: int) -> None:
        self.pid = 10_000 + number
        self.jobs, self.answers = Pipe(capacity), Pipe(capacity)
        self.tokens, self.control = Pipe(1 << 16), Pipe(4096)
        self.code: int | None = None
        stage().spawn(f"child {number}", self._main, self)

    def _main(self) -> None:
        host = Host(Requests(self.jobs), self.answers, self.tokens, self.control)  # type: ignore[arg-type]
        code = 0
        try:
            host.serve(partial(_connect, self._specification()))
        except MemoryError:
            code = OUT_OF_MEMORY
        except GreenletExit:
            raise
        except BaseException:
            code = 1
        self.end(code)

    def _specification(self) -> bytes:
        head = b""
        while len(head) < HEAD.size:
            head += self.jobs.read(HEAD.size - len(head)) or self.end(1)
        _, length, _, _, _ = HEAD.unpack(head)
        body = b""
        while len(body) < length:
            body += self.jobs.read(length - len(body)) or self.end(1)
        return body

    def end(self, code: int) -> NoReturn:
        """End from inside."""
        self.die(code)
        stage().leave()
        raise GreenletExit

    def die(self, code: int) -> None:
        """End, by the will of any party: the tasks of the child take no further step."""
        if self.code is not None:
            return
        self.code = code
        # Not the tokens: this process has both ends of that pipe.
        for pipe in (self.jobs, self.answers, self.control):
            pipe.closed = True
        stage().bury([task for task in stage().tasks if task.process is self])


class Child:
    """As `actors.databases.child.process.Child`, whose process is in memory."""

    numbers: ClassVar["count[int]"] = count(1)
    capacity: ClassVar[Callable[[], int]]
    on_recall: ClassVar[Callable[[], object]]

    def __init__(self, home: str | None, name: str) -> None:
        del home, name
        self.closed = False
        self.ended: ChildProcessEnded | None = None
        self.on_end: Callable[[], object] = lambda: None
        self.path = b""
        self.process = Process(next(Child.numbers), Child.capacity())
        self.pid = self.process.pid
        stage().spawn(f"watcher of {self.pid}", self._watch)

    def _watch(self) -> None:
        stage().wait(lambda: self.process.code is not None)
        self.ended = ChildProcessEnded(f"child process {self.pid} ended with {self.process.code}")
        self.on_end()

    def write(self, data: bytes, at: int) -> int:
        return self.process.jobs.write_some(data[at:])

    def wait_to_write(self, seconds: float | None = None) -> bool:
        process = self.process
        stage().wait(lambda: process.answers.data or process.code is not None or len(process.jobs.data) < 64, seconds)
        return bool(process.answers.data) or process.code is not None

    def read(self, address: int, room: int, seconds: float | None = None, *, eager: bool = False) -> int | None:
        process = self.process
        if not stage().wait(lambda: process.answers.data or process.code is not None, seconds):
            return None
        got = process.answers.read_now(room)
        ctypes.memmove(address, got, len(got))
        return len(got)

    def offer(self, tokens: bytes) -> None:
        if not self.closed:
            self.process.tokens.write_some(tokens)

    def recall(self, most: int) -> list[int]:
        Child.on_recall()
        drawn = b"" if self.closed else self.process.tokens.read_now(most * TOKEN.size)
        return [token for (token,) in TOKEN.iter_unpack(drawn)]

    def interrupt(self, ticket: int) -> None:
        if not self.closed and not self.process.control.closed:
            self.process.control.write_some(TICKET.pack(ticket))

    def kill(self) -> None:
        if not self.closed:
            self.process.die(-9)

    def reap(self) -> ChildProcessEnded:
        if not stage().wait(lambda: self.ended is not None, _CLOSING):
            self.process.die(-9)
            stage().wait(lambda: self.ended is not None)
        return self.ended or ChildProcessEnded("nobody can say how")

    def close(self) -> None:
        self.closed = True
        self.process.jobs.closed = True
        self.reap()


def _read(pipe: Pipe, most: int) -> bytes:
    """Read as `os.read`: of tokens, which are no frames, without waiting."""
    process: Any = getattr(stage().current, "process", None)
    if process is not None and pipe is process.tokens:
        if not pipe.data:
            raise BlockingIOError
        return pipe.read_now(most)
    return pipe.read(most)


def _read_into(pipe: Pipe, places: list[memoryview]) -> int:
    got = pipe.read(len(places[0]))
    places[0][: len(got)] = got
    return len(got)


def _end(code: int) -> NoReturn:
    task = stage().current
    if task is None or task.process is None:
        raise GreenletExit
    task.process.end(code)  # type: ignore[attr-defined]
    raise GreenletExit


def _tell_nowhere(error: BaseException) -> None:
    """Leave an error as it is.

    A note with the names of files would make a frame longer in another folder. A longer frame takes
    more steps, and the same seed would give another world there.
    """


_os = SimpleNamespace(read=_read, readv=_read_into)
_select = SimpleNamespace(poll=lambda: SimpleNamespace(register=lambda *_: None), POLLIN=1)
_no_time = SimpleNamespace(perf_counter=lambda: 0.0)

PATCHES: list[tuple[str, str, Any]] = [
    ("actors.databases.child.connection", "Child", Child),
    ("actors.databases.child.host", "os", _os),
    ("actors.databases.child.claims", "os", _os),
    ("actors.databases.child.host", "write", Pipe.write),
    ("actors.databases.child.host", "end", _end),
    ("actors.databases.child.host", "_tell_where", _tell_nowhere),
    ("actors.databases.child.requests", "os", _os),
    ("actors.databases.child.requests", "select", _select),
    ("actors.databases.child.requests", "time", _no_time),
]
"""The replacements of the system in the modules of a child's connection."""
