"""OfferedCrew: a crew of another process, as the monitor of that process shows it."""

import os
import socket
import time
from contextlib import suppress
from typing import Any, Final

from actors.monitor.folder import check_system, folders, is_mine, sockets_in
from actors.monitor.protocol import LONGEST_ANSWER, line_of, load_status, object_of
from actors.values.status import CrewStatus

__all__ = ["OfferedCrew", "offered_crews"]

_PATIENCE: Final = 2.0  # seconds
_ERRORS: Final = {"unknown": LookupError, "refused": PermissionError}


class OfferedCrew:
    """A crew that was started with `monitor=True`, by any process of the same user.

    It holds no connection: each call makes one, and waits at most two seconds.

    Raises:
        ConnectionError: the crew has ended. From each call.
        TimeoutError: the process does not answer, as if it is stopped. From each call.
    """

    pid: int
    """The number of the crew's process."""
    name: str
    """The crew's name."""
    database: str
    """The database, without secrets."""
    path: str | None
    """The file, without symbolic links. `None` if the database is no file of SQLite."""

    def __init__(self, socket_path: str) -> None:
        """Ask the crew who it is. Programs call `offered_crews` instead."""
        self._socket_path = socket_path
        match self._call(do="hello"):
            case {"pid": int(pid), "name": str(name), "database": str(database), "path": str() | None as path}:
                self.pid, self.name, self.database, self.path = pid, name, database, path
            case _:
                raise _strange(socket_path)

    def __repr__(self) -> str:
        return f"<OfferedCrew {self.name!r} of process {self.pid}: {self.database}>"

    def status(self) -> CrewStatus:
        """Return a snapshot of the crew, as `Status` does. No parameter is in it."""
        try:
            return load_status(self._call(do="status"))
        except ValueError:
            raise _strange(self._socket_path) from None

    def cancel(self, job_id: int) -> bool:
        """Cancel the job with an id, as `SupervisorRef.cancel` does.

        Raises:
            LookupError: the crew has given no job this id.
        """
        return self._call(do="cancel", job=job_id) is True

    def kill(self, worker_id: int) -> None:
        """Kill the child process of a worker. The crew replaces the worker.

        Raises:
            LookupError: no worker has this id.
            PermissionError: the worker is a thread, which cannot be killed.
        """
        self._call(do="kill", worker=worker_id)

    def _call(self, **request: Any) -> Any:
        """Send a request and return the answer.

        The monitor may close a connection before it answers, if many clients come. Then another
        attempt follows.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            line = self._exchange(line_of(**request), deadline)
            if line.endswith(b"\n"):
                break
            time.sleep(0.02)
        try:
            answer = object_of(line)
        except ValueError:
            raise _strange(self._socket_path) from None
        if "error" in answer:
            raise _ERRORS.get(answer.get("kind", ""), ValueError)(str(answer["error"]))
        return answer.get("ok")

    def _exchange(self, request: bytes, deadline: float) -> bytes:
        """Return the line that answers, or less if the monitor has closed the connection."""
        answer = b""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                connection.connect(self._socket_path)
                if not is_mine(connection):
                    message = f"{self._socket_path} belongs to another user"
                    raise ConnectionError(message)
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(request)
                    while not answer.endswith(b"\n") and len(answer) <= LONGEST_ANSWER:
                        connection.settimeout(max(0.001, deadline - time.monotonic()))
                        if not (read := connection.recv(65536)):
                            break
                        answer += read
            except BlockingIOError:
                pass  # more clients wait than the socket holds
            except TimeoutError:
                message = f"the program does not answer within {_PATIENCE:g} seconds"
                raise TimeoutError(message) from None
            except (FileNotFoundError, ConnectionRefusedError):
                message = "the crew has ended"
                raise ConnectionError(message) from None
        if time.monotonic() >= deadline and not answer.endswith(b"\n"):
            message = f"the program does not answer within {_PATIENCE:g} seconds"
            raise TimeoutError(message)
        if len(answer) > LONGEST_ANSWER:
            raise _strange(self._socket_path)
        return answer


def offered_crews(database: str | os.PathLike[str] | None = None) -> list[OfferedCrew]:
    """Return the crews that processes of this user offer, by process and name.

    The sockets of dead programs are removed. A process that does not answer is left out, if
    another one fits.

    Args:
        database: the path of a file, or the name of a crew. `None` returns all.

    Raises:
        RuntimeError: the system has no Unix sockets.
        TimeoutError: no crew fits, and a process that offers a crew does not answer.
    """
    check_system()
    wanted = None if database is None else os.fspath(database)
    path = None if wanted is None else os.path.realpath(wanted)
    found: list[OfferedCrew] = []
    silent: list[str] = []
    for folder in folders():
        for each in sockets_in(folder):
            try:
                found.append(OfferedCrew(each))
            except TimeoutError:
                silent.append(os.path.basename(each).partition("-")[0])
            except OSError:
                pass  # it has ended
    found.sort(key=lambda crew: (crew.pid, crew.name))
    fitting = [crew for crew in found if wanted is None or path == crew.path or wanted == crew.name]
    if silent and not fitting:
        message = f"process {', '.join(silent)} offers a crew, and does not answer within {_PATIENCE:g} seconds"
        raise TimeoutError(message)
    return fitting


def _strange(path: str) -> ConnectionError:
    return ConnectionError(f"{path} does not speak the protocol of this version")
