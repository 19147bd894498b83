"""Deadlocks: waits that would never end, because the caller itself holds the workers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType

from actors.dispatch import aborts, rejections
from actors.dispatch.admission import Admission
from actors.dispatch.job import Abort, Job
from actors.values.errors import WouldDeadlock

if TYPE_CHECKING:
    from actors.replies.reply import Reply

__all__ = ["Deadlocks"]


class Deadlocks:
    """Refuses the waits of one crew that would never end, and withdraws their jobs.

    A wait is looked at three times, since each of these steps may close the circle:

    1. The caller is about to wait (`refuse`).
    2. A worker is about to wait for its caller's next step (`refuse_all`).
    3. A job is rerouted to the writer (`refuse_rerouted`).

    All methods may be called from any thread.
    """

    def __init__(self, admission: Admission, withdraw: Callable[[Job, Abort], bool]) -> None:
        self._admission = admission
        # Rejects a job that has not begun; says whether it had not.
        self._withdraw = withdraw
        # The replies of jobs for which a caller waits without a time limit. The caller may hold
        # workers, or hold some later. A reply that is dropped leaves by itself.
        self._awaited: set[ReferenceType[Reply[Any]]] = set()

    def refuse(self, job: Job | None, owner: tuple[object, ...] | None) -> WouldDeadlock | None:
        """Decide whether a wait would deadlock, and if so, withdraw the job.

        A refused job never runs. A job that has begun still runs: a caller that holds workers may
        wait for it, and a thread of the crew gets an error that says so.

        Args:
            job: the job to wait for; `None` for an answer of the supervisor.
            owner: the caller that is about to wait without a time limit; `None` for a thread of the
                crew, which must not wait at all.

        Returns:
            The error for the caller to raise. A withdrawn job was rejected with the same error.
            `None` if the caller may wait.
        """
        name = self._admission.name
        if owner is None:
            if job is not None:
                error = rejections.own_thread(name, job, began=False)
                if self._withdraw(job, aborts.would_deadlock(error)):
                    return error
            return rejections.own_thread(name, job, began=True)
        if job is None:
            return None
        job.waiter = owner
        # Python calls no code of ours as the reply is dropped: a signal handler's exception would
        # be lost there.
        self._awaited.add(ReferenceType(job.reply, self._awaited.discard))
        return self._refuse_held(job, owner)

    def refuse_rerouted(self, job: Job) -> None:
        """Refuse the wait for a rerouted job, if its caller's own transaction holds the writer."""
        if job.waiter is not None:
            self._refuse_held(job, job.waiter)

    def refuse_all(self) -> None:
        """Refuse all waits that deadlock now.

        A worker is about to wait for its caller's next step. A wait may begin before its owner
        holds the last worker. Then `refuse` cannot refuse it.
        """
        for each in list(self._awaited):
            reply = each()
            job: Any = None if reply is None else reply.job
            if job is None:  # it is done
                self._awaited.discard(each)
            elif job.waiter is not None:
                self._refuse_held(job, job.waiter)

    def _refuse_held(self, job: Job, owner: tuple[object, ...]) -> WouldDeadlock | None:
        """Withdraw a job whose caller holds all workers for it.

        Returns:
            The error; `None` if the job was not withdrawn.
        """
        if not self._is_held_by(owner, job):
            return None
        error = rejections.held_by_caller(self._admission.name, job)
        return error if self._withdraw(job, aborts.would_deadlock(error)) else None

    def _is_held_by(self, owner: tuple[object, ...], job: Job) -> bool:
        """Say whether checkouts of `owner` hold all workers that could run `job`."""
        lane = job.lane
        if lane is None or job.claims:
            return False  # it runs, or another thread is about to reject it
        held = sum(
            each.checkout is not None
            and each.checkout.is_held_by(owner)
            and each.checkout.waits_for_caller
            and not each.is_unwanted
            and not each.checkout.end.done()
            for handle in tuple(lane.handles)
            for each in handle.running
        )
        return held >= (1 if lane.on_demand else self._admission.size)
