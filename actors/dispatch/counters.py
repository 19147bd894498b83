"""Counters: what has become of jobs, and how long they waited and ran."""

from itertools import count
from typing import Final, Literal, TypeAlias

from actors.values.status import Histogram

__all__ = ["ENDINGS", "Counters", "Ending", "Events"]

Ending: TypeAlias = Literal["answered", "failed", "died", "rejected", "cancelled", "timed_out", "shed"]
"""What can become of a job; see the fields of `CrewStatus`."""
ENDINGS: Final[tuple[Ending, ...]] = ("answered", "failed", "died", "rejected", "cancelled", "timed_out", "shed")


class Counters:
    """What has become of the jobs of one worker. Only one thread at a time writes it."""

    __slots__ = (*ENDINGS, "run_times", "wait_times")

    def __init__(self) -> None:
        self.answered = self.failed = self.died = self.rejected = self.cancelled = self.timed_out = self.shed = 0
        self.wait_times = Histogram()
        self.run_times = Histogram()

    def count(self, ending: Ending, jobs: int = 1) -> None:
        """Count jobs that have ended so."""
        setattr(self, ending, getattr(self, ending) + jobs)

    def add(self, other: "Counters") -> None:
        """Add what another one has counted."""
        for ending in ENDINGS:
            self.count(ending, getattr(other, ending))
        self.wait_times.add(other.wait_times)
        self.run_times.add(other.run_times)


class Events:
    """A number of events that any thread may count, in one step of the interpreter."""

    __slots__ = ("_happened", "_undone", "happened", "undone")

    def __init__(self) -> None:
        self._happened, self._undone = count(), count()
        self.happened = self._happened.__next__
        """Counts one event."""
        self.undone = self._undone.__next__
        """Takes one event back that was counted."""

    def __int__(self) -> int:
        """Return how many there were."""
        return _next_of(self._happened) - _next_of(self._undone)


def _next_of(counter: "count[int]") -> int:
    # A look that does not count: the text is "count(3)".
    return int(repr(counter)[6:-1])
