"""How a test sees that a crew came through it unhurt."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from supervisor import ChildProcess, Query, SQLite, Status, SupervisorRef
from tests.conftest import eventually
from tests.support.common import PATIENCE, can_lock, environment


def worker_ids(db: SupervisorRef) -> list[int]:
    return [worker.id for worker in db.ask(Status()).workers]


@contextmanager
def same_workers(db: SupervisorRef) -> Iterator[None]:
    """Run the block, and see that the crew has the same workers after it as before.

    There may be more workers afterwards: the first job that writes starts the worker that writes.
    """
    assert eventually(lambda: worker_ids(db)), "it has no workers yet"
    before = worker_ids(db)
    yield
    after, status = worker_ids(db), db.ask(Status())
    assert after[: len(before)] == before
    assert len(after) <= status.size + 1
    assert status.restarts == 0


def is_idle(db: SupervisorRef) -> bool:
    status = db.ask(Status())
    return not status.running and not status.queued and all(worker.state == "idle" for worker in status.workers)


def assert_serves(db: SupervisorRef, write: Query) -> None:
    """Look for a worker that is left busy, a lock, a lost job; and let everybody have a turn."""
    assert eventually(lambda: is_idle(db)), f"a worker was left busy:\n{db.ask(Status())}"
    status = db.ask(Status())
    assert status.submitted == sum(
        getattr(status, end)
        for end in ("queued", "running", "answered", "failed", "died", "rejected", "cancelled", "timed_out", "shed")
    )
    db.ask(write, timeout=PATIENCE)
    path = db.ask(Query("SELECT file FROM pragma_database_list WHERE name = 'main'"), timeout=PATIENCE).scalar()
    assert not path or can_lock(path), "a lock was left behind"


KINDS: dict[str, Callable[..., SQLite | ChildProcess]] = {
    "file": SQLite,
    "rollback journal": lambda path, **options: SQLite(path, journal_mode="delete", **options),
    "memory": lambda path, **options: SQLite(**options),
    "child": lambda path, **options: ChildProcess(SQLite(path, **options)),
}
"""The databases for crews, by name; each is made of a path and of options of `SQLite`."""


def run_python(program: str, *arguments: object) -> str:
    """Run a program in a process of its own; return its output.

    A failure or a hang fails the test.
    """
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout
