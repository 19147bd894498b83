"""A crew with Pykka alone: the supervisor receives every job, and a message when it is done."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import apsw
import pykka

__all__ = ["Job", "PlainSupervisor"]


@dataclass(frozen=True, slots=True)
class Job:
    sql: str
    params: tuple[Any, ...]
    reply: pykka.ThreadingFuture


@dataclass(frozen=True, slots=True)
class Done:
    worker: pykka.ActorRef


class PlainSupervisor(pykka.ThreadingActor):
    """Keeps the queue and sends jobs to idle workers: one message a job in each direction."""

    def __init__(self, path: str, size: int) -> None:
        super().__init__()
        self._path = path
        self._size = size
        self._idle: list[pykka.ActorRef] = []
        self._queue: deque[Job] = deque()

    def on_start(self) -> None:
        self._workers = [PlainWorker.start(self._path, self.actor_ref) for _ in range(self._size)]
        self._idle += self._workers

    def on_receive(self, message: Job | Done) -> None:
        match message:
            case Job():
                self._queue.append(message)
            case Done(worker):
                self._idle.append(worker)
        if self._queue and self._idle:
            self._idle.pop().tell(self._queue.popleft())

    def on_stop(self) -> None:
        for worker in self._workers:
            worker.stop()


class PlainWorker(pykka.ThreadingActor):
    """Runs a job, answers it, and tells the supervisor."""

    def __init__(self, path: str, supervisor: pykka.ActorRef) -> None:
        super().__init__()
        self._path = path
        self._supervisor = supervisor
        self._done = Done(self.actor_ref)

    def on_start(self) -> None:
        self._connection = apsw.Connection(self._path)

    def on_receive(self, job: Job) -> None:
        try:
            rows = self._connection.execute(job.sql, job.params).fetchall()
        except apsw.Error:
            job.reply.set_exception()
        else:
            job.reply.set(rows)
        self._supervisor.tell(self._done)

    def on_stop(self) -> None:
        self._connection.close()
