"""Databases that a user might write from the exported names, on the library `sqlite3`."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor import (
    Begin,
    Close,
    Commit,
    Connection,
    ConnectionLost,
    Deallocate,
    Declare,
    Execute,
    Fetch,
    Query,
    Result,
    Script,
    Transaction,
)


def result_of(cursor: sqlite3.Cursor) -> Result:
    """Return all rows: `max_rows` is the crew's business."""
    columns = tuple(column[0] for column in cursor.description or ())
    rows = cursor.fetchall()
    return Result(columns, rows, len(rows) if columns else cursor.rowcount, cursor.lastrowid)


class QueriesOnly(Connection):
    """The least that one writes."""

    def __init__(self, path: Path) -> None:
        self.driver = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def execute(self, request: Any) -> Any:
        match request:
            case Query():
                return result_of(self.driver.execute(request.sql, request.params))
            case _:
                return super().execute(request)

    def interrupt(self) -> None:
        self.driver.interrupt()

    def close(self) -> None:
        self.driver.close()


class Everything(QueriesOnly):
    """With transactions and streams."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.cursors: dict[int, sqlite3.Cursor] = {}

    def execute(self, request: Any) -> Any:
        driver = self.driver
        match request:
            case Script():
                driver.executescript(request.sql)
                return Result()
            case Transaction():
                driver.execute("BEGIN IMMEDIATE")
                try:
                    results = [self.execute(query) for query in request.queries]
                except BaseException:
                    driver.execute("ROLLBACK")
                    raise
                driver.execute("COMMIT")
                return results
            case Begin(readonly):
                driver.execute("BEGIN" if readonly else "BEGIN IMMEDIATE")
            case Execute(Query() as query):
                return self.execute(query)
            case Commit():
                driver.execute("COMMIT")
            case Declare(number, sql, params, rows):
                self.cursors[number] = driver.execute(sql, params)
                return self.fetched(number, rows)
            case Fetch(number, rows):
                return self.fetched(number, rows)
            case Deallocate(number):
                self.cursors.pop(number, None)
            case Close():
                self.cursors.clear()
                if driver.in_transaction:
                    driver.execute("ROLLBACK")
            case _:
                return super().execute(request)
        return None

    def fetched(self, number: int, most: int) -> Result:
        cursor = self.cursors[number]
        rows = cursor.fetchmany(most)
        return Result(tuple(column[0] for column in cursor.description), rows, len(rows), None, len(rows) == most)


class DuckTyped:
    """No base class, no `interrupt`, and an `execute` that was written for queries alone."""

    def __init__(self, path: Path) -> None:
        self.driver = sqlite3.connect(path, isolation_level=None)

    def execute(self, request: Any) -> Any:
        return result_of(self.driver.execute(request.sql, request.params))

    def close(self) -> None:
        self.driver.close()


class Unclean(Everything):
    """Cannot clean up, once something was open."""

    def execute(self, request: Any) -> Any:
        if type(request) is Close:
            message = "the driver has gone mad"
            raise RuntimeError(message)
        return super().execute(request)


class LostAtClose(Everything):
    def execute(self, request: Any) -> Any:
        if isinstance(request, Close):
            raise ConnectionLost from OSError("gone")
        return super().execute(request)


class Wrong(Everything):
    """Answers with values that answer no request."""

    def execute(self, request: Any) -> Any:
        answer = super().execute(request)
        if isinstance(request, (Execute, Declare)):
            return self.driver.execute("SELECT 1")
        return answer


@dataclass(frozen=True)
class Own:
    """A database whose connections are of a class of this module."""

    path: Path
    kind: str = "Everything"
    max_size: int | None = None

    @property
    def name(self) -> str:
        return "own"

    def connect(self) -> Any:
        return globals()[self.kind](self.path)
