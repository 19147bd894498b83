"""Recorder: the demo as a picture. It has the paragraphs that stay, drawn as on a terminal.

This module needs rich.
"""

import errno
import io
import os
import re
from collections.abc import Sequence
from html import escape
from typing import Final

from rich.console import Console, RenderableType
from rich.segment import Segment
from rich.style import Style

from actors.console import looks
from actors.console.stage import Look, Number, Row, Stage
from actors.console.visible import visible

__all__ = ["Recorder"]

_COLUMNS: Final = 84
_CELL: Final = 8.4  # pixels, the width of a character of this size in most monospaced fonts
_LINE: Final = 19  # pixels from one line to the next
_EDGE: Final = 18  # pixels around the text
_FONT: Final = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_COLOURS: Final = {"green": "#7ee787", "red": "#ff7b72", "cyan": "#79c0ff"}
_TEXT, _DIM, _GROUND = "#e6edf3", "#8b949e", "#161b22"


class Recorder(Stage):
    """Passes everything on to another stage, and draws all that stays into an SVG file.

    The picture loads no font and no other file.
    """

    def __init__(self, stage: Stage, path: str, command: str) -> None:
        """Record a stage.

        Args:
            stage: everything is passed on to it.
            path: the file that `save` writes.
            command: the first line of the picture.

        Raises:
            OSError: the file cannot be written. It is neither made nor changed before `save`.
        """
        _check_writable(path)
        self._stage = stage
        self._path = path
        self._command = command
        self.live = stage.live
        self._console = Console(
            file=io.StringIO(), width=_COLUMNS, force_terminal=True, color_system="truecolor", highlight=False
        )
        self._lines: list[list[Segment]] = []

    def scene(self, title: str, code: str = "") -> None:
        """Begin a scene; see `Stage`."""
        self._record(looks.heading(title, code))
        self._stage.scene(title, code)

    def say(self, text: str, look: Look = "plain") -> None:
        """Write a paragraph; see `Stage`."""
        self._record(looks.paragraph(text, look))
        self._stage.say(text, look)

    def note(self, text: str) -> None:
        """Leave it out of the picture, as a terminal does; see `Stage`."""
        self._stage.note(text)

    def draw(self, rows: Sequence[Row]) -> None:
        """Leave rows that change out of the picture; see `Stage`."""
        self._stage.draw(rows)

    def keep(self, rows: Sequence[Row]) -> None:
        """Let rows stay; see `Stage`."""
        self._record(looks.table(rows, _COLUMNS, looks.BARS))
        self._stage.keep(rows)

    def numbers(self, numbers: Sequence[Number]) -> None:
        """Show the figures; see `Stage`."""
        self._record(looks.numbers(numbers, _COLUMNS))
        self._stage.numbers(numbers)

    def close(self) -> None:
        """Close the other stage; see `Stage`."""
        self._stage.close()

    def save(self) -> None:
        """Write the picture.

        Raises:
            OSError: the file cannot be written.
        """
        with open(self._path, "w", encoding="utf-8", newline="\n") as file:
            file.write(self._picture())
        self._stage.say(f"The picture is {visible(self._path)}.", "dim")

    def _record(self, renderable: RenderableType) -> None:
        self._lines += self._console.render_lines(renderable, pad=False)

    def _picture(self) -> str:
        lines = [[Segment(f"$ {self._command}", Style(bold=True))], *self._lines]
        width, height = _COLUMNS * _CELL + 2 * _EDGE, len(lines) * _LINE + 2 * _EDGE
        texts = "\n".join(
            text for number, line in enumerate(lines) for text in _texts(line, _EDGE + 14 + number * _LINE)
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img">\n'
            f"<title>The output of {self._command}</title>\n"
            f'<rect width="{width:.0f}" height="{height}" rx="8" fill="{_GROUND}"/>\n'
            f'<g font-family="{_FONT}" font-size="14" fill="{_TEXT}">\n{texts}\n</g>\n</svg>\n'
        )


def _check_writable(path: str) -> None:
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    place = path if os.path.exists(path) else os.path.dirname(os.path.abspath(path))
    if not os.path.exists(place):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place)
    if not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)


def _texts(line: list[Segment], y: int) -> list[str]:
    """Return the elements of a line. Each stands at its own column, so all fonts are aligned."""
    found, column = [], 0
    for segment in line:
        for part in re.finditer(r"\S+(?: \S+)*", segment.text):
            at = column + Segment(segment.text[: part.start()]).cell_length
            length = Segment(part[0]).cell_length * _CELL
            found.append(
                f'<text x="{_EDGE + at * _CELL:.1f}" y="{y}" textLength="{length:.1f}" '
                f'lengthAdjust="spacingAndGlyphs"{_attributes(segment.style)}>{escape(part[0], quote=False)}</text>'
            )
        column += segment.cell_length
    return found


def _attributes(style: Style | None) -> str:
    if style is None:
        return ""
    colour = _COLOURS.get(style.color.name) if style.color else None
    colour = colour or (_DIM if style.dim else None)
    return (f' fill="{colour}"' if colour else "") + (' font-weight="bold"' if style.bold else "")
