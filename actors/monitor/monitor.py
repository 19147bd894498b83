"""Monitor: the thread that answers other processes of the same user about a crew."""

import os
import selectors
import socket
import time
from contextlib import suppress
from typing import Any, Final

from actors.databases.base import Database
from actors.databases.sqlite.database import SQLite
from actors.databases.sqlite.file import location_of
from actors.dispatch.dispatcher import Dispatcher
from actors.dispatch.worker_handle import WorkerState
from actors.memory import with_memory
from actors.monitor.folder import check_system, folders, is_mine, listen, sockets_in
from actors.monitor.protocol import LONGEST_REQUEST, VERSION, line_of, object_of, status_fields
from actors.system.log import log
from actors.system.threads import CrewThread

__all__ = ["Monitor"]

_MOST_CLIENTS: Final = 16
_PATIENCE: Final = 10.0  # seconds in which a client has to send a whole request, or to read an answer
_ROUND: Final = 0.05  # seconds between two rounds, so that no client takes the program's CPU
_FRESH: Final = 0.1  # seconds for which a snapshot answers all clients


class _Client:
    """A connection: it sends a request, and then reads the answer."""

    __slots__ = ("connection", "incoming", "outgoing", "since")

    def __init__(self, connection: socket.socket, now: float) -> None:
        self.connection = connection
        self.incoming = b""
        self.outgoing = b""
        self.since = now
        """When the client began to send this request, or to read this answer. Monotonic seconds."""


