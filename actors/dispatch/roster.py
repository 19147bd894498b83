"""Roster: the workers of a crew, from start to removal, and the orphans of a removed worker."""

from collections.abc import Callable
from contextlib import suppress

from actors.dispatch import aborts
from actors.dispatch.admission import Admission, Mode
from actors.dispatch.counters import Counters
from actors.dispatch.job import Job
from actors.dispatch.lane import Lane
from actors.dispatch.timers import Timers
from actors.dispatch.worker_handle import WorkerHandle, WorkerState

__all__ = ["Roster"]


class Roster:
    """Knows which workers are starting or up, the lane of each, and the counters of all.

    A worker is added, becomes ready, and is removed. Its orphans are the jobs that it has begun and
    not ended. All methods may be called from any thread.
    """

    def __init__(self, admission: Admission, timers: Timers, clock: Callable[[], float]) -> None:
        self._admission = admission
        self._timers = timers
        self._clock = clock
        self.counters: list[Counters] = []
        """The counters of all workers that there ever were."""
        # The counters that are free for the next worker.
        self._unused: list[Counters] = []

    def add_worker(self, handle: WorkerHandle, lane: Lane) -> None:
        """Note a worker that is about to start, and in which lane it serves."""
        handle.since = self._clock()
        handle.lane = lane
        try:
            handle.counters = self._unused.pop()
        except IndexError:
            self.counters.append(handle.counters)
        lane.starting.append(handle)

    def worker_ready(self, handle: WorkerHandle) -> bool:
        """Let a worker whose connection is open take jobs.

        Returns:
            Whether it may. If not, the crew no longer needs it.
        """
        lane = handle.lane
        assert lane is not None  # since `add_worker`
        if handle.state is not WorkerState.STARTING or self._admission.mode is Mode.STOPPED:
            return False
        handle.since = self._clock()
        if not lane.handles:
            lane.up_since = handle.since
        lane.handles.append(handle)
        handle.state = WorkerState.AWAKE
        with suppress(ValueError):
            lane.starting.remove(handle)
        return True

    def abandon_start(self, handle: WorkerHandle) -> bool:
        """Remove a worker that is still starting; say whether it was."""
        if handle.state is not WorkerState.STARTING:
            return False
        self.remove_worker(handle)
        return True

    def remove_worker(self, handle: WorkerHandle) -> list[Job]:
        """Remove a worker. The jobs that it had taken and not begun wait again.

        It may be called again, as after a call that was cut off.

        Returns:
            The worker's orphans, which the caller has to reject. Mostly there is one at most.
        """
        lane = handle.lane
        if lane is None:
            return []
        is_first = handle.state is not WorkerState.GONE
        handle.state = WorkerState.GONE
        for places in (lane.starting, lane.handles, lane.idle):
            with suppress(ValueError):
                places.remove(handle)
        orphans = self._orphans_of(handle, lane)
        if is_first:
            self._suspect(handle, orphans)
        for each in self._admission.lanes if self._admission.mode is Mode.STOPPED else ():
            if not each.handles:  # no worker takes its jobs any more
                self._admission.reject_waiting(each, aborts.stopped)
        lane.recover()
        if lane.jobs:
            lane.wake_all()
        return orphans

    def _orphans_of(self, handle: WorkerHandle, lane: Lane) -> list[Job]:
        """Return the orphans of a worker; put the other jobs of its batch back into their lanes.

        The batch is over before anything else happens; see `JobBatch.begin`.
        """
        batch = handle.end_batch()
        if batch is None:
            return []
        pending = []
        for job in batch.jobs:
            if job.reply.done():
                job.release()
            else:
                pending.append(job)
                lane.settle_aborted(job)
        lane.requeue_lost(batch, pending, (*tuple(lane.jobs), *tuple(lane.writers.jobs)))
        return [job for job in pending if job.owner is batch]

    def _suspect(self, handle: WorkerHandle, orphans: list[Job]) -> None:
        """Note the statements of which the worker may have died.

        It did not die of them if it was given up, or if its connection was lost for another reason.
        """
        if any(job.is_unwanted for job in orphans) or (handle.batch is not None and not handle.batch.blames):
            return
        now = self._clock()
        for job in {job.request.sql: job for job in orphans}.values():
            self._admission.record_death(job, now, alone=len(orphans) == 1)
            assert handle.lane is not None
            handle.lane.quick.pop(job.request.sql, None)
        self._timers.look_at(now + self._admission.quarantine.within)

    def release(self, handle: WorkerHandle) -> None:
        """Let the next worker use the counters of a worker whose thread has ended."""
        if handle.counters in self.counters and handle.counters not in self._unused:
            self._unused.append(handle.counters)

    # --- looking --------------------------------------------------------------------------

    def handles(self) -> list[WorkerHandle]:
        """Return every worker that is starting or up, by its id."""
        return sorted(
            {handle for lane in self._admission.lanes for handle in (*lane.starting, *lane.handles)},
            key=lambda handle: handle.id,
        )

    def totals(self) -> Counters:
        """Return the sum of all counters."""
        totals = Counters()
        for each in tuple(self.counters):
            totals.add(each)
        for ending, events in self._admission.counts.items():
            totals.count(ending, int(events))
        return totals
