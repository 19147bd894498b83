"""A crew of children without threads and processes.

Its lanes, batches and connections are real, and its children are scripted. The thread of a worker
is the test's own. While the worker waits for its child, the script of the child acts as other
threads do at that moment: it cancels, lets time pass, takes jobs back, or dies.
"""

from collections.abc import Callable
from itertools import count
from typing import Any

from actors.databases.child import connection as child_connection
from actors.databases.child.connection import ChildConnection
from actors.databases.child.database import ChildProcess
from actors.databases.child.frames import FLUSH
from actors.databases.sqlite.database import SQLite
from actors.dispatch import rejections
from actors.dispatch.batch import JobBatch
from actors.dispatch.dispatcher import Dispatcher
from actors.dispatch.job import Job
from actors.dispatch.lane import Lane
from actors.dispatch.worker_handle import WorkerHandle, WorkerState
from actors.replies.reply import Reply
from actors.values.errors import ConnectionLost
from actors.values.requests import Query, Request
from actors.values.status import CrewStatus
from tests.support.scripted_child import ScriptedChild

QUICK = Query("SELECT quick")


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Hand:
    """A worker, its connection and its child."""

    def __init__(self, crew: "Crew", number: int, lane: int) -> None:
        self.crew = crew
        self.handle = WorkerHandle(number, lambda: crew.woken.append(self))
        self.child = ScriptedChild(reads_only=not lane)
        crew.children.append(self.child)
        self.connection = self.handle.connection = ChildConnection(ChildProcess(SQLite()))
        self.begun: list[Job] = []
        """The jobs that the child has begun, in this order."""
        self.orphans: list[Job] = []

    # --- the child ------------------------------------------------------------------------

    def begin(self) -> Job | None:
        ticket = self.child.begin()
        if ticket is None:
            return None
        self.begun.append(self.connection._tasks[ticket][1])
        return self.begun[-1]

    def answer(self) -> None:
        self.child.answer()
        self.child.flush()

    def fail(self, error: Exception) -> None:
        self.child.fail(error)

    def run_all(self) -> None:
        while self.begin() is not None:
            self.child.answer()

    # --- the worker's thread --------------------------------------------------------------

    def take(self) -> JobBatch | None:
        lane = self.handle.lane
        assert lane is not None
        return lane.take(self.handle)

    def go(self, *script: Callable[[], object], batch: JobBatch | None = None) -> list[Job]:
        """Take a batch, unless there is one, and run it as `Worker` does.

        Returns:
            The jobs that the batch had in the beginning.
        """
        jobs: list[Job] = []
        try:
            self.connection.check()
            batch = batch or self.take()
            if batch is None:
                return []
            jobs += batch.jobs
            self.child.script.extend([*script, self.run_all])
            self.connection.run(batch)
            batch.close()
        except ConnectionLost as lost:
            self.end(lost)
        self.child.script.clear()
        return jobs

    def end(self, cause: BaseException) -> None:
        """End as `Worker` does."""
        crew = self.crew
        if isinstance(cause, ConnectionLost) and not cause.blames and self.handle.batch is not None:
            self.handle.batch.blames = False
        self.orphans = crew.dispatcher.remove_worker(self.handle)
        for orphan in self.orphans:
            died = rejections.died(crew.dispatcher.name, self.handle.id, orphan, cause.__cause__)
            crew.dispatcher.reject_orphan(orphan, died)
        self.handle.batch = None
        crew.dispatcher.release(self.handle)

    @property
    def interrupted(self) -> list[int]:
        """The tickets that were interrupted, in this order."""
        return [ticket for ticket in self.child.interrupted if ticket != FLUSH]

    @property
    def is_idle(self) -> bool:
        return self.handle.state is WorkerState.IDLE


class Crew:
    """A dispatcher with workers whose connections are in children."""

    def __init__(self, monkeypatch: Any, *, size: int = 2, max_queue: int | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.dispatcher = Dispatcher("app", "Database()", size, max_queue, self.clock, **options)
        self.children: list[ScriptedChild] = []
        self.woken: list[Hand] = []
        self.settled: list[Job] = []
        """Each job as often as it was settled."""
        self._ids = count(1)
        self.knows(QUICK)
        monkeypatch.setattr(child_connection, "Child", lambda home, name: self.children[-1])

    @property
    def lane(self) -> Lane:
        return self.dispatcher.lanes[0]

    def knows(self, *queries: Query) -> None:
        """Let texts be known as quick, and so slow that a worker takes no more than its share."""
        for query in queries:
            self.lane.quick[query.sql] = 0.001

    def hand(self, lane: int = 0) -> Hand:
        """Return a worker whose connection is open, and that has not looked for a job yet."""
        hand = Hand(self, next(self._ids), lane)
        self.dispatcher.add_worker(hand.handle, lane)
        assert self.dispatcher.worker_ready(hand.handle)
        return hand

    def job(self, request: Request = QUICK, *, timeout: float | None = None) -> Job:
        deadline = None if timeout is None else self.clock() + timeout
        job = Job(request, Reply[Any](self.dispatcher), self.clock(), deadline)
        job.reply.add_done_callback(lambda _: self.settled.append(job))
        return job

    def submit(self, request: Request = QUICK, *, timeout: float | None = None) -> Job:
        job = self.job(request, timeout=timeout)
        self.dispatcher.submit(job)
        return job

    def submit_many(self, number: int, request: Request = QUICK) -> list[Job]:
        return [self.submit(request) for _ in range(number)]

    def look(self, seconds: float = 0.0) -> list[WorkerHandle]:
        """Let time pass, and act as the supervisor does then.

        Return the workers that are given up.
        """
        self.dispatcher.next_due()  # a request may have woken the supervisor
        self.clock.now += seconds
        self.dispatcher.recover()
        self.dispatcher.expire(self.clock())
        given_up = self.dispatcher.follow_up(self.clock())
        self.dispatcher.next_due()
        return given_up

    def status(self) -> CrewStatus:
        """Return a snapshot, whose counters have to add up."""
        status = self.dispatcher.status()
        names = ("queued", "running", "answered", "failed", "died", "rejected", "cancelled", "timed_out", "shed")
        assert status.submitted == sum(getattr(status, name) for name in names)
        return status


def errors(jobs: list[Job]) -> list[str | None]:
    """Return the kinds of errors with which jobs ended."""
    found = [job.reply.exception(0) for job in jobs]
    return [None if error is None else type(error).__name__ for error in found]
