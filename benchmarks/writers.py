"""Writers: the crew, in threads and in children, and its peers, each on a file of its own."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from benchmarks.data import create
from benchmarks.machine import cpus
from benchmarks.peers import CREW, Crew, Executor
from supervisor import ChildProcess, Query

__all__ = [
    "AT_ONCE",
    "BY_HAND",
    "CHILDREN",
    "INSERT",
    "KINDS",
    "OUTSTANDING",
    "PATIENT",
    "READ",
    "Statement",
    "by_apsw",
    "by_sqlite3",
    "create_for",
    "crew_for",
    "file_of",
    "in_groups",
    "latencies_of",
    "note",
    "submit_to",
    "submit_to_executor",
]

CHILDREN = "children"
BY_HAND = "by hand"
OUTSTANDING = 256
AT_ONCE = 128  # the most writes that the crew puts into one transaction
INSERT = "INSERT INTO notes (text, at) VALUES (?, ?)"
READ = "SELECT count(name), sum(age) FROM users"
PATIENT = 120.0  # seconds of waiting for a lock; after that a write would be lost

Statement = Callable[[int], tuple[str, tuple[Any, ...]]]
"""The SQL and the parameters of the request with a number."""

KINDS = {CREW: "", CHILDREN: "children, "}  # the beginning of a figure's name


def create_for(folder: str, name: str) -> str:
    """Make a file of the contestant's own, so that no contestant writes back another's log."""
    path = create(Path(folder) / file_of(name))
    connection = apsw.Connection(path)
    connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT, at INTEGER)")
    connection.close()
    return path


def file_of(name: str) -> str:
    return f"{name.replace(' ', '-')}.db"


def crew_for(folder: str, kind: str) -> Crew:
    path = create_for(folder, kind)
    return Crew(ChildProcess(path) if kind == CHILDREN else path, cpus())


def by_apsw(path: str) -> apsw.Connection:
    """Connect without a timeout, and otherwise with the settings of the crew."""
    connection = apsw.Connection(path)
    connection.set_busy_timeout(round(PATIENT * 1000))  # the file may be locked for a moment at first
    connection.pragma("synchronous", "full")
    connection.set_busy_timeout(0)
    return connection


def by_sqlite3(path: str, timeout: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=timeout)
    connection.execute("PRAGMA synchronous = full")
    return connection


def note(number: int) -> tuple[str, int]:
    return "a note that a user wrote", number


def submit_to(crew: Crew, statement: Statement, number: int) -> Any:
    return crew.ref.ask(Query(*statement(number)), block=False)


def submit_to_executor(executor: Executor, number: int) -> Any:
    return executor.pool.submit(executor.run, INSERT, note(number))


def in_groups(connection: apsw.Connection, count: int) -> None:
    for start in range(0, count, AT_ONCE):
        connection.execute("BEGIN IMMEDIATE")
        for number in range(start, start + AT_ONCE):
            connection.execute(INSERT, note(number))
        connection.execute("COMMIT")


def latencies_of(ask: Callable[[int], object], count: int) -> list[float]:
    seen = []
    for number in range(count):
        start = time.perf_counter()
        ask(number)
        seen.append(time.perf_counter() - start)
    return seen
