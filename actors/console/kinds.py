"""Kinds of databases: how the command line names one, and how to ask it about its tables."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from supervisor import Query

if TYPE_CHECKING:
    from supervisor import Database

__all__ = ["DUCKDB", "POSTGRESQL", "SQLITE", "Kind", "is_refused_write", "kind_of"]

_INFORMATION = """
SELECT tables.table_name AS name, lower(replace(table_type, 'BASE ', '')) AS type,
string_agg(column_name, ', ' ORDER BY ordinal_position) AS columns
FROM information_schema.tables AS tables JOIN information_schema.columns AS columns
ON columns.table_schema = tables.table_schema AND columns.table_name = tables.table_name
WHERE tables.table_schema NOT IN ('pg_catalog', 'information_schema') GROUP BY 1, 2 ORDER BY 1"""
_COLUMNS = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY table_name, ordinal_position"""


@dataclass(frozen=True)
class Kind:
    """A kind of database, as the console knows it."""

    name: str
    tables: str
    """Gives the name, the type and the columns of each table and view."""
    columns: str
    """Gives the name of the table and of the column, for each column."""
    schema: str
    """Gives the SQL that made each object. One parameter: the name of a table, or NULL for all."""
    placeholder: str
    explain: str
    """The words before a statement that is explained."""
    make: "Callable[[str, bool], Database] | None" = None
    """Makes the database of a URL, which may be readonly. `None` for files of SQLite."""
    streams: frozenset[str] = frozenset({"select", "values", "with", "explain", "pragma"})
    """The first words of the statements whose rows come in chunks."""

    def schema_of(self, table: str | None) -> Query:
        """Return the query for the SQL of one table, or of all."""
        return Query(self.schema.replace(":name", self.placeholder), {"name": table})


SQLITE = Kind(
    name="SQLite",
    tables=r"""
SELECT name, type, (SELECT group_concat(name, ', ') FROM pragma_table_info(schema.name)) AS columns
FROM sqlite_schema AS schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY name""",
    columns="""
SELECT schema.name, columns.name FROM sqlite_schema AS schema, pragma_table_xinfo(schema.name) AS columns
WHERE schema.type IN ('table', 'view') ORDER BY schema.name, columns.cid""",
    schema="""
SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND (:name IS NULL OR lower(tbl_name) = lower(:name)
OR lower(name) = lower(:name)) ORDER BY tbl_name, type = 'table' DESC, name""",
    placeholder=":name",
    explain="EXPLAIN QUERY PLAN",
)


def _postgresql(url: str, readonly: bool) -> "Database":
    from supervisor import PostgreSQL

    options: dict[str, Any] = {"options": "-c default_transaction_read_only=on"} if readonly else {}
    return PostgreSQL(url, **options)


POSTGRESQL = Kind(
    name="PostgreSQL",
    tables=_INFORMATION,
    columns=_COLUMNS,
    schema="""
WITH shown AS (SELECT oid AS id, relname, relkind FROM pg_class WHERE pg_table_is_visible(oid)
AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
AND (:name IS NULL OR lower(relname) = lower(:name)))
SELECT format(E'CREATE TABLE %%I (\\n%%s\\n)', relname, string_agg(format('  %%I %%s%%s', attname,
format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END), E',\\n' ORDER BY attnum)) AS sql
FROM shown JOIN pg_attribute ON attrelid = id AND attnum > 0 AND NOT attisdropped
WHERE relkind IN ('r', 'p', 'f') GROUP BY relname
UNION ALL SELECT pg_get_indexdef(indexrelid) FROM shown JOIN pg_index ON indrelid = id
UNION ALL SELECT format(E'CREATE VIEW %%I AS\\n%%s', relname, rtrim(pg_get_viewdef(id), ';'))
FROM shown WHERE relkind = 'v'""",
    placeholder="%(name)s::text",
    explain="EXPLAIN",
    make=_postgresql,
    streams=frozenset({"select", "values", "with", "table"}),
)


def _duckdb(url: str, readonly: bool) -> "Database":
    from supervisor import DuckDB

    return DuckDB(url.partition(":")[2] or ":memory:", read_only=readonly)


DUCKDB = Kind(
    name="DuckDB",
    tables=_INFORMATION,
    columns=_COLUMNS,
    schema="""
SELECT sql FROM (SELECT table_name, 1, sql FROM duckdb_tables() UNION ALL
SELECT table_name, 2, sql FROM duckdb_indexes() UNION ALL
SELECT view_name, 3, sql FROM duckdb_views() WHERE NOT internal) AS found (name, place, sql)
WHERE :name IS NULL OR lower(name) = lower(:name) ORDER BY name, place""",
    placeholder="$name",
    explain="EXPLAIN",
    make=_duckdb,
    streams=frozenset({"select", "values", "with", "from", "table", "describe", "show", "summarize"}),
)

_READONLY = "25006"  # how PostgreSQL refuses a statement that writes
_BY_SCHEME = {"postgresql": POSTGRESQL, "postgres": POSTGRESQL, "duckdb": DUCKDB}


def kind_of(database: str | None) -> Kind:
    """Return the kind of database that an argument of the command line names."""
    scheme, colon, rest = (database or "").partition(":")
    kind = _BY_SCHEME.get(scheme.lower(), SQLITE) if colon else SQLITE
    return kind if kind is DUCKDB or rest.startswith("//") else SQLITE


def is_refused_write(error: Exception) -> bool:
    """Say whether a `Stream` was refused since its statement writes. Nothing of it ran."""
    return str(error).startswith("a Stream only reads") or getattr(error, "sqlstate", None) == _READONLY
