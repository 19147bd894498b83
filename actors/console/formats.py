"""Rows as CSV, JSON, lines of JSON, or Markdown: written as they come, in constant memory."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Final, Protocol

from actors.console.visible import is_number

__all__ = ["WRITERS", "Format", "unique"]

_MISSES = 4  # chunks of rows in a row for which the quick way to CSV failed

Rows = Sequence[tuple[Any, ...]]
Write = Callable[[str], object]


class Format(Protocol):
    """Writes the results of a run, one after the other."""

    def __init__(self, write: Write, *, header: bool) -> None: ...

    def begin(self, columns: Sequence[str]) -> None:
        """Begin a result."""

    def rows(self, rows: Rows) -> None:
        """Write some of its rows."""

    def end(self) -> None:
        """End the result."""


class CSV:
    """Comma-separated values as in RFC 4180, with plain line ends.

    NULL is an empty field. A blob is written as hexadecimal digits. Between two results stands an
    empty line.
    """

    def __init__(self, write: Write, *, header: bool) -> None:
        self._write = write
        self._header = header
        self._first = True
        # How many times in a row the quick way was no way.
        self._misses = 0

    def begin(self, columns: Sequence[str]) -> None:
        if not self._first:
            self._write("\n")
        self._first = False
        self._misses = 0
        if self._header:
            self._write(_csv([tuple(columns)]))

    def rows(self, rows: Rows) -> None:
        text = self._quick(rows) if self._misses < _MISSES else None
        if text is not None:
            self._misses = 0
            self._write(text)
            return
        self._misses += 1
        text = _csv(rows)
        # A blob is found by its text: a look at each type takes a fifth of the time.
        if "b'" in text or 'b"' in text:
            text = _csv([tuple(map(_without_blobs, row)) for row in rows])
        self._write(text)

    def end(self) -> None:
        pass

    @staticmethod
    def _quick(rows: Rows) -> str | None:
        """Return rows as CSV; `None` if a field needs quotes, or is a blob.

        One formatting of many rows takes half the time of Python's writer. Whether a field needs
        quotes shows afterwards, in the number of commas and line ends.
        """
        columns = len(rows[0]) if rows else 0
        if columns < 2:
            return None  # a lone empty field has quotes
        values = tuple(chain.from_iterable(rows))
        text = (",".join(["%s"] * columns) + "\n") * len(rows) % values
        if text.count(",") != len(rows) * (columns - 1) or text.count("\n") != len(rows):
            return None
        if '"' in text or "\r" in text or "b'" in text:
            return None
        nulls = values.count(None)
        if text.count("None") != nulls:
            return None
        return text.replace("None", "") if nulls else text


def _csv(rows: Iterable[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _without_blobs(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


class JSONLines:
    """One JSON object on each line."""

    def __init__(self, write: Write, *, header: bool) -> None:
        del header
        self._write = write
        self._names: tuple[str, ...] = ()

    def begin(self, columns: Sequence[str]) -> None:
        self._names = unique(columns)

    def rows(self, rows: Rows) -> None:
        self._write("".join(_object(self._names, row) + "\n" for row in rows))

    def end(self) -> None:
        pass


class JSON(JSONLines):
    """An array of objects for each result."""

    def __init__(self, write: Write, *, header: bool) -> None:
        super().__init__(write, header=header)
        self._before = "["

    def begin(self, columns: Sequence[str]) -> None:
        super().begin(columns)
        self._before = "["

    def rows(self, rows: Rows) -> None:
        if rows:
            self._write(self._before + ",\n".join(_object(self._names, row) for row in rows))
            self._before = ",\n"

    def end(self) -> None:
        self._write("[]\n" if self._before == "[" else "]\n")


def _blob(value: Any) -> str:
    return bytes(value).hex()


_encode: Final = json.JSONEncoder(ensure_ascii=False, default=_blob, allow_nan=False).encode


def _object(names: tuple[str, ...], row: tuple[Any, ...]) -> str:
    try:
        return _encode(dict(zip(names, row, strict=True)))
    except ValueError:  # an infinite number, for which JSON has no word
        pairs = (f"{_encode(name)}: {_infinite(value)}" for name, value in zip(names, row, strict=True))
        return "{" + ", ".join(pairs) + "}"


def _infinite(value: Any) -> str:
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "1e999" if value > 0 else "-1e999"  # as SQLite writes it; a reader makes infinity of it
    return _encode(value)


def unique(columns: Sequence[str]) -> tuple[str, ...]:
    """Return the names of columns with a number behind each that was there before."""
    names: list[str] = []
    for column in columns:
        name, number = column, 2
        while name in names:
            name, number = f"{column}_{number}", number + 1
        names.append(name)
    return tuple(names)


class Markdown:
    """A table as GitHub's Markdown has it.

    A column stands to the right where the first rows have numbers in it.
    """

    def __init__(self, write: Write, *, header: bool) -> None:
        del header
        self._write = write
        self._columns: Sequence[str] | None = None
        self._first = True

    def begin(self, columns: Sequence[str]) -> None:
        if not self._first:
            self._write("\n")
        self._first = False
        self._columns = columns

    def rows(self, rows: Rows) -> None:
        self._head(rows)
        self._write("".join(_line(map(_markdown, row)) for row in rows))

    def end(self) -> None:
        self._head(())

    def _head(self, rows: Rows) -> None:
        """Write the head, once, when the first rows are known."""
        columns, self._columns = self._columns, None
        if columns is None:
            return
        marks = []
        for at in range(len(columns)):
            values = [row[at] for row in rows if row[at] is not None]
            marks.append("---:" if values and all(map(is_number, values)) else "---")
        self._write(_line(map(_markdown, columns)) + _line(marks))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _markdown(value: Any) -> str:
    if value is None:
        return "NULL"
    text = value.hex() if isinstance(value, bytes) else str(value)
    for char, instead in (("\\", "\\\\"), ("|", "\\|"), ("\r\n", "<br>"), ("\n", "<br>"), ("\r", "<br>")):
        text = text.replace(char, instead)
    return text


WRITERS: Final[dict[str, type[Format]]] = {"csv": CSV, "json": JSON, "jsonl": JSONLines, "markdown": Markdown}
"""The formats for a pipe, by the names of their options."""
