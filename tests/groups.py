"""What the tests of the lanes and of group commit share: a writer without a crew, and crews whose writer is held up."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from actors.databases.base import Answer, Ticketed
from actors.databases.sqlite import SQLite
from actors.databases.sqlite_writer import SQLiteWriter
from supervisor import Call, Query, Reply, SupervisorRef
from tests.support import PATIENCE

SETUP = "CREATE TABLE kept(number INTEGER PRIMARY KEY, what TEXT DEFAULT '')"


def insert(number: int) -> Query:
    return Query("INSERT INTO kept(number) VALUES (?)", (number,))


# --- how often was committed --------------------------------------------------------------


def commits(path: Path) -> int:
    """Return how many transactions stand in the log of a file in WAL mode, of which nothing was written back for good.

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


class Writer:
    """A `SQLiteWriter` as its worker uses it: everything that is asked waits together."""

    def __init__(self, path: Path, setup: str = SETUP, **options: Any) -> None:
        # Stays open, so that the log outlives a connection that is opened anew.
        self.other = apsw.Connection(str(path))
        self.other.execute("PRAGMA journal_mode = " + options.get("journal_mode", "wal")).fetchall()
        self.other.execute(setup).fetchall()
        self.connection = SQLiteWriter(SQLite(path, **options))
        self.path = path
        self.tickets = 0
        self.groups: list[list[int]] = []
        """Of the last `run`: the positions of the requests that were answered together, in the order of answering."""
        self.before: Callable[[int], object] = lambda ticket: None
        """Called as a job is drawn, with its position."""
        self.first = 0

    def run(self, *requests: Any) -> list[Answer]:
        """Let requests wait together; return their answers, in the order of asking."""
        self.first = self.tickets + 1
        waiting: deque[Ticketed] = deque(enumerate(requests, self.first))
        self.tickets += len(requests)
        answers: dict[int, Answer] = {}
        self.groups = []
        drawn: set[int] = set()
        held_over = self.connection.held_over

        def draw() -> Ticketed | None:
            if not waiting:
                return None
            self.before(waiting[0][0] - self.first)
            drawn.add(waiting[0][0])
            return waiting.popleft()

        while waiting or held_over:
            first = held_over.popleft() if held_over else draw()
            assert first is not None
            answered = self.connection.execute_group(first, draw)
            assert answered, "a call answers somebody"
            tickets = [answer.ticket for answer in answered]
            assert len({*tickets}) == len(tickets)
            assert not {*tickets} & answers.keys(), "answered twice"
            answers.update((answer.ticket, answer) for answer in answered)
            over = [ticket for ticket, _ in held_over]
            assert over == sorted(over), "held over out of order"
            assert drawn == {*answers, *over}, "every job that was drawn is answered or held over, and never both"
            self.groups.append([ticket - self.first for ticket in tickets])
        return [answers[ticket] for ticket in sorted(answers)]

    def interrupt(self, position: int) -> None:
        """Interrupt a request of the `run` that runs."""
        self.connection.interrupt(self.first + position)

    def rows(self, sql: str = "SELECT number FROM kept ORDER BY number") -> list[Any]:
        """Return the first column, as another connection sees it."""
        return [row[0] for row in self.other.execute(sql)]

    def close(self) -> None:
        self.connection.close()
        self.other.close()


def errors(answers: list[Answer]) -> list[str | None]:
    """Return the kinds of errors."""
    return [None if answer.error is None else type(answer.error).__name__ for answer in answers]


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
    """Keep the writer of a crew of threads busy, so that all that is asked in the block waits together."""
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
    with open(fifo, "wb"):  # which waits until somebody reads there
        yield
    assert reply.exception(PATIENCE) is None
    os.remove(fifo)


def asked(db: SupervisorRef, *requests: Any) -> list[Reply[Any]]:
    return [db.ask(request, block=False) for request in requests]
