"""The findings of a campaign, and their table."""

from collections import Counter
from dataclasses import dataclass, field

from tests.stress.truth.law import Word

__all__ = ["Findings"]


@dataclass
class Findings:
    """The tries, the answers to the callers, and the errors."""

    seed: int
    seconds: float = 0.0
    crews: int = 0
    tries: Counter[str] = field(default_factory=Counter)
    """Interrupted writes, by where the crew's connections are."""
    words: Counter[tuple[str, Word]] = field(default_factory=Counter)
    """The answers to their callers, by kind of write."""
    ways: Counter[tuple[str, Word]] = field(default_factory=Counter)
    """The same, by way of interrupting."""
    states: Counter[str] = field(default_factory=Counter)
    """The same, by the state of the connection before."""
    unhurt: int = 0
    """Writes that nobody interrupted, alone."""
    neighbours: int = 0
    """Writes without an interrupt, beside a write with one."""
    lies: list[str] = field(default_factory=list)
    """Answers to callers that are not true."""
    broken: list[str] = field(default_factory=list)
    """Anything else that must not be."""

    def note(self, place: str, write: str, way: str, state: str, word: Word, *, is_try: bool) -> None:
        """Note the answer to the caller of a write."""
        if not is_try:
            self.unhurt += 1
            return
        self.tries[place] += 1
        self.words[write, word] += 1
        self.ways[way, word] += 1
        self.states[state] += 1

    @property
    def is_clean(self) -> bool:
        """Whether nothing was wrong."""
        return not self.lies and not self.broken

    @property
    def total(self) -> int:
        """How many writes were interrupted."""
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
