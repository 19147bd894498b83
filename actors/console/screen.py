"""Screen: paragraphs that stay, and below them, on a terminal, a few lines that are drawn anew."""

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
_FRAME = 0.04  # seconds; more frames than 25 a second are not seen


class Screen:
    """Writes to a terminal, or plain lines to anything else.

    Each change is one write that overwrites what is there and clears only what is left
    over, so nothing flickers. The cursor always stands below the last line: whatever ends
    the program, the terminal needs no repair.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        # The lines below the paragraphs, as they are on the terminal now.
        self._drawn: list[str] = []
        self._drawn_at = float("-inf")
        self.live = _is_live(stream)
        """Whether lines can be drawn anew."""
        if not _can_write(stream, "…━─"):
            stream.reconfigure(errors="replace")  # type: ignore[attr-defined]  # standard output is a TextIOWrapper
        self._full, self._empty = "━─" if _can_write(stream, "━─") else "=-"

    @property
    def columns(self) -> int:
        """How long a line may be now; the last column stays free, since some terminals wrap there."""
        return max(20, min(_WIDEST, shutil.get_terminal_size().columns - 1))

    def say(self, text: str, *, indent: str = "", hang: str = "", style: str = "") -> None:
        """Write a paragraph that stays.

        Args:
            text: its line breaks are kept, and longer lines are wrapped.
            indent: what each line starts with.
            hang: what those lines start with in addition that were wrapped.
            style: for a terminal; nothing by default.
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
        """Draw `lines` in the place of those drawn before; without a terminal, do nothing.

        Frames that come too fast are left out, but never the one that clears the lines.
        """
        now = time.monotonic()
        if self.live and (not lines or now - self._drawn_at >= _FRAME):
            self._drawn_at = now
            # More lines than the terminal has could not be reached any more.
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
        # Each line is cleared from its end on: what stays the same is never blank in between.
        text += "".join(f"{line}\x1b[K\n" for line in [*paragraph, *lines])
        self._drawn = lines
        self._write(text + "\x1b[J")

    def _rows_drawn(self) -> int:
        """Return how many rows the drawn lines take, also on a terminal that has become narrower."""
        columns = shutil.get_terminal_size().columns
        return sum(max(1, -(-len(line) // columns)) for line in self._drawn)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _is_live(stream: TextIO) -> bool:
    """Say whether lines can be redrawn: https://no-color.org, and terminals that know the codes."""
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
