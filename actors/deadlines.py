"""Deadlines: which jobs are due when. A pure collection; time is an argument."""

from heapq import heappop, heappush

from actors.job import Job

__all__ = ["Deadlines"]

_SLOTS_A_SECOND = 100


class Deadlines:
    """Jobs by the 10 ms slot in which their deadline ends: adding and discarding cost the same for any number.

    Nearly every job is done long before its deadline. In a heap each would stay until then, or cost
    a search to take out; a slot is a set. A job is due up to 10 ms after its deadline, never before.
    """

    def __init__(self) -> None:
        # Slot → the jobs in it; a slot may be empty.
        self._slots: dict[int, set[Job]] = {}
        # The slots above, smallest first: a heap.
        self._order: list[int] = []

    def add(self, job: Job) -> None:
        """Note the deadline of `job`, which must have one."""
        slot = _slot(job)
        jobs = self._slots.get(slot)
        if jobs is None:
            self._slots[slot] = {job}
            heappush(self._order, slot)
        else:
            jobs.add(job)

    def discard(self, job: Job) -> None:
        """Forget `job`, if it is here."""
        jobs = self._slots.get(_slot(job))
        if jobs is not None:
            jobs.discard(job)

    def next(self) -> float | None:
        """Return when the next jobs are due, in monotonic seconds."""
        while self._order:
            slot = self._order[0]
            if self._slots[slot]:
                return slot / _SLOTS_A_SECOND
            heappop(self._order)
            del self._slots[slot]
        return None

    def due(self, now: float) -> list[Job]:
        """Take out and return the jobs that are due."""
        jobs: list[Job] = []
        while self._order and self._order[0] / _SLOTS_A_SECOND <= now:
            jobs += self._slots.pop(heappop(self._order))
        return jobs


def _slot(job: Job) -> int:
    assert job.deadline is not None
    return int(job.deadline * _SLOTS_A_SECOND) + 1
