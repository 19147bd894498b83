"""The figures as a picture, and the waits of a crew under overload as another."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.figures import TIMES, Figure

__all__ = ["Waits", "draw", "draw_waits"]

_MET, _MISSED = "#3a7d44", "#b5482f"
_MOST = 4.0  # a longer bar would say no more
_BIN = 0.05  # seconds of answers that a point of a line stands for


class Waits(NamedTuple):
    """The data of the picture of the overload."""

    answers: Mapping[str, Sequence[tuple[float, float]]]
    """Name of a line → for each answered job, seconds since the beginning and seconds waited."""
    load: float
    """Times the capacity."""
    target: float
    """The value of `shed_after`, in seconds."""


def draw(figures: Sequence[Figure], file: str, machine: str) -> None:
    """Draw how well each limit is kept: 1 is exactly at the limit, more is better.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure as Picture

    shown = [figure for figure in figures if figure.wanted is not None and figure.value is not None]
    scores = [figure.wanted.score(figure.value) for figure in shown]
    picture = Picture(figsize=(11, 1.6 + 0.42 * len(shown)), layout="constrained")
    axes = picture.subplots()
    colors = [_MET if figure.met == "yes" else _MISSED for figure in shown]
    axes.barh([figure.name for figure in shown], [min(score, _MOST) for score in scores], color=colors)
    for row, figure in enumerate(shown):
        seen = figure.seen.partition(" (")[0]
        axes.text(_MOST * 1.03, row, f"{seen}, wanted {figure.wanted}", verticalalignment="center")
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xlim(0, _MOST * 1.4)
    axes.set_xlabel(f"how well the limit is kept: 1 is at the limit, more is better, cut off at {_MOST:g}")
    picture.suptitle(textwrap.fill(f"querycrew, {machine}", 110), fontsize=9)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(file, dpi=120)


def draw_waits(waits: Waits, file: Path, machine: str) -> None:
    """Draw the waits of the jobs by the time of their answers; the longest wait of each 50 ms.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(8, 4), layout="constrained")
    axes = picture.subplots()
    for (name, answers), color in zip(waits.answers.items(), (_MET, _MISSED), strict=True):
        longest: dict[int, float] = {}
        for at, waited in answers:
            longest[int(at / _BIN)] = max(waited, longest.get(int(at / _BIN), 0.0))
        times = sorted(longest)
        axes.plot([(time + 0.5) * _BIN for time in times], [longest[time] for time in times], color=color, label=name)
    axes.axhline(waits.target, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel("time since the load began (seconds)")
    axes.set_ylabel("wait of the jobs answered then (seconds)")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_title(f"{waits.load:g} {TIMES} the load that the crew can serve")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    picture.text(0.01, -0.01, textwrap.fill(machine, 110), fontsize=6, verticalalignment="top", color="gray")
    # The same run always makes the same file, and text stays text: a tenth of the size.
    with mpl.rc_context({"svg.hashsalt": "querycrew", "svg.fonttype": "none"}):
        picture.savefig(file, metadata={"Date": None}, bbox_inches="tight")
