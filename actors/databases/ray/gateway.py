"""GatewayProcess: the process that holds the Ray driver, and its links, as the program sees them.

`driver` has a picture. A program has one gateway for each cluster. It starts with the first link,
and ends with the last one.
"""

import marshal
import os
import pickle
import socket
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, cast

from actors.databases.child.frames import COUNT, SPECIFICATION
from actors.databases.child.process import Ends, Peer, module_path, start_python
from actors.databases.child.results_codec import load_error
from actors.databases.ray.messages import BUFFERS, ENDED, KILL, LINK, UNSHARED, Cluster, Messages
from actors.databases.ray.shared import forget, mapped
from actors.system.log import log
from actors.system.threads import CrewThread
from actors.values.errors import ChildProcessEnded

__all__ = ["Link", "link_to"]

_CLOSING: Final = 2.5  # seconds that an actor has to close its connection
_ENDING: Final = 5.0  # seconds that the gateway has to leave the cluster
# Seconds. A gateway whose last link was lost waits for the next link.
_LINGERING: Final = 3.0

_lock: Final = threading.Lock()
# The gateways that take new links, by the pickled clusters. Change it with the lock.
_gateways: Final[dict[bytes, "GatewayProcess"]] = {}


def link_to(cluster: Cluster, home: str | None) -> "Link":
    """Return a new link to a cluster; start a gateway if there is none.

    Raises:
        ChildProcessEnded: the gateway has ended at this moment.
    """
    key = pickle.dumps(cluster)
    with _lock:
        gateway = _gateways.get(key)
        if gateway is None or gateway.ended is not None:
            gateway = _gateways[key] = GatewayProcess(key, home)
        link = Link(gateway)
    link.open()
    return link


