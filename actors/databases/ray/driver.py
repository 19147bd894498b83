"""The main program of the gateway process: it holds the Ray driver of a program.

Ray ends its driver process when the cluster is gone. So the driver is not the program: the gateway
ends, the program lives, and the crew starts another gateway.

    the program ── socket ──► main thread: new links, with the pipes of each; KILL
                ◄── socket ── ENDED: a link has ended, or (link 0) the gateway itself;
                              BUFFERS: large buffers of an answer, in shared memory
                ── pipes ───► two threads for each link (`Relay`): one for jobs, one for interrupts
                ── lifeline ► nothing is written: at its end the kernel kills this process

The main thread calls `ray.init`: the processes of a local cluster end with the thread that has
started them.
"""

import marshal
import os
import pickle
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any, Final, NoReturn

from actors.databases.child.frames import COUNT
from actors.databases.child.main import tie
from actors.databases.child.results_codec import error_body
from actors.databases.ray.messages import BUFFERS, ENDED, KILL, LINK, UNSHARED, Cluster, Message, Messages
from actors.databases.ray.relay import Relay
from actors.databases.ray.shared import SharedPool
from actors.databases.ray.watchdog import Watchdog
from actors.values.errors import ChildProcessEnded

__all__ = ["main"]

_TRIMMING: Final = 1.0  # seconds between two looks for unused memory
_SUSPICION: Final = 60.0  # seconds
_REACHING: Final = 1.0  # seconds in which a node must accept a connection


def main(number: int, lifeline: int) -> NoReturn:
    """Serve the links of a program until the program wants no more."""
    for descriptor in (number, lifeline):
        os.set_inheritable(descriptor, False)
    tie(lifeline)
    program = _Program(socket.socket(fileno=number))
    try:
        cluster: Cluster = pickle.loads(program.specification())  # from our own program
        driver = _connect(cluster)
    except BaseException as error:  # noqa: BLE001  # the program decides what it means
        program.tell_end(0, error)
        os._exit(1)
    Gateway(cluster, driver, program).serve()


class _Program(Messages):
    """The socket to the program."""

    def specification(self) -> bytes:
        """Return the first message: the pickled `Cluster`."""
        return self.receive()[2]

    def next(self) -> Message | None:
        """Return the next message; `None` at the end."""
        try:
            return self.receive()
        except EOFError:
            return None

    def tell_end(self, link: int, error: BaseException) -> None:
        """Tell the program that a link has ended, and why. From any thread; never raises."""
        self.send(ENDED, link, error_body(error))


def _connect(cluster: Cluster) -> Any:
    """Connect to the cluster; return the module `ray`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Without this, a call after `ray.shutdown` would silently start a new local cluster.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    os.environ.setdefault("RAY_gcs_rpc_server_connect_timeout_s", "5")
    import ray

    address = cluster.address
    if address is not None and address != "auto":
        _probe(address, cluster.silence)
        if not address.startswith("ray://"):
            _check_access(address)
    init: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address is None:
        init["include_dashboard"] = False
    try:
        ray.init(address=address or "local", **{**init, **cluster.init})
    except ConnectionError as error:
        message = f"no Ray cluster answers at {address!r}: {error}"
        raise ConnectionError(message) from None
    except RuntimeError as error:  # another version of Ray or of Python; the text has several lines
        message = f"the Ray cluster at {address!r} cannot be used: {' '.join(str(error).split())}"
        raise ConnectionError(message) from None
    return ray


def _probe(address: str, seconds: float) -> None:
    """Raise if nobody listens at the address: Ray itself would try for long."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)), seconds).close()
    except OSError as error:
        message = f"no Ray cluster answers at {address}: {error}"
        raise ConnectionError(message) from None


def _check_access(address: str) -> None:
    """Raise if the cluster refuses this program: Ray itself would ask again for 20 seconds.

    A client with a made-up cluster is answered at once. The answer shows only whether the token is
    right. An interface of Ray that has changed tells nothing, and raises nothing.
    """
    answer = ""
    with suppress(ImportError, TypeError):
        from ray._raylet import GcsClient

        try:
            GcsClient(address=address, cluster_id="00" * 28).internal_kv_get(b"querycrew", None, timeout=2)
        except Exception as error:  # noqa: BLE001  # of Ray
            answer = str(error)
    if "InvalidAuthToken" in answer:
        message = (
            f"the Ray cluster at {address} wants a token, and this program has none or another one: set "
            "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH if the token is not in ~/.ray/auth_token"
        )
        raise ConnectionError(message)
    if answer.startswith("Timed out"):
        message = f"no Ray cluster answers at {address}: a process there accepts connections, and gives Ray no answer"
        raise ConnectionError(message)


