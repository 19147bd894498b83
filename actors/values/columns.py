"""Columns: the values of a result as Arrow keeps them, and the ways there and back.

Only programs that ask for columns import pyarrow. Errors name the extra that installs a library.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final

__all__ = ["WITH_BUFFERS", "Columns", "needed", "rows_of", "table_of"]

_INT64: Final = range(-(2**63), 2**63)
_UINT64: Final = range(2**64)
_EXACT: Final = 2**53  # a float has every whole number up to this one
WITH_BUFFERS: Final = 5
"""The first protocol of pickle that can keep buffers apart."""
_LITTLE: Final = 1 << 16  # bytes
_DIGITS_128: Final = 38  # decimal digits of Arrow's decimal types
_DIGITS_256: Final = 76


class Columns:
    """A table of Arrow, which may still be in the form in which it travels between processes.

    All methods may be called from any thread. The parts that travelled are put together at the
    first use. If two threads do that at the same time, both get equal tables.
    """

    __slots__ = ("_parts", "_table", "count")

    count: int
    """The number of rows."""

    def __init__(self, table: Any, parts: tuple[bytes, list[Any], int] | None = None) -> None:
        """Keep a `pyarrow.Table`, or its pickle, the buffers of that, and the number of rows."""
        self._table = table
        self._parts = parts
        self.count = table.num_rows if parts is None else parts[2]

    @property
    def table(self) -> Any:
        """The `pyarrow.Table`.

        Raises:
            ImportError: pyarrow is missing. The text names the extra.
        """
        parts, table = self._parts, self._table  # in this order: another thread may set both
        if table is None:
            import pickle

            assert parts is not None
            needed("pyarrow", "to_arrow()", "arrow")
            self._table = table = pickle.loads(parts[0], buffers=parts[1])  # noqa: S301  # made by `_parts_of`
            self._parts = None
        return table

    def head(self, most: int) -> "Columns":
        """Return the first `most` rows."""
        return Columns(self.table.slice(0, most))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        import pickle

        body, buffers, count = self._parts or _parts_of(self.table)
        if protocol < WITH_BUFFERS:
            return Columns, (None, (body, [bytes(buffer) for buffer in buffers], count))
        # No column of Arrow ever changes.
        unchanging = [pickle.PickleBuffer(memoryview(buffer).toreadonly()) for buffer in buffers]
        return Columns, (None, (body, unchanging, count))


def _parts_of(table: Any) -> tuple[bytes, list[Any], int]:
    """Return a table as its pickle, the buffers of the pickle, and its number of rows.

    The columns are not copied.
    """
    import pickle

    if table.get_total_buffer_size() > 2 * table.nbytes + _LITTLE:  # it shows a few rows of a larger table
        table = _copied(table)
    buffers: list[Any] = []
    body = pickle.dumps(table, WITH_BUFFERS, buffer_callback=buffers.append)
    return body, buffers, table.num_rows


def _copied(table: Any) -> Any:
    """Return a table with buffers of its own, which have just its rows."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.open_stream(sink.getvalue()) as reader:
        return reader.read_all()


def rows_of(columns: Columns) -> list[tuple[Any, ...]]:
    """Return the rows as tuples of Python values."""
    table = columns.table
    if not table.num_columns:
        return [()] * table.num_rows
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def needed(module: str, user: str, extra: str) -> Any:
    """Import a library that not every program needs.

    Args:
        module: the name to import.
        user: the method that needs the library, for the error.
        extra: the extra of querycrew that installs it.

    Raises:
        ImportError: the library is missing. The text names the extra.
    """
    try:
        if module == "pyarrow":
            import_module("pyarrow.ipc")
        return import_module(module)
    except ImportError as error:
        message = f"{user} needs {module}, which cannot be imported: pip install 'querycrew[{extra}]'"
        raise ImportError(message, name=module) from error


# --- from rows ----------------------------------------------------------------------------


