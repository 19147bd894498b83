"""Statements that change the schema."""

from collections.abc import Callable

from tests.sqlite.differential.dependents import create_index, create_trigger, create_view
from tests.sqlite.differential.drawing import Draw
from tests.sqlite.differential.schema import Table, quoted
from tests.sqlite.differential.statements import Statement

TABLES = ("t", "u", "w", "two words", "t2")
COLUMNS = ("a", "b", "c", "d", "two words", 'q"t', "ä")
SEARCHED = ("f", "f2")


def define(d: Draw) -> Statement:
    if len(d.schema.tables) < 2:
        return d.weighted({create_table: 5, create_search: 1})(d)
    makers = {create_table: 4, create_index: 3, create_trigger: 4, create_view: 3, create_search: 1, alter: 8, drop: 3}
    if len(d.schema.tables) > 5:
        makers |= {create_table: 1, drop: 6}
    return d.weighted(makers)(d)


def temporary(d: Draw) -> Statement:
    """Make something that ends with the connection."""
    kind = d.weighted({"table": 5, "view": 2, "trigger": 2, "attached": 3})
    if kind == "table" or len(d.schema.tables) < 2:
        return create_table(d, d.one("TEMP TABLE ", "TABLE temp."))
    if kind != "attached":
        return create_view(d, "TEMP") if kind == "view" else create_trigger(d, "TEMP")
    if not d.schema.has_attached:
        return Statement("ATTACH ':memory:' AS aux")
    # In a transaction the attached database is locked: drawing a statement reads its schema.
    return create_table(d, "TABLE aux.") if d.in_transaction or d.chance(70) else Statement("DETACH aux")


# --- tables -------------------------------------------------------------------------------


def create_table(d: Draw, place: str = "TABLE ") -> Statement:
    head = f"CREATE {place.replace('TABLE ', d.one('TABLE ', 'TABLE ', 'TABLE IF NOT EXISTS '))}{_name(d, TABLES)}"
    source = d.source()
    if source is not None and source.columns and d.chance(8):
        d.scope, d.in_schema = [str(column) for column in source.columns], True
        columns = d.one("*", d.one(*d.scope), f"{d.expression()} AS a")
        return Statement(f"{head} AS SELECT {columns} FROM {source} {d.where(30)}")
    strict = d.chance(25)
    names = [quoted(name) for name in d.some(COLUMNS[: d.number(2, len(COLUMNS))])]
    key = d.weighted({"INTEGER PRIMARY KEY": 4, "INTEGER PRIMARY KEY AUTOINCREMENT": 1, "PRIMARY KEY": 1, "": 3})
    parts = [_key(d, names[0], key, strict=strict)] if key else [_column(d, names[0], names, strict=strict)]
    parts += [_column(d, name, names, strict=strict) for name in names[1:]]
    if d.chance(25):
        parts.append(_constraint(d, names, has_key=bool(key)))
    has_key = any("PRIMARY KEY" in part for part in parts)
    options = ["STRICT"] if strict else []
    options += ["WITHOUT ROWID"] if has_key and "AUTOINCREMENT" not in key and d.chance(30) else []
    return Statement(f"{head}({', '.join(parts)}) {', '.join(options)}")


def _name(d: Draw, names: tuple[str, ...]) -> str:
    """Return a name that is likely to be free."""
    taken = {table.name for table in (*d.schema.tables, *d.schema.views)}
    free = [name for name in names if name not in taken]
    return quoted(d.one(*free) if free and d.chance(95) else d.one(*names))


def _type(d: Draw, *, strict: bool) -> str:
    if strict:
        return d.one("INTEGER", "TEXT", "REAL", "BLOB", "ANY", "INT")
    return d.one("", "", "INTEGER", "TEXT", "REAL", "BLOB", "NUMERIC", "VARCHAR(10)", "INT")


def _key(d: Draw, name: str, key: str, *, strict: bool) -> str:
    kind = "" if key.startswith("INTEGER") else _type(d, strict=strict)
    return f"{name} {kind} {key.replace('KEY', f'KEY{_resolve(d)}')}"


def _column(d: Draw, name: str, names: list[str], *, strict: bool) -> str:
    parts = [name, _type(d, strict=strict)]
    others = [other for other in names if other != name]
    if others and d.chance(8):
        how = d.one("VIRTUAL", "STORED", "")
        return f"{' '.join(parts)} GENERATED ALWAYS AS ({d.of_schema(others, '{x}')}) {how}"
    for template, percent in _OF_COLUMNS.items():
        if d.chance(percent):
            parts.append(d.of_schema(names, template) + (_resolve(d) if template in ("NOT NULL", "UNIQUE") else ""))
    if d.chance(15):
        parts.append(_reference(d))
    return " ".join(parts)


