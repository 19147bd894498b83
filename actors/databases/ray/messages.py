"""The messages between a program and its gateway.

Each message is a frame, as on the pipes of a child (`child/frames.py`). Its ticket is the number of
a link: one worker's connection.
"""

import array
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

from actors.databases.child.frames import HEAD, MAGIC, frame
from actors.values.record import Record

__all__ = ["BUFFERS", "ENDED", "KILL", "LINK", "UNSHARED", "Cluster", "Message", "Messages", "Placement", "RayNode"]

LINK, KILL = 100, 101
"""To the gateway: LINK brings the pipes of a new link, as descriptors. KILL ends the link's
actor."""
ENDED, BUFFERS, UNSHARED = 102, 103, 104
"""From the gateway. ENDED: the link has ended; the body is the error. Link 0 is the gateway itself.
BUFFERS: large buffers of an answer, as the descriptor of shared memory; the body has their places.
UNSHARED: there was no memory for such buffers; the body is their number, and the error."""

_DESCRIPTORS: Final = 4  # in one message, at most

Message: TypeAlias = tuple[int, int, bytes, list[int]]
"""The kind, the link, the body, and the descriptors that came with it."""


class Messages:
    """One end of the socket between a program and its gateway.

    One thread receives. Any thread may send.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._sending = threading.Lock()

    def receive(self) -> Message:
        """Return the next message.

        Raises:
            EOFError: the other end is closed.
            ValueError: the bytes are no message.
        """
        descriptors: list[int] = []
        magic, length, link, kind, _ = HEAD.unpack(self._exactly(HEAD.size, descriptors))
        if magic != MAGIC:
            message = "bytes arrived that are no message"
            raise ValueError(message)
        return kind, link, self._exactly(length, descriptors), descriptors

    def _exactly(self, size: int, descriptors: list[int]) -> bytes:
        data = b""
        while len(data) < size:
            more, extra, _, _ = self._socket.recvmsg(size - len(data), socket.CMSG_SPACE(_DESCRIPTORS * 4))
            if not more:
                raise EOFError
            for level, kind, content in extra:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    descriptors += array.array("i", content)
            data += more
        return data

    def send(self, kind: int, link: int, body: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """Send a message. If nobody reads it, do nothing."""
        data = frame(kind, link, body)
        with suppress(OSError), self._sending:
            sent = socket.send_fds(self._socket, [data], descriptors) if descriptors else 0
            self._socket.sendall(data[sent:])

    def send_now(self, kind: int, link: int) -> None:
        """Send a message without a body, unless that would block."""
        if self._sending.acquire(timeout=0.1):
            try:
                with suppress(OSError):
                    self._socket.send(frame(kind, link, b""), socket.MSG_DONTWAIT)
            finally:
                self._sending.release()


class Cluster(Record):
    """The cluster that a gateway connects to. Each cluster has one gateway in a program."""

    address: str | None
    """As for `Ray`."""
    init: Mapping[str, Any]
    """More arguments of `ray.init`."""
    silence: float
    """Seconds after which a cluster, or an actor, that does not answer is given up."""


class RayNode(Record):
    """A node of a cluster."""

    number: str
    """The number that Ray gives the node. No other node ever gets it."""
    address: str
    """Its network address."""
    host: str
    """The name of the machine."""
    resources: Mapping[str, float]
    """All its resources, such as `CPU` and `memory`, whether they are free or not."""
    labels: Mapping[str, str]
    """The labels that were given to the node, and Ray's own."""


class Placement(Record):
    """Where an actor lives."""

    crew: str
    """Workers with the same text are spread over the nodes together."""
    each_node: bool
    """Whether the actor goes to the node with the fewest workers of this crew."""
    node: str | None
    """The name, address or number of the only node."""
    options: Mapping[str, Any]
    """The options of the actor, as `ray.remote` takes them."""
    until: float
    """The monotonic time of this machine at which the actor must have opened its connection."""
