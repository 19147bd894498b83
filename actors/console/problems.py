"""Errors as a person reads them, with the place in the SQL."""

from typing import TextIO

from actors.console import tables
from actors.console.statements import Place, place_of, split
from actors.console.visible import visible
from supervisor import DatabaseUnavailable, QuerycrewError

__all__ = ["block", "described", "one_line", "text_of"]

_MOST = 2000  # characters of an error's text that are shown


def text_of(error: BaseException) -> str:
    """Return the text of an error as one line; for a database that does not open, the reason."""
    text = _lines_of(error)[0] or type(error).__name__
    if isinstance(error, UnicodeDecodeError):
        text = "a value of type text is not valid UTF-8; CAST(column AS BLOB) shows its bytes"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    if isinstance(error, DatabaseUnavailable) and error.__cause__ is not None:
        cause = error.__cause__
        text = "; ".join([f"the database cannot be opened: {cause}", *getattr(cause, "__notes__", ())])
    return visible(" ".join(text[:_MOST].split()))


def _lines_of(error: BaseException) -> list[str]:
    """Return the text of an error. Some drivers add lines, which show the place in the SQL."""
    text = str(error)[:_MOST]
    return text.split("\n") if hasattr(error, "sqlstate") or type(error).__module__ == "_duckdb" else [text]


def _place(error: BaseException, sql: str | None) -> Place | None:
    if sql is None or getattr(error, "error_offset", -1) is None or getattr(error, "error_offset", -1) < 0:
        return None
    return place_of(error, sql, list(split(sql)))


def one_line(error: BaseException, sql: str | None = None) -> str:
    """Return an error as one line, with the line and the column in the SQL."""
    text = text_of(error)
    is_plain = isinstance(error, (QuerycrewError, ValueError, OSError)) or type(error).__module__ == "apsw"
    if not is_plain:
        text = f"{type(error).__name__}: {text}"
    place = _place(error, sql)
    if place is None:
        behind = next((f" ({visible(line.strip())})" for line in _lines_of(error)[1:] if line.strip()), "")
        return text + behind
    rest = visible(place.text[place.at :]).strip()
    behind = f": {rest}" if rest else ""
    return f"{text} (line {place.line}, column {place.column}{behind})"


def marked(place: Place) -> list[str]:
    """Return the line of SQL, and below it a mark at the place."""
    before, behind = visible(place.text[: place.at]), visible(place.text[place.at :])
    return [before + behind, " " * tables.width_of(before) + "^"]


def _noted(error: BaseException) -> list[str]:
    """Return the lines of the note that shows the place in the SQL."""
    for note in getattr(error, "__notes__", ()):
        name, _, rest = str(note).partition("\n")
        if name.startswith("querycrew: ") and rest.endswith("^"):
            return [visible(line.removeprefix("  ")) for line in rest.split("\n")]
    return []


def described(error: BaseException, sql: str) -> list[str]:
    """Return an error as lines of text, with a mark at the place in the SQL."""
    place = _place(error, sql)
    return [f"{type(error).__name__}: {text_of(error)}", *([] if place is None else marked(place))]


def block(stream: TextIO, error: BaseException, sql: str | None = None) -> None:
    """Write an error as a red block, with a mark at the place in the SQL.

    Without `sql` the place comes from the notes of the error.
    """
    place = _place(error, sql)
    lines = [visible(line) for line in _lines_of(error)[1:]]
    lines += marked(place) if place is not None else _noted(error) if sql is None else []
    where = f" at line {place.line}, column {place.column}" if place is not None and place.line > 1 else ""
    executed = getattr(error, "executed", False)
    if executed is None:
        lines.append("Nobody knows whether the statement took effect.")
    if not tables.HAS_RICH:
        stream.write("\n".join([f"{type(error).__name__}{where}: {text_of(error)}", *lines]) + "\n")
        return
    from rich.panel import Panel
    from rich.text import Text

    console = tables.console_of(stream)
    body = Text(text_of(error), style="bold")
    for line in lines:
        body.append("\n" + line, style="not bold")
    title = Text(f"{type(error).__name__}{where}")
    console.print(Panel(body, title=title, title_align="left", border_style="red", expand=False))
