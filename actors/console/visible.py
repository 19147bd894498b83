"""Values as text that a terminal shows and never obeys."""

import os
from typing import Any, Final

__all__ = ["cell", "escaped", "is_dumb_terminal", "is_number", "visible"]

_PICTURES: Final = {code: 0x2400 + code for code in range(32)} | {0x7F: 0x2421}
_SHORT = 8  # bytes of a blob that are shown in full


def is_dumb_terminal() -> bool:
    """Say whether the terminal obeys no escape sequences, so that none may be written to it."""
    return (os.environ.get("TERM") or "dumb") == "dumb"


def visible(text: str) -> str:
    """Return `text` on one line; a picture or an escape replaces an unprinted character."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _seen(char) for char in text)


def _seen(char: str) -> str:
    picture = _PICTURES.get(ord(char))
    return chr(picture) if picture is not None else escaped(char)


def escaped(char: str) -> str:
    """Return a character as an escape of Python."""
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def cell(value: Any, most: int) -> str:
    """Return a value as it stands in a table, made of at most `most` of its characters."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'" if len(value) <= _SHORT else f"<{len(value):,} bytes>"
    if isinstance(value, str):
        return visible(value[:most])
    return visible(str(value)[:most])


def is_number(value: Any) -> bool:
    """Say whether a value stands to the right in its column."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
