"""The slow searches of the demo. Each reads the whole table many times and returns one line."""

from dataclasses import dataclass
from typing import Final

__all__ = ["DOOMED", "SEARCHES", "Search"]


@dataclass(frozen=True, slots=True)
class Search:
    """A query on the table of characters."""

    title: str
    """The name of the search."""
    sql: str
    """Returns one row with one text, or no row."""


DOOMED: Final = Search(
    "all pairs of names that are anagrams",
    # Billions of pairs, with a Python function for each: it would take hours. The demo kills it.
    "SELECT count(*) FROM characters AS a JOIN characters AS b ON a.code < b.code AND anagrams(a.name, b.name)",
)

SEARCHES: Final = (
    Search(
        "the most frequent letters in names",
        """
        WITH RECURSIVE positions(at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM positions WHERE at < 88)
        SELECT group_concat(letter, ', ') FROM (
            SELECT substr(name, at, 1) AS letter FROM positions JOIN characters ON at <= length(name)
            WHERE letter BETWEEN 'A' AND 'Z' GROUP BY letter ORDER BY count(*) DESC LIMIT 5)
        """,
    ),
    Search(
        "the animal hidden in the most other names",
        """
        SELECT printf('%s, in %,d names', animal.name, count(*)) FROM characters AS animal JOIN characters AS other
        ON other.name LIKE '%' || animal.name || '%' WHERE animal.code BETWEEN 0x1F400 AND 0x1F43F
        GROUP BY animal.code ORDER BY count(*) DESC LIMIT 1
        """,
    ),
    Search(
        "the short name with which the most others begin",
        """
        SELECT printf('%s, and %,d others', short.name, count(*)) FROM characters AS short JOIN characters AS long
        ON long.name GLOB short.name || '?*' WHERE length(short.name) <= 5
        GROUP BY short.code ORDER BY count(*) DESC LIMIT 1
        """,
    ),
    Search(
        "the most frequent part of other characters",
        """
        SELECT printf('%s, in %,d characters', part.name, count(*)) FROM characters AS part JOIN characters AS whole
        ON ' ' || whole.decomposition || ' ' LIKE '% ' || printf('%04X', part.code) || ' %'
        WHERE whole.decomposition <> '' AND part.code < 0x80
        GROUP BY part.code ORDER BY count(*) DESC LIMIT 1
        """,
    ),
    Search(
        "mirrored pairs of LEFT and RIGHT",
        """
        SELECT printf('%,d pairs', count(*)) FROM characters AS one JOIN characters AS other
        ON other.name LIKE replace(one.name, 'LEFT', 'RIGHT') WHERE one.mirrored AND one.name LIKE '%LEFT%'
        """,
    ),
    Search(
        "the letter that most names have four times",
        """
        WITH RECURSIVE letters(letter) AS (
            SELECT 'A' UNION ALL SELECT char(unicode(letter) + 1) FROM letters WHERE letter < 'Z')
        SELECT printf('%s, in %,d names', letter, count(*)) FROM letters JOIN characters
        ON name GLOB replace('*?*?*?*?*', '?', letter) GROUP BY letter ORDER BY count(*) DESC LIMIT 1
        """,
    ),
    Search(
        "the name with the most different letters",
        """
        WITH RECURSIVE positions(at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM positions WHERE at < 88)
        SELECT name FROM characters JOIN positions ON at <= length(name) AND name NOT GLOB 'CJK *'
        GROUP BY code ORDER BY count(DISTINCT substr(name, at, 1)) DESC, name LIMIT 1
        """,
    ),
    Search(
        "the number hidden in the most other words",
        """
        WITH numbers(word) AS (VALUES ('ONE'), ('TWO'), ('THREE'), ('FOUR'), ('FIVE'), ('SIX'), ('SEVEN'), ('EIGHT'),
            ('NINE'), ('TEN'), ('ELEVEN'), ('TWELVE'), ('TWENTY'), ('THIRTY'), ('FORTY'), ('FIFTY'), ('HUNDRED'))
        SELECT printf('%s, in %,d names', word, count(*)) FROM numbers JOIN characters
        ON name LIKE '%' || word || '%' AND ' ' || name || ' ' NOT LIKE '% ' || word || ' %'
        GROUP BY word ORDER BY count(*) DESC LIMIT 1
        """,
    ),
)
