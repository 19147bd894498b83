"""Rows as an aligned table that fits a terminal."""

from collections.abc import Sequence
from typing import Any, TextIO

from actors.console.visible import cell, is_number, visible
from supervisor import Result

try:
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
except ImportError:
    HAS_RICH = False
else:
    HAS_RICH = True

__all__ = ["HAS_RICH", "MISSING", "in_words", "print_rows", "width_of"]

MISSING = "for tables that fit the terminal: pip install 'querycrew[console]'"

_LEAST = 6  # columns of the terminal below which a column of a table cannot be read
_RECORDS = 20  # rows shown where each row is shown as a list
_MOST = 300  # columns of a result that are shown

Rows = Sequence[tuple[Any, ...]]


def width_of(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return cell_len(text) if HAS_RICH else len(text)


def in_words(count: int, what: str = "row") -> str:
    """Return a count with its noun."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def console_of(stream: TextIO) -> "Console":
    """Return a rich console that writes to `stream`, and takes no text for markup."""
    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False)


def _columns_of(stream: TextIO) -> int | None:
    """Return how many columns the terminal has; `None` for a stream that is no terminal."""
    return console_of(stream).width if stream.isatty() else None


def print_rows(stream: TextIO, columns: Sequence[str], rows: Rows) -> int:
    """Print rows as a table, or as a list for each row where the columns do not fit side by side.

    Returns:
        How many rows were printed.
    """
    if not HAS_RICH:
        stream.write(_plain(columns, rows))
        return min(len(rows), 20)
    console = console_of(stream)
    width = _columns_of(stream)
    most = 2000 if width is None else width
    names = [visible(name[:most]) for name in columns[:_MOST]]
    cells = [[cell(value, most) for value in row[:_MOST]] for row in rows]
    wanted = [max(map(cell_len, column)) or 1 for column in zip(names, *cells, strict=True)]
    widths = wanted if width is None else _fitting(wanted, width - 3 * (len(names) - 1) - 1)
    if widths is None:
        assert width is not None
        shown = cells[:_RECORDS]
        _print_records(console, names, shown, rows, width)
    else:
        shown = cells
        _print_table(console, names, shown, rows, widths)
    if len(columns) > _MOST:
        console.print(Text(f"({len(columns) - _MOST:,} more columns are not shown)", style="dim"))
    return len(shown)


def _plain(columns: Sequence[str], rows: Rows) -> str:
    """Return the table that the library itself makes, without its last line."""
    return str(Result(tuple(columns), list(rows), len(rows))).rpartition("\n")[0] + "\n"


def _fitting(wanted: list[int], space: int) -> list[int] | None:
    """Return widths that fit into `space`: the widest columns become narrower.

    `None` says that a column would be too narrow to be read.
    """
    if sum(wanted) <= space:
        return wanted
    most = max(wanted)
    left, narrow = space, sorted(wanted)
    for at, width in enumerate(narrow):
        share = left // (len(narrow) - at)
        if width > share:
            most = share
            break
        left -= width
    if most < _LEAST and len(wanted) > 1:
        return None
    return [max(1, min(width, most)) for width in wanted]


def _print_table(console: "Console", names: list[str], cells: list[list[str]], rows: Rows, widths: list[int]) -> None:
    table = Table(box=box.MINIMAL, show_edge=False, pad_edge=False, header_style="bold", padding=(0, 1))
    for at, (name, width) in enumerate(zip(names, widths, strict=True)):
        values = [row[at] for row in rows if row[at] is not None]
        right = bool(values) and all(map(is_number, values))
        table.add_column(
            Text(name), justify="right" if right else "left", width=width, no_wrap=True, overflow="ellipsis"
        )
    for texts, row in zip(cells, rows, strict=False):
        table.add_row(*(_styled(text, value) for text, value in zip(texts, row, strict=False)))
    console.width = max(console.width, sum(widths) + 3 * len(widths))
    console.print(table, no_wrap=True, crop=False)


def _print_records(console: "Console", names: list[str], cells: list[list[str]], rows: Rows, width: int) -> None:
    widest = min(max(map(cell_len, names)), max(1, width // 3))
    for number, (texts, row) in enumerate(zip(cells, rows, strict=False), 1):
        title = f"── row {number:,} "
        console.print(Text(title + "─" * max(0, min(40, width - 1) - len(title)), style="dim"))
        table = Table(box=box.MINIMAL, show_edge=False, pad_edge=False, show_header=False, padding=(0, 1))
        table.add_column(width=widest, no_wrap=True, overflow="ellipsis", style="bold")
        table.add_column(max_width=width - widest - 4, no_wrap=True, overflow="ellipsis")
        for name, text, value in zip(names, texts, row, strict=False):
            table.add_row(Text(name), _styled(text, value))
        console.print(table)


def _styled(text: str, value: Any) -> "Text":
    """Return the text of a value; NULL and blobs are dim, and so differ from such a text."""
    return Text(text, style="dim" if value is None or isinstance(value, bytes) else "")
