"""Opening a SQLite database: its options, its `on_connect`, and why it cannot be opened."""

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import apsw

from actors.databases.sqlite.file import Location, OpenFile, location_of, readonly_uri
from actors.databases.sqlite.untrusted import check_whole, forget_schema, protect

if TYPE_CHECKING:
    from actors.databases.sqlite.database import SQLite

__all__ = ["open_database"]

_AT_CREATION: Final[tuple[str, ...]] = ("page_size", "encoding", "auto_vacuum")
"""Pragmas that take effect only before anything is written, the journal mode included. The last
pragma writes."""
_AUTO_VACUUM: Final = {"none": 0, "full": 1, "incremental": 2}


def open_database(
    database: "SQLite", on_busy: Callable[[int], bool], *, create: bool = True
) -> tuple[apsw.Connection, OpenFile | None, tuple[str, ...]]:
    """Return a new connection that can serve, its file, if it has one, and warnings.

    Args:
        database: the database, with its options.
        on_busy: the busy handler; called while another connection holds a lock, with the number of
            calls before. It says whether to go on.
        create: whether a file is made where there is none.

    Raises:
        apsw.Error: the database cannot be opened; a note names the probable reason.
        Exception: the error of `on_connect`.
    """
    location, seen = location_of(database.path), None
    try:
        if not create and location.is_file and not os.path.exists(location.path):
            # A flag of SQLite could say so, but it would also count for attached files.
            message = f"unable to open database file: there is no {location.path}"
            if not database.create:
                message += ", and SQLite(create=False) makes none"
            raise apsw.CantOpenError(message)
        if database.readonly:
            path, seen = readonly_uri(location)
            flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        else:
            path, flags = database.path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(path, flags=flags)
    except apsw.Error as error:
        _mask(error, database)
        _explain(error, location)
        raise
    try:
        connection.set_busy_handler(on_busy)
        if database.untrusted:
            protect(connection, strictly=database.sandbox)
        warnings = _set_up(connection, database, on_busy)
        # SQLite finds out at the first read of the schema that a file is no database.
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        _begin_with(connection, database.on_connect)
        connection.set_busy_handler(on_busy)
        if database.untrusted:
            protect(connection, strictly=database.sandbox)
            forget_schema(connection)
            check_whole(connection)
        file = OpenFile(connection, location, seen) if location.is_file else None
    except BaseException as error:
        connection.close(True)
        if isinstance(error, apsw.Error):
            _mask(error, database)
            _explain(error, location)
        raise
    return connection, file, tuple(warnings)


def _set_up(connection: apsw.Connection, database: "SQLite", on_busy: Callable[[int], bool]) -> list[str]:
    """Apply the options to a new connection; return a warning for each without effect."""
    warnings: list[str] = []
    pragmas = {name.lower(): value for name, value in database.pragmas}
    at_creation = {name: pragmas.pop(name) for name in _AT_CREATION if name in pragmas}
    if not database.readonly:
        for name, value in at_creation.items():
            connection.pragma(name, value)
        if not database.in_memory:
            warnings += _set_journal_mode(connection, database.journal_mode.lower(), on_busy)
    warnings += [
        f"PRAGMA {name} = {value} has no effect on a database that exists: it is {now}"
        for name, value in at_creation.items()
        if not _is_meant(name, value, now := connection.pragma(name))
    ]
    connection.pragma("synchronous", database.synchronous)
    connection.pragma("foreign_keys", database.foreign_keys)
    for name, value in pragmas.items():
        connection.pragma(name, value)
    if pragmas:
        known = {row[0] for row in connection.execute("PRAGMA pragma_list")}
        warnings += [f"PRAGMA {name} has no effect: this SQLite does not know it" for name in pragmas.keys() - known]
    return warnings


def _set_journal_mode(connection: apsw.Connection, wanted: str, on_busy: Callable[[int], bool]) -> list[str]:
    attempts = 0
    while (mode := connection.pragma("journal_mode")) != wanted:
        try:
            mode = connection.pragma("journal_mode", wanted)
            break
        except apsw.BusyError:  # SQLite does not call the busy handler here, when another program makes the file
            if not on_busy(attempts):
                raise
            attempts += 1
    if mode == wanted:
        return []
    return [f"journal_mode is {mode}, since {wanted} cannot be had, most often because of the file system"]


def _is_meant(name: str, value: Any, now: Any) -> bool:
    """Say whether the value that a pragma has now is the value in the options."""
    if name == "encoding":
        return str(now).lower().startswith(str(value).lower().strip("'\""))
    if name == "auto_vacuum":
        value = _AUTO_VACUUM.get(str(value).lower(), value)
    return str(value) == str(now)


def _begin_with(connection: apsw.Connection, first: str | Callable[[apsw.Connection], object] | None) -> None:
    """Run `on_connect`: SQL, or a function; and check that it has left the connection usable.

    Raises:
        ValueError: it has left a transaction open, or has set an attribute that the crew needs.
        Exception: its own error.
    """
    try:
        if isinstance(first, str):
            for _ in connection.execute(first):
                pass
        elif first is not None:
            first(connection)
    except BaseException as error:
        error.add_note("querycrew: raised by SQLite(on_connect=…)")
        raise
    if connection.in_transaction:
        connection.execute("ROLLBACK")
        message = "SQLite(on_connect=…) has left a transaction open"
        raise ValueError(message)
    for name in ("row_trace", "exec_trace"):  # APSW has hooks for all connections, which may set them, too
        if getattr(connection, name) is not None:
            message = (
                f"SQLite(on_connect=…) has set a {name}, and the crew needs that itself: a result's rows are tuples, "
                "which answer to names; for a log of statements use Connection.trace_v2"
            )
            raise ValueError(message)
    if connection.cursor_factory is not apsw.Cursor:
        message = "SQLite(on_connect=…) has set a cursor_factory, and the crew needs cursors that are apsw.Cursor"
        raise ValueError(message)


def _mask(error: apsw.Error, database: "SQLite") -> None:
    """Remove the words of hidden options from the text of a driver's error.

    A driver may quote them, and one of them may be a key.
    """
    hidden = [str(value) for _, value in database.pragmas]
    if isinstance(database.on_connect, str):
        hidden.append(database.on_connect)
    if database.path.startswith("file:"):
        hidden.append(database.path.partition("?")[2])
    path = location_of(database.path).path  # the path is never hidden

    def shown(word: "re.Match[str]") -> str:
        return "…" if word[0] not in path and any(word[0] in text for text in hidden) else word[0]

    error.args = (re.sub(r"\w+", shown, str(error)),)


def _explain(error: apsw.Error, location: Location) -> None:
    """Add a note to the driver's error if something is visibly wrong with the path."""
    if not location.is_file:
        return
    path = location.path
    folder = os.path.dirname(path) or "."
    if isinstance(error, apsw.NotADBError):
        error.add_note(f"{path} is not a SQLite database, or it is encrypted")
    elif os.path.isdir(path):
        error.add_note(f"{path} is a directory")
    elif not os.path.isdir(folder):
        error.add_note(f"there is no directory {folder}")
    elif not os.access(wanted := path if os.path.exists(path) else folder, os.W_OK):
        error.add_note(f"this process may not write to {wanted}")