class Gateway:
    """The links of a program, and the cluster that their actors live in."""

    def __init__(self, cluster: Cluster, driver: Any, program: _Program) -> None:
        self.ray = driver
        """The module `ray`, connected."""
        self.watchdog = Watchdog(driver, cluster.silence, self._on_silence)
        self.pool = SharedPool()
        """The memory that large buffers travel in."""
        self._program = program
        # The open links, by their numbers. The main thread adds, the thread of a link removes it.
        self._relays: dict[int, Relay] = {}
        # When a node, or an actor on it, has not answered, by the number of the node. Ray takes up
        # to a minute to declare such a node dead, and places actors there until then.
        self._suspects: dict[str, float] = {}
        self._settling = threading.Lock()
        self.careful: dict[str, int] = {}
        """How many more calls of a crew carry one job each; see `Relay`."""

    def serve(self) -> NoReturn:
        """Serve links until the program closes the socket."""
        self.watchdog.start()
        threading.Thread(target=self._trim, name="querycrew-memory", daemon=True).start()
        while (message := self._program.next()) is not None:
            kind, number, _, pipes = message
            if kind == LINK:
                relay = self._relays[number] = Relay(self, number, pipes)
                relay.start()
            elif kind == KILL and (relay := self._relays.get(number)) is not None:  # type: ignore[assignment]
                relay.lose(ChildProcessEnded(f"{relay} was given up"))
        self.watchdog.stop()
        for relay in list(self._relays.values()):
            relay.kill()
        self.ray.shutdown()
        os._exit(0)

    def _trim(self) -> NoReturn:
        """Free shared memory that is not used."""
        while True:
            time.sleep(_TRIMMING)
            self.pool.trim()

    def alive(self) -> list[dict[str, Any]]:
        """Return the nodes of the cluster that live, as `ray.nodes` describes them."""
        return [node for node in self.ray.nodes() if node["Alive"]]

    def suspect(self, node: str) -> None:
        """Note that a node, or an actor on it, did not answer. New actors avoid it for a while."""
        self._suspects[node] = time.monotonic()

    def trusted(self, nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the nodes without the suspected ones; all of them if none would be left."""
        return [node for node in nodes if self._is_trusted(node)] or nodes

    def _is_trusted(self, node: dict[str, Any]) -> bool:
        since = time.monotonic() - _SUSPICION
        if self._suspects.get(node["NodeID"], since) > since:
            return False
        return self.reaches(node)

    def reaches(self, node: dict[str, Any]) -> bool:
        """Say whether a node accepts a connection. If not, new actors avoid it for a while."""
        try:
            socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), _REACHING).close()
        except OSError:
            self.suspect(node["NodeID"])
            return False
        return True

    def settle(self, newcomer: Relay, nodes: list[dict[str, Any]]) -> None:
        """Note for a new link the node that has the fewest actors of its crew."""
        with self._settling:
            relays = [relay for relay in list(self._relays.values()) if relay.crew == newcomer.crew]
            taken = Counter(relay.node for relay in relays if relay is not newcomer)
            newcomer.node = min((str(node["NodeID"]) for node in nodes), key=lambda node: taken[node])

    def tell_end(self, number: int, error: BaseException) -> None:
        """Tell the program that a link has ended. From any thread."""
        self._program.tell_end(number, error)

    def bring(self, number: int, buffers: list[Any]) -> None:
        """Bring the program large buffers of an answer. From any thread.

        The frame of the answer follows on the pipe of the link.
        """
        try:
            descriptor, places = self.pool.put(buffers)
        except OSError as error:
            self._program.send(UNSHARED, number, COUNT.pack(len(buffers)) + error_body(error))
            return
        self._program.send(BUFFERS, number, marshal.dumps(places), [descriptor])
        os.close(descriptor)

    def forget(self, number: int) -> None:
        """Forget a link that has ended. From any thread."""
        self._relays.pop(number, None)

    def _on_silence(self, error: ChildProcessEnded) -> NoReturn:
        """End this process: the cluster is gone."""
        self._program.tell_end(0, error)
        os._exit(1)
