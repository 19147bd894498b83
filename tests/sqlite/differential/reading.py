"""Statements that read."""

from collections.abc import Callable

from tests.sqlite.differential import values
from tests.sqlite.differential.drawing import Draw
from tests.sqlite.differential.dump import CERTAIN
from tests.sqlite.differential.schema import Table
from tests.sqlite.differential.statements import Statement


def read(d: Draw) -> Statement:
    source = d.source()
    if source is None or not source.columns:
        return d.one(values_of, recursive, json_each)(d)
    d.scope = [str(column) for column in source.columns]
    return d.weighted(_KINDS)(d, source)


def whole(d: Draw, source: Table) -> Statement:
    """Read all rows. This text is likely to come again after a change of the schema."""
    return Statement(f"SELECT * FROM {source}")


def _columns(d: Draw) -> str:
    if d.chance(25):
        return "*"
    names = ("", "", "", " AS a", " AS b", " AS name", ' AS "two words"')
    return ", ".join(d.expression() + d.one(*names) for _ in range(d.number(1, 3)))


def simple(d: Draw, source: Table) -> Statement:
    return Statement(f"SELECT {_columns(d)} FROM {source} {d.where()}", d.params)


def limited(d: Draw, source: Table) -> Statement:
    order = ", ".join(f"typeof({column}), hex({column}), {column}" for column in d.scope)
    limit = d.one("LIMIT 2", "LIMIT 3 OFFSET 1", "LIMIT 1, 2", "LIMIT -1", "LIMIT 0", "LIMIT {v}")
    text = f"SELECT {d.one('', 'DISTINCT', 'ALL')} {', '.join(d.scope)} FROM {source} {d.where()} ORDER BY {order} "
    return Statement(text + d.fill(limit), d.params)


def joined(d: Draw, source: Table) -> Statement:
    other = d.source() or source
    join = d.one("JOIN", "LEFT JOIN", "CROSS JOIN", "RIGHT JOIN", "FULL JOIN", ",")
    mine, its = [f"l.{column}" for column in source.columns], [f"r.{column}" for column in other.columns]
    d.scope = mine + its
    on = f"ON {d.one(*mine)} = {d.one(*its)}" if join != "," and its else ""
    return Statement(f"SELECT {_columns(d)} FROM {source} AS l {join} {other} AS r {on} {d.where()}", d.params)


def grouped(d: Draw, source: Table) -> Statement:
    text = d.fill(
        "SELECT typeof({g}), count(*), count(DISTINCT {c}), min({c}), max({c}), "
        "group_concat(quote({g}), ',' ORDER BY quote({g})) FROM {s} {w} GROUP BY typeof({g}) {h}",
        g=d.one(*d.scope),
        s=source,
        w=d.where(30),
        h=d.one("", "", "HAVING count(*) > 1"),
    )
    return Statement(text, d.params)


def windowed(d: Draw, source: Table) -> Statement:
    function = d.one("rank()", "dense_rank()", "count(*)", "max({c})", "count({x})", "percent_rank()")
    over = d.one("(ORDER BY {c})", "(PARTITION BY typeof({c}))", "(PARTITION BY {c} ORDER BY {c})", "()")
    return Statement(d.fill(f"SELECT {{c}}, {function} OVER {over} FROM {source}"), d.params)


def compound(d: Draw, source: Table) -> Statement:
    operator = d.one("UNION", "UNION ALL", "EXCEPT", "INTERSECT")
    return Statement(d.fill("SELECT {c}, {x} FROM {s} {o} SELECT {c}, {v} FROM {s}", s=source, o=operator), d.params)


def with_cte(d: Draw, source: Table) -> Statement:
    text = d.fill(
        "WITH k(x, y) AS {m} (SELECT {c}, {x} FROM {s}) SELECT a.x, b.y FROM k AS a JOIN k AS b ON a.x IS b.x",
        s=source,
        m=d.one("", "MATERIALIZED", "NOT MATERIALIZED"),
    )
    return Statement(text, d.params)


def recursive(d: Draw, source: Table | None = None) -> Statement:
    rows = f"VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {d.one(0, 3, 20)}"
    return Statement(d.fill(f"WITH RECURSIVE n(i) AS ({rows}) SELECT i, {{v}} FROM n"), d.params, ordered=True)


def values_of(d: Draw, source: Table | None = None) -> Statement:
    row = "(" + ", ".join(["{v}"] * d.number(1, 3)) + ")"
    return Statement(d.fill("VALUES " + ", ".join([row] * d.number(1, 3))), d.params, ordered=True)


def json_each(d: Draw, source: Table | None = None) -> Statement:
    text = d.value([text for text in values.TEXTS if text.startswith(("[", "{"))])
    sql = f"SELECT key, value, type, path FROM {d.one('json_each', 'json_tree')}({text})"
    return Statement(sql, d.params, ordered=True)


def searched(d: Draw, source: Table) -> Statement:
    virtual = [table for table in d.schema.tables if table.kind == "virtual"]
    if not virtual:
        return simple(d, source)
    table = d.one(*virtual)
    columns = d.one("rowid, *", f"rowid, highlight({table}, 0, '[', ']')", f"count(*), typeof(bm25({table}))")
    words = d.value(("a", "one", "a OR b", "a NOT b", "x : a", '"a b"', "a*", "(", ""))
    return Statement(
        f"SELECT {columns} FROM {table} WHERE {table} MATCH {words} ORDER BY rowid", d.params, ordered=True
    )


def of_the_schema(d: Draw, source: Table) -> Statement:
    texts = (
        "SELECT type, name, tbl_name, sql FROM sqlite_schema",
        "SELECT count(*) FROM sqlite_master",
        "SELECT type, name, sql FROM temp.sqlite_schema",
        "SELECT name, seq FROM sqlite_sequence",
        f"SELECT tbl, idx, stat FROM sqlite_stat1 WHERE {CERTAIN}",
    )
    return Statement(d.one(*texts))


_KINDS: dict[Callable[[Draw, Table], Statement], int] = dict.fromkeys(
    (limited, joined, grouped, windowed, compound, with_cte, searched, of_the_schema), 2
) | {whole: 6, simple: 6, recursive: 1, values_of: 1, json_each: 1}
