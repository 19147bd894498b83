"""The findings of a chaos run, and whether one of them is an error."""

from collections import Counter
from dataclasses import dataclass, field

from tests.stress.chaos.callers import Tally


@dataclass(kw_only=True)
class Findings:
    """The findings of a run."""

    asks: int
    seconds: float
    answered_twice: int
    ran_twice: int
    kills: Counter[str]
    restarts: int
    full_size: bool
    miscounted: int
    """By how much the counters do not add up: a kill may hit as it counts."""
    kept: int
    """Deadlines and interrupts that outlive their jobs."""
    leaks: list[str]
    recoveries: list[float]
    """Seconds from a worker's death notice until its replacement was up, if the database could
    open.
    """
    hard_recoveries: list[float]
    """The same, where the database could not be opened at first."""
    unanswered: int = 0
    callbacks_missed: int = 0
    lateness: list[float] = field(default_factory=list)
    """Seconds from each deadline until the answer, where it came later."""
    outcomes: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)

    def add(self, tally: Tally) -> None:
        """Add the counts of one caller."""
        self.unanswered += tally.unanswered
        self.callbacks_missed += tally.callbacks_missed
        self.outcomes += tally.outcomes
        self.lateness += [seconds for seconds in tally.lateness if seconds > 0]
        self.unexpected += tally.unexpected

    @property
    def broken(self) -> list[str]:
        """The invariants that do not hold."""
        wanted = {
            "unanswered": self.unanswered == 0,
            "answered twice": self.answered_twice == 0,
            "ran twice": self.ran_twice == 0,
            "unexpected": not self.unexpected,
            # A kill that hits a callback ends that callback, and no other.
            "callbacks missed": self.callbacks_missed <= self.kills["interrupt"],
            "miscounted": abs(self.miscounted) <= self.kills["interrupt"],
            "kept": self.kept == 0,
            "full size": self.full_size,
            "leaks": not self.leaks,
        }
        return [name for name, holds in wanted.items() if not holds]

    def table(self) -> str:
        rows = {
            "asks": f"{self.asks:,} in {self.seconds:.1f} s, {self.asks / self.seconds:,.0f}/s",
            "outcomes": ", ".join(f"{name} {count:,}" for name, count in self.outcomes.most_common()),
            "kills": ", ".join(f"{name} {count:,}" for name, count in self.kills.most_common()),
            "restarts": f"{self.restarts:,}",
            "unanswered": self.unanswered,
            "answered twice": self.answered_twice,
            "ran twice": self.ran_twice,
            "unexpected": self.unexpected[:5] or 0,
            "callbacks missed": self.callbacks_missed,
            "miscounted": self.miscounted,
            "kept": self.kept,
            "leaks": self.leaks or 0,
            "full size": self.full_size,
            "after a deadline": _milliseconds(self.lateness),
            "recovery": _milliseconds(self.recoveries),
            "…opening failed": _milliseconds(self.hard_recoveries),
            "verdict": "BROKEN: " + ", ".join(self.broken) if self.broken else "all invariants hold",
        }
        return "\n".join(f"{name:<17} {value}" for name, value in rows.items())


def _milliseconds(seconds: list[float]) -> str:
    if not seconds:
        return "never"
    times = sorted(seconds)
    p50, p99 = (times[min(len(times) - 1, int(len(times) * part))] * 1e3 for part in (0.5, 0.99))
    return f"{len(times):,} times, p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {times[-1] * 1e3:.1f} ms"
