"""Admission: which jobs are not to be run, though they were asked. Used under the dispatcher's lock only."""

from collections.abc import Callable

from actors import refusals
from actors.errors import Overloaded, PoisonQuery
from actors.job import Job
from actors.quarantine import Quarantine
from actors.tally import Ending

__all__ = ["Admission"]


class Admission:
    """Looks at a job as it is about to be run, and says why it is not to be, if so."""

    def __init__(
        self,
        name: str,
        size: int,
        quarantine: Quarantine | None,
        timed_out: Callable[[Job, bool | None], BaseException],
    ) -> None:
        self._name = name
        self._size = size
        self.quarantine = Quarantine(3, 10.0) if quarantine is None else quarantine
        """Which statements have killed workers of late."""
        # Makes the error of a job whose deadline has passed.
        self._timed_out = timed_out

    def objection(self, job: Job, now: float) -> tuple[BaseException, Ending] | None:
        """Return why a job at the head of the queue is not to be run, if so, and as what it counts."""
        if job.abort is not None:  # it was interrupted, and then taken back from its worker
            return job.abort.error(False), job.abort.kind
        if job.deadline is not None and job.deadline <= now:
            return self._timed_out(job, False), "timed_out"
        if (poison := self.poison(job, now)) is not None:
            return poison, "rejected"
        waited = now - job.submitted_at
        shedding = None if job.lane is None else job.lane.shedding
        if shedding is None or not shedding.stands(waited, now) or waited <= shedding.target:
            return None
        return self.overloaded(waited, shedding.target), "shed"

    def poison(self, job: Job, now: float) -> PoisonQuery | None:
        """Return the error of a job that is held back since it kills workers, if it is."""
        deaths = self.quarantine.deaths_of(job.request, now) if self.quarantine.deaths else 0
        return refusals.poison(self._name, job, deaths) if deaths else None

    def overloaded(self, waited: float, target: float) -> Overloaded:
        """Return the error of a job that is shed after it has waited so much longer than the target."""
        return refusals.overloaded(self._name, waited, target, self._size)
