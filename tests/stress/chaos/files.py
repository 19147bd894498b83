"""A real file of SQLite, as users get it: readers and a writer, on threads or in children."""

import os
import signal
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any

from actors.values.requests import Call, Query, Request
from actors.values.result import Result
from supervisor import ChildProcess, SQLite, Status, SupervisorRef
from tests.stress.chaos.databases import GRACE, wait

# Takes some milliseconds.
_COUNTING = (
    "FROM (WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 30000) "
    "SELECT max(i) AS largest FROM n) WHERE largest > 0"
)


class File:
    """A file in which one statement of twenty writes its number."""

    checkouts = True
    """Whether it takes transactions and streams."""

    def __init__(self, path: Path, *, in_children: bool) -> None:
        self._path = path
        self._in_children = in_children
        database = SQLite(path, synchronous="off")
        self.database: Any = ChildProcess(database) if in_children else database
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE written(number INTEGER)")

    # --- for the killer -------------------------------------------------------------------

    def doom(self, ref: SupervisorRef, random: Random) -> bool:
        """End a worker from inside of a job, or kill a child."""
        if not self._in_children or random.random() < 0.3:
            return not ref.ask(Call(_end_it, readonly=random.random() < 0.5), block=False).done()
        children = [worker.pid for worker in ref.ask(Status()).workers if worker.pid is not None]
        if children:
            with suppress(ProcessLookupError):
                os.kill(random.choice(children), signal.SIGKILL)
        return bool(children)

    def doom_opening(self, random: Random) -> bool:
        """Do nothing: the scripted database does that."""
        return False

    def spare(self) -> None:
        """Do nothing: nothing is doomed beforehand."""

    # --- statements -----------------------------------------------------------------------

    def request(self, number: int, timeout: float | None = None) -> Request:
        """Return a statement that answers its number; one in fifty fails."""
        if self.must_fail(number):
            return Query("SELECT no_such_column, ?", (number,), timeout)
        if writes(number):
            return Query("INSERT INTO written VALUES (?) RETURNING number", (number,), timeout)
        return Query("SELECT ?", (number,), timeout)

    def lasting(self, number: int, timeout: float | None) -> Request:
        """Return a statement that takes some milliseconds, unless it is interrupted."""
        if writes(number):
            return Query(f"INSERT INTO written SELECT ? {_COUNTING} RETURNING number", (number,), timeout)
        return Query(f"SELECT ? {_COUNTING}", (number,), timeout)

    def deaf(self, number: int, timeout: float | None) -> Request:
        """Return a job that ignores its interrupt until its worker is given up."""
        if writes(number):
            return self.lasting(number, timeout)
        return Call(_pause, number, readonly=True, timeout=timeout)

    def must_fail(self, number: int) -> bool:
        """Say whether the statement of this number fails."""
        return number % 50 == 49

    # --- the content of the file ----------------------------------------------------------

    def written(self) -> list[int]:
        """Return the numbers in the file."""
        with closing(sqlite3.connect(self._path)) as connection:
            return [number for (number,) in connection.execute("SELECT number FROM written")]

    def twice(self) -> int:
        """Return how many numbers were written more than once."""
        written = self.written()
        return len(written) - len(set(written))

    def never_ran(self, acknowledged: set[int]) -> list[str]:
        """Say which writes were answered, and are not there."""
        with closing(sqlite3.connect(self._path)) as connection:
            checked = connection.execute("PRAGMA integrity_check").fetchone()[0]
        missing = {number for number in acknowledged if writes(number)}.difference(self.written())
        wrong = [f"{number} was acknowledged and is not there" for number in missing]
        return wrong if checked == "ok" else [*wrong, checked]

    def not_undone(self, denied: set[int]) -> list[str]:
        """Return the statements that took effect although their callers heard that they did not."""
        return [f"{number} is there, and was said to be undone" for number in denied.intersection(self.written())]


def writes(number: int) -> bool:
    """Say whether the statement of this number writes."""
    return number % 20 == 0


def _end_it(connection: object) -> None:
    raise SystemExit


def _pause(connection: object, number: int) -> Result:
    wait(2 * GRACE)
    return Result(("number",), [(number,)], 1)
