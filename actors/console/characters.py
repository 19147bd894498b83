"""The Unicode character database, which is a part of Python, as rows for a table."""

import sys
import unicodedata
from typing import Any, Final

__all__ = ["ANIMALS", "CREATE", "INSERT", "VERSION", "named_codes", "row"]

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

ANIMALS: Final = range(0x1F400, 0x1F440)
"""The code points of the animals. All of them have names."""

# Beginnings of names that are made by a rule. Three quarters of all names are.
_BY_RULE = ("CJK ", "HANGUL SYLLABLE", "TANGUT ", "NUSHU ", "KHITAN ")


def named_codes() -> list[int]:
    """Return the code points of all named characters, in the order in which they are loaded.

    First come the animals, since searches ask for them. Then come the names that people chose, and
    then the names made by a rule.
    """
    animals: list[int] = []
    chosen: list[int] = []
    by_rule: list[int] = []
    for code in range(sys.maxunicode + 1):
        name = unicodedata.name(chr(code), "")
        if code in ANIMALS:
            animals.append(code)
        elif name:
            (by_rule if name.startswith(_BY_RULE) else chosen).append(code)
    return animals + chosen + by_rule


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
