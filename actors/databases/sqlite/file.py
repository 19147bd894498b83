"""A SQLite database in the file system: its place, how to only read it, and whether it is there."""

import os
import time
from array import array
from contextlib import suppress
from functools import lru_cache
from typing import Final, TypeAlias

import apsw

__all__ = ["Location", "OpenFile", "location_of", "readonly_uri"]

Signature: TypeAlias = tuple[int, ...]
"""The state of the files of a database, as the operating system shows it."""

_WAL: Final = b"\2\2"
"""The bytes in the header of a file whose journal mode is WAL."""
_VERSIONS: Final = slice(18, 20)
"""The place of these bytes."""
_OF_THE_SYSTEM: Final = ("", "unix", "unix-dotfile", "unix-excl", "unix-none", "win32", "win32-longpath")
"""The VFSs of SQLite whose names are paths."""


class Location:
    """A path or a SQLite URI (https://sqlite.org/uri.html), taken apart."""

    __slots__ = ("_is_uri", "_query", "in_memory", "is_file", "path")

    def __init__(self, text: str, *, is_uri: bool) -> None:
        """Take `text` apart; without `is_uri` it is always a path.

        Raises:
            ValueError: SQLite can open no such thing.
        """
        path, self._query, self._is_uri = text, "", is_uri
        options: dict[str, str] = {}
        if is_uri:
            from urllib.parse import parse_qsl, unquote  # few databases are named so

            rest, _, self._query = text.removeprefix("file:").partition("#")[0].partition("?")
            if rest.startswith("//"):
                host, _, rest = rest[2:].partition("/")
                if host not in ("", "localhost"):
                    message = "SQLite(path) is a URI with a host, and SQLite takes none but localhost"
                    raise ValueError(message)
                rest = f"/{rest}"
            path = unquote(rest, errors="surrogateescape")
            options = dict(parse_qsl(self._query, keep_blank_values=True))
        _check_text(path)
        vfs = options.get("vfs", "")
        self.in_memory = path in ("", ":memory:") or options.get("mode") == "memory" or vfs == "memdb"
        """Whether the database lives and dies with its connections."""
        self.is_file = not self.in_memory and vfs in _OF_THE_SYSTEM
        """Whether it is a file of the operating system, which `os.stat` can look at."""
        self.path = os.path.abspath(path) if self.is_file else path
        """That file's absolute path, or the name that a VFS knows it by."""

    @property
    def shown(self) -> str:
        """The text that may be shown. A URI's query is left out, since it may hold a key."""
        return f"file:{self.path}" if self._is_uri else self.path

    @property
    def real_path(self) -> str:
        """The path behind all links. SQLite keeps the log and its index beside that path."""
        return os.path.realpath(self.path)

    def uri(self, *options: str) -> str:
        """Return a URI that means the same from any folder.

        Args:
            options: further options of the URI, such as `mode=ro`.
        """
        from urllib.parse import quote

        query = "&".join(filter(None, (self._query, *options)))
        name = f"//{quote(self.path)}" if self.path.startswith("/") else quote(self.path)
        return f"file:{name}?{query}" if query else f"file:{name}"


def _check_text(path: str) -> None:
    if "\0" in path:
        message = "SQLite(path) must not hold a null character"
        raise ValueError(message)
    try:
        path.encode()
    except UnicodeEncodeError:
        message = f"SQLite(path) must be text that UTF-8 can hold, not {path!r}: SQLite opens no other file"
        raise ValueError(message) from None


@lru_cache(maxsize=64)
def location_of(text: str) -> Location:
    """Return the location of a database.

    Args:
        text: the text that `SQLite` keeps: an absolute path, a URI, or `:memory:`.
    """
    return Location(text, is_uri=text.startswith("file:"))


def readonly_uri(location: Location) -> tuple[str, Signature | None]:
    """Return how to open a file so that no file is created or changed.

    To read a file in WAL mode, SQLite makes a log and an index beside it, if they are missing. If
    another process has them open, SQLite can read them as they are (`readonly_shm`). If they are
    missing, the file is whole by itself. Then it is opened as a file that no process changes
    (`immutable`), and `OpenFile` checks again and again whether that is true.

    Returns:
        The URI, and for an immutable file the state in which no process may change it.

    Raises:
        apsw.CantOpenError: there is no file. Or there is a log without its index, which only a
            connection that writes can read.
    """
    if not location.is_file:
        return location.uri(), None
    path = location.real_path
    seen = _signature(location.path, path)  # before the file is read: later changes are noticed
    log, index = f"{path}-wal", f"{path}-shm"
    try:
        with open(path, "rb") as file:
            is_wal = file.read(_VERSIONS.stop)[_VERSIONS] == _WAL
    except OSError as error:
        message = f"unable to open database file: {error.strerror}"
        raise apsw.CantOpenError(message) from None
    if not is_wal:
        return location.uri(), None
    if os.path.exists(index):
        return location.uri("readonly_shm=1"), None
    if os.path.exists(log) and os.path.getsize(log):
        message = (
            f"unable to open database file: there is a log {log} without its index {index}; "
            "a program that may write must open the database first"
        )
        raise apsw.CantOpenError(message)
    return location.uri("immutable=1"), seen


