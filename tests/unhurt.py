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
    """Run the block, and see that the crew has the same workers after it as before."""
    assert eventually(lambda: worker_ids(db)), "it has no workers yet"
    before = worker_ids(db)
    yield
    assert worker_ids(db) == before
    assert db.ask(Status()).restarts == 0


def run_python(program: str, *arguments: object) -> str:
    """Run a program in a process of its own and return what it printed; one that fails or hangs fails the test."""
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout
