"""Statements that make indexes, views and triggers."""

from tests.sqlite.differential.drawing import Draw
from tests.sqlite.differential.schema import quoted
from tests.sqlite.differential.statements import Statement

VIEWS, INDEXES, TRIGGERS = ("v", "v2"), ("i", "i2", "i3"), ("g", "g2", "g3", "g4")


def create_index(d: Draw) -> Statement:
    table = d.one(*d.schema.tables)
    names = [str(column) for column in table.columns]
    terms = [
        d.of_schema(names, d.one("{c}", "{c}", "{c}", "{x}")) + d.one("", "", " DESC", " COLLATE NOCASE")
        for _ in range(d.number(1, 2))
    ]
    where = d.of_schema(names, "WHERE {b}") if d.chance(25) else ""
    head = f"CREATE {d.one('', '', 'UNIQUE ')}INDEX {d.one('', '', 'IF NOT EXISTS ')}"
    place = "" if table.schema == "main" and not table.is_hidden else f"{table.schema}."
    return Statement(f"{head}{place}{d.one(*INDEXES)} ON {quoted(table.name)} ({', '.join(terms)}) {where}")


def create_view(d: Draw, place: str = "") -> Statement:
    source = d.one(*d.schema.tables, *d.schema.views)
    d.scope, d.in_schema = [str(column) for column in source.columns], True
    columns, names = d.one(("*", ""), (d.fill("{c}"), ""), (d.fill("{x}, {c}"), " (a, b)"))
    taken = {table.name for table in d.schema.views}
    name = d.one(*([name for name in VIEWS if name not in taken] or VIEWS))
    return Statement(f"CREATE {place} VIEW {name}{names} AS SELECT {columns} FROM {source} {d.where(40)}")


def create_trigger(d: Draw, place: str = "") -> Statement:
    on = d.one(*(d.schema.views if d.schema.views and d.chance(40) else d.schema.tables))
    time = "INSTEAD OF" if on.kind == "view" else d.one("BEFORE", "AFTER", "AFTER")
    event = d.one("INSERT", "UPDATE", "DELETE", *(f"UPDATE OF {column}" for column in on.columns[:1]))
    rows = (["old"] if event != "INSERT" else []) + (["new"] if event != "DELETE" else [])
    scope = [f"{row}.{column}" for row in rows for column in on.columns]
    when = d.of_schema(scope, "WHEN {b}") if d.chance(30) else ""
    # Other triggers may see the rowid of an earlier request, unless all requests share one
    # connection.
    sees_rowid = d.in_memory or (event == "INSERT" and time == "AFTER" and on.kind == "table" and on.has_rowid)
    body = " ".join(f"{_deed(d, scope, sees_rowid=sees_rowid)};" for _ in range(d.one(1, 1, 2)))
    head = f"CREATE {place} TRIGGER {d.one('', '', 'IF NOT EXISTS ')}{d.one(*TRIGGERS)}"
    return Statement(f"{head} {time} {event} ON {on} {when} BEGIN {body} END")


def _deed(d: Draw, scope: list[str], *, sees_rowid: bool) -> str:
    """Return one statement of a trigger."""
    others = [table for table in d.schema.tables if table.schema == "main" and table.written and table.kind == "table"]
    kind = d.weighted({"raise": 2, "log": 4, "insert": 3, "update": 2, "delete": 1, "rowid": 3 if sees_rowid else 0})
    if kind == "raise":
        how = d.one("IGNORE", "ABORT, 'stop'", "FAIL, 'stop'", "ROLLBACK, 'stop'")
        return d.of_schema(scope, f"SELECT raise({how}) WHERE {{c}} > {{v}}")
    if kind == "rowid":
        return "INSERT INTO log(what, at) VALUES ('rowid', last_insert_rowid())"
    if kind == "log" or not others:
        return d.of_schema(scope, "INSERT INTO log(what, at) VALUES ({x}, {c})")
    other = d.one(*others)
    name, column = quoted(other.name), d.one(*other.written)
    value = "NULL" if column.is_key else "{c}"
    if kind == "insert":
        verb = d.one("INSERT", "INSERT OR IGNORE", "REPLACE")
        return d.of_schema(scope, f"{verb} INTO {name}({column}) VALUES ({value})")
    if kind == "update":
        return d.of_schema(scope, f"UPDATE {name} SET {column} = {value} WHERE {{b}}")
    return d.of_schema(scope, f"DELETE FROM {name} WHERE {column} = {{c}}")
