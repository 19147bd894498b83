"""Statements that insert, update and delete rows."""

from dataclasses import replace

from tests.sqlite.differential.drawing import ROWIDS, Draw
from tests.sqlite.differential.schema import Column, Table
from tests.sqlite.differential.statements import Statement

ROWID = Column("rowid", "INTEGER", is_key=True)


def change(d: Draw) -> Statement:
    targets = [*d.schema.tables, *d.schema.tables, *d.schema.views]
    if not targets:
        return Statement("INSERT INTO missing VALUES (1)", changes=True)
    target = d.one(*targets)
    d.scope = [str(column) for column in target.columns]
    if target.kind == "virtual" and d.chance(10):
        return command(d, target)
    return d.weighted({insert: 6, update: 3, delete: 2})(d, target)


def _changing(d: Draw, sql: str, into: Table | None = None) -> Statement:
    statement = Statement(sql, d.params, changes=True, sees_rowid=d.uses_rowid)
    if into is None or not into.has_rowid:
        return statement
    return replace(statement, target=str(into), into=into.name, is_virtual=into.kind == "virtual")


# --- inserting ----------------------------------------------------------------------------


def insert(d: Draw, target: Table) -> Statement:
    verb = d.one("INSERT", "INSERT", "INSERT", "REPLACE", "INSERT OR {conflict}", "INSERT OR {conflict}")
    head = f"{_cte(d)}{d.fill(verb)} INTO {target}"
    columns = d.some(target.written) if target.written and d.chance(60) else target.written
    if not columns or d.chance(4):
        return _changing(d, f"{head} DEFAULT VALUES{_returning(d, target)}", target)
    if d.chance(15):
        rows = _selected(d, target, columns)
    else:
        if target.has_rowid and target.key is None and d.chance(10):
            columns = [ROWID, *columns]
        lines = [", ".join(map(d.value_for, columns)) for _ in range(d.one(1, 1, 2, 2, 3))]
        rows = "VALUES " + ", ".join(f"({line})" for line in lines)
    upsert = _upsert(d, target) if target.kind == "table" and d.chance(20) else ""
    names = ", ".join(map(str, columns))
    return _changing(d, f"{head}({names}) {rows}{upsert}{_returning(d, target)}", target)


def _cte(d: Draw) -> str:
    return d.fill("WITH k(x) AS (SELECT {v}) ") if d.chance(5) else ""


def _selected(d: Draw, target: Table, columns: list[Column]) -> str:
    source = d.source()
    if source is None or not source.columns or d.chance(30):
        return f"SELECT {', '.join(map(d.value_for, columns))} WHERE 1"
    scope, d.scope = d.scope, [str(column) for column in source.columns]
    if target.key is None:
        picked = [d.one(*d.scope) if d.chance(70) else d.expression() for _ in columns]
    else:  # small numbers: a key may be the rowid
        picked = [f"length(quote({d.one(*d.scope)})) % 9" for _ in columns]
    order = "1, 2" if len(columns) > 1 else "1"
    text = f"SELECT {', '.join(picked)} FROM {source} {d.where()} ORDER BY {order} LIMIT 3"
    d.scope = scope
    return text


def _upsert(d: Draw, target: Table) -> str:
    keys = [column for column in target.columns if column.is_key] or target.columns
    goal = f" ({d.one(*(keys if d.chance(75) else target.columns))})" if d.chance(60) else ""
    if d.chance(30) or not target.written:
        return f" ON CONFLICT{goal} DO NOTHING"
    column = d.one(*target.written)
    if column.is_key:
        value = d.value(ROWIDS)
    else:
        value = d.value_for(column) if d.chance(30) else d.one(f"excluded.{column}", f"{column} + 1")
    return f" ON CONFLICT{goal} DO UPDATE SET {column} = {value} {d.where(30)}"


def _returning(d: Draw, target: Table) -> str:
    if target.kind == "virtual" or not d.chance(20):
        return ""
    names = ["*", *d.scope, *(["rowid AS r"] if target.has_rowid else [])]
    return " RETURNING " + ", ".join(d.expression() if d.chance(30) else d.one(*names) for _ in range(d.number(1, 2)))


def command(d: Draw, target: Table) -> Statement:
    """Give a command to a search index, in place of a row. SQLite says that the rowid is 0."""
    text = d.one("optimize", "rebuild", "integrity-check", "nonsense")
    return _changing(d, f"INSERT INTO {target}({target}) VALUES ('{text}')", target)


# --- updating and deleting ----------------------------------------------------------------


def update(d: Draw, target: Table) -> Statement:
    head = f"{_cte(d)}{d.fill(d.one('UPDATE', 'UPDATE', 'UPDATE OR {conflict}'))} {target}"
    if not target.written:
        return Statement(f"UPDATE {target} SET a = 1", changes=True)
    sets = ", ".join(_set(d, target) for _ in range(d.one(1, 1, 2)))
    others = [table for table in d.schema.tables if table.columns]
    if others and target.kind == "table" and d.chance(15):
        other = d.one(*others)
        counted = f"(SELECT typeof({d.one(*other.columns)}) AS k, count(*) AS n FROM {other} GROUP BY 1) AS o"
        where = f"FROM {counted} WHERE o.k = typeof({target}.{d.one(*target.columns)})"
    else:
        where = d.where(70)
    return _changing(d, f"{head} SET {sets} {where}{_returning(d, target)}")


def _set(d: Draw, target: Table) -> str:
    column = d.one(*target.written)
    if column.is_key:
        return f"{column} = {d.value(ROWIDS[3:])}"
    return f"{column} = {d.value_for(column) if d.chance(60) else d.expression()}"


def delete(d: Draw, target: Table) -> Statement:
    text = f"{_cte(d)}DELETE FROM {target} {d.where(85)}{_returning(d, target)}"
    limit = " ORDER BY 1 LIMIT 1" if d.chance(2) else ""  # a syntax error, unless SQLite is built with it
    return _changing(d, text + limit)