def table_of(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Any:
    """Return rows as a `pyarrow.Table`, one column at a time.

    `None` is a null. Arrow finds the type of a column from its values, with these rules:

    * A column of whole and floating numbers has floating numbers, if that loses no digit.
    * Whole numbers beyond 64 bits become decimals.
    * Values of one class that Arrow does not know, such as `uuid.UUID`, become text. So do times
      of the day with an offset from UTC, which Arrow would drop.
    * A column with other mixed values is refused.
    * A column without a value has the type null.

    Raises:
        ImportError: pyarrow is missing. The text names the extra.
        TypeError: a column has values that fit no type of Arrow. The text names the column and the
            classes of the values, and never shows a value.
    """
    pyarrow = needed("pyarrow", "to_arrow()", "arrow")
    if not rows:
        return pyarrow.table([pyarrow.nulls(0)] * len(names), list(names))
    arrays = [_array(pyarrow, name, values) for name, values in zip(names, zip(*rows, strict=True), strict=True)]
    return pyarrow.table(arrays, list(names))


def _array(pyarrow: Any, name: str, values: tuple[Any, ...]) -> Any:
    """Return the values of one column as an array of Arrow; see `table_of`."""
    kinds = set(map(type, values)) - {type(None)}
    try:
        if kinds == {int}:
            return pyarrow.array(values, pyarrow.int64()) if _fit(values, _INT64) else _large(pyarrow, values)
        if kinds == {int, float}:
            _check_exact(values)
            return pyarrow.array(values, pyarrow.float64())
        if kinds and kinds <= {bytes, bytearray, memoryview}:
            return pyarrow.array([None if value is None else bytes(value) for value in values], pyarrow.binary())
        if len(kinds) > 1 and not kinds <= {list, tuple}:
            raise TypeError  # noqa: TRY301
        if kinds and not (kinds & _known() and _keeps_zones(kinds, values)):
            return pyarrow.array([None if value is None else str(value) for value in values], pyarrow.string())
        return pyarrow.array(values)
    except Exception as error:  # noqa: BLE001  # Arrow has many classes; one error tells them all
        classes = ", ".join(sorted(kind.__name__ for kind in kinds))
        message = (
            f"column {name!r} has values that fit no type of Arrow ({classes}): write CAST({name} AS …) "
            "in the statement, or use the rows"
        )
        raise TypeError(message) from (error if kinds == {int} else None)  # other texts may quote a value


def _known() -> set[type]:
    """Return the classes whose values are never turned into text."""
    from datetime import date, datetime, time, timedelta
    from decimal import Decimal

    return {bool, int, float, str, bytes, list, tuple, dict, Decimal, date, datetime, time, timedelta}


def _keeps_zones(kinds: set[type], values: tuple[Any, ...]) -> bool:
    """Say whether Arrow keeps the offsets from UTC of the values.

    Raises:
        TypeError: only some moments have an offset. Arrow would take the others as times of UTC.
    """
    from datetime import datetime, time

    if not kinds & {datetime, time}:
        return True
    have_zones = {value.tzinfo is not None for value in values if value is not None}
    if kinds == {datetime} and len(have_zones) > 1:
        raise TypeError
    return kinds == {datetime} or have_zones == {False}


def _fit(values: Iterable[Any], limits: range) -> bool:
    numbers = [value for value in values if value is not None]
    return min(numbers) in limits and max(numbers) in limits


def _large(pyarrow: Any, values: tuple[Any, ...]) -> Any:
    if _fit(values, _UINT64):
        return pyarrow.array(values, pyarrow.uint64())
    from decimal import Decimal

    digits = max(len(str(abs(value))) for value in values if value is not None)
    if digits > _DIGITS_256:
        message = f"a whole number has {digits} digits"
        raise OverflowError(message)
    kind = pyarrow.decimal128(_DIGITS_128) if digits <= _DIGITS_128 else pyarrow.decimal256(_DIGITS_256)
    return pyarrow.array([None if value is None else Decimal(value) for value in values], kind)


def _check_exact(values: Iterable[Any]) -> None:
    """Raise `TypeError` if a whole number has more digits than a float keeps."""
    if any(type(value) is int and abs(value) > _EXACT and int(float(value)) != value for value in values):
        raise TypeError
