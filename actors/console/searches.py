"""The slow searches of the demo. Each reads the whole table once, slice by slice.

`gauge(slot, slice)` in each search reports its progress.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["DOOMED", "MAKE_SLICES", "SEARCHES", "SLICES", "Search"]

SLICES: Final = 64
"""How many slices `MAKE_SLICES` makes."""

MAKE_SLICES: Final = """
CREATE TABLE slices (number INTEGER PRIMARY KEY, low INTEGER NOT NULL, high INTEGER NOT NULL);
INSERT INTO slices SELECT tile, min(code), max(code)
FROM (SELECT code, ntile(64) OVER (ORDER BY code) AS tile FROM characters) GROUP BY tile
"""

# The beginning of every search: the slices are the outermost loop, and the gauge is read once for
# each of them.
_EACH = "slices CROSS JOIN characters AS it ON it.code BETWEEN low AND high AND gauge(:slot, slices.number)"


@dataclass(frozen=True, slots=True)
class Search:
    """A query on the table of characters."""

    title: str
    """The name of the search."""
    slot: int
    """The gauge that shows its progress: the number of the slice that it reads."""
    sql: str
    """Returns one row with one text, or no row."""


def _search(title: str, slot: int, sql: str) -> Search:
    return Search(title, slot, " ".join(sql.replace("EACH", _EACH).replace(":slot", str(slot)).split()))


DOOMED: Final = _search(
    # All triples of names take years, and minutes on the fewest characters. The plus sign forbids
    # an index. The demo kills the worker of this search.
    "names made of two names",
    1,
    """
    SELECT count(*) FROM EACH CROSS JOIN characters AS other CROSS JOIN characters AS both
    ON +both.name = it.name || ' ' || other.name
    """,
)

SEARCHES: Final = (
    _search(
        "the commonest letters",
        2,
        """
        WITH RECURSIVE positions(at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM positions WHERE at < 88)
        SELECT group_concat(letter, ' ') FROM (
            SELECT substr(name, at, 1) AS letter FROM EACH CROSS JOIN positions
            WHERE at <= length(name) AND letter BETWEEN 'A' AND 'Z'
            GROUP BY letter ORDER BY count(*) DESC, letter LIMIT 5)
        """,
    ),
    _search(
        "the animal in most names",
        3,
        """
        SELECT printf('%s, in %,d names', animal.name, count(*)) FROM EACH CROSS JOIN characters AS animal
        ON it.name LIKE '%' || animal.name || '%' WHERE animal.code BETWEEN 0x1F400 AND 0x1F43F
        GROUP BY animal.code ORDER BY count(*) DESC, animal.code LIMIT 1
        """,
    ),
    _search(
        "the best beginning",
        4,
        """
        WITH short(name) AS MATERIALIZED (SELECT name FROM characters WHERE length(name) <= 5)
        SELECT printf('%s, of %,d names', short.name, count(*)) FROM EACH CROSS JOIN short
        ON it.name GLOB short.name || '?*' GROUP BY short.name ORDER BY count(*) DESC, short.name LIMIT 1
        """,
    ),
    _search(
        "the most used part",
        5,
        """
        SELECT printf('%s, in %,d others', part.name, count(*)) FROM EACH CROSS JOIN characters AS part
        ON ' ' || it.decomposition || ' ' LIKE '% ' || printf('%04X', part.code) || ' %'
        WHERE it.decomposition <> '' AND part.code < 0x80
        GROUP BY part.code ORDER BY count(*) DESC, part.code LIMIT 1
        """,
    ),
    _search(
        "LEFT and RIGHT twins",
        6,
        """
        WITH twins(name) AS MATERIALIZED (
            SELECT replace(name, 'LEFT', 'RIGHT') FROM characters WHERE mirrored AND name LIKE '%LEFT%')
        SELECT printf('%,d pairs', count(*)) FROM EACH CROSS JOIN twins ON it.name LIKE twins.name
        """,
    ),
    _search(
        "a letter four times",
        7,
        """
        WITH RECURSIVE letters(letter) AS (
            SELECT 'A' UNION ALL SELECT char(unicode(letter) + 1) FROM letters WHERE letter < 'Z')
        SELECT printf('%s, in %,d names', letter, count(*)) FROM EACH CROSS JOIN letters
        ON it.name GLOB replace('*?*?*?*?*', '?', letter) GROUP BY letter ORDER BY count(*) DESC, letter LIMIT 1
        """,
    ),
    _search(
        "the most varied name",
        8,
        """
        WITH RECURSIVE positions(at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM positions WHERE at < 88)
        SELECT name FROM EACH CROSS JOIN positions ON at <= length(name) AND name NOT GLOB 'CJK *'
        GROUP BY it.code ORDER BY count(DISTINCT substr(name, at, 1)) DESC, length(name), name LIMIT 1
        """,
    ),
    _search(
        "the best hidden number",
        9,
        """
        WITH numbers(word) AS (VALUES ('ONE'), ('TWO'), ('THREE'), ('FOUR'), ('FIVE'), ('SIX'), ('SEVEN'), ('EIGHT'),
            ('NINE'), ('TEN'), ('ELEVEN'), ('TWELVE'), ('TWENTY'), ('THIRTY'), ('FORTY'), ('FIFTY'), ('HUNDRED'))
        SELECT printf('%s, in %,d names', word, count(*)) FROM EACH CROSS JOIN numbers
        ON it.name LIKE '%' || word || '%' AND ' ' || it.name || ' ' NOT LIKE '% ' || word || ' %'
        GROUP BY word ORDER BY count(*) DESC, word LIMIT 1
        """,
    ),
)
