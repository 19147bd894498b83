"""Killer: kills a worker on purpose, to show how the crew replaces it."""

import os
import signal
import threading
import time
from typing import Any, Final, Self

import apsw

from supervisor import Call, CrewStatus, Status, SupervisorRef, WorkerStatus

__all__ = ["Killer", "NoSuchWorker"]

_STEPS: Final = 50_000  # of SQLite's virtual machine, between two looks of a statement that runs
_PATIENCE: Final = 3.0  # seconds


class NoSuchWorker(Exception):
    """The crew has no worker with this id, or the worker did not die; the text says which."""


class Killer:
    """Kills workers: a child process by SIGKILL, a thread by a SystemExit from inside.

    No thread can be killed from outside. While this is entered, every SQLite connection that opens
    in this process looks from time to time whether its thread has to die. An idle worker does not
    look, so it gets a job that does.
    """

    def __init__(self) -> None:
        # The end of the name of the thread that has to die.
        self._doomed: str | None = None

    def __enter__(self) -> Self:
        apsw.connection_hooks.append(self._register)
        return self

    def __exit__(self, *_: object) -> None:
        apsw.connection_hooks.remove(self._register)

    def kill(self, db: SupervisorRef, worker_id: int) -> str:
        """Kill a worker, and wait for the worker that takes its place; return the story.

        Raises:
            NoSuchWorker: no worker has this id, or it did not die in time.
        """
        status, worker = self._find(db, worker_id)
        started = time.monotonic()
        if worker.pid is None:
            self._kill_thread(db, status, worker)
            how = f"worker {worker_id}, a thread, died of SystemExit"
        elif worker.node is not None:
            message = f"worker {worker_id} is a process on {worker.node}; kill it there"
            raise NoSuchWorker(message)
        else:
            os.kill(worker.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            how = f"worker {worker_id}, the process {worker.pid}, was killed with SIGKILL"
        if worker.job is not None:
            how += f" while it ran {worker.job}"
        known = {each.id for each in status.workers}
        while time.monotonic() - started < _PATIENCE:
            now = db.ask(Status()).workers
            new = [each for each in now if each.id not in known and each.state != "starting"]
            if new and worker_id not in {each.id for each in now}:
                took = 1000 * (time.monotonic() - started)
                return f"{how}\nworker {new[0].id} has taken its place, {took:.0f} ms after the kill"
            time.sleep(0.002)
        return f"{how}\nno worker has taken its place until now: see `status`"

    def _find(self, db: SupervisorRef, worker_id: int) -> tuple[CrewStatus, WorkerStatus]:
        """Return a worker that has opened its connection; wait while it starts."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            status = db.ask(Status())
            found = [worker for worker in status.workers if worker.id == worker_id]
            if not found:
                ids = ", ".join(str(worker.id) for worker in status.workers)
                raise NoSuchWorker(f"there is no worker {worker_id}; the workers are: {ids}")
            if found[0].state != "starting":
                return status, found[0]
            if time.monotonic() > deadline:
                raise NoSuchWorker(f"worker {worker_id} is starting, and has nothing to lose yet")
            time.sleep(0.01)

    def _kill_thread(self, db: SupervisorRef, status: CrewStatus, worker: WorkerStatus) -> None:
        self._doomed = f"-worker-{worker.id}"
        dead = threading.Event()
        writes = worker.role == "writer"
        peers = [each for each in status.workers if each.role == worker.role]
        try:
            # Each idle worker takes one of these calls, and keeps it until the right one has died.
            calls = [
                db.ask(Call(self._visit, dead, readonly=not writes, timeout=_PATIENCE), block=False) for _ in peers
            ]
            deadline = time.monotonic() + _PATIENCE
            while self._doomed is not None and time.monotonic() < deadline:
                time.sleep(0.002)
        finally:
            missed, self._doomed = self._doomed is not None, None
            dead.set()
        for call in calls:
            call.cancel()
        if missed:
            raise NoSuchWorker(f"worker {worker.id} did not die within {_PATIENCE:g} s")

    def _register(self, connection: apsw.Connection) -> None:
        connection.set_progress_handler(self._look, _STEPS, id=self)

    def _look(self) -> bool:
        self._die_if_doomed()
        return False

    def _visit(self, connection: Any, dead: threading.Event) -> None:
        del connection
        self._die_if_doomed()
        dead.wait(_PATIENCE)

    def _die_if_doomed(self) -> None:
        doomed = self._doomed
        if doomed is not None and threading.current_thread().name.endswith(doomed):
            self._doomed = None
            message = "killed at the prompt"
            raise SystemExit(message)
