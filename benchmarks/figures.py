"""Figure: one line of the table, and its limit."""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["TIMES", "Figure", "Wanted", "at_least", "at_most", "table"]

TIMES = "\N{MULTIPLICATION SIGN}"
_NOTHING = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A limit for a figure."""

    limit: float
    lower: bool
    """Whether `limit` is the least wanted value, or else the largest."""
    unit: str

    def __str__(self) -> str:
        return f"{'≥' if self.lower else '≤'} {self.limit:g} {self.unit}"

    def met(self, value: float) -> bool:
        return value >= self.limit if self.lower else value <= self.limit

    def score(self, value: float) -> float:
        """Return how well the limit is kept: 1 is exactly at the limit, more is better."""
        small = 1e-9
        return value / self.limit if self.lower else max(self.limit, small) / max(value, small)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    seen: str
    """The text for the table, which contains `value`."""
    value: float | None = None
    """The number that is compared with `wanted`; `None` if it could not be measured."""
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
