"""Screen: the demo on a terminal. Paragraphs stay, and below them rows are drawn anew.

This module needs rich. `looks` makes the pictures, and this module brings them to a terminal.
"""

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, TextIO

from rich.console import Console, RenderableType
from rich.segment import Segment, Segments

from actors.console import looks
from actors.console.stage import Look, Number, Row, Stage, can_write
from actors.console.visible import is_dumb_terminal

__all__ = ["Screen", "can_draw_on"]

_WIDEST: Final = 100  # columns; longer lines are hard to read
_NARROWEST: Final = 20  # columns
_FRAME: Final = 0.04  # seconds; a person sees no more than 25 frames a second

Line = list[Segment]


class Screen(Stage):
    """Draws on a terminal.

    Each change is one write, which overwrites the old text and clears only the rest of it. So
    nothing flickers. The cursor is never hidden, and it always stands below the last line. So the
    terminal needs no repair, however the program ends.
    """

    live = True

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._bars = looks.BARS if can_write(stream, looks.BARS) else looks.PLAIN_BARS
        # The rows below the paragraphs, and how many columns each line of the drawing takes.
        self._rows: Sequence[Row] = ()
        self._drawn: list[int] = []
        self._drawn_at = float("-inf")

    @property
    def columns(self) -> int:
        """The longest line that fits now. The last column stays free: some terminals wrap there."""
        return max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns - 1))

    def scene(self, title: str, code: str = "") -> None:
        """Begin a scene; see `Stage`."""
        self._paragraph(looks.heading(title, code))

    def say(self, text: str, look: Look = "plain") -> None:
        """Write a paragraph that stays, above the rows; see `Stage`."""
        self._paragraph(looks.paragraph(text, look))

    def note(self, text: str) -> None:
        """Do nothing: the rows show it."""

    def draw(self, rows: Sequence[Row]) -> None:
        """Show rows in the place of the rows before. Rows that come too soon are left out."""
        now = time.monotonic()
        if now - self._drawn_at >= _FRAME:
            self._drawn_at = now
            self._rows = rows
            self._redraw([])

    def keep(self, rows: Sequence[Row]) -> None:
        """Let rows stay; see `Stage`."""
        self._rows = ()
        self._paragraph(looks.table(rows, self.columns, self._bars))

    def numbers(self, numbers: Sequence[Number]) -> None:
        """Show the figures at the end; see `Stage`."""
        self._paragraph(looks.numbers(numbers, self.columns))

    def close(self) -> None:
        """Clear the rows; see `Stage`."""
        self._rows = ()
        if self._drawn:
            with suppress(OSError, ValueError):  # the terminal is gone
                self._redraw([])

    def _paragraph(self, renderable: RenderableType) -> None:
        self._redraw(self._lines(renderable))

    def _redraw(self, paragraph: list[Line]) -> None:
        columns = self.columns
        # The cursor cannot move up to lines that do not fit on the terminal.
        rows = self._rows[: shutil.get_terminal_size().lines - 1]
        lines = self._lines(looks.table(rows, columns, self._bars)) if rows else []
        up = self._rows_drawn()
        text = f"\x1b[{up}F" if up else ""
        # Each line is cleared from its end: a text that stays is never blank in between.
        text += "".join(f"{self._ansi(line)}\x1b[K\n" for line in [*paragraph, *lines])
        self._drawn = [Segment.get_line_length(line) for line in lines]
        self._write(text + "\x1b[J")

    def _rows_drawn(self) -> int:
        """Return how many rows the drawn lines take, also on a terminal that was made narrower."""
        columns = shutil.get_terminal_size().columns
        return sum(max(1, -(-length // columns)) for length in self._drawn)

    def _lines(self, renderable: RenderableType) -> list[Line]:
        options = self._console.options.update(width=self.columns, max_width=self.columns, height=None)
        return [_stripped(line) for line in self._console.render_lines(renderable, options, pad=False)]

    def _ansi(self, line: Line) -> str:
        with self._console.capture() as capture:
            self._console.print(Segments(line), end="", soft_wrap=True)
        return str(capture.get())


def _stripped(line: Line) -> Line:
    """Return a line without the spaces at its end, which a narrower terminal would wrap."""
    while line and not line[-1].text.strip():
        line = line[:-1]
    return [*line[:-1], Segment(line[-1].text.rstrip(), line[-1].style)] if line else []


def can_draw_on(stream: TextIO) -> bool:
    """Say whether a stream is a terminal that can move its cursor."""
    return stream.isatty() and os.name != "nt" and not is_dumb_terminal()
