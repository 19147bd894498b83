"""WorkerHandle: a worker as the dispatcher knows it."""

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from actors.databases.base import Connection
from actors.dispatch.counters import Counters

if TYPE_CHECKING:
    from actors.dispatch.batch import JobBatch
    from actors.dispatch.job import Job
    from actors.dispatch.lane import Lane

__all__ = ["WorkerHandle", "WorkerState"]


class WorkerState(Enum):
    """Where a worker is with its work.

    | from | to | when |
    |---|---|---|
    | STARTING | AWAKE | its connection is open |
    | AWAKE, IDLE | BUSY | it takes a batch |
    | BUSY | IDLE | there was no job to take |
    | BUSY | RETIRED | there will be no more jobs |
    | any | GONE | it was removed |
    """

    STARTING = "starting"
    AWAKE = "awake"
    IDLE = "idle"
    BUSY = "busy"
    RETIRED = "retired"
    GONE = "gone"


class WorkerHandle:
    """A worker as the dispatcher knows it.

    The worker's thread writes it. The thread that removes the worker writes `state` and ends the
    batch.
    """

    __slots__ = ("batch", "connection", "counters", "id", "lane", "since", "state", "wake", "was_recalled")

    def __init__(self, worker_id: int, wake: Callable[[], object]) -> None:
        self.id = worker_id
        self.wake = wake
        """Makes the worker take a batch. From any thread; never blocks, never raises."""
        self.lane: Lane | None = None
        """The lane whose jobs it takes."""
        self.state = WorkerState.STARTING
        self.since = 0.0
        """Monotonic seconds since which it has been in its state."""
        self.connection = Connection()
        """Runs its jobs. A placeholder until the worker's own connection is open."""
        self.batch: JobBatch | None = None
        """The batch that it has taken, until every job of it is settled or waits again."""
        self.was_recalled = False
        """Whether a thread took jobs back from its connection, or tried to."""
        self.counters = Counters()
        """The ends of its jobs."""

    @property
    def running(self) -> "list[Job]":
        """The jobs that it has begun, oldest first.

        There are several if its connection runs them together.
        """
        return [] if self.batch is None else list(self.batch.running)

    def end_batch(self) -> "JobBatch | None":
        """Let the worker begin nothing more.

        Take back from its connection all jobs that have not begun.
        """
        batch = self.batch
        if batch is not None:
            batch.is_over = True
            batch.take_back()
        return batch

    def exonerate(self) -> None:
        """Note that the worker did not die of its jobs."""
        if self.batch is not None:
            self.batch.blames = False
