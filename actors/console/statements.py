"""SQL as text: where a statement ends, its kind, and the place of an error."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import apsw

__all__ = [
    "KEYWORDS",
    "Place",
    "Statement",
    "first_word",
    "for_background",
    "gives_rows",
    "is_complete",
    "only_reads",
    "place_of",
    "placeholders",
    "split",
    "without_comments",
]

KEYWORDS: Final = tuple(apsw.keywords)
"""Every keyword of this SQLite, in capital letters."""

_BLANK = re.compile(r"(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]+")
_READING = ("select", "values", "with", "explain", "pragma")
_WRITES = re.compile(r"\b(insert|update|delete|replace)\b", re.IGNORECASE)
_RETURNING = re.compile(r"\breturning\b", re.IGNORECASE)
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", re.DOTALL)
_DOLLARS = r"\$(\w*)\$.*?(?:\$\1\$|\Z)"  # quotes of PostgreSQL and DuckDB
_TOKEN = re.compile(
    _DOLLARS + r"|'[^']*(?:'|\Z)|\"[^\"]*(?:\"|\Z)|`[^`]*(?:`|\Z)|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|\Z)|;", re.DOTALL
)
"""A semicolon, or a text in which a semicolon ends nothing."""
_TRIGGER = re.compile(r"create\s+(temp(orary)?\s+)?trigger\b", re.IGNORECASE)
_HEAD = 2000  # characters in which the first words of a statement stand
_NEAR = re.compile(r'near "(.+)": syntax error|: (?:.*\.)?(\S+)$', re.DOTALL)
_AROUND = 60  # characters of a line of SQL that an error shows


class Statement(NamedTuple):
    """One statement of a text."""

    sql: str
    start: int
    """The index of its first character in the text."""
    begin: int
    """The index behind the statement before it, from which SQLite counts in a script."""


class Place(NamedTuple):
    """A place in a text of SQL."""

    line: int
    """Counted from 1."""
    column: int
    """Counted from 1, in characters."""
    text: str
    """The line, or the part of it around the place."""
    at: int
    """The index of the place in that part."""


def split(text: str) -> Iterator[Statement]:
    """Return the statements of a text one by one; comments and empty statements are left out."""
    start = 0
    for token in _TOKEN.finditer(text):
        if token.group() != ";":
            continue
        # Only a trigger has semicolons of its own, and SQLite itself knows where it ends.
        if not _TRIGGER.match(without_comments(text[start : start + _HEAD])) or apsw.complete(
            text[start : token.end()]
        ):
            yield from _statement(text, start, token.end())
            start = token.end()
    yield from _statement(text, start, len(text))


def _statement(text: str, start: int, end: int) -> Iterator[Statement]:
    blank = _BLANK.match(text, start, end)
    begin = start if blank is None else blank.end()
    sql = text[begin:end].rstrip()
    if sql.rstrip(";").strip():
        yield Statement(sql, begin, start)


def first_word(sql: str) -> str:
    """Return the first word behind comments, in small letters; an empty text if there is none."""
    blank = _BLANK.match(sql)
    word = _WORD.match(sql, 0 if blank is None else blank.end())
    return "" if word is None else word.group().lower()


def without_comments(sql: str) -> str:
    """Return a text without the comments and the space before its first word."""
    blank = _BLANK.match(sql)
    return sql if blank is None else sql[blank.end() :]


def for_background(text: str) -> str | None:
    """Return the text in front of an `&` at its end; `None` if no `&` stands there."""
    if not text.rstrip().endswith("&") or not _QUOTED.sub(" ", text).rstrip().endswith("&"):
        return None
    before = text.rstrip()[:-1].rstrip()
    return before if is_complete(before) else None


def only_reads(sql: str) -> bool:
    """Say whether a statement is a query by its words. The database has the last word."""
    word = first_word(sql)
    return word in _READING and not (word == "with" and _WRITES.search(_QUOTED.sub("", sql)))


def gives_rows(sql: str) -> bool:
    """Say whether a statement may give rows."""
    word = first_word(sql)
    if word == "pragma":
        return "=" not in sql
    return word in _READING or bool(_RETURNING.search(_QUOTED.sub("", sql)))


def placeholders(sql: str) -> list[str]:
    """Return the names of the parameters `:name` of a statement."""
    return list(dict.fromkeys(re.findall(r":([A-Za-z_]\w*)", _QUOTED.sub(" ", sql))))


def is_complete(sql: str) -> bool:
    """Say whether no quote, comment, parenthesis or trigger is open at the end of a text."""
    if _TRIGGER.match(without_comments(sql)):
        return apsw.complete(sql)
    rest = _QUOTED.sub("", sql)
    return not re.search(r"['\"`]|/\*", rest) and rest.count("(") <= rest.count(")")


def place_of(error: BaseException, text: str, statements: list[Statement]) -> Place | None:
    """Return the place in `text` that SQLite has reported with `error`, if it has.

    SQLite counts bytes from the beginning of the statement that failed. An error of a script does
    not say which statement that was. The statement is found by its text: the message repeats the
    text at the place. If several statements have this text there, no place is returned.
    """
    offset = getattr(error, "error_offset", None)
    if not isinstance(offset, int) or offset < 0:
        return None
    if len(statements) == 1:
        index = _index(text, statements[0].start, offset)
        return _place(text, index) if index <= len(text) else None
    found = _NEAR.search(str(error))
    if found is None:
        return None
    word = found.group(1) or found.group(2)
    # Whether the space before a statement counts depends on how the driver came to it.
    places = {
        index
        for statement in statements
        for origin in (statement.begin, statement.start)
        if statement.start <= (index := _index(text, origin, offset)) < statement.start + len(statement.sql)
        and text.startswith(word, index)
    }
    return _place(text, places.pop()) if len(places) == 1 else None


def _index(text: str, start: int, offset: int) -> int:
    """Return the index of the character that stands so many bytes behind `start`."""
    # Each character has one byte or more, so this is enough of the text.
    encoded = text[start : start + offset].encode("utf-8", "surrogatepass")
    return start + len(encoded[:offset].decode("utf-8", "replace"))


def _place(text: str, index: int) -> Place:
    begin = text.rfind("\n", 0, index) + 1
    end = text.find("\n", index)
    line = text[begin : len(text) if end < 0 else end]
    column = index - begin
    cut = max(0, column - _AROUND // 2)
    return Place(text.count("\n", 0, index) + 1, column + 1, line[cut : cut + _AROUND].rstrip(), column - cut)
