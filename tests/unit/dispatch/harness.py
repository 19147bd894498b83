"""A dispatcher without a crew, with workers that a test drives by hand."""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from actors.databases.base import Connection
from actors.dispatch.batch import JobBatch
from actors.dispatch.dispatcher import Dispatcher
from actors.dispatch.job import Job
from actors.dispatch.lane import Lane
from actors.dispatch.worker_handle import WorkerHandle, WorkerState
from actors.replies.reply import Reply
from actors.values.errors import QuerycrewError
from actors.values.requests import Query, Request
from actors.values.result import Result
from actors.values.status import CrewStatus

QUICK = Query("SELECT quick")
"""A statement that the readers' lane knows as quick; see `Harness.knows`."""
WRITE = Query("INSERT")
DONE = Result(("done",), [(True,)], 1)


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class ScriptedConnection(Connection):
    """A connection that notes its interrupts, and gives back the jobs that a test names."""

    def __init__(self) -> None:
        self.interrupted: list[Job] = []
        self.unbegun: list[Job] = []
        """The jobs that `recall` gives back, oldest first."""
        self.recalled: list[Job] = []
        """The jobs that the connection gave back. It never runs them."""

    def cancel(self, task: Any) -> None:
        self.interrupted.append(task)

    def recall(self, most: int | None = None) -> list[Any]:
        back, self.unbegun = self.unbegun[:most], self.unbegun[len(self.unbegun[:most]) :]
        self.recalled += back
        return [job for job in back if job.owner.let_go(job)]


