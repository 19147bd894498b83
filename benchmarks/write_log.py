"""The write-ahead log: its size while other threads read all the time."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import Figure
from benchmarks.machine import cpus, folder_on_disk
from benchmarks.peers import SQLITE3, Crew, Executor
from benchmarks.rounds import Effort
from benchmarks.writers import PATIENT, by_apsw, by_sqlite3
from supervisor import Query

__all__ = ["run"]

_BLOB = bytes(8000)
_REPLACE = "INSERT OR REPLACE INTO blobs VALUES (?, ?)"
_LOOK = "SELECT count(*) FROM blobs, (SELECT 1 UNION SELECT 2 UNION SELECT 3) WHERE length(blob) > ?"
_KEPT, _WRITTEN = 2000, 50


def run(effort: Effort) -> Iterator[Figure]:
    """Compare the size of the log on the crew and on plain connections, with busy readers."""
    seconds = effort.pick(quick=1.5, full=10.0)
    with TemporaryDirectory(dir=folder_on_disk()) as folder:
        ours, theirs = (str(Path(folder) / name) for name in ("crew.db", "plain.db"))
        for path in (ours, theirs):
            connection = by_apsw(path)
            connection.pragma("journal_mode", "wal")
            connection.execute("CREATE TABLE blobs (id INTEGER PRIMARY KEY, blob)")
            connection.executemany(_REPLACE, [(number, _BLOB) for number in range(_KEPT)])
            connection.close()
        with closing(Crew(ours, cpus())) as crew:
            write = partial(_replace_on_crew, crew)
            crews = _longest(ours, write, partial(crew.ref.ask, Query(_LOOK, (1,))), seconds)
        with (
            closing(by_sqlite3(theirs, PATIENT)) as writing,
            closing(Executor(cpus(), partial(by_sqlite3, theirs, PATIENT))) as reading,
        ):
            plain = _longest(theirs, partial(_replace_by_hand, writing), lambda: reading.ask(_LOOK, (1,)), seconds)
    text = f"megabytes of the log while {cpus() + 1} threads read all the time, after {seconds:g} s of writing"
    seen = f"{crews[0]:.0f} MB after {crews[1]:.0f} MB were written, against {plain[0]:.0f} after {plain[1]:.0f}"
    yield Figure(f"{text}: {SQLITE3}", seen, crews[0] / max(1.0, plain[0]))


def _replace_on_crew(crew: Crew, numbers: list[int]) -> None:
    crew.ref.ask(Query(_REPLACE, many=[(number, _BLOB) for number in numbers]))


def _replace_by_hand(connection: sqlite3.Connection, numbers: list[int]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_REPLACE, [(number, _BLOB) for number in numbers])
    connection.execute("COMMIT")


def _longest(
    path: str, write: Callable[[list[int]], object], read: Callable[[], object], seconds: float
) -> tuple[float, float]:
    """Return the largest size of the log, and the amount of written data, in megabytes."""
    over, longest, written = threading.Event(), 0.0, 0

    def read_on() -> None:
        while not over.is_set():
            read()

    readers = [threading.Thread(target=read_on) for _ in range(cpus() + 1)]
    for reader in readers:
        reader.start()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        write([(written + number) % _KEPT for number in range(_WRITTEN)])
        written += _WRITTEN
        longest = max(longest, Path(f"{path}-wal").stat().st_size / 1e6)
    over.set()
    for reader in readers:
        reader.join()
    return longest, written * len(_BLOB) / 1e6