_OF_COLUMNS = {
    "NOT NULL": 8,
    "UNIQUE": 12,
    "CHECK ({c} IS NULL OR {b})": 8,
    "COLLATE NOCASE": 4,
    "DEFAULT {v}": 8,
    "DEFAULT (1 + 1)": 3,
}


def _resolve(d: Draw) -> str:
    return d.fill(" ON CONFLICT {conflict}") if d.chance(20) else ""


def _reference(d: Draw) -> str:
    parents = [table for table in d.schema.tables if table.schema == "main" and table.key is not None]
    if not parents:
        return ""
    deed = d.one("", "ON DELETE CASCADE", "ON DELETE SET NULL", "ON UPDATE CASCADE ON DELETE RESTRICT", _DEFAULTS)
    return f"REFERENCES {d.one(*parents)} {deed} {d.one('', '', 'DEFERRABLE INITIALLY DEFERRED')}"


_DEFAULTS = "ON DELETE SET DEFAULT ON UPDATE SET NULL"


def _constraint(d: Draw, names: list[str], *, has_key: bool) -> str:
    columns = f"({', '.join(d.some(names))}){_resolve(d)}"
    kinds = [f"UNIQUE {columns}", d.of_schema(names, "CONSTRAINT k CHECK ({b})")]
    return d.one(*kinds) if has_key else d.one(*kinds, f"PRIMARY KEY {columns}")


def create_search(d: Draw) -> Statement:
    options = ("", "", ", prefix = '1 2'", ", tokenize = 'unicode61'", ", detail = none", ", content = ''")
    return Statement(f"CREATE VIRTUAL TABLE {_name(d, SEARCHED)} USING fts5(x, y{d.one(*options)})")


# --- changing and dropping ----------------------------------------------------------------


def alter(d: Draw) -> Statement:
    target = d.one(*d.schema.tables, *d.schema.views[:1])
    if not target.columns:
        return create_table(d)
    return Statement(f"ALTER TABLE {target} {d.weighted(_ALTERS)(d, target)}", alters=True)


def _rename(d: Draw, target: Table) -> str:
    return f"RENAME TO {_name(d, TABLES)}"


def _rename_column(d: Draw, target: Table) -> str:
    return f"RENAME COLUMN {d.one(*target.columns)} TO {quoted(d.one(*COLUMNS))}"


def _drop_column(d: Draw, target: Table) -> str:
    return f"DROP COLUMN {d.one(*target.columns)}"


def _add_column(d: Draw, target: Table) -> str:
    there = {column.name for column in target.columns}
    free = [name for name in COLUMNS if name not in there] or ["z"]
    head = f"ADD COLUMN {quoted(d.one(*free))} {d.one('INTEGER', 'TEXT', 'ANY' if target.strict else '')}"
    if d.chance(15):
        return f"{head} {_reference(d)}"
    return f"{head} {d.of_schema([str(column) for column in target.columns], d.one(*_ADDED))}"


_ADDED = (
    *("", "", "NOT NULL", "NOT NULL DEFAULT 1", "DEFAULT {v}", "DEFAULT (1 + 1)", "UNIQUE", "COLLATE NOCASE"),
    *("CHECK ({c} IS NOT 5)", "GENERATED ALWAYS AS ({x})", "GENERATED ALWAYS AS ({c}) VIRTUAL NOT NULL"),
)


def _alter_constraint(d: Draw, target: Table) -> str:
    """Return a form of ALTER TABLE that older releases of SQLite do not know."""
    forms = ("ALTER COLUMN {c} SET NOT NULL", "ALTER COLUMN {c} DROP NOT NULL", "DROP CONSTRAINT k")
    return d.of_schema([str(column) for column in target.columns], d.one(*forms, "ADD CONSTRAINT k CHECK ({b})"))


_ALTERS: dict[Callable[[Draw, Table], str], int] = {
    _rename: 2,
    _rename_column: 3,
    _drop_column: 2,
    _add_column: 4,
    _alter_constraint: 1,
}


def drop(d: Draw) -> Statement:
    kinds = {"TABLE": d.schema.tables, "VIEW": d.schema.views, "INDEX": d.schema.indexes, "TRIGGER": d.schema.triggers}
    kind = d.one("TABLE", "VIEW", "INDEX", "TRIGGER", "TRIGGER")
    names = [str(thing) for thing in kinds[kind] if str(thing) != "log"]
    name = d.one(*names) if names and d.chance(95) else "missing"
    return Statement(f"DROP {kind} {d.one('', '', 'IF EXISTS ')}{name}")
