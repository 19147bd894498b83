"""The tables, views, indexes and triggers of the moment: statements are drawn to fit them."""

from dataclasses import dataclass, field

import apsw


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    is_key: bool = False
    is_generated: bool = False

    def __str__(self) -> str:
        return quoted(self.name)

    @property
    def is_rowid(self) -> bool:
        """Whether it is most likely another name of the rowid."""
        return self.is_key and self.type.upper() == "INTEGER"


@dataclass(frozen=True)
class Table:
    """A table, a virtual table or a view."""

    schema: str
    name: str
    kind: str
    without_rowid: bool
    strict: bool
    columns: tuple[Column, ...]
    is_hidden: bool
    """Its name alone means another table."""

    def __str__(self) -> str:
        is_elsewhere = self.is_hidden or self.schema not in ("main", "temp")
        return f"{self.schema}.{quoted(self.name)}" if is_elsewhere else quoted(self.name)

    @property
    def has_rowid(self) -> bool:
        return self.kind == "virtual" or (self.kind == "table" and not self.without_rowid)

    @property
    def written(self) -> list[Column]:
        """The columns without the generated ones."""
        return [column for column in self.columns if not column.is_generated]

    @property
    def key(self) -> Column | None:
        """Its primary key, if that is a single column."""
        keys = [column for column in self.columns if column.is_key]
        return keys[0] if len(keys) == 1 else None


@dataclass
class Schema:
    tables: list[Table] = field(default_factory=list)
    """Tables and virtual tables."""
    views: list[Table] = field(default_factory=list)
    indexes: list[str] = field(default_factory=list)
    triggers: list[str] = field(default_factory=list)
    has_attached: bool = False

    @property
    def has_virtual(self) -> bool:
        return any(table.kind == "virtual" for table in self.tables)


def quoted(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else '"' + name.replace('"', '""') + '"'


_LIST = """
SELECT schema, name, type, wr, strict FROM pragma_table_list
WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~' AND type IN ('table', 'view', 'virtual')
ORDER BY schema != 'temp', schema != 'main', name
"""


def schema_of(connection: apsw.Connection) -> Schema:
    """Return the schema, without views that cannot be read."""
    found, names = Schema(), set[str]()
    for schema, name, kind, without_rowid, strict in connection.execute(_LIST).fetchall():
        try:
            columns = connection.execute(f"PRAGMA {schema}.table_xinfo({quoted(name)})").fetchall()
        except apsw.Error:
            continue
        # Hidden: 1 is a column of a virtual table's own, 2 and 3 are generated.
        known = [Column(name, kind, bool(key), hidden > 1) for _, name, kind, *_, key, hidden in columns if hidden != 1]
        is_hidden = name.lower() in names
        table = Table(schema, name, kind, bool(without_rowid), bool(strict), tuple(known), is_hidden)
        names.add(name.lower())
        (found.views if kind == "view" else found.tables).append(table)
    for schema in ("main", "temp"):
        for kind, name in connection.execute(f"SELECT type, name FROM {schema}.sqlite_schema ORDER BY name").fetchall():
            if kind == "index" and not name.startswith("sqlite_"):
                found.indexes.append(f"{schema}.{quoted(name)}")
            elif kind == "trigger":
                found.triggers.append(f"{schema}.{quoted(name)}")
    found.has_attached = "aux" in connection.db_names()
    return found
