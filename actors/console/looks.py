"""Looks: how headings, rows and figures of the demo are drawn. This module needs rich."""

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from actors.console.stage import Look, Number, Row

__all__ = ["BARS", "PLAIN_BARS", "heading", "numbers", "paragraph", "table"]

BARS: Final = "━─"
"""The characters of the full and of the empty part of a bar."""
PLAIN_BARS: Final = "=-"
"""The same for a terminal that knows ASCII only."""

_STYLES: Final[dict[Look, str]] = {"plain": "", "good": "green", "bad": "red", "dim": "dim", "strong": "bold"}
_CODE: Final = "cyan"
_BAR: Final = 20  # columns
_SMALL_BAR: Final = 8  # columns
_NARROW: Final = 60  # columns below which bars are small and the code gets lines of its own
_LABEL: Final = 24  # columns


def heading(title: str, code: str) -> RenderableType:
    """Return the beginning of a scene."""
    lines: list[RenderableType] = [Text(), Text(title, style="bold")]
    if code:
        lines.append(Padding(Text(code, style=_CODE), (0, 0, 0, 4)))
    return Group(*lines)


def paragraph(text: str, look: Look) -> RenderableType:
    """Return a paragraph."""
    return Padding(Text(text, style=_STYLES[look]), (0, 0, 0, 2))


def table(rows: Sequence[Row], columns: int, bars: str) -> RenderableType:
    """Return rows, one line each."""
    label = max(1, min(_LABEL, columns // 3))
    bar = _SMALL_BAR if columns < _NARROW else _BAR
    return Group(*(_line(row, label, bar, bars) for row in rows))


def _line(row: Row, label: int, bar: int, bars: str) -> Text:
    line = Text("  ", no_wrap=True, overflow="ellipsis")
    line.append(_sized(row.label, label), style="" if row.part is not None else "dim")
    line.append("  ")
    if row.part is not None:
        full = round(bar * min(1.0, max(0.0, row.part)))
        line.append(bars[0] * full, style="red" if row.look == "bad" else "green" if row.part >= 1 else "cyan")
        line.append(bars[1] * (bar - full), style="dim")
        line.append("  ")
    line.append(row.text, style=_STYLES[row.look])
    line.rstrip()
    return line


def _sized(text: str, columns: int) -> str:
    sized: str = set_cell_size(text, columns)
    return sized if cell_len(text) <= columns else sized[:-1] + "…"


def numbers(figures: Sequence[Number], columns: int) -> RenderableType:
    """Return the figures, each beside its line of code; on a narrow terminal above it."""
    wide = columns >= _NARROW
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    if wide:
        grid.add_column(overflow="fold")
    for figure in figures:
        value, meaning, code = Text(figure.value, style="bold"), Text(figure.meaning), Text(figure.code, style=_CODE)
        if wide:
            grid.add_row(value, meaning, code)
        else:
            grid.add_row(value, Group(meaning, code) if figure.code else meaning)
    return Padding(grid, (0, 0, 0, 2))
