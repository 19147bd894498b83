"""How the text of a statement begins, and whether the statement may change its session."""

import re
from typing import Final

__all__ = ["commits_inside", "ends_transaction", "is_copy", "leaves_session_clean"]

_BLANK: Final = re.compile(r"(?:\s+|--[^\n]*(?:\n|\Z))+")
_WORD: Final = re.compile(r"[a-z_]+", re.IGNORECASE)
_CLEAN: Final = frozenset({"select", "insert", "update", "delete", "merge", "values", "table", "with"})
"""Statements that change no setting and run in every transaction."""
_CHANGES: Final = re.compile(r"set_config|pg_settings|setseed|advisory|\btemp\b|\btemporary\b|pg_temp", re.IGNORECASE)
"""Words in a statement that may change its session: a setting, a lock, a temporary table."""
_ENDS: Final = re.compile(
    r"(?:begin|start|commit|end|abort|prepare\s+transaction|rollback(?!\s+(?:work\s+|transaction\s+)?to\b))\b",
    re.IGNORECASE,
)
_COMMITTING: Final = frozenset({"call", "do", "vacuum", "reindex", "cluster"})
_STREAMED_COPY: Final = re.compile(
    r"\b(?:from|to)(?:\s|--[^\n]*\n|/\*.*?\*/)+std(?:in|out)\b", re.IGNORECASE | re.DOTALL
)


def _start(sql: str) -> int:
    """Return the place at which the first word stands, behind blanks, comments and parentheses."""
    place, end = 0, len(sql)
    while place < end:
        blank = _BLANK.match(sql, place)
        if blank is not None:
            place = blank.end()
        elif sql.startswith("/*", place):
            place = _behind_comment(sql, place)
        elif sql[place] == "(":
            place += 1
        else:
            break
    return place


def _behind_comment(sql: str, place: int) -> int:
    """Return the place behind a comment, which may hold other comments."""
    depth = 0
    for mark in re.compile(r"/\*|\*/").finditer(sql, place):
        depth += 1 if mark.group() == "/*" else -1
        if not depth:
            return mark.end()
    return len(sql)


def _first_word(sql: str) -> str:
    word = _WORD.match(sql, _start(sql))
    return "" if word is None else word.group().lower()


def leaves_session_clean(sql: str) -> bool:
    """Say whether a statement surely leaves its session as it was: settings, locks, tables.

    A function that the statement calls may still change the session. Only the text is read.
    """
    return _first_word(sql) in _CLEAN and _CHANGES.search(sql) is None


def commits_inside(sql: str) -> bool:
    """Say whether a statement may commit a part of its work before its end."""
    return _first_word(sql) in _COMMITTING


def ends_transaction(sql: str) -> bool:
    """Say whether a statement begins or ends a transaction. Savepoints do not."""
    return _ENDS.match(sql, _start(sql)) is not None


def is_copy(sql: str) -> bool:
    """Say whether a statement copies rows from the client or to the client."""
    return _first_word(sql) == "copy" and _STREAMED_COPY.search(sql) is not None
