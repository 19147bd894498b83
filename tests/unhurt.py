"""How a test sees that a crew came through it unhurt."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from supervisor import Status, SupervisorRef
from tests.conftest import eventually
from tests.support import environment


def worker_ids(db: SupervisorRef) -> list[int]:
    return [worker.id for worker in db.ask(Status()).workers]


@contextmanager
def same_workers(db: SupervisorRef) -> Iterator[None]:
    """Run the block, and see that the crew has the same workers after it as before.

    There may be more of them: the one that writes is started by the first job that needs it.
    """
    assert eventually(lambda: worker_ids(db)), "it has no workers yet"
    before = worker_ids(db)
    yield
    after, status = worker_ids(db), db.ask(Status())
    assert after[: len(before)] == before
    assert len(after) <= status.size + 1
    assert status.restarts == 0


def run_python(program: str, *arguments: object) -> str:
    """Run a program in a process of its own and return what it printed; one that fails or hangs fails the test."""
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout
