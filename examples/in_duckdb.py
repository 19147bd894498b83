"""A crew on DuckDB: analysis beside short queries, columns without rows, a stream in chunks."""

import tempfile
from pathlib import Path

import duckdb

from supervisor import Call, DuckDB, Query, QueryTimeout, Script, Stream, Supervisor

SETUP = """
CREATE TABLE sales AS
SELECT i AS id, ['north', 'south', 'west'][1 + i % 3] AS region, (i % 100) / 4 AS amount
FROM range(1000000) t(i);
"""
REGIONS = "SELECT region, count(*) AS sales, sum(amount) AS total FROM sales GROUP BY region ORDER BY region"
ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000) c"


def import_sales(connection, first):
    """Append rows from a table of Python, in one transaction with everything else that it does."""
    new = duckdb.from_query(f"SELECT {first} + i AS id, 'east' AS region, 1.0 AS amount FROM range(10) t(i)").fetchall()
    connection.executemany("INSERT INTO sales VALUES (?, ?, ?)", new)
    return len(new)


with tempfile.TemporaryDirectory() as folder:
    database = DuckDB(Path(folder) / "sales.duckdb", config={"memory_limit": "1GB"})
    with Supervisor.start(database) as db:
        db.ask(Script(SETUP))

        # Rows, as from any database.
        for row in db.ask(Query(REGIONS)):
            print(row.region, row.sales, row.total)

        # Columns: DuckDB fills the memory of Arrow, and no value becomes a Python object.
        sales = db.ask(Query("SELECT * FROM sales", arrow=True))
        print(len(sales), "rows,", sales.to_arrow().nbytes // 1_000_000, "MB of columns")
        print(sales.to_polars()["amount"].mean())

        # A stream of columns needs memory for a few chunks.
        with db.ask(Stream("SELECT id FROM sales", chunk=100_000, arrow=True)) as stream:
            print(sum(chunk.to_arrow().num_rows for chunk in stream.chunks()))

        # A short query does not wait behind a long one, and a deadline ends the long one.
        long = db.ask(Query(ENDLESS, timeout=0.5), block=False)
        print(db.ask(Query("SELECT count(*) FROM sales WHERE region = ?", ("west",))).scalar())
        try:
            long.get()
        except QueryTimeout as error:
            print("interrupted; executed:", error.executed)

        print(db.ask(Call(import_sales, 1_000_000)), db.ask(Query("SELECT count(*) FROM sales")).scalar())
