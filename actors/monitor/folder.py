"""The folder of the sockets, which only its user can enter, and who is at the other end of one."""

import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Final

__all__ = ["check_system", "folders", "is_mine", "listen", "sockets_in"]

_NAME: Final = "querycrew"
_STALE: Final = 60.0  # seconds after which an unfinished socket belongs to a dead program
_BACKLOG: Final = 64
_numbers = count(1)


def check_system() -> None:
    """Raise `RuntimeError` if the system has no Unix sockets, or does not tell who connects."""
    if not hasattr(socket, "AF_UNIX") or not hasattr(os, "geteuid") or _peer_option() is None:
        message = (
            "Supervisor.start(monitor=True) needs Unix sockets that tell the user at the other end, and this system "
            "has none: leave monitor out. db.watch() shows a crew in its own program"
        )
        raise RuntimeError(message)


def folders() -> list[str]:
    """Return the folders in which crews of this user offer themselves. The first one is preferred.

    These are a folder in `XDG_RUNTIME_DIR`, and one in the temporary directory for programs that
    have no such variable, such as a service.
    """
    user = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    temporary = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  # the folder is checked before each use
    places = (os.path.join(runtime, _NAME), os.path.join(temporary, f"{_NAME}-{user}"))
    return [place for place in places if os.path.isabs(place)]


def listen() -> tuple[socket.socket, str]:
    """Return a socket that listens in a safe folder, and its path.

    A dead program may have had the same number: its socket is replaced. The socket gets its name
    once it listens. So a socket that refuses a connection belongs to a dead program.

    Raises:
        RuntimeError: no folder is safe, or can be written. The text says why.
    """
    reasons = []
    for folder in folders() if os.environ.get("XDG_RUNTIME_DIR") else folders()[-1:]:
        listener = None
        try:
            reason = _objection_to_parent(folder)
            if reason is None:  # a folder that nobody uses might be in the way of another user
                with suppress(FileExistsError):
                    os.mkdir(folder, 0o700)
                reason = _objection(folder)
            if reason is None:
                listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                return listener, _bind(listener, folder)
        except (OSError, ValueError) as error:
            if listener is not None:
                listener.close()
            reason = f"{folder}: {error}"
        reasons.append(reason)
    why = "; ".join(reasons) or "neither XDG_RUNTIME_DIR nor TMPDIR is an absolute path"
    message = f"Supervisor.start(monitor=True) finds no safe folder for its socket: {why}"
    raise RuntimeError(message)


def _bind(listener: socket.socket, folder: str) -> str:
    path = os.path.join(folder, f"{os.getpid()}-{next(_numbers)}")
    new = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(new)
    listener.bind(new)
    try:
        os.chmod(new, 0o600)
        listener.setblocking(False)
        listener.listen(_BACKLOG)
        os.rename(new, f"{path}.sock")
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
    return f"{path}.sock"


def sockets_in(folder: str) -> Iterator[str]:
    """Yield the paths of the sockets in a folder, if the folder is safe.

    The sockets of dead programs are removed.
    """
    if not os.path.lexists(folder) or _objection(folder) is not None:
        return
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        with suppress(OSError):  # another process has removed it
            found = os.lstat(path)
            if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
                continue
            if name.endswith(".new"):
                if time.time() - found.st_mtime > _STALE:
                    os.unlink(path)
            elif name.endswith(".sock"):
                if _is_dead(path):
                    os.unlink(path)
                else:
                    yield path


def _is_dead(path: str) -> bool:
    """Say whether no program listens. A program that is only busy does not refuse."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _objection(folder: str) -> str | None:
    """Return why another user could replace the sockets in a folder; `None` if nobody could."""
    found = os.lstat(folder)
    if stat.S_ISLNK(found.st_mode):
        return f"{folder} is a symbolic link"
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder} is no folder"
    if found.st_uid != os.geteuid():
        return f"{folder} belongs to another user"
    if found.st_mode & 0o077:
        return f"{folder} is open to other users (mode {stat.S_IMODE(found.st_mode):o}): chmod 700 makes it safe"
    return _objection_to_parent(folder)


def _objection_to_parent(folder: str) -> str | None:
    """Return why another user could replace a folder; `None` if nobody could."""
    parent = os.path.dirname(folder)
    found = os.stat(parent)
    if found.st_uid not in (0, os.geteuid()):
        return f"{parent} belongs to another user"
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        return f"{parent} can be changed by other users (mode {stat.S_IMODE(found.st_mode):o})"
    return None


def is_mine(connection: socket.socket) -> bool:
    """Say whether the process at the other end belongs to the same user."""
    option = _peer_option()
    assert option is not None  # since `check_system`
    level, name, layout, place = option
    try:
        found = connection.getsockopt(level, name, struct.calcsize(layout))
        user: int = struct.unpack(layout, found)[place]
    except (OSError, struct.error):
        return False
    return user == os.geteuid()


def _peer_option() -> tuple[int, int, str, int] | None:
    """Return how to ask for the user at the other end: level, option, format, place."""
    if hasattr(socket, "SO_PEERCRED"):
        return socket.SOL_SOCKET, socket.SO_PEERCRED, "3i", 1  # Linux: pid, uid, gid
    if hasattr(socket, "LOCAL_PEERCRED"):
        return 0, socket.LOCAL_PEERCRED, "2I", 1  # macOS and BSD: version, uid, and more
    return None
