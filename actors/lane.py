"""Lane: the jobs that wait, and the workers that wait for one. Used under the dispatcher's lock only."""

from collections import OrderedDict
from typing import TYPE_CHECKING

from actors.job import NEW, QUEUED, WITHDRAWN, Job
from actors.member import Member, MemberState
from actors.shedding import Shedding

if TYPE_CHECKING:
    from actors.ahead import Ahead

__all__ = ["Lane"]


class Lane:
    """Jobs, first in first out; idle workers, last in first out, since the last one's caches are warm.

    Any step may be cut off, or interrupted by a finalizer or a signal handler that uses the lane as well: see
    `Dispatcher`. So each change of `jobs` and `idle` is a single one.
    """

    __slots__ = ("ahead", "cause", "down", "idle", "jobs", "members", "on_demand", "role", "shedding")

    ahead: "Ahead"
    """What its workers were sent ahead."""

    def __init__(self, role: str | None = None, shed_after: float | None = None) -> None:
        self.role = role
        """What its workers do, where there is more than one lane: `reader` or `writer`."""
        self.on_demand = role == "writer"
        """Whether it has no worker before the first job that needs one."""
        self.members = 0
        """How many workers it has, those included that are starting."""
        self.down = False
        """Whether its jobs are refused, since no worker of it can open the database."""
        self.cause: BaseException | None = None
        """Why it is down."""
        self.shedding = None if shed_after is None else Shedding(shed_after)
        """Whether the queue stands; `None` where nothing is ever shed."""
        self.jobs: OrderedDict[Job, None] = OrderedDict()
        """The jobs that wait, oldest first. One that was cut off on its way to a worker may be here as well."""
        self.idle: list[Member] = []
        """Those that wait to be woken, the last one to become idle at the end."""

    def __len__(self) -> int:
        """Say how many jobs wait."""
        return len(self.jobs)

    # --- jobs -----------------------------------------------------------------------------

    def first(self) -> Job | None:
        """Return the oldest job that waits; it stays in its place."""
        while jobs := self.jobs:
            try:
                job = next(iter(jobs))
            except (RuntimeError, StopIteration):  # something was asked or taken between the two steps of that line
                continue
            if job.state is QUEUED or job.state is NEW:
                return job
            jobs.pop(job, None)
        return None

    def withdraw(self, job: Job) -> bool:
        """Take out a job that waits here; say whether it waited."""
        if job.state is WITHDRAWN:
            return False  # a finalizer has just cancelled it
        job.state = WITHDRAWN
        self.jobs.pop(job, None)
        return True

    def put_back(self, job: Job) -> None:
        """Let a job that was taken out too early wait again, before all others."""
        self.jobs[job] = None
        job.state = QUEUED
        self.jobs.move_to_end(job, last=False)

    def take_over(self, job: Job) -> None:
        """Let a job wait here that another lane's worker handed on, behind all others.

        Not behind, but before them, if the supervisor knows its deadline: it looks at the end of the queue only.
        """
        self.jobs[job] = None
        job.lane = self
        job.state = QUEUED
        if job.seen:
            self.jobs.move_to_end(job, last=False)

    def waiting(self) -> list[Job]:
        """Return all jobs that wait, oldest first."""
        return [job for job in list(self.jobs) if job.state is QUEUED or job.state is NEW]

    def stands_too_long_at(self) -> float | None:
        """Return when the oldest job, if nobody has taken it, is to be shed; monotonic seconds."""
        if self.shedding is None or (oldest := self.first()) is None:
            return None
        return oldest.submitted_at + 2 * self.shedding.target

    # --- workers --------------------------------------------------------------------------

    def wake_one(self) -> None:
        """Wake the worker that became idle last, if there is one."""
        if not self.idle:  # a finalizer may have come in since the caller looked
            return
        member = self.idle[-1]
        # Woken before it is struck off: a spurious wake is harmless, one that is missing is not.
        member.wake()
        if self.idle and self.idle[-1] is member:  # a finalizer may have come in between
            self.idle.pop()
        member.state = MemberState.AWAKE

    def wake_all(self) -> None:
        """Wake every idle worker."""
        while self.idle:
            self.wake_one()

    def match(self) -> None:
        """Wake as many workers as there are jobs; what was cut off half-way is made good here."""
        for _ in range(min(len(self), len(self.idle))):
            self.wake_one()

    def strike(self, member: Member) -> None:
        """Strike a worker off those that are idle, if it is among them."""
        if member.state is MemberState.IDLE and member in self.idle:
            self.idle.remove(member)
