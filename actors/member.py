"""Member: a worker as the dispatcher knows it."""

from collections import deque
from collections.abc import Callable, Collection
from enum import Enum
from typing import TYPE_CHECKING

from actors.databases.base import Pipelined
from actors.job import Job
from actors.status import WorkerStatus

if TYPE_CHECKING:
    from actors.lane import Lane

__all__ = ["Member", "MemberState", "in_words", "statuses_of"]


class MemberState(Enum):
    """Where a worker is with its work.

    | from | to | when |
    |---|---|---|
    | STARTING | AWAKE | its connection is open |
    | AWAKE | BUSY | it took a job |
    | AWAKE, BUSY | IDLE | there was no job to take |
    | IDLE | AWAKE | it was woken for a job |
    | BUSY | AWAKE | it is done, and has mail to read first |
    | AWAKE, BUSY | RETIRED | there will be no more jobs |
    | any | GONE | it was buried |
    """

    STARTING = "starting"
    AWAKE = "awake"
    IDLE = "idle"
    BUSY = "busy"
    RETIRED = "retired"
    GONE = "gone"


class Member:
    """A worker as the dispatcher knows it: written to under the dispatcher's lock only."""

    __slots__ = (
        "ahead",
        "dropped",
        "given",
        "id",
        "interrupt",
        "job",
        "lane",
        "pid",
        "pipeline",
        "since",
        "state",
        "tickets",
        "waits_for_lock",
        "wake",
        "warnings",
    )

    def __init__(self, worker_id: int, wake: Callable[[], object], interrupt: Callable[[], object]) -> None:
        self.id = worker_id
        self.wake = wake
        """Makes the worker call `take`; never blocks, never raises."""
        self.interrupt = interrupt
        """Ends the statement that it runs; never blocks, never raises."""
        self.lane: Lane | None = None
        """Whose jobs it takes."""
        self.job: Job | None = None
        """What it runs; of a worker that is gone, what it was running."""
        self.ahead: deque[Job] = deque()
        """What was sent to its connection behind `job`, in that order; the first may be there twice for a moment."""
        self.pipeline: Pipelined | None = None
        """Its connection, if that takes jobs ahead."""
        self.tickets = 0
        """How many jobs were given to that."""
        self.given: dict[int, Job] = {}
        """Those that it has in hand, by their tokens. One that was taken back by a thread that was cut off, and has
        another worker by now, may be here as well."""
        self.waits_for_lock: Callable[[], bool] = lambda: False
        """Says whether its connection waits for a lock that another one holds; never blocks, never raises."""
        self.warnings: tuple[str, ...] = ()
        """What its connection was asked for and cannot have."""
        self.pid: int | None = None
        """The process in which its connection lives, if that is another one."""
        self.dropped: list[tuple[Job, BaseException]] = []
        """Jobs that it found in the queue and that nobody is to run: for the worker to reject."""
        self.state = MemberState.STARTING
        self.since = 0.0
        """Monotonic seconds."""

    def in_hand(self) -> list[Job]:
        """Return what it runs and what was sent ahead, in the order of the sending.

        Without what was taken back by a thread that was cut off before it had struck that off here.
        """
        jobs = dict.fromkeys((self.job, *self.ahead))
        return [job for job in jobs if job is not None and job.member is self]

    @property
    def is_running(self) -> bool:
        """Whether it runs a job."""
        return self.job is not None and self.job.member is self

    def has(self, job: Job) -> bool:
        """Say whether it has `job` in hand."""
        return self.job is job or job in self.ahead

    def end_job(self, job: Job) -> None:
        """Interrupt `job`, which it has in hand; never blocks, never raises."""
        if self.pipeline is None:
            self.interrupt()
        else:
            self.pipeline.interrupt(job.ticket)
        if job.talk is not None:
            job.talk.interrupt()


def statuses_of(members: Collection[Member], now: float) -> tuple[WorkerStatus, ...]:
    """Return what a status tells of workers, in the order of their ids."""
    return tuple(
        WorkerStatus(
            member.id,
            member.state.value,
            str(member.job.request) if member.job is not None else None,
            max(0.0, now - member.since),
            member.pid,
            None,
            member.lane.role if member.lane is not None else None,
            member.is_running and member.waits_for_lock(),
        )
        for member in sorted(members, key=lambda member: member.id)
    )


def in_words(members: Collection[Member], size: int) -> str:
    """Return how many workers there are of `size`, and what they do."""
    states = [member.state for member in members]
    busy, idle = states.count(MemberState.BUSY), states.count(MemberState.IDLE)
    up = len(states) - states.count(MemberState.STARTING)
    size += any(member.lane is not None and member.lane.on_demand for member in members)
    return f"{up} of {size} workers ({busy} busy, {idle} idle)"
