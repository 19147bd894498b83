"""How a connection to DuckDB is opened, and the notes on its errors."""

import os
from typing import TYPE_CHECKING, Any, Final

import duckdb

if TYPE_CHECKING:
    from actors.databases.duckdb.database import DuckDB

__all__ = ["REPLACEMENTS", "open_connection"]

REPLACEMENTS: Final = "python_enable_replacements"
"""The setting by which DuckDB finds a table by the name of a variable of Python."""
_OFF: Final = (REPLACEMENTS, "enable_progress_bar")
_LOCKED: Final = (
    "querycrew: another process has the file open. One process may write a DuckDB file, or any number may read it with "
    "DuckDB(…, read_only=True). End the process that the text names, or let one program own the file"
)
_OTHER_CONFIG: Final = (
    "querycrew: this process has the database open with other settings. Use the same read_only and config for each "
    "connection of the process, or close the other connections first"
)


def open_connection(database: "DuckDB") -> Any:
    """Return a new DuckDB connection, which has run `on_connect`.

    Statements find no variables of Python: a variable of the crew's own code could have the name of
    a table. In a `Call` they do, as in DuckDB itself. DuckDB prints no bar of progress, as it would
    do at a prompt of Python. The settings in `DuckDB(config=…)` come first.

    Raises:
        duckdb.Error: the database cannot be opened; a note names the probable reason.
        FileNotFoundError: there is no such file, and `create` is false.
    """
    if database.is_file and not database.create and not os.path.exists(database.path):
        message = f"{database.path!r} does not exist, and {database} makes no file"
        raise FileNotFoundError(message)
    config = dict(database.config)
    try:
        connection = duckdb.connect(database.instance, read_only=database.read_only, config=config)
    except duckdb.Error as failure:
        error = _explained(failure, config)
    else:
        return _prepared(connection, database, config)
    raise error  # here, so that the error leads to no other error, whose text may show a setting


def _prepared(connection: Any, database: "DuckDB", config: dict[str, Any]) -> Any:
    try:
        connection.execute("; ".join(f"SET {name} = false" for name in _OFF if name not in config))
        if isinstance(database.on_connect, str):
            connection.execute(database.on_connect)
        elif database.on_connect is not None:
            database.on_connect(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _explained(error: duckdb.Error, config: dict[str, Any]) -> duckdb.Error:
    """Return an error of `duckdb.connect` with a note, and without the value of a setting."""
    text = shown = str(error)
    for value in config.values():
        if isinstance(value, str) and value:
            shown = shown.replace(value, "…")
    if shown != text:
        error = type(error)(shown)
    if "Could not set lock" in text:
        error.add_note(_LOCKED)
    elif "different configuration" in text:
        error.add_note(_OTHER_CONFIG)
    return error
