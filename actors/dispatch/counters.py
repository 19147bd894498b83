"""Counters: how jobs have ended, and how long they waited and ran."""

from itertools import count
from typing import Final, Literal, TypeAlias

from actors.values.status import Histogram

__all__ = ["ENDINGS", "Counters", "Ending", "Events", "next_of"]

Ending: TypeAlias = Literal["answered", "failed", "died", "rejected", "cancelled", "timed_out", "shed"]
"""How a job can end; see the fields of `CrewStatus`."""
ENDINGS: Final[tuple[Ending, ...]] = ("answered", "failed", "died", "rejected", "cancelled", "timed_out", "shed")


class Counters:
    """How the jobs of one worker have ended. One thread at a time writes it."""

    __slots__ = (*ENDINGS, "run_times", "wait_times")

    def __init__(self) -> None:
        self.answered = self.failed = self.died = self.rejected = self.cancelled = self.timed_out = self.shed = 0
        self.wait_times = Histogram()
        self.run_times = Histogram()

    def count(self, ending: Ending, jobs: int = 1) -> None:
        """Count jobs with this end; a negative number takes back."""
        setattr(self, ending, getattr(self, ending) + jobs)

    def add(self, other: "Counters") -> None:
        """Add the numbers of other counters."""
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
        """Takes one counted event back."""

    def __int__(self) -> int:
        """Return the number of events that were not taken back."""
        return next_of(self._happened) - next_of(self._undone)


def next_of(counter: "count[int]") -> int:
    """Return the next number of a counter, and leave it there."""
    # This does not advance the counter: its text is "count(3)".
    return int(repr(counter)[6:-1])
