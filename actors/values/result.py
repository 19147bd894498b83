"""Result and Row: the answer to a query. They cost hardly more than the driver's rows."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Never, overload

from actors.system.nesting import inside_another_repr
from actors.values.columns import Columns, needed, rows_of, table_of

__all__ = ["Result", "Row"]

_SHOWN_ROWS = 20
_SHOWN_WIDTH = 40
_SHOWN_COLUMNS = 60  # of a table in a notebook


class Row(tuple[Any, ...]):
    """A row: a tuple that also has `row["name"]` and `row.name`.

    A row equals the plain tuple of its values, and has the same hash. JSON encoders write a row as
    an array, as every tuple. `dict(row)`, `{**row}` and `row.asdict()` make a dictionary.

    If two columns have the same name, the name means the first column, and a dictionary contains
    only the first column. Give the other column another name: `SELECT a.id, b.id AS other_id`.

    Some columns need `row["count"]`: a column with the name of a method (`count`, `index`, `keys`,
    `asdict`), and a column whose name starts with an underscore.
    """

    __slots__ = ()

    columns: ClassVar[tuple[str, ...]] = ()
    """The names of the columns, in order."""
    _positions: ClassVar[dict[str, int]] = {}

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return tuple.__getitem__(self, self._position(key))
        return tuple.__getitem__(self, key)

    def __getattr__(self, name: str) -> Any:
        position = self._positions.get(name)
        if position is None:
            message = f"the row has no column {name!r}; its columns: {', '.join(self.columns)}"
            raise AttributeError(message)
        return tuple.__getitem__(self, position)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.columns]

    def keys(self) -> list[str]:
        """Return the names of all columns, in order, as `sqlite3.Row` does."""
        return list(self.columns)

    def asdict(self) -> dict[str, Any]:
        """Return the row as a dictionary from column name to value."""
        return {name: tuple.__getitem__(self, at) for name, at in self._positions.items()}

    def __repr__(self) -> str:
        pairs = ", ".join(f"{name}={value!r}" for name, value in zip(self.columns, self, strict=True))
        return f"Row({pairs})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _row, (self.columns, tuple(self))

    @classmethod
    def _position(cls, name: str) -> int:
        try:
            return cls._positions[name]
        except KeyError:
            message = f"the row has no column {name!r}; its columns: {', '.join(cls.columns)}"
            raise KeyError(message) from None


@lru_cache(maxsize=256)
def _row_class(columns: tuple[str, ...]) -> type[Row]:
    positions: dict[str, int] = {}
    for position, name in enumerate(columns):
        positions.setdefault(name, position)
    # pandas takes the names of columns from `_fields`, as of a named tuple.
    fields = {"__slots__": (), "columns": columns, "_positions": positions, "_fields": columns}
    return type("Row", (Row,), fields)


def _row(columns: tuple[str, ...], values: tuple[Any, ...]) -> Row:
    return _row_class(columns)(values)


class Result(Sequence[Row]):
    """The answer to a query: a sequence of rows. Each `Row` is made when it is read.

    A result is a plain value. It belongs to no connection and no thread, and can be pickled.

    A result without rows is false, as every empty sequence is. The result of a statement that
    returns no rows is false, too. `rowcount` tells how many rows a statement changed. To tell a
    result from `None`, write `is not None`.

    For JSON write `dicts()`. For columns write `to_arrow()`, `to_pandas()` or `to_polars()`.

    The result of `Query(…, arrow=True)` may hold columns instead of rows; see `of_table`.
    """

    __slots__ = ("_columnar", "columns", "lastrowid", "rowcount", "rows", "truncated")

    _columnar: Columns | None
    """The columns of a result that was made by `of_table`. `rows` is unset until its first use."""

    columns: tuple[str, ...]
    """The names of the columns. Empty for a statement that returns no rows."""
    rows: list[tuple[Any, ...]]
    """The rows as plain tuples, exactly as the driver gave them. A result that holds columns makes
    its rows at their first use."""
    rowcount: int
    """Rows returned by a reading statement, or changed by a writing one."""
    lastrowid: int | None
    """The rowid of the last row that the statement inserted. `None` if it inserted no row."""
    truncated: bool
    """Whether there were more rows than `max_rows`. The result does not contain these rows."""

    def __init__(
        self,
        columns: tuple[str, ...] = (),
        rows: list[tuple[Any, ...]] | None = None,
        rowcount: int = 0,
        lastrowid: int | None = None,
        truncated: bool = False,
    ) -> None:
        self.columns = columns
        self.rows = [] if rows is None else rows
        self.rowcount = rowcount
        self.lastrowid = lastrowid
        self.truncated = truncated
        self._columnar = None

    @classmethod
    def of_table(cls, table: Any, *, rowcount: int | None = None, truncated: bool = False) -> "Result":
        """Return a result that holds a `pyarrow.Table`, for the author of a database.

        A connection answers a `Query` or a `Declare` with `arrow=True` by such a result, if it can.
        No tuples are made. From a child process the columns travel as buffers of Arrow.

        Args:
            table: the rows. The table must not belong to the connection.
            rowcount: `None` is the number of its rows.
            truncated: as of a `Result`.
        """
        return cls._holding(Columns(table), tuple(table.column_names), rowcount, None, truncated)

    @classmethod
    def _holding(
        cls,
        columnar: Columns,
        columns: tuple[str, ...],
        rowcount: int | None,
        lastrowid: int | None,
        truncated: bool,
    ) -> "Result":
        result = cls(columns, None, columnar.count if rowcount is None else rowcount, lastrowid, truncated)
        del result.rows
        result._columnar = columnar
        return result

    def __getattr__(self, name: str) -> Any:
        # Python calls this only for an attribute that is not set. Most results have their rows.
        if name != "rows" or self._columnar is None:
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(message)
        self.rows = rows = rows_of(self._columnar)
        return rows

    def _limited(self, most: int) -> "Result":
        """Return a result with `most` rows at most. `rowcount` stays as the driver has counted."""
        if len(self) <= most:
            return self
        if self._columnar is not None:
            return Result._holding(self._columnar.head(most), self.columns, self.rowcount, self.lastrowid, True)
        return Result(self.columns, self.rows[:most], self.rowcount, self.lastrowid, True)

    def __len__(self) -> int:
        return len(self.rows) if self._columnar is None else self._columnar.count

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        row = _row_class(self.columns)
        if isinstance(index, slice):
            return [row(values) for values in self.rows[index]]
        return row(self.rows[index])

    def __iter__(self) -> Iterator[Row]:
        return self._as_rows(self.rows)

    def _as_rows(self, values: Iterable[tuple[Any, ...]]) -> Iterator[Row]:
        """Return plain tuples as rows with these columns."""
        return map(_row_class(self.columns), values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Result):
            return NotImplemented
        return self._values() == other._values()

    __hash__ = None  # type: ignore[assignment]  # mutable through `rows`

    def __reduce__(self) -> tuple[Any, ...]:
        if self._columnar is None:
            return Result, self._values()
        # The columns, and not a million tuples.
        return Result._holding, (self._columnar, self.columns, self.rowcount, self.lastrowid, self.truncated)

    def _values(self) -> tuple[Any, ...]:
        return self.columns, self.rows, self.rowcount, self.lastrowid, self.truncated

    def first(self) -> Row | None:
        """Return the first row, or `None` if there is no row."""
        return self[0] if len(self) else None

    def one(self) -> Row:
        """Return the only row.

        Raises:
            ValueError: there is no row, or more than one.
        """
        if len(self.rows) != 1:
            message = f"one() wants exactly one row, and the result has {len(self.rows)}"
            raise ValueError(message)
        return self[0]

    def scalar(self) -> Any:
        """Return the first value of the first row, or `None` if there is no row."""
        return self.rows[0][0] if self.rows else None

    def column(self, name: str | int) -> list[Any]:
        """Return the values of one column, by its name or its position.

        Raises:
            KeyError: no column has this name.
            IndexError: no column has this position.
        """
        index = _row_class(self.columns)._position(name) if isinstance(name, str) else name
        position = range(len(self.columns))[index]
        return [values[position] for values in self.rows]

    def dicts(self) -> list[dict[str, Any]]:
        """Return every row as a dictionary from column name to value."""
        return [row.asdict() for row in self]

    def to_arrow(self) -> Any:
        """Return the rows as a `pyarrow.Table`. Two columns may have the same name.

        The result of `Query(…, arrow=True)` holds the table already, if the database can make one.
        From other results each column is made of its values:

        * `None` is a null.
        * Whole and floating numbers together become floating numbers, if that loses no digit.
        * Whole numbers beyond 64 bits become decimals.
        * Values of one class that Arrow does not know, such as `uuid.UUID`, become text.
        * A column without a value has the type null.

        Raises:
            ImportError: pyarrow is missing. The text names the extra.
            TypeError: a column mixes other values, as SQLite allows. The text names the column.
        """
        return table_of(self.columns, self.rows) if self._columnar is None else self._columnar.table

    def to_pandas(self, **options: Any) -> Any:
        """Return the rows as a `pandas.DataFrame`, made from `to_arrow()`.

        In a frame of pandas, whole numbers beside a null are floating numbers, unless an option
        says otherwise.

        Args:
            options: go to `pyarrow.Table.to_pandas`, such as `types_mapper=pandas.ArrowDtype`.

        Raises:
            ImportError: pandas or pyarrow is missing. The text names the extra.
            TypeError: as `to_arrow`.
        """
        needed("pandas", "to_pandas()", "pandas")
        return self.to_arrow().to_pandas(**options)

    def to_polars(self) -> Any:
        """Return the rows as a `polars.DataFrame`, made from `to_arrow()`.

        Raises:
            ImportError: polars or pyarrow is missing. The text names the extra.
            TypeError: as `to_arrow`, or polars lacks the type of a column, such as decimals of more
                than 38 digits.
            ValueError: two columns have the same name, which polars does not allow.
        """
        polars = needed("polars", "to_polars()", "polars")
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            message = f"two columns have the name {twice[0]!r}, which polars does not allow: write {twice[0]} AS …"
            raise ValueError(message)
        table = self.to_arrow()
        try:
            return polars.from_arrow(table)
        except (polars.exceptions.ComputeError, polars.exceptions.PanicException) as error:
            # `except Exception` would not catch a panic, so its class must not reach the caller.
            types = ", ".join(f"{field.name}: {field.type}" for field in table.schema)
            message = f"polars lacks the type of a column ({types}): write CAST(… AS …), or use to_arrow()"
            raise TypeError(message) from error

    def keys(self) -> Never:
        """Refuse, since a result is a sequence and not a mapping.

        `dict(result)` would use the values of two columns as keys and values. An encoder of JSON
        that tries `dict()` would do the same.

        Raises:
            TypeError: always.
        """
        message = (
            "a Result is a sequence of rows and has no keys: write result.dicts() for JSON, or dict(result.rows) for a "
            "dictionary from the first of two columns to the second"
        )
        raise TypeError(message)

    def __repr__(self) -> str:
        return self._line() if inside_another_repr() else str(self)

    def __str__(self) -> str:
        if not self.columns:
            return self._line()
        shown = [[_cell(value) for value in values] for values in self.rows[:_SHOWN_ROWS]]
        names = [_cut(name) for name in self.columns]
        widths = [max(map(len, cells)) for cells in zip(names, *shown, strict=True)]
        lines = [
            " │ ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
            for cells in [names, *shown]
        ]
        lines.insert(1, "─┼─".join("─" * width for width in widths))
        return "\n".join([*lines, f"({self._count()})"])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # IPython calls this. `stack` holds the objects that IPython shows, including this result.
        del cycle
        printer.text(self._line() if len(printer.stack) > 1 else str(self))

    def _repr_html_(self) -> str:
        import html  # only a notebook needs it

        if not self.columns:
            return f"<p>{html.escape(self._line())}</p>"
        names, rows = self.columns[:_SHOWN_COLUMNS], [row[:_SHOWN_COLUMNS] for row in self.rows[:_SHOWN_ROWS]]
        sides = ["right" if _are_numbers(row[at] for row in rows) else "left" for at in range(len(names))]
        head = "".join(
            f'<th style="text-align:{side}">{html.escape(_cut(name))}</th>'
            for name, side in zip(names, sides, strict=True)
        )
        body = "".join(f"<tr>{''.join(map(_html_cell, row, sides))}</tr>" for row in rows)
        more = len(self.columns) - len(names)
        below = f"({self._count()}{f', {more} more columns' if more else ''})"
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{below}</p>"

    def _line(self) -> str:
        """Return a description of one line, for a place without room for a table."""
        if not self.columns:
            ids = "" if self.lastrowid is None else f", lastrowid={self.lastrowid}"
            return f"<Result: no rows, rowcount={self.rowcount}{ids}>"
        names = _cut(", ".join(self.columns[:_SHOWN_WIDTH]))
        return f"<Result: {_in_words(len(self.rows))} ({names}){', truncated' if self.truncated else ''}>"

    def _count(self) -> str:
        rows = len(self.rows)
        more = f", the first {_SHOWN_ROWS} shown" if rows > _SHOWN_ROWS else ""
        more += ", and there were more" if self.truncated else ""
        return f"{_in_words(rows)}{more}"


def _in_words(rows: int) -> str:
    return f"{rows} {'row' if rows == 1 else 'rows'}"


def _cell(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return _cut(str(value[: 4 * _SHOWN_WIDTH] if isinstance(value, str) else value))


def _html_cell(value: object, side: str) -> str:
    """Return a cell of a notebook's table. NULL and blobs are dim, and so differ from a text."""
    import html

    dim = ";opacity:0.5" if value is None or isinstance(value, bytes) else ""
    return f'<td style="text-align:{side}{dim}">{html.escape(_cell(value))}</td>'


def _are_numbers(values: Iterable[object]) -> bool:
    """Say whether a column has numbers alone, apart from NULL."""
    kinds = {type(value) for value in values if value is not None}
    return bool(kinds) and kinds <= {int, float}


def _cut(text: str) -> str:
    line = "".join(char if char.isprintable() else "·" for char in text)
    return line if len(line) <= _SHOWN_WIDTH else line[: _SHOWN_WIDTH - 1] + "…"
