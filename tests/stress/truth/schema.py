"""Writes that change the schema, or the file as a whole: tables, indexes, pragmas, VACUUM."""

from collections.abc import Callable

from tests.stress.truth.file import File
from tests.stress.truth.write import Write

__all__ = ["SCHEMA"]


def _make_table(name: str, rows: int) -> Callable[[File, int], object]:
    return lambda file, number: file.execute(
        f"CREATE TABLE {name}_{number} AS SELECT i, word FROM seed WHERE i <= {rows}"
    )


def _drop_table(name: str) -> Callable[[File, int], object]:
    return lambda file, number: file.execute(f"DROP TABLE IF EXISTS {name}_{number}")


def _exists(file: File, name: str) -> int:
    return int(file.value("SELECT count(*) FROM sqlite_schema WHERE name = ?", name))


def _made(file: File, number: int) -> int:
    return 1 + int(file.value(f"SELECT count(*) FROM made_{number}")) if _exists(file, f"made_{number}") else 0


_CREATE = Write(
    "create table as",
    4001,
    lambda order: order.query(f"CREATE TABLE made_{order.number} AS SELECT i, word FROM seed WHERE i <= 4000"),
    found=_made,
    clear=_drop_table("made"),
)
_INDEX = Write(
    "create index",
    1,
    lambda order: order.query(f"CREATE INDEX index_{order.number} ON indexed_{order.number}(word)"),
    _make_table("indexed", 4000),
    lambda file, number: _exists(file, f"index_{number}"),
    _drop_table("indexed"),
)
_ADD = Write(
    "add column",
    1,
    lambda order: order.query(
        f"ALTER TABLE widened_{order.number} ADD COLUMN added INTEGER NOT NULL DEFAULT 7 CHECK (added > i - 9000)"
    ),
    _make_table("widened", 4000),
    lambda file, number: file.value(
        "SELECT count(*) FROM pragma_table_info(?) WHERE name = 'added'", f"widened_{number}"
    ),
    _drop_table("widened"),
)
_DROP = Write(
    "drop table",
    1,
    lambda order: order.query(f"DROP TABLE dropped_{order.number}"),
    _make_table("dropped", 8000),
    lambda file, number: 1 - _exists(file, f"dropped_{number}"),
    _drop_table("dropped"),
)

# --- the file -----------------------------------------------------------------------------


def _leave_room(file: File, number: int) -> None:
    """Leave free pages in the file, for VACUUM to take away."""
    file.execute(f"CREATE TABLE room_{number}(blob)")
    file.execute(f"INSERT INTO room_{number} SELECT zeroblob(5000) FROM seed WHERE i <= 40")
    file.execute(f"DROP TABLE room_{number}")


_VERSION = Write(
    "user_version",
    1,
    lambda order: order.query(f"PRAGMA user_version = {order.number}"),
    found=lambda file, number: file.value("PRAGMA user_version") == number,
    is_sole=True,
)
_VACUUM = Write(
    "vacuum",
    1,
    lambda order: order.query("VACUUM"),
    _leave_room,
    lambda file, number: file.value("PRAGMA freelist_count") == 0,
    is_sole=True,
)

SCHEMA = [_CREATE, _INDEX, _ADD, _DROP, _VERSION, _VACUUM]
