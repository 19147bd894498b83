"""Writers: the crew, in threads and in children, and others who write, each on a file of its own."""

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
AT_ONCE = 128  # as many as the crew puts into one transaction at most
INSERT = "INSERT INTO notes (text, at) VALUES (?, ?)"
READ = "SELECT count(name), sum(age) FROM users"
PATIENT = 120.0  # seconds of waiting for a lock, after which something would be lost

Statement = Callable[[int], tuple[str, tuple[Any, ...]]]
"""What is asked, by number: SQL and parameters."""

KINDS = {CREW: "", CHILDREN: "children, "}  # as they stand before a figure's name


def create_for(folder: str, name: str) -> str:
    """Make a file of the contestant's own: nobody writes back what another one has written."""
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
    """Connect as one does who sets no timeout; the rest as the crew has it."""
    connection = apsw.Connection(path)
    connection.set_busy_timeout(round(PATIENT * 1000))  # the first look at a file may find it locked for a moment
    connection.pragma("synchronous", "full")
    connection.set_busy_timeout(0)
    return connection


def by_sqlite3(path: str, timeout: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=timeout)
    connection.execute("PRAGMA synchronous = full")
    return connection


def note(number: int) -> tuple[str, int]:
    return "what somebody wrote down", number


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
