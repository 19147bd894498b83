"""ChildProcess: another database, whose connections live in child processes."""

import os
import sys
from typing import TYPE_CHECKING, Any, final

from actors.databases.adapter import (
    default_size,
    errors_of,
    existing,
    lanes_of,
    max_size_in_children,
    restart_policy,
)
from actors.databases.base import Database
from actors.databases.sqlite.database import SQLite
from actors.values.checks import check_number
from actors.values.record import Record, store
from actors.values.restart import RestartPolicy

if TYPE_CHECKING:
    from actors.databases.child.connection import ChildConnection

__all__ = ["ChildProcess", "check_interpreter", "check_sendable", "current_folder"]

_LEAST_MEMORY = 32 << 20


@final
class ChildProcess(Record):
    """A database whose connections live in child processes, one for each worker.

    Children fetch rows on all cores, without the GIL of this process. A crash of the driver or a
    `kill -9` costs one worker and the job that it ran. A statement that ignores its interrupt ends
    with its child. Children end with this process in every case. Needs POSIX (Linux, macOS), and no
    `__main__` guard.

    Raises:
        NotImplementedError: this program can start no Python as a child: it is frozen, or embeds
            its Python, or runs on Windows.
        TypeError: the database cannot be sent to a child: it, or a part of it, is not importable
            there by name.
        ValueError: an option is out of its range; the text names it.
    """

    database: Database
    """The database that the children open; a path is a `SQLite` file."""
    memory_limit: int | None
    """Bytes that a child may have for its data, used or not (`RLIMIT_DATA`); at least 32 MB, of
    which an idle child has about half. A job that needs more gets a `MemoryError`, or loses its
    child. `None` is no limit."""
    start_timeout: float
    """Seconds after which a child that has not opened its connection is killed."""

    def __init__(
        self,
        database: Database | str | os.PathLike[str] = ":memory:",
        *,
        memory_limit: int | None = None,
        start_timeout: float = 20.0,
    ) -> None:
        if isinstance(database, (str, os.PathLike)):
            database = SQLite(database)
        check_interpreter("ChildProcess")
        store(self, "database", database)
        store(self, "memory_limit", memory_limit)
        store(self, "start_timeout", start_timeout)
        if isinstance(database, (ChildProcess, type)) or not callable(getattr(database, "connect", None)):
            message = f"ChildProcess(database) must be a path or a database, not {type(database).__name__}"
            raise TypeError(message)
        if memory_limit is not None:
            check_number("ChildProcess", "memory_limit", memory_limit, at_least=_LEAST_MEMORY, whole=True)
        check_number("ChildProcess", "start_timeout", start_timeout, at_least=0.001)
        check_sendable("ChildProcess", database)
        store(self, "_home", current_folder())

    @property
    def home(self) -> str | None:
        """The working folder at the time of the call: children find modules from there."""
        return getattr(self, "_home", None) or current_folder()

    @property
    def name(self) -> str:
        """The name of the database in the children."""
        return self.database.name

    @property
    def max_size(self) -> int | None:
        """The most child processes that can share the database."""
        return max_size_in_children(self.database)

    @property
    def default_size(self) -> int | None:
        """As of the database in the children."""
        return default_size(self.database)

    @property
    def restart(self) -> RestartPolicy:
        """As of the database in the children."""
        return restart_policy(self.database)

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """As of the database in the children: its errors arrive here as they were raised."""
        return errors_of(self.database)

    def __str__(self) -> str:
        return f"ChildProcess({self.database})"

    def __repr__(self) -> str:
        # By the text of the database, which shows no secret; its own `repr` may.
        return f"ChildProcess({self.database}, memory_limit={self.memory_limit}, start_timeout={self.start_timeout})"

    def lanes(self) -> "tuple[ChildProcess, ...]":
        """Return the databases of the readers and of the writer, each in children."""
        return tuple(self._with(database) for database in lanes_of(self.database))

    def existing(self) -> "ChildProcess":
        """Return the database to connect to after the first worker was up; see `Database`."""
        return self._with(existing(self.database))

    def _with(self, database: Database) -> "ChildProcess":
        other = ChildProcess(database, memory_limit=self.memory_limit, start_timeout=self.start_timeout)
        store(other, "_home", self.home)
        return other

    def connect(self) -> "ChildConnection":
        """Start a child and wait until its connection is open.

        Raises:
            ChildProcessEnded: it ended before that; the text says how.
            TimeoutError: it took longer than `start_timeout`.
            Exception: the database's own error.
        """
        from actors.databases.child.connection import ChildConnection  # only programs with children pay for this import

        return ChildConnection(self)


def check_interpreter(kind: str) -> None:
    """Raise `NotImplementedError` if `sys.executable` is visibly not a Python.

    Where it is not, each child would be this program again, and have children of its own. The text
    names `kind`, the class of the database.
    """
    executable, reason = sys.executable, None
    if sys.platform == "win32":
        reason = "it needs a POSIX system"
    elif getattr(sys, "frozen", False):
        reason = f"this program is frozen, and {executable} would start the program again instead of a Python"
    elif not executable or not os.path.exists(executable):
        reason = f"it starts sys.executable, and that is {executable!r}"
    elif _is_the_program_again():
        reason = f"sys.executable ({executable}) starts this program again instead of a Python"
    elif not getattr(sys, "orig_argv", True) and not os.path.basename(executable).lower().startswith(_PYTHONS):
        # A program that embeds Python gives it no arguments, and some name themselves, such as
        # uWSGI.
        reason = f"sys.executable ({executable}) is a program that embeds Python; set it to a Python of this version"
    if reason is not None:
        message = f"{kind} cannot be used here: {reason}. Without {kind} the workers are threads"
        raise NotImplementedError(message)


_PYTHONS = ("python", "pypy", "graalpy")


def _is_the_program_again() -> bool:
    """Say whether a parent without a Python of its own has started this process as a child."""
    # The words that a child begins with are among the arguments; a Python has taken them away.
    return any("from actors.databases." in str(argument) for argument in getattr(sys, "argv", ())[1:])


def current_folder() -> str | None:
    """Return the working folder; `None` if it is gone."""
    try:
        return os.getcwd()
    except OSError:  # it is gone
        return None


def check_sendable(kind: str, database: Database) -> None:
    """Raise `TypeError` unless `database` can be made again in another process."""
    import pickle  # only children need it

    class Sender(pickle.Pickler):
        def reducer_override(self, value: Any) -> Any:
            if getattr(value, "__module__", None) == "__main__" and hasattr(value, "__qualname__"):
                message = f"{value.__qualname__} is defined in __main__, which a child process does not run"
                raise TypeError(message)
            return NotImplemented

    try:
        import io

        Sender(io.BytesIO()).dump(database)
    except Exception as error:
        message = (
            f"{kind}({type(database).__name__}) cannot be sent to a child process "
            f"({type(error).__name__}: {error}); "
            "make it of values, and of classes and functions that stand at the top level of a module"
        )
        raise TypeError(message) from error
