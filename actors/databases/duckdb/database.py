"""DuckDB: a file, or memory, which all workers of a process share."""

import os
import re
from collections.abc import Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, Final, final

from actors.values.checks import check_bool
from actors.values.columns import needed
from actors.values.record import Record, store

if TYPE_CHECKING:
    from actors.databases.duckdb.connection import DuckDBConnection

__all__ = ["DuckDB"]

_USUAL_SIZE: Final = 4
_MEMORY: Final = ":memory:"
# A path that a DuckDB extension opens, such as `md:` or `s3://`. One letter is a drive of Windows.
_REMOTE: Final = r"[A-Za-z][A-Za-z0-9+.-]+:"

_instances = count(1)


@final
class DuckDB(Record):
    """A DuckDB database: a file, or `:memory:`. Needs the extra `duckdb`.

    All workers of a process share one instance of DuckDB, and each worker has a connection of its
    own. DuckDB runs one query on all CPUs. So more workers do not make queries faster; they keep
    short queries from waiting behind long ones.

    A file has one process that writes. In child processes a crew has one worker, or any number
    with `read_only=True`. A path is made absolute at once.

    `:memory:` is a database of this value: all workers of all crews that this value starts share
    it. It is gone when the last of these workers has ended. `:memory:name` is shared by all values
    of this name in the process. In a child process a database in memory is the child's own.

    Raises:
        ImportError: the driver is missing. The text names the extra.
        TypeError: an option is of the wrong type; the text names the option.
        ValueError: an option is out of its range; the text names the option.
    """

    path: str
    """The file, absolute; or a place that an extension of DuckDB opens, such as `md:name`."""
    read_only: bool
    """Whether nothing is ever written. The file must exist. Several processes may read it."""
    config: tuple[tuple[str, Any], ...]
    """DuckDB's settings of the instance, such as `threads` and `memory_limit`. Their values are
    never shown, since one may be a key."""
    on_connect: str | Callable[[Any], object] | None
    """SQL statements that each new connection runs first, also after a restart. Or a function that
    is called with the new DuckDB connection."""
    create: bool
    """Whether a file is made where there is none."""

    def __init__(
        self,
        path: str | os.PathLike[str] = _MEMORY,
        *,
        read_only: bool = False,
        config: Mapping[str, Any] | None = None,
        on_connect: str | Callable[[Any], object] | None = None,
        create: bool = True,
    ) -> None:
        needed("duckdb", "DuckDB()", "duckdb")
        store(self, "path", _absolute(path))
        store(self, "read_only", check_bool("DuckDB", "read_only", read_only))
        store(self, "config", _checked_config(config))
        store(self, "on_connect", on_connect)
        store(self, "create", check_bool("DuckDB", "create", create))
        if read_only and self.in_memory:
            message = "DuckDB(read_only=True) needs a file: a database in memory would stay empty"
            raise ValueError(message)
        if on_connect is not None and not isinstance(on_connect, str) and not callable(on_connect):
            message = f"DuckDB(on_connect) must be SQL or a function, not {type(on_connect).__name__}"
            raise TypeError(message)
        if self.path == _MEMORY:
            store(self, "_instance", f"{_MEMORY}querycrew-{os.getpid()}-{next(_instances)}")

    @property
    def in_memory(self) -> bool:
        """Whether the database lives and dies with its connections."""
        return self.path.startswith(_MEMORY)

    @property
    def is_file(self) -> bool:
        """Whether the database is a file of this machine."""
        return not self.in_memory and re.match(_REMOTE, self.path) is None

    @property
    def instance(self) -> str:
        """The name by which DuckDB opens the database. Equal names have the same data."""
        instance: str = getattr(self, "_instance", self.path)
        return instance

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        if self.in_memory:
            return self.path.removeprefix(_MEMORY) or "memory"
        return os.path.splitext(os.path.basename(_without_query(self.path)))[0] or "duckdb"

    @property
    def max_size(self) -> int | None:
        """Any number: all workers of a process share one instance."""
        return None

    @property
    def max_size_in_children(self) -> int | None:
        """One, unless the file is only read: DuckDB lets one process write a file."""
        return 1 if self.in_memory or (self.is_file and not self.read_only) else None

    @property
    def default_size(self) -> int:
        """Four: short queries do not wait behind long ones, and more workers gain nothing."""
        return _USUAL_SIZE

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The base of all errors of DuckDB."""
        import duckdb

        return (duckdb.Error,)

    def existing(self) -> "DuckDB":
        """Return the same database for a file that exists, or existed: it never makes the file."""
        if not self.is_file or not self.create:
            return self
        config = dict(self.config)
        return DuckDB(self.path, read_only=self.read_only, config=config, on_connect=self.on_connect, create=False)

    def __str__(self) -> str:
        return f"DuckDB({_without_query(self.path)!r})"

    def __repr__(self) -> str:
        # A setting, the SQL of `on_connect` or the query of a path may hold a key.
        shown = [repr(_without_query(self.path)), f"read_only={self.read_only}"]
        if self.config:
            shown.append(f"config={{{', '.join(f'{name}: …' for name, _ in self.config)}}}")
        if self.on_connect is not None:
            shown.append(f"on_connect={getattr(self.on_connect, '__qualname__', '…')}")
        return f"DuckDB({', '.join(shown)})"

    def connect(self) -> "DuckDBConnection":
        """Open the database, or another connection to its open instance.

        Raises:
            duckdb.Error: the database cannot be opened; a note names the probable reason.
            FileNotFoundError: there is no such file, and `create` is false.
        """
        from actors.databases.duckdb.connection import DuckDBConnection  # only this import pays for the driver

        return DuckDBConnection(self)


def _without_query(path: str) -> str:
    """Return a path without the part that may hold a token."""
    return path.partition("?")[0] if re.match(_REMOTE, path) else path


def _absolute(path: object) -> str:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(text := os.fspath(path), str):
        message = f"DuckDB(path) must be a str or a path, not {type(path).__name__}"
        raise TypeError(message)
    if isinstance(path, str):
        if not path:
            return _MEMORY
        if path.startswith(_MEMORY) or re.match(_REMOTE, path):
            return path
    return os.path.abspath(text)


def _checked_config(config: object) -> tuple[tuple[str, Any], ...]:
    if config is None:
        return ()
    if not isinstance(config, Mapping):
        message = f"DuckDB(config) must be a mapping of names to values, not {type(config).__name__}"
        raise TypeError(message)
    for name, value in config.items():
        if not isinstance(name, str):
            message = f"DuckDB(config) needs str names, not {type(name).__name__}"
            raise TypeError(message)
        if not isinstance(value, (str, int, float, list)):
            message = f"DuckDB(config[{name!r}]) must be a str, a number or a list, not {type(value).__name__}"
            raise TypeError(message)
    return tuple(sorted(config.items()))
