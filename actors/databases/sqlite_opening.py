"""Opening a SQLite database: settings, what a connection begins with, and why it cannot be opened."""

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import apsw

from actors.databases.sqlite_file import OpenFile, os_path, readonly_uri

if TYPE_CHECKING:
    from actors.databases.sqlite import SQLite

__all__ = ["opened", "without_query"]


def opened(
    database: "SQLite", on_busy: Callable[[int], bool], *, create: bool = True
) -> tuple[apsw.Connection, OpenFile | None]:
    """Return a new connection that can serve, and its file, if it has one.

    Args:
        database: what to open, with its settings.
        on_busy: called while another connection holds a lock, with the number of calls before; says whether to go on.
        create: whether a file is made where there is none.

    Raises:
        apsw.Error: with a note that says what may be wrong with the path.
        Exception: what `on_connect` raised.
    """
    path, seen = database.path, None
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    try:
        if not create and not os.path.exists(os_path(path)):  # not by the flag, which counts for attached files, too
            why = " any more" if database.create else ", and SQLite(create=False) makes none"
            message = f"unable to open database file: there is none{why}"
            raise apsw.CantOpenError(message)
        if database.readonly:
            flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
            path, seen = readonly_uri(database)
        connection = apsw.Connection(path, flags=flags)
    except apsw.Error as error:
        _mask(error, database)
        _explain(error, database.path)
        raise
    try:
        connection.set_busy_handler(on_busy)
        if not database.in_memory and not database.readonly:
            mode = connection.pragma("journal_mode")
            if mode != database.journal_mode.lower():
                connection.pragma("journal_mode", database.journal_mode)
        connection.pragma("synchronous", database.synchronous)
        connection.pragma("foreign_keys", database.foreign_keys)
        for name, value in database.pragmas:
            connection.pragma(name, value)
        # A file that is not a database passes everything up to the first read of the schema.
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except apsw.Error as error:
        connection.close(True)
        _mask(error, database)
        _explain(error, database.path)
        raise
    try:
        _begin_with(connection, database.on_connect)
    except BaseException as error:
        connection.close(True)
        _mask(error, database)
        error.add_note("querycrew: raised by SQLite(on_connect=…)")
        raise
    return connection, None if database.in_memory else OpenFile(connection, database.path, seen)


def _begin_with(connection: apsw.Connection, what: str | Callable[[apsw.Connection], object] | None) -> None:
    if isinstance(what, str):
        for _ in connection.execute(what):
            pass
    elif what is not None:
        what(connection)
    if connection.in_transaction:
        connection.execute("ROLLBACK")
        message = "it left a transaction open"
        raise ValueError(message)


def without_query(path: str) -> str:
    """Return a path or URI without its query, which may carry a key."""
    return path.partition("?")[0] if path.startswith("file:") else path


def _mask(error: BaseException, database: "SQLite") -> None:
    """Take out of a driver's text each word that it quotes of hidden settings, since one may be a key."""
    hidden = [str(value) for _, value in database.pragmas]
    hidden.append(database.path.removeprefix(without_query(database.path)))
    if isinstance(database.on_connect, str):
        hidden.append(database.on_connect)

    def shown(word: "re.Match[str]") -> str:
        return "…" if any(word[0] in text for text in hidden) else word[0]

    if isinstance(error, apsw.Error):
        error.args = (re.sub(r"\w+", shown, str(error)),)


def _explain(error: apsw.Error, text: str) -> None:
    """Add to the driver's error what is wrong with the path, as far as one can see from here."""
    path = os_path(text)
    folder = os.path.dirname(path) or "."
    if isinstance(error, apsw.NotADBError):
        error.add_note(f"{path} is not a SQLite database, or it is encrypted")
    elif os.path.isdir(path):
        error.add_note(f"{path} is a directory")
    elif not os.path.isdir(folder):
        error.add_note(f"there is no directory {folder}")
    elif not os.access(wanted := path if os.path.exists(path) else folder, os.W_OK):
        error.add_note(f"this process may not write to {wanted}")
