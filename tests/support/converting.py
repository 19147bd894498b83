"""Functions that teach SQLite the classes of a program.

They stand at the top level of a module, since child processes import them.
"""

import datetime as dt
import decimal
import os
import uuid
from typing import Any

import apsw


def convert(cursor: apsw.Cursor, number: int, value: Any) -> str:
    """Return the text to store for a value that SQLite has no type for."""
    match value:
        case dt.date() | dt.time():
            return value.isoformat()
        case decimal.Decimal() | uuid.UUID():
            return str(value)
        case os.PathLike():
            return os.fspath(value)
    message = f"parameter {number} is of the class {type(value).__name__}, which is not stored"
    raise TypeError(message)


def teach(connection: apsw.Connection) -> None:
    connection.convert_binding = convert


def store(connection: apsw.Connection, value: Any) -> None:
    connection.execute("INSERT INTO kept VALUES (?)", (value,))
