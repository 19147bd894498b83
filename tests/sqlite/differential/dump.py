"""The whole content of a database: its schema and the rows of all tables."""

from collections.abc import Callable
from typing import Any

import apsw

Rows = list[tuple[Any, ...]]

CERTAIN = "tbl NOT IN (SELECT name FROM pragma_table_list WHERE type = 'shadow')"
"""The number of rows inside of a search index depends on the commits between its changes."""


def dump(ask: Callable[[str], Rows], *, connections_own: bool) -> dict[str, Any]:
    """Return the rows that `ask` finds, by the SQL that it ran.

    Args:
        ask: returns the rows of a statement.
        connections_own: whether to include temporary and attached databases.
    """
    found = _dump(ask, "main")
    if connections_own:
        found |= _dump(ask, "temp")
        for (schema,) in ask("SELECT name FROM pragma_database_list WHERE seq > 1"):
            found |= _dump(ask, schema)
    return found


def _dump(ask: Callable[[str], Rows], schema: str) -> dict[str, Any]:
    texts = [
        f"SELECT type, name, tbl_name, sql FROM {schema}.sqlite_schema ORDER BY type, name",
        f"PRAGMA {schema}.user_version",
        f"PRAGMA {schema}.application_id",
        f"SELECT name, type, wr, strict FROM pragma_table_list WHERE schema = '{schema}' ORDER BY name",
    ]
    found: dict[str, Any] = {sql: ask(sql) for sql in texts}
    for name, kind, without_rowid, _ in found[texts[-1]]:
        quoted = '"' + name.replace('"', '""') + '"'
        if kind == "virtual":
            texts = [
                f"SELECT rowid, * FROM {schema}.{quoted} ORDER BY rowid",
                f"SELECT rowid FROM {schema}.{quoted}('a OR b OR one') ORDER BY rowid",
            ]
        elif kind == "table" and not name.endswith(("_schema", "_stat4")):
            columns, order = ("*", "") if without_rowid else ("rowid, *", " ORDER BY rowid")
            where = f" WHERE {CERTAIN}" if name == "sqlite_stat1" else ""
            texts = [f"SELECT {columns} FROM {schema}.{quoted}{where}{order}"]
        else:
            continue
        for sql in texts:
            found[sql] = _rows(ask, sql)
    return found


def _rows(ask: Callable[[str], Rows], sql: str) -> Any:
    try:
        return ask(sql)
    except (apsw.Error, ValueError) as error:  # invalid UTF-8, or a generated column that raises
        return type(error).__name__
