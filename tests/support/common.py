"""Helpers for the tests of supervision: killing threads, bystanders, and programs in processes."""

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import pykka

from actors.databases.sqlite.connection import SQLiteConnection
from actors.databases.sqlite.database import SQLite
from supervisor import Query, Reply, Result, Status, Supervisor, SupervisorRef, SupervisorStopped, Transaction
from tests.conftest import eventually
from tests.support.fakes import FakeDatabase, Gate

PATIENCE = 10.0  # seconds after which a test calls it hanging; nothing ever comes near it

RUNAWAY = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
"""A statement that would run for years."""

_ROOT = Path(__file__).parents[2]
_PROGRAMS = Path(__file__).parent / "programs"


# --- replies ------------------------------------------------------------------------------


def error_of(reply: Reply[Any]) -> BaseException | None:
    """Return how a reply ended; a reply that never ends fails the test."""
    return reply.exception(PATIENCE)


def up(ref: SupervisorRef) -> int:
    """Return how many workers serve."""
    status = ref.ask(Status())
    return sum(worker.state != "starting" for worker in status.workers) if status.state == "up" else 0


def running(ref: SupervisorRef, database: FakeDatabase, gates: list[Gate]) -> list[Reply[Any]]:
    """Start jobs that wait at `gates`, and return their replies once they run."""
    replies = []
    for number, gate in enumerate(gates):
        database.statements[f"gate {number}"] = gate
        replies.append(ref.ask(Query(f"gate {number}"), block=False))
        assert gate.entered.wait(PATIENCE)
    return replies


def is_refused(ref: SupervisorRef) -> bool:
    """Say whether a crew that has stopped, or is about to stop, refuses a request."""
    reply = ref.ask(Query("late"), block=False)
    error = error_of(reply)
    return isinstance(error, SupervisorStopped) and error.executed is False


def ask_writer(ref: SupervisorRef, *texts: str) -> list[Result]:
    """Run statements in the lane that writes a file, also statements that only read.

    A transaction belongs to this lane unless it says that it only reads.
    """
    return ref.ask(Transaction([Query(sql) for sql in texts]), timeout=PATIENCE)


# --- threads and actors -------------------------------------------------------------------


def kill(thread: threading.Thread, kind: type[BaseException] = SystemExit) -> None:
    """Raise `kind` in `thread`, at its next step in Python."""
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(kind))


def threads(part: str) -> list[threading.Thread]:
    """Return the running threads whose name holds `part`."""
    return [thread for thread in threading.enumerate() if part in thread.name]


def thread_of(ref: SupervisorRef, worker: int | None = None) -> threading.Thread:
    """Return the thread of the supervisor, or of the worker with that id.

    The thread is found by its full name. A thread that is ending may still be listed, and its
    identity may soon belong to another thread.
    """
    crew = ref.ask(Status()).name
    name = f"querycrew-{crew}-supervisor" if worker is None else f"querycrew-{crew}-worker-{worker}"
    return next(thread for thread in threading.enumerate() if thread.name == name)


def thread_of_a_worker(ref: SupervisorRef) -> threading.Thread:
    """Return the thread of a worker that is up."""
    assert eventually(lambda: up(ref))
    return thread_of(ref, next(worker.id for worker in ref.ask(Status()).workers if worker.state != "starting"))


def worker_refs() -> list[pykka.ActorRef[Any]]:
    return pykka.ActorRegistry.get_by_class_name("Worker")


def nothing_left(database: FakeDatabase | None = None) -> bool:
    """Wait until the threads of all crews are gone.

    Say whether nothing else of the crews is left.
    """
    gone = eventually(lambda: not threads("querycrew-"))
    ours = [*worker_refs(), *pykka.ActorRegistry.get_by_class(Supervisor)]
    return gone and not ours and (database is None or database.open_connections == 0)


class _Echo(pykka.ThreadingActor):
    use_daemon_thread = True

    def on_receive(self, message: object) -> object:
        return message


@contextmanager
def switching_often() -> Iterator[None]:
    """Change threads often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def bystander() -> Iterator[None]:
    """Run a foreign actor beside the test, and see that nothing has happened to it."""
    ref = _Echo.start()
    try:
        yield
        assert ref.is_alive(), "a foreign actor was stopped"
        assert ref.ask("still there?", timeout=PATIENCE) == "still there?"
    finally:
        ref.stop()


# --- databases ----------------------------------------------------------------------------


@dataclass(frozen=True)
class SQLiteWith:
    """A SQLite file whose SQL may call functions of the test, and whose connections it can see."""

    path: Path
    functions: dict[str, Callable[..., Any]]
    max_size: int | None = None
    name: str = "sqlite-with"
    connections: list[SQLiteConnection] = field(default_factory=list)

    def connect(self) -> SQLiteConnection:
        connection = SQLite(self.path).connect()
        for name, function in self.functions.items():
            connection.connection.create_scalar_function(name, function)
        self.connections.append(connection)
        return connection


def can_lock(path: Path) -> bool:
    """Say whether another connection gets the whole database for itself, at once."""
    other = apsw.Connection(str(path))
    try:
        other.execute("BEGIN EXCLUSIVE; ROLLBACK")
        # In WAL mode readers do not stand in the way of that, but they do of a full checkpoint.
        return next(other.execute("PRAGMA wal_checkpoint(TRUNCATE)"))[0] == 0
    except apsw.BusyError:
        return False
    finally:
        other.close()


# --- programs -----------------------------------------------------------------------------


def program(name: str, *arguments: object) -> list[str]:
    """Return the command that runs a script of `programs/` in a process of its own."""
    return [sys.executable, "-W", "error", str(_PROGRAMS / f"{name}.py"), *map(str, arguments)]


def run_program(name: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a script of `programs/` to its end. A script that hangs fails the test."""
    return subprocess.run(
        program(name, *arguments), capture_output=True, text=True, timeout=60, check=False, env=environment()
    )


def environment() -> dict[str, str]:

    return {**os.environ, "PYTHONPATH": str(_ROOT)}
