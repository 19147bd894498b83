"""A copy of a SQLite database, some pages at a time."""

import os
import re
from contextlib import suppress
from zlib import crc32

import apsw

from actors.values.result import Result

__all__ = ["Copy"]


class Copy:
    """A backup that is being written, into a partial file beside its target."""

    def __init__(self, source: apsw.Connection, path: str) -> None:
        """Begin to copy a database.

        Args:
            source: a connection to the database.
            path: the target. At the end the copy replaces the file to which this path leads.

        Raises:
            ValueError: the target is the database itself.
            OSError: the target cannot be written, is a database in use, or is no regular file.
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

    def copy_pages(self, pages: int) -> Result:
        """Copy the next `pages` pages; `truncated` says whether more are left."""
        assert self._backup is not None
        assert self._target is not None
        try:
            done = self._backup.step(min(pages, _MOST_PAGES))
        except apsw.Error as error:
            _explain(error, self._path)
            raise
        total = self._backup.page_count
        copied = total - self._backup.remaining
        if done:
            self._backup.finish()
            self._backup = None
        self._told = (copied, total, self._target.pragma("page_size"))
        return Result(("copied", "pages", "page_size"), [self._told], 1, None, not done)

    def keep(self) -> Result:
        """Put the copy, which is complete, in the place of the target."""
        assert self._target is not None
        self._target.close()
        self._target = None
        _put_in_place(self._partial, self._path)
        return Result(("copied", "pages", "page_size"), [self._told], 1)

    def close(self) -> None:
        """Close both databases, and remove a partial file."""
        if self._backup is not None:
            self._backup.close(True)
        if self._target is not None:
            self._target.close(True)
        for ending in ("", *_BESIDE):
            _remove(self._partial + ending)


_MOST_PAGES = 2**31 - 1
_BESIDE = ("-wal", "-shm", "-journal")
"""The endings of the names of the files that SQLite keeps beside a database."""


def _check_place(source: apsw.Connection, path: str) -> None:
    """Raise an error unless a copy of `source` may replace `path`."""
    ours = source.filename
    with suppress(OSError):
        if any(os.path.samefile(ours + ending, path) for ending in ("", *_BESIDE) if os.path.exists(ours + ending)):
            message = f"Backup({path!r}) is the database itself, or belongs to it"
            raise ValueError(message)
    if os.path.isdir(path):
        message = f"Backup({path!r}) is a directory"
        raise IsADirectoryError(message)
    if os.path.exists(path) and not os.path.isfile(path):
        message = f"Backup({path!r}) is no regular file, and the copy would replace it"
        raise FileExistsError(message)
    for ending in ("-wal", "-journal"):
        with suppress(FileNotFoundError):
            if os.path.getsize(path + ending):
                message = (
                    f"Backup({path!r}): the file is a database that is in use or was not closed, since it has a log"
                )
                raise FileExistsError(message)


def _explain(error: apsw.Error, path: str) -> None:
    """Give an error of SQLite's backup a text, since SQLite gives it none."""
    if str(error) == "not an error":
        error.args = ("the disk is full" if isinstance(error, apsw.FullError) else "the copy cannot be written",)
    error.add_note(f"querycrew: while {path} was written")


def _new_file(path: str, source: str) -> str:
    """Make an empty partial file beside `path`, and return its path.

    Its name holds the number of this process, so no other process uses it. Partial files of killed
    processes are removed. The file gets the permissions of the file that it will replace, or else
    of the source.
    """
    folder, name = os.path.split(path)
    mine = _name_of_this_system()
    for other in os.listdir(folder or "."):
        left = re.fullmatch(_UNFINISHED, other)
        # Only a process of this machine and this container can be looked up.
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
    """Return a name of this machine and this container.

    Processes of other machines or containers may have the same number.
    """
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
        return True  # the process belongs to another user
    return True


def _put_in_place(partial: str, path: str) -> None:
    """Replace a file by a complete one, so that a crash leaves one of the two."""
    _sync(partial)
    for ending in _BESIDE:  # empty files of the database that is replaced
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
