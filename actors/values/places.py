"""The note of an error that names its statement, with a mark at the place that SQLite reports."""

from typing import Final

from actors.values.requests import Query, Stream

__all__ = ["note_request", "note_statement"]

_MOST: Final = 64  # characters of the line that are shown
_BEFORE: Final = 36  # characters of them that may stand before the place


def note_request(error: BaseException, crew: str, about: object) -> None:
    """Add a note about the request that failed, or about the step of a transaction."""
    request = getattr(about, "request", about)
    sql = request.sql if isinstance(request, (Query, Stream)) else None
    note_statement(error, f"crew {crew!r}, {about}", sql)


def note_statement(error: BaseException, text: str, sql: str | None) -> None:
    """Add a note about the statement that failed. The same note is added once.

    Args:
        error: the error. It may have an `error_offset`, as errors of APSW have.
        text: names the statement. It contains no parameter.
        sql: the SQL of the one statement that the error is about. `None` means that the statement
            is not known.
    """
    note = f"querycrew: {text}"
    offset = getattr(error, "error_offset", None)
    if sql is not None and isinstance(offset, int) and offset >= 0:
        note += _marked(sql.encode("utf-8", "surrogatepass"), offset)
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def _marked(sql: bytes, offset: int) -> str:
    """Return the line of the place, cut around the place, and below it the mark."""
    if offset > len(sql):
        return ""
    head, tail = sql[:offset].decode("utf-8", "replace"), sql[offset:].decode("utf-8", "replace")
    lines = head.split("\n")
    before, behind = lines[-1], tail.partition("\n")[0].rstrip()
    before = _visible(before if len(before) <= _BEFORE else "…" + before[-_BEFORE:])
    left = _MOST - len(before)
    behind = _visible(behind if len(behind) <= left else behind[: left - 1] + "…")
    number = f"line {len(lines)}: " if len(lines) > 1 else ""
    return f"\n  {number}{before}{behind}\n  {' ' * (len(number) + _width(before))}^"


def _visible(text: str) -> str:
    """Return `text` as a terminal shows it. A terminal never obeys it."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "·" for char in text)


def _width(text: str) -> int:
    """Return how many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    import unicodedata  # only such an error needs it

    def width(char: str) -> int:
        if unicodedata.category(char) in ("Mn", "Me"):
            return 0
        return 2 if unicodedata.east_asian_width(char) in "WF" else 1

    return sum(map(width, text))
