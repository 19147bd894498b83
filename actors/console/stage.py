"""Stage: where the demo shows its scenes; this one writes plain lines, to a pipe for example."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TextIO

__all__ = ["Look", "Number", "Row", "Stage", "can_write"]

Look = Literal["plain", "good", "bad", "dim", "strong"]

_COLUMNS: Final = 79


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a picture that changes."""

    label: str
    """The first words of the line."""
    text: str = ""
    """The other words; they are cut where the line ends."""
    part: float | None = None
    """How full the bar of this line is, from 0 to 1. `None` for no bar."""
    look: Look = "plain"
    """How the text looks."""


@dataclass(frozen=True, slots=True)
class Number:
    """A figure that the demo has counted or measured."""

    value: str
    """The figure."""
    meaning: str
    """The thing that was counted."""
    code: str = ""
    """The line of code that did it."""


class Stage:
    """Writes lines that stay. A stage that can draw also shows rows that change.

    For one thread only.
    """

    live: bool = False
    """Whether `draw` shows anything."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if not can_write(stream, "…"):
            stream.reconfigure(errors="replace")  # type: ignore[attr-defined]  # standard output is a TextIOWrapper

    def scene(self, title: str, code: str = "") -> None:
        """Begin a scene.

        Args:
            title: a few words.
            code: the line of code that the scene is about.
        """
        self._write("\n" + _filled(title))
        if code:
            self._write(_filled(code, indent="    "))

    def say(self, text: str, look: Look = "plain") -> None:
        """Write a paragraph that stays."""
        del look
        self._write(_filled(text, indent="  ", hang="  "))

    def note(self, text: str) -> None:
        """Write a paragraph that a drawing stage leaves out, since its rows show the same."""
        self.say(text)

    def draw(self, rows: Sequence[Row]) -> None:
        """Show rows in the place of the rows before."""

    def keep(self, rows: Sequence[Row]) -> None:
        """Let rows stay; the rows drawn before go."""

    def numbers(self, numbers: Sequence[Number]) -> None:
        """Show the figures at the end."""
        widest = max(len(number.value) for number in numbers)
        for number in numbers:
            value = number.value.rjust(widest)
            self._write(_filled(f"{value}  {number.meaning}", indent="  ", hang=" " * (widest + 2)))
            if number.code:
                self._write(_filled(number.code, indent=" " * (widest + 8), hang="    "))

    def close(self) -> None:
        """Clear the rows that change. May be called again, and never raises for a lost terminal."""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def can_write(stream: TextIO, text: str) -> bool:
    """Say whether the encoding of a stream has the characters of a text."""
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _filled(text: str, *, indent: str = "", hang: str = "") -> str:
    lines = textwrap.wrap(
        text, _COLUMNS, initial_indent=indent, subsequent_indent=indent + hang, break_on_hyphens=False
    )
    return "".join(f"{line}\n" for line in lines) or "\n"
