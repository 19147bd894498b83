"""The figures as a picture."""

import textwrap
from collections.abc import Sequence

from benchmarks.figures import Figure

__all__ = ["draw"]

_MET, _MISSED = "#3a7d44", "#b5482f"
_MOST = 4.0  # a longer bar would tell nothing more


def draw(figures: Sequence[Figure], file: str, machine: str) -> None:
    """Draw how far each wanted figure was met: 1 is just so, more is better.

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
    axes.set_xlabel(f"how far it is met: 1 is just so, more is better, cut off at {_MOST:g}")
    picture.suptitle(textwrap.fill(f"querycrew, {machine}", 110), fontsize=9)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(file, dpi=120)
