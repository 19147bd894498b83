"""Stealing: an idle worker takes jobs that another worker has taken and not begun.

The claim of a job makes it safe: a job may lie in two batches, and one of the two begins it.
"""

from typing import TYPE_CHECKING, Final

from actors.dispatch.batch import JobBatch

if TYPE_CHECKING:
    from actors.dispatch.lane import Lane

__all__ = ["NEGLIGIBLE", "Stealing"]

NEGLIGIBLE: Final = 0.0002
"""Seconds of work that are too few to wake another worker for them."""
_STALLED: Final = 0.005  # seconds; the rest of a batch whose job runs longer goes to others before newer jobs


class Stealing:
    """Decides for one lane when a worker takes jobs from another one's batch.

    All methods but `watch` run in a worker's thread.
    """

    __slots__ = ("_lane", "_looked_at", "_watch_at")

    def __init__(self, lane: "Lane") -> None:
        self._lane = lane
        # Counts the looks at other workers, so that each look takes the next worker.
        self._looked_at = 0
        # Monotonic seconds at which the supervisor looks for stalled batches.
        self._watch_at = 0.0

    def take_stalled(self, batch: JobBatch) -> None:
        """Take jobs from the batch of one other worker, if that batch has stalled.

        Each call looks at the next worker. Its jobs were submitted before the jobs in the queue.
        """
        handles = self._lane.handles
        self._looked_at += 1
        try:
            other = handles[self._looked_at % len(handles)].batch
        except (IndexError, ZeroDivisionError):  # a worker has just gone
            return
        if other is not None and len(other.jobs) > 1 and batch.now >= other.now + _STALLED:
            self._take_from(other, batch)

    def steal(self, batch: JobBatch) -> bool:
        """Take jobs from another worker if that is worth the cost; say whether there were any."""
        return any(
            other is not batch and self._is_worth_taking(other, batch.now) and self._take_from(other, batch)
            for other in self._larger_batches()
        )

    def has_target(self, now: float) -> bool:
        """Say whether an idle worker can take jobs from a batch in this process.

        `watch` looks at batches in child processes.
        """
        return any(batch.waiting() and self._is_worth_taking(batch, now) for batch in self._larger_batches())

    def ask_for_watch(self, now: float) -> None:
        """Let the supervisor look for a batch that stalls while a worker is idle."""
        if now >= self._watch_at and self._larger_batches():
            self._watch_at = now + _STALLED
            self._lane.timers.look_at(self._watch_at)

    def watch(self, now: float) -> None:
        """Wake an idle worker for the rest of a batch that has stalled, here or in a child process.

        In the supervisor's thread.
        """
        self._watch_at = 0.0  # first: a worker that becomes idle from now on asks for the next look
        lane = self._lane
        if lane.idle and not lane.jobs:
            if any(self._is_worth_taking(batch, now) for batch in self._larger_batches()):
                lane.wake_one()
            self.ask_for_watch(now)

    def _take_from(self, other: JobBatch, batch: JobBatch) -> bool:
        jobs = other.waiting()
        if jobs:
            # Not all of these jobs may run together: the other worker may be about to requeue some.
            del jobs[self._lane.batch_size(jobs, len(jobs)) :]
        else:
            jobs = other.take_back((len(other.jobs) + 1) // 2)
        batch.jobs.extend(jobs)
        return bool(batch.jobs)

    def _larger_batches(self) -> list[JobBatch]:
        # The only job of a batch is about to begin.
        return [batch for batch in self._lane.batches() if len(batch.jobs) > 1]

    def _is_worth_taking(self, batch: JobBatch, now: float) -> bool:
        """Say whether the rest of a batch is worth taking.

        It has stalled, or it takes longer than it costs to take a part of it.
        """
        left = max(len(batch.waiting()), len(batch.running) - 1)
        try:
            takes = self._lane.quick.get(batch.jobs[-1].request.sql, _STALLED)
        except IndexError:  # the batch has just ended
            return False
        return left > 0 and (left * takes > NEGLIGIBLE or now >= batch.now + _STALLED)
