"""The results of DuckDB: tuples, or columns that never were tuples; at once, or in chunks."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import duckdb

from actors.databases.rows import Rows
from actors.values.columns import needed
from actors.values.result import Result

__all__ = ["ArrowRows", "TupleRows", "columns_of", "table_of_relation"]


def columns_of(connection: Any) -> tuple[str, ...]:
    """Return the names of the columns of the open result."""
    return tuple([column[0] for column in connection.description])


def table_of_relation(relation: Any, max_rows: int | None) -> Result:
    """Run a relation, and return its rows as columns, `max_rows` at most.

    Arrow's columns are the memory that DuckDB has filled. No value becomes a Python object.
    """
    needed("pyarrow", "Query(arrow=True)", "arrow")
    if max_rows is None:
        return Result.of_table(_translated(relation.to_arrow_table))
    reader = _translated(lambda: relation.limit(max_rows + 1).to_arrow_table())
    return Result.of_table(reader)._limited(max_rows)


class TupleRows(Rows):
    """The open result of a connection, as tuples."""

    def __init__(self, connection: Any) -> None:
        super().__init__()
        # `None` once the rows are in memory, or closed.
        self._connection = connection
        self._columns = columns_of(connection)
        self._kept: list[tuple[Any, ...]] = []

    def next_chunk(self, most: int) -> Result:
        """Return the next rows; see `Rows`."""
        if self._connection is not None:
            rows = self._connection.fetchmany(most)
        else:
            rows = self._kept[:most]
            del self._kept[:most]
        return Result(self._columns, rows, len(rows), None, len(rows) == most)

    def keep(self) -> None:
        """Read all rows that are left into memory; see `Rows`."""
        if self._connection is not None:
            self._kept = self._connection.fetchall()
            self._connection = None

    def close(self) -> None:
        """Free the result; see `Rows`."""
        connection, self._connection, self._kept = self._connection, None, []
        if connection is not None:
            with suppress(duckdb.InterruptException):  # the next statement frees it then
                connection.abort()


class ArrowRows(Rows):
    """The rows of a relation, as columns."""

    def __init__(self, relation: Any, most: int) -> None:
        super().__init__()
        self._pyarrow = needed("pyarrow", "Stream(arrow=True)", "arrow")
        self._reader = _translated(lambda: relation.to_arrow_reader(most))
        self._schema = self._reader.schema
        self._rows = most

    def next_chunk(self, most: int) -> Result:
        """Return the next rows, as many as the first chunk may have; see `Rows`."""
        del most  # DuckDB knows the size of a batch since the beginning
        try:
            batch = _translated(self._reader.read_next_batch)
        except StopIteration:
            return Result.of_table(self._schema.empty_table())
        return Result.of_table(self._pyarrow.Table.from_batches([batch]), truncated=True)

    def keep(self) -> None:
        """Read all rows that are left into memory; see `Rows`."""
        reader, table = self._reader, _translated(self._reader.read_all)
        reader.close()
        self._reader = table.to_reader(max_chunksize=self._rows)

    def close(self) -> None:
        """Free the result; see `Rows`."""
        with suppress(OSError):  # an interrupt of the statement before
            self._reader.close()


def _translated(run: Callable[[], Any]) -> Any:
    """Call a function of Arrow, and raise errors of DuckDB as such. Arrow has one class for all."""
    try:
        return run()
    except OSError as error:
        kind = duckdb.InterruptException if "Interrupted" in str(error) else duckdb.OperationalError
        raise kind(str(error)) from None
