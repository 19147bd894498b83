"""Writes of one statement that change rows: inserts, updates, deletes, upserts."""

from tests.stress.truth import called
from tests.stress.truth.file import File
from tests.stress.truth.write import Order, Query, Write, counts, returned

__all__ = ["ROWS"]

_SELECT = "INSERT INTO written(number, part) SELECT ?, i - 1 FROM seed WHERE i <= ?"
_COMPUTED = "(SELECT sum(length(word)) FROM seed WHERE i < 8000)"


def _select(rows: int) -> Write:
    name = f"insert, {rows:,} rows"
    return Write(name, rows, lambda order: order.query(_SELECT, order.number, rows), is_right=counts(rows))


_HIDDEN = Write(
    "insert behind WITH",
    2000,
    lambda order: order.query(
        "WITH n AS (SELECT i - 1 AS part FROM seed WHERE i <= 2000) INSERT INTO written(number, part) "
        "SELECT ?, part FROM n",
        order.number,
    ),
    is_right=counts(2000),
)


_LARGE_PARAMETER = Write(
    "insert, large parameter",
    1,
    lambda order: order.query(
        "INSERT INTO written(number, part, payload) VALUES (?, 0, length(?))", order.number, bytes(500_000)
    ),
    is_right=counts(1),
)


def _returning(rows: int, what: str, name: str) -> Write:
    sql = f"{_SELECT} RETURNING {what}"
    return Write(name, rows, lambda order: order.query(sql, order.number, rows), is_right=returned(rows))


def _many(rows: int, returning: str = "") -> Write:
    def make(order: Order) -> Query:
        params = [(order.number, part) for part in range(rows)]
        return Query(called.INSERT + returning + order.text, timeout=order.timeout, many=params)

    right = returned(rows) if returning else counts(rows)
    return Write(f"many{returning.lower().replace(' *', '')}", rows, make, is_right=right)


_LIMITED = Write(
    "returning, max_rows",
    2000,
    lambda order: Query(f"{_SELECT} RETURNING *{order.text}", (order.number, 2000), order.timeout, max_rows=100),
    is_right=returned(100),
)
_LONE = Write(
    "insert",
    1,
    lambda order: order.query(
        f"INSERT INTO written(number, part, payload) VALUES (?, 0, {_COMPUTED})",
        order.number,
    ),
    is_right=counts(1),
)

# --- rows that are there before -----------------------------------------------------------

_KEPT, _CHILDREN, _COUNTED = 600, 400, 1000


def _logged(file: File, number: int) -> int:
    return int(file.value("SELECT count(*) FROM log WHERE number = ?", number))


def _changed(file: File, number: int) -> int:
    return int(file.value("SELECT sum(changes) FROM kept WHERE number = ?", number)) + _logged(file, number)


_UPDATE = Write(
    "update, triggers",
    2 * _KEPT,
    lambda order: order.query("UPDATE kept SET changes = changes + 1 WHERE number = ?", order.number),
    lambda file, number: file.execute(
        "INSERT INTO kept(number, part) SELECT ?, i FROM seed WHERE i <= ?", (number, _KEPT)
    ),
    _changed,
    is_right=counts(_KEPT),
)


def _make_family(file: File, number: int) -> None:
    file.execute("INSERT INTO parent(number) VALUES (?)", (number,))
    file.execute("INSERT INTO child(number, part) SELECT ?, i FROM seed WHERE i <= ?", (number, _CHILDREN))


def _gone(file: File, number: int) -> int:
    left = sum(file.value(f"SELECT count(*) FROM {table} WHERE number = ?", number) for table in ("parent", "child"))
    return 1 + _CHILDREN - int(left) + _logged(file, number)


_DELETE = Write(
    "delete, cascades",
    2 * (1 + _CHILDREN),
    lambda order: order.query("DELETE FROM parent WHERE number = ?", order.number),
    _make_family,
    _gone,
    is_right=counts(1),
)

_UPSERT = Write(
    "upsert",
    _COUNTED,
    lambda order: order.query(
        "INSERT INTO counted(number, part, times) SELECT ?, i, 1 FROM seed WHERE i <= ? "
        "ON CONFLICT(number, part) DO UPDATE SET times = times + 1",
        *(order.number, _COUNTED),
    ),
    lambda file, number: file.execute(
        "INSERT INTO counted(number, part, times) SELECT ?, i, 0 FROM seed WHERE i <= ? AND i % 2", (number, _COUNTED)
    ),
    lambda file, number: file.value("SELECT coalesce(sum(times), 0) FROM counted WHERE number = ?", number),
    is_right=counts(_COUNTED),
)

# --- full text ----------------------------------------------------------------------------

_WORDS = 250


def _indexed(file: File, number: int) -> int:
    """Count the rows that the index leads to, and those among them that hold the number."""
    return int(
        file.value(
            "SELECT count(*) + coalesce(sum(number = ?), 0) FROM words WHERE words MATCH ?", number, f"n{number}"
        )
    )


_FULL_TEXT = Write(
    "full text",
    2 * _WORDS,
    lambda order: order.query(
        "INSERT INTO words(number, body) SELECT ?, word || ' n' || ?1 FROM seed WHERE i <= ?2", order.number, _WORDS
    ),
    found=_indexed,
    is_right=counts(_WORDS),
)

ROWS = [
    _LONE,
    _select(3000),
    _select(22_000),
    _HIDDEN,
    _LARGE_PARAMETER,
    _returning(2000, "*", "returning"),
    _returning(20_000, "part", "returning 20,000 rows"),
    _returning(20, "part, zeroblob(60000)", "returning blobs"),
    _LIMITED,
    _many(400),
    _many(300, " RETURNING *"),
    _UPDATE,
    _DELETE,
    _UPSERT,
    _FULL_TEXT,
]
"""Kinds of `Query` that can share a commit."""
