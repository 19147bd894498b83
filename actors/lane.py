"""Lane: the jobs that wait, and the workers that wait for one. Used under the dispatcher's lock only."""

from collections import deque

from actors.job import NEW, QUEUED, WITHDRAWN, Job
from actors.member import Member, MemberState

__all__ = ["Lane"]


class Lane:
    """Jobs, first in first out; idle workers, last in first out, since the last one's caches are warm.

    Any step may be cut off, or interrupted by a finalizer that uses the lane as well: see `Dispatcher`.
    """

    __slots__ = ("_withdrawn", "idle", "jobs")

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        """Holds withdrawn jobs too; they are counted and skipped."""
        self._withdrawn = 0
        self.idle: list[Member] = []
        """Those that wait to be woken, the last one to become idle at the end."""

    def __len__(self) -> int:
        """Say how many jobs wait."""
        return len(self.jobs) - self._withdrawn

    # --- jobs -----------------------------------------------------------------------------

    def first(self) -> Job | None:
        """Return the oldest job that waits; it stays in its place."""
        while jobs := self.jobs:
            job = jobs[0]
            if job.state is QUEUED or job.state is NEW:
                return job
            jobs.popleft()
            if job.state is WITHDRAWN:
                self._withdrawn -= 1
        self._withdrawn = 0
        return None

    def withdraw(self, job: Job) -> None:
        """Take out a job that waits here: its place is free at once, its memory soon."""
        job.state = WITHDRAWN
        self._withdrawn += 1
        if self._withdrawn * 2 > len(self.jobs) + 16:
            # A sweep costs as much as there were withdrawals since the last one.
            self.jobs = deque(kept for kept in self.jobs if kept.state is not WITHDRAWN)
            self._withdrawn = 0

    def waiting(self) -> list[Job]:
        """Return all jobs that wait, oldest first."""
        return [job for job in self.jobs if job.state is QUEUED or job.state is NEW]

    def clear(self) -> None:
        """Let go of all jobs, whatever their state."""
        self.jobs = deque()
        self._withdrawn = 0

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
