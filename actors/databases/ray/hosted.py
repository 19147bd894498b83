"""HostedConnection: the Ray actor that holds one connection and runs jobs on it.

The code of a child process runs the jobs (`child/host.py`). Only the way of the frames differs: a
call of the actor brings jobs, and returns the frames that a child would write into its pipe.
"""

import marshal
import os
import pickle
import platform
import sys
from collections import deque
from contextlib import suppress
from typing import Any, Final, NoReturn, TypeAlias

from actors.databases.adapter import usable
from actors.databases.base import Connection
from actors.databases.child.claims import Claims
from actors.databases.child.frames import ANSWERS, FAILED, RETURNED, frame
from actors.databases.child.host import Host
from actors.databases.child.requests import Requests
from actors.databases.child.requests_codec import Item
from actors.databases.child.results_codec import error_frame

__all__ = ["CONTROL", "Answer", "Facts", "HostedConnection", "versions"]

CONTROL: Final = "control"
"""The concurrency group of the methods that answer while a job runs."""

Facts: TypeAlias = "tuple[bytes, int, str, str]"
"""The body of `READY`, the process, the name of the machine, and the number of the node."""


Answer: TypeAlias = bytes | tuple[bytes, list[pickle.PickleBuffer]]
"""The answer to a call: frames, and a byte, which is 1 if the connection is lost. Large buffers of
the answers stand beside the frames: Ray copies them once, into its store."""


class _Unending(BaseException):
    """Ends the jobs of a call, since the connection is lost."""

    def __init__(self, last: bytes) -> None:
        super().__init__()
        self.last = last


class _Numbers(Claims):
    """The claims of one call: the numbers of its jobs.

    A number is taken once: by the thread that runs the jobs, or by `take_back`.
    """

    def __init__(self) -> None:
        super().__init__(-1)
        self._numbers: deque[int] = deque()

    def offer(self, numbers: list[int]) -> None:
        """Let these jobs be begun."""
        self._numbers.extend(numbers)

    def draw(self, first: int, count: int) -> int | None:
        """Take the next number; see `Claims`."""
        del first, count
        try:
            return self._numbers.popleft()
        except IndexError:
            return None

    def take_back(self) -> list[int]:
        """Take all numbers that are left. From any thread."""
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(self._numbers.popleft())
        return taken


class _ActorHost(Host):
    """Runs the jobs of one call after the other, and keeps their frames for the answer."""

    claims: _Numbers
    _beside: list[Any]

    def __init__(self) -> None:
        super().__init__(Requests(0), -1, -1, -1)  # it reads and writes none of these
        self.claims = _Numbers()
        self.tells_first = False
        self._out: list[bytes] = []
        self._beside = []
        # The first ticket of the jobs that run.
        self._first = 0

    def use(self, connection: Connection) -> bytes:
        """Run all jobs on this connection; return the body of `READY`."""
        return self._use(connection)

    def interrupt(self, ticket: int) -> None:
        """Interrupt one job. From any thread."""
        self._interrupt(ticket)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def run(self, ticket: int, count: int, numbers: list[int], items: dict[int, Item]) -> Answer:
        """Run jobs of a frame; see `HostedConnection.run`."""
        self._first = ticket
        self.claims.offer(numbers)
        try:
            self._run(ticket, count, items)  # type: ignore[arg-type]  # it is asked for the drawn numbers only
        except _Unending as end:
            return self.taken(end.last)
        return self.taken()

    def taken(self, last: bytes = b"") -> Answer:
        """Take back the jobs that were not begun; return the frames that are there, each once.

        From any thread.

        Args:
            last: the frame that must come last, since the connection is lost.

        Returns:
            The frames, with `RETURNED` if jobs were taken back.
        """
        back = self.claims.take_back()
        self.flush()
        with self._writing:
            out, self._out = self._out, []
            buffers = self._beside[:]
            del self._beside[: len(buffers)]  # another thread may append to the list meanwhile
        if back:
            out.append(frame(RETURNED, 0, marshal.dumps([self._first + number for number in back])))
        frames = b"".join([*out, last, b"\1" if last else b"\0"])
        return (frames, buffers) if buffers else frames

    def flush(self, kind: int = ANSWERS) -> None:
        """Make a frame of all small answers; the gateway says when a frame is done."""
        del kind
        super().flush()

    def _put(self, data: bytes) -> None:
        self._out.append(data)

    def _end(self, last: bytes) -> NoReturn:
        raise _Unending(last)

    def _note_ahead(self, task: Any) -> None:
        """Fetch no rows ahead: nothing runs here between two calls."""


class HostedConnection:
    """A connection in a Ray actor. Methods of the group `CONTROL` answer while `run` runs."""

    def __init__(self) -> None:
        self._host = _ActorHost()

    def open(self, packed: bytes, path: list[str], wanted: tuple[str, ...]) -> "Facts | bytes":
        """Open the connection.

        Args:
            packed: the pickled database.
            path: where the program finds modules. Folders that exist here are added to the path.
            wanted: the versions of the program; see `versions`.

        Returns:
            The facts, or the body of a `FAILED` frame.
        """
        try:
            if (found := versions()) != wanted:
                return _failed(ImportError(_mismatch(wanted, found)))
            sys.path += [entry for entry in path if entry not in sys.path and os.path.exists(entry)]
            import ray

            connection = usable(pickle.loads(packed).connect())
            ready = self._host.use(connection)
            return ready, os.getpid(), platform.node(), ray.get_runtime_context().get_node_id()
        except BaseException as error:  # noqa: BLE001  # the crew decides what it means
            return _failed(error)

    def run(self, jobs: bytes) -> Answer:
        """Run jobs of a frame, or a step. One value in each direction: more cost more.

        Args:
            jobs: by `marshal`: the first ticket of the frame, how many jobs the frame had, the
                places in the frame of the jobs to run, and their requests.

        Returns:
            The answers. If the connection is lost, the last frame is `LOST`.
        """
        return self._host.run(*marshal.loads(jobs))

    def look(self) -> Answer:
        """Take back the jobs that were not begun. In the group `CONTROL`.

        Returns:
            The answers that are there, with `RETURNED` if jobs were taken back.
        """
        return self._host.taken()

    def interrupt(self, ticket: int) -> None:
        """Interrupt one job, if it runs or is about to run. In the group `CONTROL`."""
        self._host.interrupt(ticket)

    def ping(self) -> None:
        """Show that this process lives. In the group `CONTROL`."""

    def close(self) -> None:
        """Close the connection."""
        self._host.close()


def versions() -> tuple[str, ...]:
    """Return the versions that must be the same at both ends: of Python and of querycrew."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        ours = version("querycrew")
    except PackageNotFoundError:  # it runs from its sources
        ours = "?"
    return f"Python {sys.version_info.major}.{sys.version_info.minor}", f"querycrew {ours}"


def _mismatch(wanted: tuple[str, ...], found: tuple[str, ...]) -> str:
    return (
        f"a node of the Ray cluster ({platform.node()}) has {' and '.join(found)}, and the program has "
        f"{' and '.join(wanted)}; install the same versions on both"
    )


def _failed(error: BaseException) -> bytes:
    return error_frame(FAILED, 0, error)
