"""Child: a child process with its pipes, as its parent sees it. `host` has a picture of them."""

import ctypes
import fcntl
import marshal
import mmap
import os
import select
import signal
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from actors.databases.child.claims import TOKEN, tokens_in
from actors.databases.child.frames import OUT_OF_MEMORY, TICKET
from actors.databases.child.syscalls import quick_read, quick_read_into, quick_write
from actors.system.log import log
from actors.system.threads import CrewThread
from actors.values.errors import ChildProcessEnded

if TYPE_CHECKING:
    import subprocess

__all__ = ["PIPE", "Child", "Ends", "Inbound", "Peer", "module_path", "start_python"]

PIPE: Final = 1 << 19
"""Bytes that a pipe of answers holds, if the system allows: most results travel in one write.
Linux gives all pipes of a user who is not root 64 MB."""
_PORTION = 1 << 16  # bytes that are written at a time, as many as a pipe takes
_EAGER = 30e-6  # seconds to wait for an answer without sleeping, if it will come soon
_CLOSING = 2.0  # seconds that a child has to close its connection before it is killed

# The program that a child starts with. It can import this package only when it has this process's
# module path, so it reads the path first.
_BOOT = """\
import marshal, os, sys
at, left, parts = int(sys.argv[1]), int(sys.argv[2]), []
while left:
    parts.append(os.read(at, left))
    left -= len(parts[-1]) or sys.exit(1)
sys.path[:] = marshal.loads(b"".join(parts))
descriptors = map(int, [sys.argv[1], *sys.argv[3:-1]])
sys.argv[1:] = []
from actors.databases.{module} import main
main(*descriptors)
"""


def start_python(
    module: str, path: bytes, descriptors: tuple[int, ...], name: str, **options: Any
) -> "subprocess.Popen[bytes]":
    """Start a process that calls `main(*descriptors)` of a module of this package.

    Args:
        module: the name of the module behind `actors.databases`.
        path: the bytes that must be written to the first descriptor, before all others.
        descriptors: the descriptors of this process that the new process gets.
        name: the name that the list of processes shows.
        options: more options of `subprocess.Popen`.
    """
    import subprocess

    flags: list[str] = getattr(subprocess, "_args_from_interpreter_flags", list)()
    first, *others = descriptors
    numbers = map(str, [first, len(path), *others])
    boot = _BOOT.replace("{module}", module)
    command = [sys.executable, *flags, "-c", boot, *numbers, f"querycrew-{name}"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=descriptors, process_group=0, **options)


class Ends:
    """The pipe ends of this process. Each is closed once: its number may be reused afterwards."""

    def __init__(self) -> None:
        self._open: list[int] = []
        _all_ends.add(self)  # before the first pipe: a fork may come at any time

    def pipe(self) -> tuple[int, int]:
        """Return a new pipe's reading and writing end."""
        reading, writing = map(_above_the_standard_streams, os.pipe())
        self._open += (reading, writing)
        return reading, writing

    def add(self, end: int) -> int:
        """Own another descriptor, which may get another number; return it."""
        end = _above_the_standard_streams(end)
        self._open.append(end)
        return end

    def close(self, *ends: int) -> None:
        """Close those `ends` that are open; without arguments, close all."""
        for end in ends or tuple(self._open):
            if end in self._open:
                self._open.remove(end)
                os.close(end)


_all_ends: Final["weakref.WeakSet[Ends]"] = weakref.WeakSet()
_peers: Final["weakref.WeakSet[Peer]"] = weakref.WeakSet()


def _above_the_standard_streams(end: int) -> int:
    """Return `end`, or a copy above the standard streams: the child gets other standard streams."""
    if end > 2:
        return end
    copy = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(end)
    return copy