class Monitor:
    """Offers a crew to other processes of the same user, from the start of the crew to its end.

    One daemon thread serves all clients. It takes its snapshots as `Status` does, so neither the
    supervisor nor a worker waits for it. No client can make it wait, and it keeps for a client at
    most one request and one answer.
    """

    def __init__(self, dispatcher: Dispatcher, database: Database) -> None:
        """Make the socket.

        Raises:
            RuntimeError: the system has no Unix sockets, or no folder is safe.
        """
        check_system()
        for folder in folders():
            with suppress(OSError):
                for _ in sockets_in(folder):
                    pass  # the sockets of dead programs are removed
        self._dispatcher = dispatcher
        self._hello = {
            "pid": os.getpid(),
            "name": dispatcher.name,
            "database": dispatcher.database,
            "path": _path_of(database),
        }
        self._clients: dict[int, _Client] = {}
        # The last snapshot as a line, and when it was taken.
        self._snapshot = b""
        self._taken_at = float("-inf")
        self._is_over = False
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._selector = selectors.DefaultSelector()
        try:
            self._listener, self.path = listen()
        except BaseException:
            self._selector.close()
            self._waker.close()
            self._woken.close()
            raise
        self._thread = CrewThread(self._serve, f"querycrew-{dispatcher.name}-monitor")

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: the system gives no more threads.
        """
        try:
            self._thread.start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the socket and end the thread. From any thread; never waits; may be repeated."""
        self._is_over = True
        with suppress(OSError):
            os.unlink(self.path)
        with suppress(OSError):
            self._waker.send(b"\0")
        if not self._thread.is_alive():
            self._release()

    def forget_the_parent(self) -> None:
        """In the child of a fork: close the descriptors. The socket's name is the parent's."""
        self._is_over = True
        self._release()

    def _release(self) -> None:
        for client in list(self._clients.values()):
            client.connection.close()
        self._clients.clear()
        for each in (self._selector, self._listener, self._woken, self._waker):
            each.close()

    # --- in the monitor's thread ----------------------------------------------------------

    def _serve(self) -> None:
        try:
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._selector.register(self._woken, selectors.EVENT_READ)
            while not self._is_over:
                self._round()
        except BaseException as error:  # noqa: BLE001  # the crew goes on without its monitor
            if not self._is_over:
                log("actors.monitor", "error", "monitor_died", crew=self._dispatcher.name, error=error)
        finally:
            with suppress(OSError):
                os.unlink(self.path)
            self._release()

    def _round(self) -> None:
        """Wait until a client wants something, and serve each client once."""
        is_pending = any(b"\n" in each.incoming and not each.outgoing for each in self._clients.values())
        timeout = 0.0 if is_pending else _PATIENCE if self._clients else None
        ready = {key.fd for key, _ in self._selector.select(timeout)}
        if self._is_over:
            return
        now = time.monotonic()
        for number, client in list(self._clients.items()):
            try:
                is_open = self._attend(client, now, is_ready=number in ready)
            except OSError:  # the client has gone
                is_open = False
            if not is_open or now - client.since >= _PATIENCE:
                self._drop(number)
        if self._listener.fileno() in ready:
            self._accept(now)
        time.sleep(_ROUND)

    def _accept(self, now: float) -> None:
        """Take the clients that wait. The client that has been silent for longest makes room."""
        for _ in range(_MOST_CLIENTS):
            try:
                connection, _ = self._listener.accept()
            except OSError:  # no client waits any more, or the program has no descriptor left
                return
            if not is_mine(connection):
                connection.close()
                continue
            connection.setblocking(False)
            if len(self._clients) >= _MOST_CLIENTS:
                self._drop(min(self._clients, key=lambda number: self._clients[number].since))
            self._clients[connection.fileno()] = _Client(connection, now)
            self._selector.register(connection, selectors.EVENT_READ)

    def _drop(self, number: int) -> None:
        connection = self._clients.pop(number).connection
        with suppress(KeyError, ValueError, OSError):
            self._selector.unregister(connection)
        connection.close()

    def _attend(self, client: _Client, now: float, *, is_ready: bool) -> bool:
        """Take one step with a client; say whether the connection stays open."""
        if client.outgoing:
            if is_ready:
                client.outgoing = client.outgoing[client.connection.send(client.outgoing) :]
                if not client.outgoing:
                    client.since = now
                    self._selector.modify(client.connection, selectors.EVENT_READ)
            return True
        if is_ready and b"\n" not in client.incoming:
            read = client.connection.recv(LONGEST_REQUEST)
            client.incoming += read
            if not read:
                return False
        line, end, rest = client.incoming.partition(b"\n")
        if len(line) >= LONGEST_REQUEST:
            self._send(client, line_of(error=f"a request has at most {LONGEST_REQUEST} bytes", kind="bad"), now)
            return False
        if end:
            client.incoming = rest
            self._send(client, self._answer(line), now)
        return True

    def _send(self, client: _Client, answer: bytes, now: float) -> None:
        client.since = now
        try:
            sent = client.connection.send(answer)
        except BlockingIOError:
            sent = 0
        client.outgoing = answer[sent:]
        if client.outgoing:
            self._selector.modify(client.connection, selectors.EVENT_WRITE)

    # --- the commands ---------------------------------------------------------------------

    def _answer(self, line: bytes) -> bytes:
        """Return the answer to a request. No request raises."""
        try:
            request = object_of(line)
            match request:
                case {"do": "hello"}:
                    return line_of(ok=self._hello)
                case {"do": "status"}:
                    return self._status()
                case {"do": "cancel", "job": int(job)} if type(job) is int:
                    return line_of(ok=self._cancel(job))
                case {"do": "kill", "worker": int(worker)} if type(worker) is int:
                    return line_of(ok=self._kill(worker))
        except LookupError as error:
            return line_of(error=str(error.args[0]), kind="unknown")
        except PermissionError as error:
            return line_of(error=str(error), kind="refused")
        except ValueError as error:
            return line_of(error=str(error), kind="bad")
        except Exception as error:  # noqa: BLE001  # a driver's own class may raise anything
            log("actors.monitor", "error", "monitor_request_failed", crew=self._dispatcher.name, error=error)
            return line_of(error=f"the crew failed to answer ({type(error).__name__})", kind="failed")
        return line_of(error=f"version {VERSION} has no such command", kind="bad")

    def _status(self) -> bytes:
        now = time.monotonic()
        if now - self._taken_at >= _FRESH:
            self._snapshot = line_of(ok=status_fields(with_memory(self._dispatcher.status())))
            self._taken_at = now
        return self._snapshot

    def _cancel(self, job: int) -> bool:
        is_cancelled = self._dispatcher.cancel_by_id(job)
        self._taken_at = float("-inf")
        log("actors.monitor", "info", "job_cancelled_from_outside", crew=self._dispatcher.name, job=job)
        return is_cancelled

    def _kill(self, worker: int) -> Any:
        name = self._dispatcher.name
        found = [handle for handle in self._dispatcher.handles() if handle.id == worker]
        if not found:
            message = f"crew {name!r} has no worker {worker}"
            raise LookupError(message)
        if found[0].state is WorkerState.STARTING:
            message = f"worker {worker} still opens the database: it has no job to lose"
            raise PermissionError(message)
        connection = found[0].connection
        pid = connection.pid
        if pid is None:
            message = f"worker {worker} has no process of its own, so it cannot be killed: cancel its job"
            raise PermissionError(message)
        connection.abandon()
        self._taken_at = float("-inf")
        log("actors.monitor", "warning", "worker_killed_from_outside", crew=name, worker=worker, pid=pid)
        return pid


def _path_of(database: Any) -> str | None:
    """Return the path of the file, without symbolic links; `None` for other databases."""
    inner = getattr(database, "database", database)  # a `ChildProcess` holds another database
    if not isinstance(inner, SQLite):
        return None
    location = location_of(inner.path)
    return os.path.realpath(location.path) if location.is_file else None
