"""The scene `writes`: a thousand writes wait for a lock, and then share a handful of commits."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import apsw

from actors.console.demo_crew import DemoCrew, label_of, worker_rows
from actors.console.gauges import COMMITS
from actors.console.pace import Stopwatch
from actors.console.stage import Look, Row
from supervisor import Query, Reply, Result, WorkerStatus

__all__ = ["play"]

_WRITES: Final = 1000
_HELD: Final = 1.2  # seconds of the usual demo that the other connection holds the lock
_LONGEST: Final = 3.0  # seconds that it holds the lock at most; the writer's patience ends after 5

_CREATE: Final = "CREATE TABLE notes (number INTEGER PRIMARY KEY)"
_INSERT: Final = "INSERT INTO notes VALUES (?)"
_CODE: Final = """for n in range(1000): db.ask(Query("INSERT …", (n,)), block=False)"""


def play(crew: DemoCrew) -> None:
    """Show how writes share commits. The commits are counted by SQLite's own hook."""
    crew.stage.scene("A thousand writes, while another connection holds the lock", _CODE)
    crew.name(_INSERT, "INSERT INTO notes")
    crew.db.ask(Query(_CREATE))
    before = crew.gauges.read(COMMITS)
    with _lock_of_another_connection(crew):
        replies = [crew.db.ask(Query(_INSERT, (number,)), block=False) for number in range(_WRITES)]
        reads = _watch_the_lock(crew, replies)
    crew.stage.say(f"The readers answered {reads} queries meanwhile.")
    released = time.monotonic()
    last = Stopwatch(replies[-1])
    while not all(reply.done() for reply in replies):
        _draw(crew, replies, before)
        crew.tick(0.01)
    errors = [error for reply in replies if (error := reply.exception(0)) is not None]
    if errors:
        raise errors[0]
    commits = crew.gauges.read(COMMITS) - before
    took = ((last.stopped_at or time.monotonic()) - released) * 1000
    crew.stage.keep([_row(replies, commits, "good")])
    stored = crew.db.ask(Query("SELECT count(*) FROM notes")).scalar()
    crew.stage.say(f"{stored:,} rows are durable {took:.0f} ms after the lock is free, by {commits} commits.")
    crew.count(f"{stored:,}", f"writes in {commits} commits", "db.ask(Query(…), block=False)")
    crew.rest(0.8)


@contextmanager
def _lock_of_another_connection(crew: DemoCrew) -> Iterator[None]:
    """Hold the write lock of the file, as another program would."""
    other = apsw.Connection(str(crew.path))
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
    finally:
        other.close()


def _watch_the_lock(crew: DemoCrew, replies: list[Reply[Result]]) -> int:
    """Show the writer that waits, for as long as the scene wants, and until it has been seen.

    Returns:
        How many reads were answered in that time.
    """
    began, reads = time.monotonic(), 0
    seen: WorkerStatus | None = None
    while (passed := time.monotonic() - began) < _LONGEST:
        status = crew.status()
        waiting = next((worker for worker in status.workers if worker.waits_for_lock), None)
        if waiting is not None and seen is None:
            seen = waiting
            crew.stage.say(f"{label_of(waiting)} waits for the lock.")
        if seen is not None and passed >= crew.pace.seconds(_HELD):
            break
        crew.stage.draw([_row(replies, 0), *worker_rows(crew, status)])
        reads += len(crew.db.ask(Query("SELECT max(number) FROM slices")))
        crew.tick(0.02)
    return reads


def _draw(crew: DemoCrew, replies: list[Reply[Result]], before: int) -> None:
    rows = worker_rows(crew, crew.status())
    crew.stage.draw([_row(replies, crew.gauges.read(COMMITS) - before), *rows])


def _row(replies: list[Reply[Result]], commits: int, look: Look = "plain") -> Row:
    done = sum(reply.done() for reply in replies)
    text = f"{done:,} answered, {commits} commits"
    return Row("writes", text, done / len(replies), look)
