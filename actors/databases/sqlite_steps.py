"""What SQLite does in a conversation: a transaction, the rows of a statement, or a backup, step by step."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import apsw

from actors.databases.steps import (
    Begin,
    Commit,
    CopyPages,
    KeepCopy,
    MoreRows,
    OpenBackup,
    OpenRows,
    Step,
    Within,
)
from actors.errors import TransactionBroken
from actors.result import Result

if TYPE_CHECKING:
    from actors.databases.sqlite_connection import SQLiteConnection

__all__ = ["Steps"]


class Steps:
    """What is open on a connection between two steps; used by that connection alone."""

    def __init__(self, owner: "SQLiteConnection") -> None:
        self._owner = owner
        self._connection: apsw.Connection = owner._connection
        self._open = False
        # Of a transaction: whether we are the ones who end it.
        self._ours = False
        # Whether somebody else tried to.
        self._refused = False
        # Of the rows of a statement.
        self._cursor: apsw.Cursor | None = None
        self._rows: Iterator[tuple[Any, ...]] = iter(())
        self._columns: tuple[str, ...] = ()
        # How many at a time, and those that were fetched ahead, or what went wrong.
        self._most = 0
        self._fetched: list[tuple[Any, ...]] | BaseException | None = None
        self._copy: _Copy | None = None

    def perform(self, step: Step) -> Result:
        """Perform a step, except for `Close`.

        Raises:
            TransactionBroken: the transaction is over already.
            Exception: the driver's own.
        """
        match step:
            case Begin(readonly):
                return self._begin(readonly)
            case Within(query):
                return self._within(query)
            case Commit():
                return self._commit()
            case OpenRows(sql, params, rows):
                self._cursor, self._columns = self._owner.opened_rows(sql, params)
                self._rows = iter(self._cursor)
                return self._more(rows)
            case MoreRows(rows):
                return self._more(rows)
            case OpenBackup(path):
                self._snapshot()
                self._copy = _Copy(self._connection, path)
                return Result()
            case CopyPages(pages):
                assert self._copy is not None
                return self._copy.go_on(pages)
            case KeepCopy():
                assert self._copy is not None
                return self._copy.keep()
        message = f"a connection to SQLite does not know {step!r}"
        raise TypeError(message)

    def close(self) -> None:
        """Let go of whatever is open. Raises what the driver does, of a connection of which nothing more can be had."""
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.close()
        if self._cursor is not None:
            self._rows, self._fetched = iter(()), None
            self._cursor.close(True)
            self._cursor = None
        connection = self._connection
        connection.set_commit_hook(None)
        while connection.in_transaction:
            with suppress(apsw.InterruptError):  # it was meant for what is over
                connection.execute("ROLLBACK")
        self._owner.stays_readonly = False
        if self._open:
            connection.pragma("query_only", self._owner.reads_only)

    # --- a transaction --------------------------------------------------------------------

    def _begin(self, readonly: bool) -> Result:
        connection = self._connection
        self._open = True
        if readonly:
            connection.pragma("query_only", True)
            self._snapshot()
            self._owner.stays_readonly = True
        else:
            connection.execute("BEGIN IMMEDIATE")
        # A hook that says True makes the commit a rollback.
        connection.set_commit_hook(self._on_commit)
        return Result()

    def _on_commit(self) -> bool:
        self._refused = not self._ours
        return self._refused

    def _snapshot(self) -> None:
        self._connection.execute("BEGIN")
        # A transaction sees what there is at its first read.
        self._connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()

    def _within(self, query: Any) -> Result:
        self._check_open("it was rolled back by an error before")
        self._refused = False
        try:
            result = self._owner.run_within(query)
        finally:
            if self._refused:
                self._check_open(f"{query} ended it")
        self._check_open(f"{query} ended it")
        return result

    def _commit(self) -> Result:
        self._check_open("it was rolled back by an error before")
        self._ours = True
        try:
            self._connection.execute("COMMIT")
        finally:
            self._ours = False
        return Result()

    def _check_open(self, why: str) -> None:
        if not self._connection.in_transaction:
            message = (
                f"the transaction is over, and nothing of it has taken effect: {why}. Leave out BEGIN, COMMIT and "
                "ROLLBACK; SAVEPOINT is fine"
            )
            raise TransactionBroken(message)

    # --- rows -----------------------------------------------------------------------------

    def _more(self, most: int) -> Result:
        self._most = min(most, sys.maxsize)
        if self._fetched is None:
            self.fetch_ahead()
        fetched, self._fetched = self._fetched, None
        if not isinstance(fetched, list):
            assert fetched is not None
            raise fetched
        return Result(self._columns, fetched, len(fetched), None, len(fetched) == self._most)

    def fetch_ahead(self) -> None:
        """Fetch the rows that are asked for next, if that is likely. What goes wrong is raised then."""
        if self._cursor is None or self._fetched is not None:
            return
        try:
            self._fetched = list(islice(self._rows, self._most))
        except BaseException as error:  # noqa: BLE001  # it is for whoever asks for these rows
            self._fetched = error


class _Copy:
    """A backup on its way: a file beside the one that it becomes at its end."""

    def __init__(self, source: apsw.Connection, path: str) -> None:
        _check_place(source, path)
        self._path = path
        self._partial = _new_file(path)
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
            error.add_note(f"querycrew: while {self._path} was written")
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
    for ending in ("-wal", "-journal"):
        with suppress(FileNotFoundError):
            if os.path.getsize(path + ending):
                message = f"Backup({path!r}): there is a database, which is in use, or was not closed: it has a log"
                raise FileExistsError(message)


def _new_file(path: str) -> str:
    """Make an empty file beside `path`, which is nobody else's; remove those that processes have left that were killed.

    Its name tells whose it is.
    """
    folder, name = os.path.split(path)
    for other in os.listdir(folder or "."):
        if (left := _UNFINISHED.fullmatch(other)) and left["name"] == name and not _is_alive(int(left["pid"])):
            _remove(os.path.join(folder, other))
    partial = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.partial"
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return partial


_UNFINISHED = re.compile(r"(?P<name>.*)\.(?P<pid>[0-9]{1,9})-[0-9a-f]{8}\.partial(-wal|-shm|-journal)?", re.DOTALL)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of somebody else
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
