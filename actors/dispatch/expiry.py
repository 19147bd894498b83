"""Expiry: the supervisor's steps when a time has come. Its thread calls them all."""

from collections.abc import Callable
from itertools import islice, takewhile
from typing import Final

from actors.dispatch import aborts
from actors.dispatch.admission import Admission
from actors.dispatch.batch import JobBatch
from actors.dispatch.job import Abort, Job
from actors.dispatch.lane import Lane
from actors.dispatch.timers import Timers
from actors.dispatch.worker_handle import WorkerHandle

__all__ = ["Expiry"]

_PORTION: Final = 1000  # jobs that are rejected in a row, before the supervisor reads its messages


class Expiry:
    """Ends the jobs of one crew whose time is over.

    A job's time ends by its deadline, by shedding, or with the grace after an interrupt.
    """

    def __init__(
        self,
        admission: Admission,
        timers: Timers,
        grace: float,
        *,
        withdraw: Callable[[Job, Abort], bool],
        interrupt: Callable[[Job, Abort], None],
    ) -> None:
        self._admission = admission
        self._timers = timers
        self._grace = grace
        # Rejects a job that has not begun; says whether it had not.
        self._withdraw = withdraw
        # Ends a job that has begun.
        self._interrupt = interrupt

    def expire(self, now: float) -> None:
        """Reject the queued jobs whose deadline has passed, and interrupt the running ones.

        Also shed the oldest jobs of a queue from which no worker takes, and wake idle workers for
        batches that have stalled. One call rejects a limited number of jobs. The others are due at
        once.
        """
        timers, lanes = self._timers, self._admission.lanes
        timers.begin_look(now)
        if timers.earliest <= now:
            timers.schedule_all(lanes)
        for job in timers.due(now, _PORTION):
            self._expire_one(job, now)
        for lane in lanes:
            lane.stealing.watch(now)
            if lane.codel is not None:
                self._shed_oldest(lane, lane.codel.target, now)
            lane.tidy()
        self._admission.forget_deaths(now)

    def _expire_one(self, job: Job, now: float) -> None:
        if job.reply.done() or job.deadline is None:
            return
        if job.deadline > now:  # it was given another deadline
            self._timers.reschedule(job)
            return
        why = aborts.timed_out(self._admission, now + self._grace)
        if not self._withdraw(job, why):
            self._interrupt(job, why)

    def _shed_oldest(self, lane: Lane, target: float, now: float) -> None:
        """Reject the jobs that waited too long in a queue from which no worker takes.

        If no worker has taken the oldest job for twice the target, all jobs that waited longer than
        the target are rejected. Time in which no worker of the lane was up does not count, since
        that is no overload.
        """
        waiting = [job for job in tuple(lane.jobs) if not job.claims]
        if not waiting:
            return
        look_at = now + target
        if lane.handles:
            look_at = lane.waits_since(waiting[0]) + 2 * target
            if now >= look_at:
                late = list(islice(takewhile(lambda job: now - lane.waits_since(job) > target, waiting), _PORTION))
                for job in late:
                    self._withdraw(job, aborts.overloaded(self._admission, now - lane.waits_since(job), target))
                look_at = now if len(late) == _PORTION else now + target
        self._timers.look_at(look_at)

    def follow_up(self, now: float) -> list[WorkerHandle]:
        """Repeat the interrupt of every job that was interrupted and still runs.

        Returns:
            The workers to give up: their job has not ended within the grace.
        """
        given_up: list[WorkerHandle] = []
        for job in list(self._timers.interrupted):
            owner = job.owner
            if job.reply.done() or not isinstance(owner, JobBatch):
                self._timers.interrupted.pop(job, None)
            elif now >= job.give_up_at:
                given_up.append(owner.handle)
            else:
                owner.interrupt(job)
        return given_up
