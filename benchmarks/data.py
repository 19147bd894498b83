"""The database file that the crew and its peers share, and the queries on it."""

from pathlib import Path

import apsw

__all__ = ["POINT", "ROWS", "SCAN", "create", "key"]

ROWS = 10_000
POINT = "SELECT name, age FROM users WHERE id = ?"
SCAN = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT count(*) FROM n"


def create(path: Path) -> str:
    """Make the file, in WAL mode; return its path."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, age INTEGER)")
    with connection:
        rows = ((number, f"user {number}", number % 90) for number in range(ROWS))
        connection.executemany("INSERT INTO users VALUES (?, ?, ?)", rows)
    connection.close()
    return str(path)


def key(number: int) -> int:
    """Return the primary key for the query with this number; the keys lie all over the file."""
    return number * 7919 % ROWS