class OpenFile:
    """The files that a connection has open: the database, and in WAL mode the log and its index."""

    look_again = 0.0
    """Seconds between two checks whether the files are still there; 0 for a check each time."""

    def __init__(self, connection: apsw.Connection, location: Location, seen: Signature | None) -> None:
        """Look after the files that a connection has open.

        Args:
            connection: the connection, which has read from the file.
            location: the place of the database.
            seen: the state of an immutable file; see `readonly_uri`.

        Raises:
            apsw.CantOpenError: the log was removed, and its index was not. Another connection
                still has both open.
        """
        self._connection = connection
        self._path = location.path
        self._real_path = location.real_path
        self._seen = seen
        self.immutable = seen is not None
        """Whether the connection relies on a file that no process changes."""
        # The place into which SQLite writes its answer.
        self._moved = array("i", [0])
        self._address, _ = self._moved.buffer_info()
        self._look_again_at = 0.0
        # The identity of the file, if a link leads to it.
        self._identity = _identity(self._path) if self._path != self._real_path else None
        # The identities of the log and of its index, by their paths, if the connection writes them.
        self._log: dict[str, Signature] = {}
        if not connection.readonly("main") and connection.pragma("journal_mode") == "wal":
            self._log = {path: _identity(path) for path in (f"{self._real_path}-wal", f"{self._real_path}-shm")}
            if not self.log_size() and self._frames():
                raise apsw.CantOpenError(self._log_was_removed())

    def _frames(self) -> int:
        """Return the number of pages in the log, as its index says."""
        try:
            frames, _ = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:  # another connection is writing the log back
            return 0
        return max(frames, 0)

    def has_changed(self) -> bool:
        """Say whether the connection no longer shows the file at its path.

        The file was removed or replaced. An immutable file may also have been changed.
        """
        if self.immutable:
            return _signature(self._path, self._real_path) != self._seen
        if self.look_again:
            now = time.monotonic()
            if now < self._look_again_at:
                return False
            self._look_again_at = now + self.look_again
        return (
            self._has_moved()
            or (self._identity is not None and _identity(self._path) != self._identity)
            or (not self.look_again and self._log_is_missing())
        )

    def _log_is_missing(self) -> bool:
        """Say whether the log or its index was removed, so that no program can open it any more."""
        return any(_identity(path) != identity for path, identity in self._log.items())

    def _has_moved(self) -> bool:
        self._connection.file_control("main", apsw.SQLITE_FCNTL_HAS_MOVED, self._address)
        return bool(self._moved[0])

    def prepare_to_reopen(self) -> None:
        """Check whether the file at the path can be opened instead.

        Raises:
            apsw.CantOpenError: there is no file. Or the file was replaced and the log of the old
                file is still there: SQLite would take it for the log of the new file. Or the log
                was removed; nothing of it is lost.
        """
        self._look_again_at = 0.0  # check each time until the connection is opened anew
        if not os.path.exists(self._path):
            message = f"the database file {self._path} was removed, or moved away, while it was open"
            raise apsw.CantOpenError(message)
        if self.immutable:
            return
        if not self._has_moved() and self._log_is_missing():
            self._save_the_log()
            raise apsw.CantOpenError(self._log_was_removed())
        if self.log_size():
            path = os.path.realpath(self._path)
            message = (
                f"the database file {self._path} was replaced while it was open, and the log of the old one is still "
                f"there; if no other program uses it, remove {path}-wal and {path}-shm"
            )
            raise apsw.CantOpenError(message)

    def _save_the_log(self) -> None:
        """Write a removed log, which no other program can open any more, back into the database."""
        frames, written = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_FULL)
        if written != frames:
            message = f"the log {self._real_path}-wal was removed while it was open, and cannot be written back now"
            raise apsw.CantOpenError(message)

    def _log_was_removed(self) -> str:
        return (
            f"the log {self._real_path}-wal, or its index, was removed while it was open. Its content has been written "
            "to the database. Nothing more can be written until every program has closed the database: stop this crew "
            "and start it anew"
        )

    def log_size(self) -> int:
        """Return the size of the write-ahead log, in bytes."""
        try:
            return os.stat(f"{os.path.realpath(self._path)}-wal").st_size
        except OSError:
            return 0


def _identity(path: str) -> Signature:
    """Return the numbers that only this file has; an empty tuple if there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino


def _signature(path: str, real_path: str) -> Signature:
    """Return numbers that change whenever the database is written."""
    found: list[int] = []
    for name in (path, f"{real_path}-wal"):
        with suppress(OSError):
            status = os.stat(name)
            found += (status.st_ino, status.st_size, status.st_mtime_ns)
    return tuple(found)
