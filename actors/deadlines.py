"""Deadlines: which jobs are due when. A pure collection; time is an argument."""

import sys
from collections import OrderedDict
from heapq import heappop, heappush

from actors.job import Job

__all__ = ["Deadlines"]

_SLOTS_A_SECOND = 100


class Deadlines:
    """Jobs by the 10 ms slot in which their deadline ends: adding and discarding cost the same for any number.

    In a heap a job that is done would stay until its deadline, or cost a search to take out; a slot is a dictionary, in
    the order of adding. A job is due up to 10 ms after its deadline, never before.
    """

    def __init__(self) -> None:
        # Slot → the jobs in it; a slot may be empty.
        self._slots: dict[int, OrderedDict[Job, None]] = {}
        # The slots above, smallest first: a heap. A finalizer that comes in between two steps, and adds a job,
        # or a signal that cuts them off, may leave a slot here twice, or one that is not above: harmless.
        self._order: list[int] = []

    def add(self, job: Job) -> None:
        """Note the deadline of `job`, which must have one."""
        slot = _slot(job)
        if slot not in self._slots:
            heappush(self._order, slot)
        self._slots.setdefault(slot, OrderedDict())[job] = None

    def discard(self, job: Job) -> None:
        """Forget `job`, if it is here."""
        if job.deadline is None:
            return
        jobs = self._slots.get(_slot(job))
        if jobs is not None:
            jobs.pop(job, None)

    def next(self) -> float | None:
        """Return when the next jobs are due, in monotonic seconds."""
        while self._order:
            slot = self._order[0]
            if self._slots.get(slot):
                return slot / _SLOTS_A_SECOND
            for job in self._slots.pop(heappop(self._order), ()):  # what a finalizer has just added
                self.add(job)
        return None

    def due(self, now: float, most: int = sys.maxsize) -> list[Job]:
        """Take out and return the jobs that are due, or the first of them, if there are more than so many."""
        jobs: list[Job] = []
        while self._order and self._order[0] / _SLOTS_A_SECOND <= now and len(jobs) < most:
            slot = self._slots.get(self._order[0])
            if slot:
                jobs.append(slot.popitem(last=False)[0])
            else:
                self._slots.pop(heappop(self._order), None)
        return jobs


def _slot(job: Job) -> int:
    assert job.deadline is not None
    return int(job.deadline * _SLOTS_A_SECOND) + 1
