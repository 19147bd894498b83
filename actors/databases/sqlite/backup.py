"""A copy of a SQLite database, some pages at a time."""

import os
import re
from contextlib import suppress
from zlib import crc32

import apsw

from actors.values.result import Result

__all__ = ["Copy"]


class Copy:
    """A backup on its way: a file beside the one that it becomes at its end."""

    def __init__(self, source: apsw.Connection, path: str) -> None:
        """Begin to copy the database of `source`; the copy replaces the file that `path` leads to.

        Raises:
            ValueError: that is the database itself.
            OSError: nothing can be written there, or there is a database that is in use, or no file.
        """
        self._path = path = os.path.realpath(path)
        _check_place(source, path)
        self._partial = _new_file(path, source.filename)
        self._told: tuple[int, int, int] = (0, 0, 0)
        self._backup: apsw.Backup | None = None
        self._target: apsw.Connection | None = None
        try:
            self._target = apsw.Connection(self._partial)
            self._backup = self._target.backup("main", source, "main")
        except BaseException:
            self.close()
            raise

    def go_on(self, pages: int) -> Result:
        """Copy so many pages."""
        assert self._backup is not None
        assert self._target is not None
        try:
            done = self._backup.step(min(pages, _MOST_PAGES))
        except apsw.Error as error:
            _tell(error, self._path)
            raise
        total = self._backup.page_count
        copied = total - self._backup.remaining
        if done:
            self._backup.finish()
            self._backup = None
        self._told = (copied, total, self._target.pragma("page_size"))
        return Result(("copied", "pages", "page_size"), [self._told], 1, None, not done)

    def keep(self) -> Result:
        """Put the file in its place."""
        assert self._target is not None
        self._target.close()
        self._target = None
        _put_in_place(self._partial, self._path)
        return Result(("copied", "pages", "page_size"), [self._told], 1)

    def close(self) -> None:
        """Let go of everything, and remove what was not finished."""
        if self._backup is not None:
            self._backup.close(True)
        if self._target is not None:
            self._target.close(True)
        for ending in ("", *_BESIDE):
            _remove(self._partial + ending)


_MOST_PAGES = 2**31 - 1
_BESIDE = ("-wal", "-shm", "-journal")
"""How the names of the files end that SQLite has beside a database."""


def _check_place(source: apsw.Connection, path: str) -> None:
    """Raise unless a copy of `source` may stand at `path`."""
    ours = source.filename
    with suppress(OSError):
        if any(os.path.samefile(ours + ending, path) for ending in ("", *_BESIDE) if os.path.exists(ours + ending)):
            message = f"Backup({path!r}) is the database itself, or belongs to it"
            raise ValueError(message)
    if os.path.isdir(path):
        message = f"Backup({path!r}) is a directory"
        raise IsADirectoryError(message)
    if os.path.exists(path) and not os.path.isfile(path):
        message = f"Backup({path!r}) is no regular file, and would be replaced by one"
        raise FileExistsError(message)
    for ending in ("-wal", "-journal"):
        with suppress(FileNotFoundError):
            if os.path.getsize(path + ending):
                message = f"Backup({path!r}): there is a database, which is in use, or was not closed: it has a log"
                raise FileExistsError(message)


def _tell(error: apsw.Error, path: str) -> None:
    """Give an error of SQLite's backup a text: it comes without."""
    if str(error) == "not an error":
        error.args = ("the disk is full" if isinstance(error, apsw.FullError) else "the copy cannot be written",)
    error.add_note(f"querycrew: while {path} was written")


def _new_file(path: str, source: str) -> str:
    """Make an empty file beside `path`, which no other process uses; remove those of processes that were killed.

    Its name says which process made it. It has the permissions of the file that it will replace, else of the source.
    """
    folder, name = os.path.split(path)
    mine = _name_of_this_system()
    for other in os.listdir(folder or "."):
        left = re.fullmatch(_UNFINISHED, other)
        # Of a process of another container, or machine, it cannot be found out whether it is alive.
        if left and left["name"] == name and left["system"] == mine and not _is_alive(int(left["pid"])):
            _remove(os.path.join(folder, other))
    partial = f"{path}.{mine}-{os.getpid()}-{os.urandom(4).hex()}.partial"
    model = path if os.path.exists(path) else source
    mode = os.stat(model).st_mode & 0o777 if model else None
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else 0o600)
    try:
        if mode is not None:
            os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
    return partial


_UNFINISHED = (
    r"(?s:(?P<name>.*)\.(?P<system>[0-9a-f]{8})-(?P<pid>[0-9]{1,9})-[0-9a-f]{8}\.partial(-wal|-shm|-journal)?)"
)


def _name_of_this_system() -> str:
    """Return what tells the processes of this machine, and of this container, from others of the same number."""
    system = os.uname().nodename
    with suppress(OSError):
        system += os.readlink("/proc/self/ns/pid")
    return f"{crc32(system.encode()):08x}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True


def _put_in_place(partial: str, path: str) -> None:
    """Let a file that was written take its place, whatever was there, so that a crash leaves one of the two."""
    _sync(partial)
    for ending in _BESIDE:  # of what was there before, and empty
        _remove(path + ending)
    os.replace(partial, path)
    _sync(os.path.dirname(path) or ".")


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.remove(path)
