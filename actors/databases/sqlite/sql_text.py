"""The text of SQL: blank parts, the first word of a statement, and the statements of a script."""

import re
from collections.abc import Iterator
from typing import Final

import apsw

__all__ = ["changes_rows", "is_blank", "statements_of"]

# These patterns are compiled at their first use, since an import must stay short.
# White space, semicolons and comments. The group is atomic: with backtracking, a comment could
# swallow the statement behind the comment.
_BLANK: Final = r"(?>[ \t\n\f\r\ufeff;]+|--[^\n]*|/\*(?s:.*?)(?:\*/|\Z))*"
# The beginning of a statement that changes rows. `WITH` may also begin a statement that reads.
_CHANGES_ROWS: Final = _BLANK + r"(?i:INSERT|REPLACE|UPDATE|DELETE|WITH)\b"
# Text in which a semicolon ends nothing, or a semicolon that may end a statement.
_SEMICOLON: Final = (
    r"'[^']*(?:'|\Z)|\"[^\"]*(?:\"|\Z)|`[^`]*(?:`|\Z)|\[[^\]]*(?:\]|\Z)|--[^\n]*|/\*(?s:.*?)(?:\*/|\Z)|;"
)


def is_blank(sql: str) -> bool:
    """Say whether SQLite finds nothing but white space, semicolons and comments in `sql`."""
    return re.fullmatch(_BLANK, sql) is not None


def changes_rows(sql: str) -> bool:
    """Say whether a statement begins like a statement that changes rows.

    A query that begins with `WITH` does so, too.
    """
    return re.match(_CHANGES_ROWS, sql) is not None


def statements_of(script: str) -> Iterator[str]:
    """Yield the statements of a script, each with its semicolon. SQLite finds the end of each."""
    begin, first = 0, _after_blank(script, 0)
    for found in re.finditer(_SEMICOLON, script):
        end = found.end()
        if found[0] != ";" or end <= first:
            continue
        # `apsw.complete` takes a byte order mark for a part of the first word, so `first` is used.
        # It refuses a null character.
        if apsw.complete(script[first:end].replace("\0", " ")):
            yield script[begin:end]
            begin, first = end, _after_blank(script, end)
    if first < len(script):
        yield script[begin:]


def _after_blank(sql: str, begin: int) -> int:
    found = re.compile(_BLANK).match(sql, begin)
    return begin if found is None else found.end()