class GatewayProcess:
    """The gateway of one cluster."""

    def __init__(self, key: bytes, home: str | None) -> None:
        self._key = key
        self.ended: Exception | None = None
        """Why it takes no more links."""
        # The links, by their numbers. Change it with the lock.
        self._links: dict[int, Link] = {}
        self._last = 0
        self._ends = Ends()
        ours, theirs = socket.socketpair()
        socket_there = self._ends.add(theirs.detach())
        self._socket = socket.socket(fileno=self._ends.add(ours.detach()))
        self._messages = Messages(self._socket)
        try:
            lifeline, _ = self._ends.pipe()
            path = module_path(home)
            self._process = start_python("ray.driver", path, (socket_there, lifeline), "ray", **_silent())
            self._ends.close(socket_there, lifeline)
            self._socket.sendall(path)
            self._messages.send(SPECIFICATION, 0, key)
        except BaseException:
            self._close()
            raise
        CrewThread(self._listen, f"querycrew-ray-{self._process.pid}").start()

    def check(self) -> None:
        """Raise the reason if it takes no more links."""
        if self.ended is not None:
            raise self.ended

    # --- links ----------------------------------------------------------------------------

    def add(self, link: "Link") -> int:
        """Take note of a new link; return its number. With the lock."""
        self._last += 1
        self._links[self._last] = link
        return self._last

    def release(self, link: "Link", *, was_lost: bool) -> None:
        """Forget a link that is closed. End with the last one, unless a new link may follow."""
        with _lock:
            self._links.pop(link.number, None)
            if self._links or self.ended is not None:
                return
            if was_lost:
                timer = threading.Timer(_LINGERING, self._end_if_unused)
                timer.daemon = True
                timer.start()
                return
            self._retire()
        self._leave()

    def _end_if_unused(self) -> None:
        with _lock:
            if self._links or self.ended is not None:
                return
            self._retire()
        self._leave()

    def _retire(self) -> None:
        """Take no more links. With the lock."""
        self.ended = self.ended or ChildProcessEnded("the gateway to Ray has ended")
        if _gateways.get(self._key) is self:
            del _gateways[self._key]

    def _leave(self) -> None:
        """Let the process leave the cluster, and wait for its end."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._reap()

    def _reap(self) -> int:
        import subprocess

        try:
            return self._process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            log(__name__, "warning", "gateway_killed", pid=self._process.pid)
            self._process.kill()
            return self._process.wait()

    def end(self) -> None:
        """Kill the process. All links learn that."""
        self._process.kill()

    # --- messages -------------------------------------------------------------------------

    def bring(self, number: int, *pipes: int) -> None:
        """Send the pipes of a new link."""
        self._messages.send(LINK, number, descriptors=pipes)  # if it has ended, the link learns that by its thread

    def kill(self, number: int) -> None:
        """Let it end the actor of a link. Never blocks."""
        self._messages.send_now(KILL, number)

    def _listen(self) -> None:
        """Hear of the ends of links, and of its own; in a thread."""
        reason: Exception | None = None
        with suppress(OSError, EOFError, ValueError):
            while True:
                kind, number, body, descriptors = self._messages.receive()
                with _lock:
                    link = self._links.get(number)
                if number == 0:
                    reason = load_error(body, Exception)
                elif link is not None:
                    link.note(kind, body, descriptors)
                for descriptor in descriptors:
                    if link is None:
                        forget(descriptor)
                    os.close(descriptor)
        with _lock:
            self._retire()
        code = self._reap()
        reason = reason or ChildProcessEnded(f"the gateway to Ray, process {self._process.pid}, ended with code {code}")
        with _lock:
            links = list(self._links.values())
        for link in links:
            link.is_orphaned = True
            link.note_end(reason)
        self._close()

    def _close(self) -> None:
        self._socket.detach()
        self._ends.close()


class Link(Peer):
    """A worker's link to its Ray actor, by the gateway; see `Peer`."""

    def __init__(self, gateway: GatewayProcess) -> None:
        super().__init__()
        self._gateway = gateway
        self.number = gateway.add(self)
        self.name = "a Ray actor"
        self._has_ended = threading.Event()
        # Held to change `ended`, or the buffers. Notified of both.
        self._lock = threading.Condition()
        # The buffers that came beside the pipes and were not taken yet, or why one is missing.
        self._buffers: deque[memoryview | BaseException] = deque()
        self.was_lost = False
        """Whether the worker has lost its connection. Another worker will come then."""
        self.is_orphaned = False
        """Whether the gateway itself has ended."""

    def __str__(self) -> str:
        return self.name

    def open(self) -> None:
        """Make the pipes, and bring them to the gateway."""
        try:
            jobs, answers, tokens, control = self._open_pipes()
            self._gateway.bring(self.number, jobs, answers, tokens, control)
            self._ends.close(jobs, answers, control)
            self._gateway.check()
        except BaseException:
            self._ends.close()
            self._gateway.release(self, was_lost=True)
            raise

    @property
    def pid(self) -> None:
        """The connection knows it."""
        return None

    def note(self, kind: int, body: bytes, descriptors: list[int]) -> None:
        """Handle a message of the gateway. In the gateway's thread."""
        if kind == ENDED:
            self.note_end(load_error(body, Exception))
        elif kind == UNSHARED:
            (count,) = COUNT.unpack_from(body)
            self._add_buffers([load_error(body[COUNT.size :], Exception)] * count)
        elif kind == BUFFERS:
            places = marshal.loads(body)
            try:
                self._add_buffers(mapped(descriptors[0], places))
            except (OSError, MemoryError) as error:  # also if there is no room for one more mapping
                self._add_buffers([error] * len(places))

    def note_end(self, error: Exception) -> None:
        """Take note that the actor has ended, and tell the worker. In the gateway's thread."""
        self._end(error)
        self.on_end()

    def _add_buffers(self, buffers: "Sequence[memoryview | BaseException]") -> None:
        with self._lock:
            self._buffers.extend(buffers)
            self._lock.notify()

    def buffers(self, count: int) -> list[memoryview]:
        """Return the next buffers; see `Peer`. The gateway has sent them before the frame."""
        with self._lock:
            self._lock.wait_for(lambda: len(self._buffers) >= count or self.ended is not None)
            found = [self._buffers.popleft() for _ in range(min(count, len(self._buffers)))]
            failures = [each for each in found if isinstance(each, BaseException)]
            if len(found) < count and self.ended is not None:
                failures.append(self.ended)
        if failures:
            raise failures[0]
        return cast("list[memoryview]", found)

    def _end(self, error: Exception) -> None:
        with self._lock:
            if self.ended is not None:
                return
            self.ended = error
            self.was_lost = self.was_lost or not self.closed
            self._ends.close(self._over_there)
            self._lock.notify()
        self._has_ended.set()

    def kill(self) -> None:
        """End the actor; see `Peer`. The link is over at once, even if the gateway hangs."""
        if not self.closed:
            self._end(ChildProcessEnded(f"{self} was given up"))
        self._gateway.kill(self.number)

    def end_gateway(self) -> None:
        """Kill the gateway, which hangs. From any thread; never blocks."""
        self._gateway.end()

    def reap(self) -> Exception:
        """Wait for the end of the actor; see `Peer`."""
        if not self._has_ended.wait(_CLOSING):
            log(__name__, "warning", "actor_killed", actor=self)
            self._gateway.kill(self.number)
            self._end(ChildProcessEnded(f"{self} did not close its connection, and was killed"))
        return self.ended or ChildProcessEnded(f"{self} has ended")

    def close(self) -> None:
        """Close the pipes, and end the gateway if this is its last link; see `Peer`."""
        was_closed, self.closed = self.closed, True
        self._ends.close(self._jobs)
        self.reap()
        self._ends.close()
        if not was_closed:
            self._gateway.release(self, was_lost=self.was_lost)


def _silent() -> dict[str, int]:
    """Return the options for a process that prints nothing."""
    import subprocess

    return (
        {} if os.environ.get("QUERYCREW_RAY_VERBOSE") else {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    )


def _after_fork_in_child() -> None:
    _gateways.clear()
    if _lock.locked():
        _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork_in_child)
