"""Figure: one line of the table, and what was wanted of it."""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["TIMES", "Figure", "Wanted", "at_least", "at_most", "table"]

TIMES = "\N{MULTIPLICATION SIGN}"
_NOTHING = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A bound that a figure has to keep."""

    limit: float
    lower: bool
    """Whether `limit` is the least that is wanted, or else the most."""
    unit: str

    def __str__(self) -> str:
        return f"{'≥' if self.lower else '≤'} {self.limit:g} {self.unit}"

    def met(self, value: float) -> bool:
        return value >= self.limit if self.lower else value <= self.limit

    def score(self, value: float) -> float:
        """Return how far the bound is kept: 1 is just so, more is better."""
        small = 1e-9
        return value / self.limit if self.lower else max(self.limit, small) / max(value, small)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    seen: str
    """As it is printed; `value` among it."""
    value: float | None = None
    """What is compared with `wanted`; `None` where it could not be measured."""
    wanted: Wanted | None = None
    """`None` for a figure that only helps to read the others."""

    @property
    def met(self) -> str:
        if self.wanted is None or self.value is None:
            return _NOTHING
        return "yes" if self.wanted.met(self.value) else "no"


def at_least(limit: float, unit: str) -> Wanted:
    return Wanted(limit, lower=True, unit=unit)


def at_most(limit: float, unit: str) -> Wanted:
    return Wanted(limit, lower=False, unit=unit)


def table(figures: Iterable[Figure]) -> str:
    """Return the figures as a Markdown table that is readable as it is."""
    head = ("figure", "wanted", "seen", "met")
    rows = [(figure.name, str(figure.wanted or _NOTHING), figure.seen, figure.met) for figure in figures]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [head, *rows]
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
