"""Screen: paragraphs that stay, and below them, on a terminal, a few lines that are redrawn."""

import os
import shutil
import textwrap
import time
from typing import Final, TextIO

__all__ = ["BAD", "DIM", "GOOD", "STRONG", "Screen"]

STRONG: Final = "1"
DIM: Final = "2"
BAD: Final = "31"
GOOD: Final = "32"

_WIDEST = 100  # columns; longer lines are hard to read
_FRAME = 0.04  # seconds; nobody sees more than 25 frames a second


class Screen:
    """Writes to a terminal, or plain lines to any other stream.

    Each change is one write, which overwrites the old text and clears only the rest of it. So
    nothing flickers. The cursor always stands below the last line. So the terminal needs no repair,
    however the program ends.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        # The lines below the paragraphs, as the terminal shows them now.
        self._drawn: list[str] = []
        self._drawn_at = float("-inf")
        self.live = _is_live(stream)
        """Whether lines can be redrawn."""
        if not _can_write(stream, "…━─"):
            stream.reconfigure(errors="replace")  # type: ignore[attr-defined]  # standard output is a TextIOWrapper
        self._full, self._empty = "━─" if _can_write(stream, "━─") else "=-"

    @property
    def columns(self) -> int:
        """The longest line that fits now. The last column stays free: some terminals wrap there."""
        return max(20, min(_WIDEST, shutil.get_terminal_size().columns - 1))

    def say(self, text: str, *, indent: str = "", hang: str = "", style: str = "") -> None:
        """Write a paragraph that stays.

        Args:
            text: its line breaks stay, and longer lines are wrapped.
            indent: the beginning of each line.
            hang: follows the indent in the lines that wrapping has made.
            style: the code of the style on a terminal; empty for none.
        """
        lines: list[str] = []
        for line in text.split("\n"):
            lines += textwrap.wrap(
                line,
                self.columns,
                initial_indent=indent,
                subsequent_indent=indent + hang,
                break_on_hyphens=False,
            ) or [""]
        if not self.live:
            self._write("".join(line + "\n" for line in lines))
            return
        styled = [f"\x1b[{style}m{line}\x1b[0m" if style and line else line for line in lines]
        self._redraw(styled, self._drawn)

    def draw(self, lines: list[str]) -> None:
        """Draw `lines` in the place of the lines drawn before; without a terminal, do nothing.

        A frame that comes too soon is left out, but never the frame that clears the lines.
        """
        now = time.monotonic()
        if self.live and (not lines or now - self._drawn_at >= _FRAME):
            self._drawn_at = now
            # The cursor cannot move up to lines that do not fit on the terminal.
            self._redraw([], lines[: shutil.get_terminal_size().lines - 1])

    def bar(self, part: float, width: int) -> str:
        """Return a bar that is filled to `part`, from 0 to 1."""
        filled = round(width * min(1.0, max(0.0, part)))
        return self._full * filled + self._empty * (width - filled)

    def _redraw(self, paragraph: list[str], lines: list[str]) -> None:
        columns = self.columns
        lines = [_cut(line, columns) for line in lines]
        up = self._rows_drawn()
        text = f"\x1b[{up}F" if up else ""
        # Each line is cleared from its end: a text that stays is never blank in between.
        text += "".join(f"{line}\x1b[K\n" for line in [*paragraph, *lines])
        self._drawn = lines
        self._write(text + "\x1b[J")

    def _rows_drawn(self) -> int:
        """Return how many rows the drawn lines take, also on a terminal that was made narrower."""
        columns = shutil.get_terminal_size().columns
        return sum(max(1, -(-len(line) // columns)) for line in self._drawn)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _is_live(stream: TextIO) -> bool:
    """Say whether lines can be redrawn: see https://no-color.org; the terminal must know the codes."""
    if os.name == "nt" or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return False
    return stream.isatty()


def _can_write(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding)
    except UnicodeEncodeError:
        return False
    return True


def _cut(line: str, columns: int) -> str:
    return line if len(line) <= columns else line[: columns - 1] + "…"