class Inbound:
    """Mapped memory for answers. Unused pages of it cost nothing, and go back to the system."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.bytes = mmap.mmap(-1, size)
        # The address is valid as long as this object exists.
        self._first = ctypes.c_char.from_buffer(self.bytes)
        self.address = ctypes.addressof(self._first)


class Peer:
    """The other end of a connection, and this process's ends of the pipes to it.

    `write`, `wait_to_write`, `read` and `close` belong to one thread; the others may come from any,
    until `close`. `str` of it names it for texts of errors.
    """

    path = b""
    """The bytes to write first."""

    def __init__(self) -> None:
        self.closed = False
        self.ended: Exception | None = None
        """How it has ended."""
        self.on_end: Callable[[], object] = lambda: None
        """Called once it has ended, in another thread."""
        self._ends = Ends()
        _peers.add(self)

    def _open_pipes(self) -> tuple[int, int, int, int]:
        """Make the pipes; return the ends of the peer: jobs, answers, tokens, control."""
        ends = self._ends
        jobs, self._jobs = ends.pipe()
        self._replies, answers = ends.pipe()
        self._tokens_back, self._tokens = ends.pipe()
        control, self._control = ends.pipe()
        # The writing end is closed when the peer has ended. The other pipes do not show that: a
        # process that a child has started may hold them.
        self._over, self._over_there = ends.pipe()
        for end in (self._jobs, self._replies, self._tokens_back, self._control):
            os.set_blocking(end, False)
        with suppress(OSError, AttributeError):
            fcntl.fcntl(self._replies, fcntl.F_SETPIPE_SZ, PIPE)
        self._answers_or_end = select.poll()
        self._answers_or_end.register(self._replies, select.POLLIN)
        self._answers_or_end.register(self._over, select.POLLIN)
        self._room = select.poll()
        self._room.register(self._jobs, select.POLLOUT)
        self._room.register(self._replies, select.POLLIN)
        self._room.register(self._over, select.POLLIN)
        return jobs, answers, self._tokens_back, control

    @property
    def pid(self) -> int | None:
        """The number of its process, as far as it is known."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it at once. From any thread; never blocks."""
        raise NotImplementedError

    def reap(self) -> Exception:
        """Wait for its end, and help if that does not come; say how it ended."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the pipes and wait for its end. May be called again after a kill."""
        raise NotImplementedError

    def buffers(self, count: int) -> list[memoryview]:
        """Return the next buffers that came beside the pipes, as a BESIDE frame has announced.

        Raises:
            Exception: they cannot be had.
        """
        raise NotImplementedError

    def forget_the_parent(self) -> None:
        """In the child of a fork: it is a peer of the parent, and not of this process."""
        self.closed = True

    # --- pipes ----------------------------------------------------------------------------

    def write(self, data: bytes, at: int) -> int:
        """Write as many bytes of `data` from `at` on as the pipe takes now; return how many.

        Raises:
            BlockingIOError: nothing can be written now.
            BrokenPipeError: nobody will read it.
        """
        return quick_write(self._jobs, data[at : at + _PORTION] if at or len(data) > _PORTION else data)

    def wait_to_write(self, seconds: float | None = None) -> bool:
        """Wait for room, answers, or the end of the child; say whether to read before writing."""
        return any(end != self._jobs for end, _ in self._room.poll(_milliseconds(seconds)))

    def read(self, address: int, room: int, seconds: float | None = None, *, eager: bool = False) -> int | None:
        """Read answers to a place in memory, waiting for them.

        Args:
            address: the place.
            room: bytes that are free there.
            seconds: how long to wait at most.
            eager: not to sleep at first, since the answer is about to come.

        Returns:
            How many bytes; 0 if the child has ended and all that it wrote was read; `None` if the
            time is over.
        """
        eager_until = time.perf_counter() + _EAGER if eager else 0.0
        while eager_until and time.perf_counter() < eager_until:
            with suppress(BlockingIOError):
                return quick_read_into(self._replies, address, room)
            os.sched_yield()
        while True:
            if not self._answers_or_end.poll(_milliseconds(seconds)):
                return None
            with suppress(BlockingIOError):
                return quick_read_into(self._replies, address, room)
            if self.ended is not None:
                return 0

    def offer(self, tokens: bytes) -> None:
        """Let jobs with these tokens be begun or taken back."""
        if not self.closed:
            quick_write(self._tokens, tokens)

    def recall(self, most: int) -> list[int]:
        """Draw up to `most` tokens back, the oldest first; return them."""
        drawn = b"" if self.closed else quick_read(self._tokens_back, most * TOKEN.size)
        return tokens_in(drawn)

    def interrupt(self, ticket: int) -> None:
        """Interrupt the job with this ticket."""
        with suppress(OSError):  # the pipe of a stopped child is full: enough interrupts wait in it
            if not self.closed:
                quick_write(self._control, TICKET.pack(ticket))


