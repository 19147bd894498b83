"""The main program of a child process: it serves one connection, and ends with its parent."""

import fcntl
import gc
import os
import signal
import traceback
from contextlib import suppress
from functools import partial
from typing import NoReturn

from actors.databases.adapter import usable
from actors.databases.base import Connection
from actors.databases.child.frames import HEAD, OUT_OF_MEMORY
from actors.databases.child.host import Host, end
from actors.databases.child.requests import Requests

__all__ = ["main", "tie"]


def main(jobs: int, answers: int, tokens: int, control: int, lifeline: int) -> NoReturn:
    """Serve until the parent ends, or wants no more. In the main thread of a child process."""
    for descriptor in (jobs, answers, tokens, control, lifeline):
        os.set_inheritable(descriptor, False)
    os.register_at_fork(after_in_child=lambda: _let_go(jobs, answers, tokens, control, lifeline))
    tie(lifeline)
    # Rows contain no cycles. With Python's thresholds the search for cycles takes a sixth of the
    # time that fetching rows takes.
    gc.set_threshold(50_000, 10, 10)
    host = Host(Requests(jobs), answers, tokens, control)
    code = 0
    try:
        specification = _specification(jobs)
        os.set_blocking(jobs, False)  # from now on `Requests` reads it, and waits at first without sleeping
        host.serve(partial(_connect, specification))
    except MemoryError:
        code = OUT_OF_MEMORY
    except (BrokenPipeError, EOFError):
        code = 1  # the parent is gone
    except BaseException:  # noqa: BLE001  # a fault of ours: for whoever looks at standard error
        code = 1
        with suppress(BaseException):
            traceback.print_exc()
    end(code)


def tie(lifeline: int) -> None:
    """See to it that this process ends with its parent, and not before it because of the terminal.

    When the other end of the lifeline closes, the kernel sends SIGKILL. (Where only SIGIO can be
    had, it sends SIGIO, which ends a process as well.) So this process ends even while a function
    keeps the interpreter to itself, or while the process is stopped.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The child is not in the foreground of the terminal: after "stty tostop" a print would stop it.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        over = not os.read(lifeline, 1)
    except BlockingIOError:
        over = False
    if over:  # the parent ended before the kernel was asked to send the signal
        end(1)


def _specification(jobs: int) -> bytes:
    _, length, _, _, _ = HEAD.unpack(_read_exactly(jobs, HEAD.size))
    return _read_exactly(jobs, length)


def _connect(specification: bytes) -> Connection:
    """Open the connection that the parent wants, and keep to its limit of memory."""
    import pickle

    database, memory_limit = pickle.loads(specification)  # from our own parent
    _limit(memory_limit)
    return usable(database.connect())


def _let_go(*descriptors: int) -> None:
    """In a fork by a user's function: close the pipes, so that nothing waits for their end."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


def _read_exactly(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(descriptor, size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _limit(memory_limit: int | None) -> None:
    if memory_limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, memory_limit))
