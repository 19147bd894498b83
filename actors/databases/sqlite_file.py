"""A SQLite file as the file system has it: whether it is still the one that is open, and how to only read it."""

import os
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import quote, unquote

import apsw

if TYPE_CHECKING:
    from actors.databases.sqlite import SQLite

__all__ = ["OpenFile", "os_path", "readonly_uri"]

Signature: TypeAlias = tuple[int, ...]
"""How the files of a database look from outside."""

_WAL: Final = b"\2\2"
"""What stands in the header of a file whose journal mode is WAL."""
_VERSIONS: Final = slice(18, 20)
"""Where."""


def os_path(path: str) -> str:
    """Return the path of a file whose name may be a URI."""
    if not path.startswith("file:"):
        return path
    name = unquote(path.removeprefix("file:").partition("?")[0].partition("#")[0])
    return "/" + name.removeprefix("//").partition("/")[2] if name.startswith("//") else name


def readonly_uri(database: "SQLite") -> tuple[str, Signature | None]:
    """Return how to open a file so that no file is created or changed, and how it looks, if nobody may change it.

    To read a file in WAL mode SQLite makes two files beside it, if they are not there. If another process has them
    open, they can be read as they are (`readonly_shm`). If they are missing, the file is whole by itself, and is opened
    as one that nobody changes (`immutable`): whether that stays so has to be looked at, see `OpenFile`.

    Raises:
        apsw.CantOpenError: there is no file, or a log without its index, which only a writer can take up.
    """
    path = os_path(database.path)
    seen = _signature(path)  # before the look: what changes after this is noticed
    log, index = f"{path}-wal", f"{path}-shm"
    try:
        with open(path, "rb") as file:
            is_wal = file.read(_VERSIONS.stop)[_VERSIONS] == _WAL
    except OSError as error:
        message = f"unable to open database file: {error.strerror}"
        raise apsw.CantOpenError(message) from None
    if not is_wal:
        return _with(database.path, ""), None
    if os.path.exists(index):
        return _with(database.path, "readonly_shm=1"), None
    if os.path.exists(log) and os.path.getsize(log):
        message = (
            f"unable to open database file: there is a log {log} without its index {index}; "
            "a program that may write has to open the database first"
        )
        raise apsw.CantOpenError(message)
    return _with(database.path, "immutable=1"), seen


def _with(path: str, parameter: str) -> str:
    uri = path if path.startswith("file:") else f"file:{quote(path)}"
    if not parameter:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}{parameter}"


class OpenFile:
    """The file that a connection has open."""

    def __init__(self, connection: apsw.Connection, path: str, seen: Signature | None) -> None:
        """Look after the file that a connection has open; see `readonly_uri` for `seen`."""
        self._connection = connection
        self._path = os_path(path)
        self._seen = seen
        self.immutable = seen is not None
        """Whether the connection relies on nobody changing it."""
        # What the engine answers into.
        self._moved = array("i", [0])
        self._address, _ = self._moved.buffer_info()

    def has_changed(self) -> bool:
        """Say whether the connection shows what the file at its path no longer is: that was removed, or replaced.

        Or, of an immutable one, changed in any way.
        """
        if self.immutable:
            return _signature(self._path) != self._seen
        self._connection.file_control("main", apsw.SQLITE_FCNTL_HAS_MOVED, self._address)
        return bool(self._moved[0])

    def check_there(self) -> None:
        """Raise `apsw.CantOpenError` unless there is a file to be opened instead, and that by itself.

        A new one would be empty; and the log of the one that was replaced would be taken for that of the other.
        """
        if not os.path.exists(self._path):
            message = f"the database file {self._path} was removed, or moved away, while it was open"
            raise apsw.CantOpenError(message)
        if not self.immutable and self.log_size():
            message = (
                f"the database file {self._path} was replaced while it was open, and the log of the old one is still "
                f"there; if nobody else uses it, remove {self._path}-wal and {self._path}-shm"
            )
            raise apsw.CantOpenError(message)

    def log_size(self) -> int:
        """Return the bytes of the write-ahead log."""
        try:
            return os.stat(f"{self._path}-wal").st_size
        except OSError:
            return 0


def _signature(path: str) -> Signature:
    """Return what changes whenever a database is written."""
    found: list[int] = []
    for name in (path, f"{path}-wal"):
        with suppress(OSError):
            status = os.stat(name)
            found += (status.st_ino, status.st_size, status.st_mtime_ns)
    return tuple(found)
