"""The Unicode character database, which is a part of Python, as rows for a table."""

import sys
import unicodedata
from typing import Any, Final

__all__ = ["CREATE", "INSERT", "VERSION", "named_codes", "row"]

VERSION: Final = unicodedata.unidata_version

CREATE: Final = """
CREATE TABLE characters (
  code INTEGER PRIMARY KEY,
  character TEXT NOT NULL,
  name TEXT NOT NULL,
  category TEXT NOT NULL,
  bidirectional TEXT NOT NULL,
  decomposition TEXT NOT NULL,
  numeric REAL,
  combining INTEGER NOT NULL,
  mirrored INTEGER NOT NULL,
  east_asian_width TEXT NOT NULL
)"""

INSERT: Final = """
INSERT INTO characters
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4,
       value ->> 5, value ->> 6, value ->> 7, value ->> 8, value ->> 9
FROM json_each(?)"""
"""Takes any number of rows as one JSON array of arrays: one statement, and one transaction."""

# Beginnings of names that are made by a rule. Three quarters of all names are.
_BY_RULE = ("CJK ", "HANGUL SYLLABLE", "TANGUT ", "NUSHU ", "KHITAN ")


def named_codes() -> tuple[list[int], list[int]]:
    """Return the code points of all named characters.

    The first list has the names that people chose. The second has the names made by a rule.
    """
    own: list[int] = []
    by_rule: list[int] = []
    for code in range(sys.maxunicode + 1):
        name = unicodedata.name(chr(code), "")
        if name:
            (by_rule if name.startswith(_BY_RULE) else own).append(code)
    return own, by_rule


def row(code: int) -> tuple[Any, ...]:
    """Return the facts of `unicodedata` about a character, in the order of the table's columns."""
    character = chr(code)
    return (
        code,
        character,
        unicodedata.name(character),
        unicodedata.category(character),
        unicodedata.bidirectional(character),
        unicodedata.decomposition(character),
        unicodedata.numeric(character, None),
        unicodedata.combining(character),
        unicodedata.mirrored(character),
        unicodedata.east_asian_width(character),
    )
