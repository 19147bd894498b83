"""SQLite: a file, or memory."""

import os
from collections.abc import Callable, Mapping
from typing import Any, final

import apsw

from actors.databases.sqlite.connection import ALONE, READER, WRITER, Role, SQLiteConnection
from actors.databases.sqlite.file import Location, location_of
from actors.databases.sqlite.writer import SQLiteWriter
from actors.values.checks import check_bool, is_number
from actors.values.record import Record, store

__all__ = ["SQLite"]


@final
class SQLite(Record):
    """A SQLite database: a file, or `:memory:`.

    A file is created if there is none (see `create`). Its path is made absolute at once, so a later
    change of the current folder does not matter. A `str` that starts with `file:` is a SQLite URI.
    A `Path` never is. `uri=True` or `uri=False` decides otherwise. A program that takes paths from
    its users should pass `uri=False`.

    To change how a database connects, wrap it in a database of your own: a `name`, a `max_size` and
    a `connect` that calls this `connect`. This class is final.

    An in-memory database has one connection and so one worker. Its content is gone when that worker
    dies, or is given up since a statement ignored its interrupt.

    Raises:
        TypeError: an option is of the wrong type; the text names the option.
        ValueError: an option is out of its range; the text names the option.
    """

    path: str
    """The file, absolute."""
    journal_mode: str
    """`wal` (readers and a writer do not block each other), or any other journal mode of SQLite."""
    synchronous: str
    """`full`: an acknowledged write survives a power failure. Or `normal`, `extra`, `off`."""
    foreign_keys: bool
    """Whether foreign keys are enforced."""
    busy_timeout: float
    """Seconds to wait for a lock that another connection holds."""
    pragmas: tuple[tuple[str, Any], ...]
    """More pragmas of each connection, applied in this order. Their values are never shown, since
    one may be a key."""
    on_connect: str | Callable[[Any], object] | None
    """SQL statements that each new connection runs first, also after a restart. Or a function that
    is called with the new `apsw.Connection`, to register functions, attach databases or load
    extensions. The authorizer, the busy handler and the hooks for commit, rollback and progress
    belong to the crew."""
    readonly: bool
    """Whether nothing is ever written: no file is created or changed, not even by WAL, and a
    statement that would write fails. The file must exist."""
    create: bool
    """Whether a file is made where there is none. With `False` a missing file is an error, so a
    mistyped path is noticed."""
    untrusted: bool
    """Whether the file is untrusted. Then the whole file is checked each time it is opened, its
    views and triggers call no function of `on_connect`, nothing makes its schema writable, no
    extension is loaded, and SQLite's limits on lengths and depths are low."""
    sandbox: bool
    """Whether the SQL is untrusted. Then only queries run, with lower limits; `readonly` and
    `untrusted` are set, too. To limit time, rows and memory as well, use
    `Query(timeout=…, max_rows=…)` and `ChildProcess(memory_limit=…)`."""

    def __init__(
        self,
        path: str | os.PathLike[str] = ":memory:",
        *,
        journal_mode: str = "wal",
        synchronous: str = "full",
        foreign_keys: bool = True,
        busy_timeout: float = 5.0,
        pragmas: Mapping[str, Any] | None = None,
        on_connect: str | Callable[[Any], object] | None = None,
        readonly: bool = False,
        create: bool = True,
        untrusted: bool = False,
        sandbox: bool = False,
        uri: bool | None = None,
    ) -> None:
        switches = {"readonly": readonly, "create": create, "untrusted": untrusted, "sandbox": sandbox}
        for name, value in switches.items():
            check_bool("SQLite", name, value)
        store(self, "path", _absolute(path, uri))
        store(self, "journal_mode", journal_mode)
        store(self, "synchronous", synchronous)
        store(self, "foreign_keys", foreign_keys)
        store(self, "busy_timeout", busy_timeout)
        store(self, "pragmas", _checked_pragmas(pragmas))
        store(self, "on_connect", on_connect)
        store(self, "readonly", readonly or sandbox)
        store(self, "create", create)
        store(self, "untrusted", untrusted or sandbox)
        store(self, "sandbox", sandbox)
        for name, values in (
            ("journal_mode", ("wal", "delete", "truncate", "persist", "memory", "off")),
            ("synchronous", ("off", "normal", "full", "extra")),
        ):
            value = getattr(self, name)
            if not isinstance(value, str) or value.lower() not in values:
                message = f"SQLite({name}={value!r}) must be one of {', '.join(values)}"
                raise ValueError(message)
        if self.readonly and self.in_memory:
            message = "SQLite(readonly=True) needs a file: a database in memory would stay empty"
            raise ValueError(message)
        if not create and self.in_memory:
            message = "SQLite(create=False) needs a file: a database in memory is always a new one"
            raise ValueError(message)
        timeout = self.busy_timeout
        if not is_number(timeout) or not 0 <= timeout < 2**31 / 1000:
            message = f"SQLite(busy_timeout={timeout!r}) must be seconds, from 0 to {2**31 // 1000}"
            raise ValueError(message)
        if on_connect is not None and not isinstance(on_connect, str) and not callable(on_connect):
            message = f"SQLite(on_connect) must be SQL or a function, not {type(on_connect).__name__}"
            raise TypeError(message)

    @property
    def in_memory(self) -> bool:
        """Whether the database lives and dies with its one connection."""
        return location_of(self.path).in_memory

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        if self.in_memory:
            return "memory"
        return os.path.splitext(os.path.basename(location_of(self.path).path))[0]

    @property
    def max_size(self) -> int | None:
        """One for an in-memory database."""
        return 1 if self.in_memory else None

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The base of all errors of APSW."""
        return (apsw.Error,)

    def __str__(self) -> str:
        # The query of a URI may hold a key.
        return f"SQLite({location_of(self.path).shown!r})"

    def __repr__(self) -> str:
        # A pragma, or the SQL of `on_connect`, may also hold a key.
        shown = {name: repr(getattr(self, name)) for name in self._fields}
        shown["path"] = repr(location_of(self.path).shown)
        shown["pragmas"] = f"{{{', '.join(f'{name}: …' for name, _ in self.pragmas)}}}"
        if self.on_connect is not None:
            shown["on_connect"] = getattr(self.on_connect, "__qualname__", "…")
        return f"SQLite({', '.join(f'{name}={text}' for name, text in shown.items())})"

    def connect(self) -> SQLiteConnection:
        """Open the database and read its schema, so a file that is no database is an error here.

        The connection does everything, reads and writes.

        Raises:
            apsw.Error: the database cannot be opened; a note names the probable reason.
        """
        return SQLiteConnection(self, ALONE, create=self.create)

    def lanes(self) -> "tuple[SQLite] | tuple[_Lane, _Lane]":
        """Return the databases of the readers and of the writer, or one database for both.

        A file has readers and a writer, unless it is only read.
        """
        return (self,) if self.in_memory or self.readonly else (_Lane(self, READER), _Lane(self, WRITER))


class _Lane(Record):
    """A SQLite file for the readers of a crew, or for its writer."""

    database: SQLite
    role: Role
    create: bool = True
    """Whether a file is made where there is none."""

    def existing(self) -> "_Lane":
        """Return the same lane for a file that exists, or existed: it never makes the file."""
        return _Lane(self.database, self.role, create=False)

    @property
    def name(self) -> str:
        """The same as that of the database."""
        return self.database.name

    @property
    def max_size(self) -> int | None:
        """The same as that of the database."""
        return self.database.max_size

    def __str__(self) -> str:
        return str(self.database)

    def connect(self) -> SQLiteConnection:
        """Open the database; see `SQLite.connect`."""
        kind = SQLiteWriter if self.role == WRITER else SQLiteConnection
        return kind(self.database, self.role, create=self.create and self.database.create)


def _checked_pragmas(pragmas: object) -> tuple[tuple[str, Any], ...]:
    if pragmas is None:
        return ()
    if not isinstance(pragmas, Mapping):
        message = f"SQLite(pragmas) must be a mapping of names to values, not {type(pragmas).__name__}"
        raise TypeError(message)
    for name, value in pragmas.items():
        if not isinstance(name, str) or not name.replace("_", "").isalnum() or not name.isascii():
            message = f"SQLite(pragmas) has the name {name!r}, and no pragma has such a name"
            raise ValueError(message)
        if not isinstance(value, (str, int, float)):
            message = f"SQLite(pragmas[{name!r}]) must be a str or a number, not {type(value).__name__}"
            raise TypeError(message)
        if name.lower() == "busy_timeout":
            message = "SQLite(pragmas) cannot have busy_timeout: write SQLite(busy_timeout=seconds)"
            raise ValueError(message)
    return tuple(pragmas.items())


def _is_scheme(text: str) -> bool:
    """Say whether a URL may begin with `text`. One letter is a drive of Windows."""
    return len(text) > 1 and text[0].isalpha() and text.isascii() and text.translate(_IN_SCHEMES).isalnum()


_IN_SCHEMES = str.maketrans("", "", "+-.")


def _absolute(path: object, uri: bool | None) -> str:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(text := os.fspath(path), str):
        message = f"SQLite(path) must be a str or a path, not {type(path).__name__}"
        raise TypeError(message)
    is_given_as_text = isinstance(path, str)
    scheme, separator, _ = text.strip().partition("://")
    if is_given_as_text and uri is not False and separator and scheme != "file" and _is_scheme(scheme):
        # The rest is not shown, since it may hold a password.
        message = (
            f"SQLite(path) must be a path or a URI that starts with file:, and {scheme}://… is neither; pass the path "
            "of a SQLite file, or for another kind of database an object with connect(), name and max_size"
        )
        raise ValueError(message)
    if is_given_as_text and text in ("", ":memory:"):
        return text
    is_uri = uri if uri is not None else is_given_as_text and text.startswith("file:")
    location = Location(text, is_uri=is_uri)
    if is_uri:
        return location.uri() if location.is_file else text
    return os.path.abspath(text)
