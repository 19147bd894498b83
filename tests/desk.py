"""A dispatcher on its own, with workers that only note what happens to them."""

from collections.abc import Iterable
from itertools import count
from typing import Any

from actors.dispatcher import Dispatcher
from actors.errors import QuerycrewError
from actors.job import Job
from actors.member import Member
from actors.messages import Query
from actors.reply import Reply
from actors.status import CrewStatus


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """A dispatcher, the clock it looks at, and what it has done to its workers."""

    def __init__(self, *, size: int = 2, max_queue: int | None = None, shed_after: float | None = None) -> None:
        self.clock = Clock()
        self.dispatcher = Dispatcher("app", "Database()", size, max_queue, self.clock, shed_after=shed_after)
        self.woken: list[Member] = []
        self.interrupted: list[Member] = []
        self._ids = count(1)

    def job(self) -> Job:
        return Job(Query(f"SELECT {next(self._ids)}"), Reply[Any](self.dispatcher), self.clock())

    def submit(self) -> Job:
        """Submit a job that has to be accepted."""
        job = self.job()
        assert self.dispatcher.submit(job) is None
        return job

    def refused(self) -> QuerycrewError:
        """Submit a job that has to be refused, and return why."""
        refusal = self.dispatcher.submit(self.job())
        assert refusal is not None
        return refusal

    def enlisted(self) -> Member:
        """Return a worker that is about to start."""
        member = Member(next(self._ids), lambda: self.woken.append(member), lambda: self.interrupted.append(member))
        self.dispatcher.enlist(member)
        return member

    def worker(self) -> Member:
        """Return a worker whose connection is open, and that has not looked for a job yet."""
        member = self.enlisted()
        assert self.dispatcher.report(member)
        return member

    def idle_workers(self, number: int) -> list[Member]:
        """Return workers that found no job, in the order in which they became idle."""
        members = [self.worker() for _ in range(number)]
        for member in members:
            assert self.dispatcher.take(member) is None
        return members

    def rejected(self, jobs: Iterable[Job]) -> list[Job]:
        """Reject the replies of jobs that were handed back, as a supervisor does, and return the jobs."""
        jobs = list(jobs)
        for job in jobs:
            assert job.reply.reject(self.dispatcher.stopped())
        self.dispatcher.forget_dropped()
        return jobs

    def status(self) -> CrewStatus:
        """Return a snapshot, whose counters have to add up."""
        status = self.dispatcher.status()
        assert status.submitted == sum(
            (
                status.queued,
                status.running,
                status.answered,
                status.failed,
                status.died,
                status.rejected,
                status.cancelled,
                status.timed_out,
                status.shed,
            )
        )
        return status
