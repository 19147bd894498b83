"""Helpers for the tests of lanes and group commit.

A writer without a crew, crews with a held writer.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import apsw

from actors.databases.base import Connection
from actors.databases.executor import Batch
from actors.databases.sqlite.database import SQLite
from actors.databases.sqlite.writer import SQLiteWriter
from supervisor import Call, Query, Reply, SupervisorRef
from tests.support.common import PATIENCE

SETUP = "CREATE TABLE kept(number INTEGER PRIMARY KEY, what TEXT DEFAULT '')"


def insert(number: int) -> Query:
    return Query("INSERT INTO kept(number) VALUES (?)", (number,))


# --- how often was committed --------------------------------------------------------------


def commits(path: Path) -> int:
    """Return the number of transactions in the log of a file in WAL mode.

    No page of the log may have been written back for good.

    Each ends with a page that says how large the file is after it.
    """
    log = path.with_name(f"{path.name}-wal").read_bytes()
    size, salt, found = int.from_bytes(log[8:12], "big"), log[16:24], 0
    for at in range(32, len(log), 24 + size):
        if log[at + 8 : at + 16] != salt:
            break  # of an earlier round
        found += log[at + 4 : at + 8] != b"\0\0\0\0"
    return found


class Commits:
    """How many transactions a block has written."""

    def __init__(self) -> None:
        self.count = 0


@contextmanager
def counted(path: Path) -> Iterator[Commits]:
    """Count the transactions that the block writes; nobody may write back the log meanwhile."""
    seen = Commits()
    before = commits(path)
    yield seen
    seen.count = commits(path) - before


# --- a writer without a crew --------------------------------------------------------------


@dataclass(eq=False)
class Asked:
    """A request that waits, and its answer; `Batch` knows it as a task."""

    position: int
    request: Any
    is_unwanted: bool = False
    value: Any = None
    error: BaseException | None = None
    ends: int = 0
    """How often something became of it: once, in the end."""
    begins: int = 0


class Together(Batch):
    """Requests that wait together, as a worker has taken them."""

    def __init__(self, connection: Connection, requests: Iterable[Any]) -> None:
        super().__init__(connection)
        self.tasks = [Asked(position, request) for position, request in enumerate(requests)]
        self.left = deque(self.tasks)
        self.before: Callable[[int], object] = lambda position: None
        """Called before a request is begun, with its position."""
        self.after: Callable[[int], object] = lambda position: None
        """Called once a request is answered, with its position."""
        self.answered: list[int] = []
        """The positions of the requests that were answered, in this order."""
        self.told: list[int] = []
        """How many were answered, each time when the callers have to know."""

    def __len__(self) -> int:
        return len(self.tasks)

    def begin(self) -> Asked | None:
        while self.left:
            task = self.left[0]
            self.before(task.position)
            self.left.popleft()
            task.begins += 1
            self.running.append(task)
            if not task.is_unwanted:
                return task
            self.fail(task, InterruptedError("interrupted before it was started"))
        return None

    def answer(self, task: Asked, value: Any, seconds: float | None = None) -> None:
        self.end(task)
        task.value = value

    def fail(self, task: Asked, error: BaseException, seconds: float | None = None) -> None:
        self.end(task)
        task.error = error

    def reroute(self, task: Asked) -> None:
        raise AssertionError("there is no other writer")

    def let_go(self, task: Asked) -> bool:
        if task not in self.running:
            return False
        self.running.remove(task)
        return True

    def give_back(self, *tasks: Asked) -> None:
        for task in tasks:
            self._leave(task)
        self.left.extendleft(reversed(tasks))

    def tell(self) -> None:
        self.told.append(len(self.answered))

    def end(self, task: Asked) -> None:
        assert task in self.running, "it does not run"
        self._leave(task)
        task.ends += 1
        self.answered.append(task.position)
        self.after(task.position)

    def interrupt_it(self, position: int) -> None:
        """Interrupt a request, whether it has begun or not, as the crew does."""
        self.tasks[position].is_unwanted = True
        self.interrupt(self.tasks[position])


class Writer:
    """A `SQLiteWriter` as its worker uses it: everything that is asked waits together."""

    def __init__(self, path: Path, setup: str = SETUP, **options: Any) -> None:
        # Stays open, so that the log outlives a connection that is opened anew.
        self.other = apsw.Connection(str(path))
        self.other.execute("PRAGMA journal_mode = " + options.get("journal_mode", "wal")).fetchall()
        self.other.execute(setup).fetchall()
        self.connection = SQLiteWriter(SQLite(path, **options))
        self.path = path
        self.batch = Together(self.connection, ())
        """Of the last `run`."""
        self.before: Callable[[int], object] = lambda position: None
        """Called before a request is begun, with its position."""
        self.after: Callable[[int], object] = lambda position: None
        """Called once a request is answered, with its position."""

    def run(self, *requests: Any) -> list[Asked]:
        """Let requests wait together; return their answers, in the order of asking."""
        self.batch = batch = Together(self.connection, requests)
        batch.before, batch.after = self.before, self.after
        self.connection.run(batch)
        assert not batch.running, "something became of every job"
        assert [task.ends for task in batch.tasks] == [1] * len(requests), "each is answered once"
        assert max((task.begins for task in batch.tasks), default=0) <= 1
        return batch.tasks

    @property
    def groups(self) -> list[list[int]]:
        """The positions of the answered requests, in the order of the answers.

        A group holds the answers between which no job was begun.
        """
        ends = [*self.batch.told, len(self.batch.answered)]
        groups = [self.batch.answered[first:last] for first, last in pairwise(ends)]
        return [group for group in groups if group]

    def interrupt(self, position: int) -> None:
        """Interrupt a request of the `run` that runs."""
        self.batch.interrupt_it(position)

    def rows(self, sql: str = "SELECT number FROM kept ORDER BY number") -> list[Any]:
        """Return the first column, as another connection sees it."""
        return [row[0] for row in self.other.execute(sql)]

    def close(self) -> None:
        self.connection.close()
        self.other.close()


def errors(answers: Iterable[Asked]) -> list[str | None]:
    """Return the kinds of errors."""
    return [None if answer.error is None else type(answer.error).__name__ for answer in answers]


def fail(error: BaseException) -> Callable[[int], int]:
    """Return a function for SQL that raises the error for some values."""

    def function(value: int = 0) -> int:
        if value in (0, 3):
            raise error
        return value

    return function


# --- a crew whose writer is held up -------------------------------------------------------


class Held:
    """A function for `Call`, or for SQL, in which a worker waits until the test lets it go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, *connection: Any) -> int:
        self.entered.set()
        assert self.opened.wait(30), "the test never opened it"
        return 1


@contextmanager
def writer_held(db: SupervisorRef) -> Iterator[Held]:
    """Keep the writer of a crew of threads busy: all requests of the block wait together."""
    held = Held()
    reply = db.ask(Call(held), block=False)
    assert held.entered.wait(PATIENCE)
    try:
        yield held
    finally:
        held.opened.set()
    assert reply.exception(PATIENCE) is None


def wait_for_the_end(connection: apsw.Connection, fifo: str) -> None:
    """Wait until the other end of a pipe with a name is closed; for `Call`, in a child."""
    with open(fifo, "rb") as pipe:
        pipe.read()


@contextmanager
def child_held(db: SupervisorRef, folder: Path) -> Iterator[None]:
    """As `writer_held`, of a crew of children."""
    fifo = folder / "held"
    os.mkfifo(fifo)
    reply = db.ask(Call(wait_for_the_end, str(fifo)), block=False)
    with open(fifo, "wb"):  # `open` waits until the child opens the pipe to read it
        yield
    assert reply.exception(PATIENCE) is None
    os.remove(fifo)


def asked(db: SupervisorRef, *requests: Any) -> list[Reply[Any]]:
    return [db.ask(request, block=False) for request in requests]