class Harness:
    """A dispatcher and its clock, with notes about its workers and jobs."""

    def __init__(self, *, size: int = 2, max_queue: int | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.dispatcher = Dispatcher("app", "Database()", size, max_queue, self.clock, **options)
        self.woken: list[WorkerHandle] = []
        """The workers that were woken and have not taken a batch since."""
        self.workers: list[WorkerHandle] = []
        """The workers that are up and were not killed."""
        self.jobs: list[Job] = []
        self.begun: Counter[Job] = Counter()
        self.settled: Counter[Job] = Counter()
        self._ids = count(1)

    # --- lanes and jobs -------------------------------------------------------------------

    @property
    def lane(self) -> Lane:
        """The first lane: the lane of the readers in a crew with a writer."""
        return self.dispatcher.lanes[0]

    @property
    def writers(self) -> Lane:
        return self.dispatcher.lanes[-1]

    def knows(self, *requests: Query, lane: Lane | None = None) -> None:
        """Note in the readers' lane that statements take a millisecond each."""
        for request in requests or (QUICK,):
            (lane or self.lane).quick[request.sql] = 0.001

    def job(self, request: Request | None = None, *, deadline: float | None = None) -> Job:
        number = next(self._ids)
        reply: Reply[Any] = Reply(self.dispatcher)
        job = Job(request or Query(f"SELECT {number}"), reply, self.clock(), deadline)
        reply.add_done_callback(lambda _: self.settled.update([job]))
        self.jobs.append(job)
        return job

    def submit(self, request: Request | None = None, **options: Any) -> Job:
        """Submit a job, and check that the dispatcher accepts it."""
        job = self.job(request, **options)
        self.dispatcher.submit(job)
        assert not job.reply.done()
        return job

    def submitted(self, number: int, request: Request | None = None) -> list[Job]:
        return [self.submit(request) for _ in range(number)]

    def refused(self, request: Request | None = None) -> BaseException:
        """Submit a job, check that the dispatcher refuses it, and return the error."""
        job = self.job(request)
        self.dispatcher.submit(job)
        error = job.reply.exception(0)
        assert isinstance(error, QuerycrewError)
        assert error.executed is False
        return error

    # --- workers --------------------------------------------------------------------------

    def starting(self, lane: int = 0) -> WorkerHandle:
        """Return a worker that is about to start."""
        handle = WorkerHandle(next(self._ids), lambda: self.woken.append(handle))
        handle.connection = ScriptedConnection()
        self.dispatcher.add_worker(handle, lane)
        return handle

    def worker(self, lane: int = 0) -> WorkerHandle:
        """Return a worker with an open connection that has not looked for a job yet."""
        handle = self.starting(lane)
        assert self.dispatcher.worker_ready(handle)
        self.workers.append(handle)
        return handle

    def idle_workers(self, number: int, lane: int = 0) -> list[WorkerHandle]:
        """Return workers that found no job, in the order in which they became idle."""
        handles = [self.worker(lane) for _ in range(number)]
        for handle in handles:
            assert self.take(handle) is None
        return handles

    def take(self, handle: WorkerHandle) -> JobBatch | None:
        assert handle.lane is not None
        while handle in self.woken:
            self.woken.remove(handle)
        return handle.lane.take(handle)

    def taken(self, handle: WorkerHandle) -> list[Job]:
        """Let a worker take a batch, and return the jobs in it."""
        batch = self.take(handle)
        return [] if batch is None else list(batch.jobs)

    def begin(self, handle: WorkerHandle) -> Job:
        """Let a worker take a batch, and begin the first job of it."""
        batch = self.take(handle)
        assert batch is not None
        job = batch.begin()
        assert job is not None
        self.begun[job] += 1
        return job

    def run_batch(self, batch: JobBatch, outcome: Any = DONE) -> list[Job]:
        """Run a batch as `Worker` does, and return the jobs that the worker began."""
        begun = []
        while (job := batch.begin()) is not None:
            self.begun[job] += 1
            begun.append(job)
            if isinstance(outcome, BaseException):
                batch.fail(job, outcome)
            else:
                batch.answer(job, outcome)
        batch.close()
        return begun

    def work(self, handle: WorkerHandle) -> list[Job]:
        """Let a worker run batches until it finds none, and return the jobs that it began."""
        begun = []
        while (batch := self.take(handle)) is not None:
            begun += self.run_batch(batch)
        return begun

    def die(self, handle: WorkerHandle, *, given_up: bool = False) -> list[Job]:
        """End a worker as the worker or the supervisor does, and return its orphans."""
        orphans = self.dispatcher.remove_worker(handle)
        for orphan in orphans:
            self.dispatcher.reject_orphan(orphan, RuntimeError("its worker died"))
        if not given_up and handle in self.workers:
            self.workers.remove(handle)
        return orphans

    # --- the supervisor -------------------------------------------------------------------

    def tick(self, seconds: float = 0.0) -> list[WorkerHandle]:
        """Let time pass, run a turn of the supervisor, and return the workers that it gives up."""
        self.dispatcher.next_due()  # as the supervisor does when it wakes
        self.clock.now += seconds
        dispatcher, now = self.dispatcher, self.clock()
        dispatcher.recover()
        dispatcher.expire(now)
        given_up = dispatcher.follow_up(now)
        dispatcher.next_due()
        return given_up

    def settle_all(self) -> None:
        """Let all workers that are awake work until no job is left, and check the crew.

        A worker that no job wakes stays asleep. So after a lost wake, a job is never settled."""
        self.tick()
        if not any(handle.state is not WorkerState.RETIRED for handle in self.workers):
            self.worker()
        awake = [handle for handle in self.workers if handle.state is WorkerState.AWAKE]
        busy = [handle for handle in self.workers if handle.state is WorkerState.BUSY]
        for handle in (*awake, *busy):
            self.finish(handle)
        while self.woken:
            handle = self.woken[-1]
            self.finish(handle)
            while handle in self.woken:
                self.woken.remove(handle)
            if not self.woken:
                self.tick()
        self.check()

    def finish(self, handle: WorkerHandle) -> None:
        """Let a worker end its running jobs, and then all jobs that wait."""
        if handle not in self.workers:
            return
        if handle.state is WorkerState.BUSY and handle.batch is not None:
            for job in handle.running:
                if job not in handle.connection.recalled:
                    handle.batch.answer(job, DONE)
            self.run_batch(handle.batch)
        self.work(handle)

    def check(self) -> None:
        """Check that each job is settled once, was begun at most once, and is counted."""
        lost = [job for job in self.jobs if not job.reply.done()]
        assert not lost, f"{len(lost)} jobs were lost: {[(job.claims, job in self.lane.jobs) for job in lost]}"
        assert max(self.settled.values(), default=0) <= 1, "a job was settled twice"
        assert max(self.begun.values(), default=0) <= 1, "a job was begun twice"
        for job in self.jobs:
            error = job.reply.exception(0)
            assert not self.begun[job] or getattr(error, "executed", None) is not False, f"{error!r}, and it had begun"
        status = self.status()
        assert (status.queued, status.running) == (0, 0)
        assert status.submitted >= len(self.jobs)

    def status(self) -> CrewStatus:
        return self.dispatcher.status()


def answer(handle: WorkerHandle, value: Any = DONE) -> None:
    """Let a worker answer its running job."""
    assert handle.batch is not None
    handle.batch.answer(handle.running[0], value)


def errors(jobs: Iterable[Job]) -> list[str | None]:
    """Return the names of the errors that rejected jobs."""
    found = [job.reply.exception(0) for job in jobs]
    return [None if error is None else type(error).__name__ for error in found]


def once(function: Callable[..., Any], act: Callable[[], object]) -> Callable[..., Any]:
    """Return `function` with an act that runs once, before the first call."""
    acts = [act]

    def run(*arguments: Any, **options: Any) -> Any:
        while acts:
            acts.pop()()
        return function(*arguments, **options)

    return run
