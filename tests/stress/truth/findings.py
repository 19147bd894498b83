"""The findings of a campaign, and their table."""

from collections import Counter
from dataclasses import dataclass, field

from tests.stress.truth.law import Word

__all__ = ["Findings"]


@dataclass
class Findings:
    """The interrupted writes, the outcomes of their callers, and the faults."""

    seed: int
    seconds: float = 0.0
    crews: int = 0
    tries: Counter[str] = field(default_factory=Counter)
    """Interrupted writes, by the place of the crew's connections."""
    words: Counter[tuple[str, Word]] = field(default_factory=Counter)
    """The outcomes of interrupted writes, by kind of write."""
    ways: Counter[tuple[str, Word]] = field(default_factory=Counter)
    """The same outcomes, by way of interrupting."""
    states: Counter[str] = field(default_factory=Counter)
    """Interrupted writes, by the state of the connection before."""
    unhurt: int = 0
    """Writes without an interrupt and without neighbours."""
    neighbours: int = 0
    """Writes without an interrupt, beside an interrupted write."""
    lies: list[str] = field(default_factory=list)
    """Outcomes of callers that the file contradicts."""
    broken: list[str] = field(default_factory=list)
    """All other faults."""

    def note(self, place: str, write: str, way: str, state: str, word: Word, *, is_try: bool) -> None:
        """Note the outcome of a write."""
        if not is_try:
            self.unhurt += 1
            return
        self.tries[place] += 1
        self.words[write, word] += 1
        self.ways[way, word] += 1
        self.states[state] += 1

    @property
    def is_clean(self) -> bool:
        """Whether there was no fault."""
        return not self.lies and not self.broken

    @property
    def total(self) -> int:
        """The number of interrupted writes."""
        return self.tries.total()

    def table(self) -> str:
        lines = [
            f"seed {self.seed}: {self.total:,} interrupted writes in {self.seconds:.0f} s by {self.crews:,} crews",
            f"{self.neighbours:,} neighbours of these, and {self.unhurt:,} undisturbed writes",
            "",
            *_rows("kind of write", self.words),
            "",
            *_rows("interrupted by", self.ways),
            "",
            *(f"{name:<26} {count:>9,}" for name, count in (*self.tries.most_common(), *self.states.most_common())),
            "",
            *(f"LIE: {text}" for text in self.lies[:20]),
            *(f"BROKEN: {text}" for text in self.broken[:20]),
            f"{len(self.lies)} lies, {len(self.broken)} other faults in {self.total:,} tries",
        ]
        return "\n".join(lines)


def _rows(title: str, counts: Counter[tuple[str, Word]]) -> list[str]:
    names = dict.fromkeys(name for name, _ in sorted(counts, key=lambda key: key[0]))
    lines = [f"{title:<26}" + "".join(f"{word.value:>16}" for word in Word)]
    lines += [f"{name:<26}" + "".join(f"{counts[name, word]:>16,}" for word in Word) for name in names]
    totals = Counter[Word]()
    for (_, word), count in counts.items():
        totals[word] += count
    return [*lines, f"{'all':<26}" + "".join(f"{totals[word]:>16,}" for word in Word)]
