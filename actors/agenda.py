"""Agenda: when the supervisor has to look at jobs. Used under the dispatcher's lock only."""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from actors.deadlines import Deadlines
from actors.job import Abort, Job

__all__ = ["INTERRUPT_AGAIN", "Agenda"]

INTERRUPT_AGAIN = 0.02
"""Seconds after which an interrupt is repeated: one that comes before the statement's first step is lost in SQLite."""
_NEVER = float("inf")


class Agenda:
    """The deadlines of jobs, and the interrupts that are to be repeated.

    A job's deadline is not noted as it is asked: most jobs are done long before. Only the earliest is remembered, and
    when its time comes, all that are still there are noted (`see`).
    """

    def __init__(self) -> None:
        self.ring: Callable[[], object] = lambda: None
        """Makes the supervisor ask `next` again; never blocks, never raises."""
        self.deadlines = Deadlines()
        """Those of the jobs that were still waiting or running when they were looked at."""
        self.aborted: dict[Job, Abort] = {}
        """Running jobs that were interrupted on purpose, until they are done."""
        self.unseen = _NEVER
        """The earliest deadline of those that were not looked at yet; or an earlier one, of a job that is done."""
        # Monotonic seconds at which the supervisor will look by itself.
        self._armed = _NEVER

    def note(self, deadline: float) -> None:
        """Note that there is a job with an earlier deadline than `unseen`."""
        self.arm(deadline)
        self.unseen = deadline

    def arm(self, at: float) -> None:
        """See to it that the supervisor looks at that time."""
        if at < self._armed:
            self.ring()  # first: to be rung once more is harmless, never is not
            self._armed = at

    def next(self, now: float, shed_at: float | None) -> float | None:
        """Return when the supervisor has to look again; it is rung if that changes.

        Args:
            now: monotonic seconds.
            shed_at: when the oldest job that waits has to be shed, if so.
        """
        times = [self.unseen]
        if (due := self.deadlines.next()) is not None:
            times.append(due)
        if self.aborted:
            times.append(now + INTERRUPT_AGAIN)
        if shed_at is not None:
            times.append(shed_at)
        self._armed = min(times)
        return None if self._armed == _NEVER else self._armed

    def see(self, running: Iterable[Job], queues: Iterable[OrderedDict[Job, None]]) -> None:
        """Note the deadlines of all jobs that came since the last time and are not done."""
        self.unseen = _NEVER
        for job in running:
            self.see_one(job)
        for waiting in queues:
            backwards, unseen = reversed(waiting), list[Job]()
            try:
                while (job_behind := next(backwards, None)) is not None and not job_behind.seen:
                    unseen.append(job_behind)
                for job in reversed(unseen):  # in the order of the asking
                    self.see_one(job)
            except RuntimeError:  # a signal handler or a finalizer asked in between: look again
                self.unseen = 0.0

    def see_one(self, job: Job) -> None:
        """Note the deadline of a job, if it has one."""
        if not job.seen:
            if job.deadline is not None:
                self.deadlines.add(job)
            job.seen = True

    def forget(self, job: Job) -> None:
        """Strike off the deadline of a job."""
        if job.seen:
            self.deadlines.discard(job)
