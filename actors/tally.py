"""Tally: what has become of all jobs. Used under the dispatcher's lock only."""

from typing import Literal, TypeAlias

from actors.status import Histogram

__all__ = ["Ending", "Tally"]

Ending: TypeAlias = Literal["answered", "failed", "died", "rejected", "cancelled", "timed_out", "shed"]
"""What can become of a job; see the fields of `CrewStatus`."""


class Tally:
    """Counts of jobs by what has become of them, and of how long they waited and ran."""

    __slots__ = (
        "answered",
        "cancelled",
        "died",
        "failed",
        "rejected",
        "run_times",
        "shed",
        "submitted",
        "timed_out",
        "wait_times",
    )

    def __init__(self) -> None:
        self.submitted = self.answered = self.failed = self.died = 0
        self.rejected = self.cancelled = self.timed_out = self.shed = 0
        self.wait_times = Histogram()
        self.run_times = Histogram()

    def count(self, ending: Ending) -> None:
        """Count a job that has ended so."""
        setattr(self, ending, getattr(self, ending) + 1)

    def counts(self) -> dict[str, int]:
        """Return the counters by their names."""
        names = ("submitted", "answered", "failed", "died", "rejected", "cancelled", "timed_out", "shed")
        return {name: getattr(self, name) for name in names}