class Child(Peer):
    """A child process; see `Peer`."""

    def __init__(self, home: str | None, name: str) -> None:
        """Start the process, which finds modules like this one; relative paths begin at `home`."""
        super().__init__()
        self.path = module_path(home)
        self._process = self._start(name)
        self._watcher = CrewThread(self._watch, f"querycrew-child-{self.pid}")
        try:
            self._watcher.start()
            if not self._watcher.has_begun:
                message = "the thread that watches a child process was killed as it began"
                raise RuntimeError(message)  # noqa: TRY301
        except BaseException:  # no thread could be started
            self.kill()
            self._process.wait()
            self._ends.close()
            raise

    def __str__(self) -> str:
        return f"child process {self.pid}"

    def _start(self, name: str) -> "subprocess.Popen[bytes]":
        ends = self._ends
        try:
            jobs, answers, tokens, control = self._open_pipes()
            lifeline, _ = ends.pipe()
            theirs = (jobs, answers, tokens, control, lifeline)
            process = start_python("child.main", self.path, theirs, name)
            ends.close(jobs, answers, control, lifeline)
        except BaseException:
            ends.close()
            raise
        return process

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    # --- the end --------------------------------------------------------------------------

    def _watch(self) -> None:
        """Wait for the end of the process: so the death of an idle child is noticed at once."""
        code = self._process.wait()
        self.ended = ChildProcessEnded(_how(self.pid, code))
        self._ends.close(self._over_there)
        self.on_end()

    def kill(self) -> None:
        """End the process at once."""
        if not self.closed:
            with suppress(OSError):
                self._process.kill()

    def reap(self) -> Exception:
        """Wait for the end of the process, and help if it does not come; say how it ended."""
        self._watcher.join(_CLOSING)
        if self._watcher.is_alive():
            log(__name__, "warning", "child_killed", pid=self.pid)
            with suppress(OSError):
                self._process.kill()
            self._watcher.join()
        return self.ended or ChildProcessEnded(f"child process {self.pid} ended, and nobody can say how")

    def close(self) -> None:
        """Close the pipes and wait for the end of the process. May be called again after a kill."""
        self.closed = True  # before the pipes are closed: their numbers may be used again for other files
        self._ends.close(self._jobs)
        self.reap()
        self._ends.close()
        _peers.discard(self)

    def forget_the_parent(self) -> None:
        """In the child of a fork: the process is not a child of this one; nothing waits for it."""
        super().forget_the_parent()
        process: Any = getattr(self, "_process", None)
        if process is not None:  # else the fork came while the process started
            process.returncode = 0


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else max(0.0, min(seconds, 3600.0)) * 1000


def module_path(home: str | None) -> bytes:
    """Return the module path of this process, for a child that may start in another folder."""
    entries = [entry for entry in sys.path if isinstance(entry, str)]
    if home is None:
        entries = [entry for entry in entries if os.path.isabs(entry)]
    else:
        entries = [os.path.join(home, entry) for entry in entries]
    return marshal.dumps(entries)


def _how(pid: int, code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            name = signal.Signals(-code).name
            hint = ", by hand or because the system ran out of memory" if name == "SIGKILL" else ""
            return f"child process {pid} was killed by {name}{hint}"
        return f"child process {pid} was killed by signal {-code}"
    if code == OUT_OF_MEMORY:
        return f"child process {pid} ran out of memory"
    if code == 0 and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        return f"child process {pid} ended, and nobody can say how, since this program ignores SIGCHLD"
    return f"child process {pid} ended with exit code {code}"


def _after_fork_in_child() -> None:
    for ends in list(_all_ends):  # first: an open end would keep a child of the parent alive
        with suppress(OSError):
            ends.close()
    for peer in list(_peers):
        peer.forget_the_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
