"""Timers: when the supervisor has to look at jobs, for deadlines and for interrupts to repeat."""

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING, Final

from actors.dispatch.job import Job

if TYPE_CHECKING:
    from actors.dispatch.lane import Lane

__all__ = ["INTERRUPT_AGAIN", "Timers"]

INTERRUPT_AGAIN: Final = 0.02
"""Seconds after which an interrupt is repeated.

SQLite loses an interrupt that comes before the statement's first step.
"""
_NEVER: Final = float("inf")
_SLOTS_A_SECOND: Final = 100
_CHUNK: Final = 1000  # jobs of a queue that are looked at together


class Timers:
    """The deadlines of jobs, and the interrupts to repeat.

    A submitted job's deadline is not scheduled: most jobs are done long before. Only the earliest
    deadline is remembered. When its time comes, the supervisor schedules the deadlines of all jobs
    that are not done (`schedule_all`).

    **No deadline is lost.** A caller puts its job into the queue before it looks at `earliest`. The
    supervisor resets `earliest` before it looks at the queue. So one of the two sees the other.

    Scheduled jobs lie in slots of 10 ms. To add or to remove a job costs the same for any number of
    jobs. A job is due up to 10 ms after its deadline, never before.
    """

    def __init__(self) -> None:
        self.notify: Callable[[], object] = lambda: None
        """Makes the supervisor call `next` again. Never blocks, never raises."""
        self.earliest = _NEVER
        """No later than the earliest unscheduled deadline. Only the supervisor writes it."""
        self.interrupted: dict[Job, None] = {}
        """The jobs that were interrupted while they ran, until they are done."""
        # Earlier deadlines than `earliest`, and other times to look, from any thread.
        self._notes: deque[float] = deque()
        self._looks: deque[float] = deque()
        # Jobs that have moved, so that `schedule_all` would not find them where it looks.
        self._moved: deque[Job] = deque()
        self._look_at = _NEVER
        # Slot → the jobs in it, and the slots, smallest first.
        self._slots: dict[int, dict[Job, None]] = {}
        self._order: list[int] = []

    # --- from any thread ------------------------------------------------------------------

    def note(self, deadline: float) -> None:
        """Note that a job with an earlier deadline than `earliest` waits."""
        self._notes.append(deadline)
        self.notify()

    def look_at(self, at: float) -> None:
        """Make the supervisor look at that time, or before."""
        if at < self._look_at:
            self._looks.append(at)
            self.notify()

    def reschedule(self, job: Job) -> None:
        """Schedule the deadline of a job that has moved to another place."""
        job.is_scheduled = False
        self._moved.append(job)
        if job.deadline is not None and job.deadline < self.earliest:
            self.note(job.deadline)

    def forget(self, job: Job) -> None:
        """Remove a job that is done."""
        if job.deadline is not None:
            slot = self._slots.get(_slot_of(job))
            if slot is not None:
                slot.pop(job, None)

    # --- in the supervisor's thread -------------------------------------------------------

    def next(self, now: float) -> float | None:
        """Return when the supervisor has to look again. `notify` is called if the time changes."""
        while self._notes:
            self.earliest = min(self.earliest, self._notes.popleft())
        while self._looks:
            self._look_at = min(self._look_at, self._looks.popleft())
        times = [self.earliest, self._look_at]
        while self._order and not self._slots.get(self._order[0]):
            self._slots.pop(heappop(self._order), None)
        if self._order:
            times.append(self._order[0] / _SLOTS_A_SECOND)
        if self.interrupted:
            times.append(now + INTERRUPT_AGAIN)
        at = min(times)
        return None if at == _NEVER else at

    def begin_look(self, now: float) -> None:
        """Note that the supervisor looks now.

        A thread that needs a later look calls `look_at` again.
        """
        if self._look_at <= now:
            self._look_at = _NEVER

    def schedule_all(self, lanes: "Iterable[Lane]") -> None:
        """Schedule the deadlines of all jobs that are not done."""
        self.earliest = _NEVER
        while self._moved:
            self.schedule(self._moved.popleft())
        for lane in lanes:
            # A worker may take a job out of the queue in the meantime: then the job is in a batch.
            for jobs in (_taken(lane), _unscheduled(lane.jobs), _taken(lane)):
                for job in jobs:
                    self.schedule(job)

    def schedule(self, job: Job) -> None:
        """Schedule the deadline of a job, if the job has one and is not done."""
        if job.is_scheduled or job.deadline is None or job.reply.done():
            return
        slot = _slot_of(job)
        if slot not in self._slots:
            self._slots[slot] = {}
            heappush(self._order, slot)
        self._slots[slot][job] = None
        job.is_scheduled = True

    def due(self, now: float, most: int) -> list[Job]:
        """Remove and return the jobs that are due, at most `most` of them."""
        jobs: list[Job] = []
        while self._order and self._order[0] / _SLOTS_A_SECOND <= now and len(jobs) < most:
            slot = self._slots[self._order[0]]
            while slot and len(jobs) < most:
                try:
                    jobs.append(next(iter(slot)))
                    del slot[jobs[-1]]
                except (KeyError, RuntimeError, StopIteration):  # a worker has removed it in the meantime
                    continue
            if not slot:
                self._slots.pop(heappop(self._order), None)
        return jobs


def _slot_of(job: Job) -> int:
    assert job.deadline is not None
    return int(job.deadline * _SLOTS_A_SECOND) + 1


def _taken(lane: "Lane") -> list[Job]:
    """Return the jobs that workers have taken."""
    return [job for handle in tuple(lane.handles) if handle.batch is not None for job in tuple(handle.batch.jobs)]


def _unscheduled(jobs: "deque[Job]") -> list[Job]:
    """Return the unscheduled jobs at the end of a queue, oldest first."""
    many = _CHUNK
    while True:
        # One step of the interpreter: other threads change the queue.
        last = list(islice(reversed(jobs), many))
        if len(last) < many or last[-1].is_scheduled:
            return [job for job in reversed(last) if not job.is_scheduled]
        many *= 4
