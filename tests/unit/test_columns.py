"""Results as columns: from rows, from a table without tuples, and between processes."""

import builtins
import datetime as dt
import decimal
import pickle
import threading
import uuid

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from actors.values.columns import Columns
from supervisor import ChildProcess, Query, Result, Script

TABLE = pa.table({"number": [1, 2, None], "name": ["a", None, "c"]})
ROWS = [(1, "a"), (2, None), (None, "c")]

DAY = dt.date(2026, 1, 2)
MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, 6)  # noqa: DTZ001  # drivers give such values
ID = uuid.UUID(int=7)
EAST = dt.timezone(dt.timedelta(hours=5))


# --- from rows ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "wanted"),
    [
        ([1, None, -(2**63)], pa.int64(), None),
        ([1.5, None], pa.float64(), None),
        ([1, 2.5, None, 2**53], pa.float64(), [1.0, 2.5, None, float(2**53)]),
        ([2**64 - 1, 0], pa.uint64(), None),
        ([2**64, -1, None], pa.decimal128(38), [decimal.Decimal(2**64), decimal.Decimal(-1), None]),
        ([10**75], pa.decimal256(76), [decimal.Decimal(10**75)]),
        (["text", None, "\0"], pa.string(), None),
        ([b"\0\xff", None, b""], pa.binary(), None),
        ([bytearray(b"\0"), memoryview(b"\xff"), b"", None], pa.binary(), [b"\0", b"\xff", b"", None]),
        ([True, None], pa.bool_(), None),
        ([None, None], pa.null(), None),
        ([decimal.Decimal("1.5"), decimal.Decimal("100.25")], pa.decimal128(5, 2), None),
        ([DAY, None], pa.date32(), None),
        ([MOMENT], pa.timestamp("us"), None),
        ([dt.timedelta(seconds=1)], pa.duration("us"), None),
        ([[1, 2], None, []], pa.list_(pa.int64()), None),
        ([(1, 2), [3]], pa.list_(pa.int64()), [[1, 2], [3]]),
        ([{"a": 1}, {"a": 2}], pa.struct({"a": pa.int64()}), None),
        ([ID, None], pa.string(), [str(ID), None]),
        ([dt.time(1, 2), None], pa.time64("us"), None),
        ([dt.time(1, 2, tzinfo=EAST), None], pa.string(), ["01:02:00+05:00", None]),
        ([MOMENT.replace(tzinfo=EAST), None], pa.timestamp("us", "+05:00"), None),
    ],
)
def test_a_column_has_the_type_of_its_values(values, kind, wanted):
    table = Result(("c",), [(value,) for value in values], len(values)).to_arrow()
    assert table.schema.field("c").type == kind
    assert table.column("c").to_pylist() == (values if wanted is None else wanted)


@pytest.mark.parametrize(
    "values",
    [
        [1, "secret"],
        ["secret", b"bytes"],
        [True, 1],
        [1.5, 2**53 + 1],
        [DAY, MOMENT],
        [MOMENT, DAY],
        [MOMENT, MOMENT.replace(tzinfo=EAST)],
        [[1], ["secret"]],
        [decimal.Decimal(1), 1.5],
        [10**77],
        ["\ud800"],
    ],
    ids=repr,
)
def test_mixed_values_are_refused_by_the_name_of_the_column(values):
    rows = [(number, value) for number, value in enumerate(values)]
    with pytest.raises(TypeError, match=r"column 'mixed'.*CAST") as caught:
        Result(("number", "mixed"), rows, len(rows)).to_arrow()
    assert type(values[0]).__name__ in str(caught.value)
    assert "secret" not in "".join(map(repr, (caught.value, caught.value.__cause__)))


def test_a_result_without_rows_keeps_its_columns():
    empty = Result(("a", "b"), [], 0)
    assert empty.to_arrow().column_names == ["a", "b"]
    assert list(empty.to_pandas().columns) == empty.to_polars().columns == ["a", "b"]
    assert Result().to_arrow().num_columns == 0


@pytest.mark.parametrize("value", [10**75, {"nested": decimal.Decimal(10**75)}], ids=["plain", "nested"])
def test_a_type_that_polars_lacks_is_an_error_with_the_name_of_the_column(value):
    with pytest.raises(TypeError, match=r"wide: .*decimal256.*CAST"):
        Result(("wide",), [(value,)], 1).to_polars()


def test_two_columns_may_have_one_name_but_not_in_polars():
    result = Result(("a", "a"), [(1, 2)], 1)
    assert [column.to_pylist() for column in result.to_arrow().columns] == [[1], [2]]
    assert list(result.to_pandas().columns) == ["a", "a"]
    with pytest.raises(ValueError, match="two columns have the name 'a'"):
        result.to_polars()


def test_frames_have_the_values_of_the_rows():
    result = Result(("number", "name"), ROWS, 3)
    assert result.to_polars().rows() == ROWS
    assert result.to_pandas(types_mapper=pd.ArrowDtype)["number"].tolist()[:2] == [1, 2]
    assert isinstance(result.to_pandas(), pd.DataFrame)
    assert isinstance(result.to_polars(), pl.DataFrame)


@pytest.mark.parametrize(
    ("module", "extra", "convert"),
    [
        ("pyarrow", "arrow", Result.to_arrow),
        ("pandas", "pandas", Result.to_pandas),
        ("polars", "polars", Result.to_polars),
    ],
)
def test_a_missing_library_is_named_with_its_extra(monkeypatch, module, extra, convert):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    monkeypatch.setitem(__import__("sys").modules, f"{module}.ipc", None)
    with pytest.raises(ImportError, match=rf"needs {module}.*querycrew\[{extra}\]"):
        convert(Result(("a",), [(1,)], 1))


def test_importing_the_library_imports_none_of_them():
    from tests.support.health import run_python

    names = "{'pyarrow', 'pandas', 'polars', 'duckdb'}"
    assert run_python(f"import sys, supervisor\nprint({names} & set(sys.modules))").strip() == "set()"


# --- results that hold columns ------------------------------------------------------------


def test_a_result_of_a_table_is_a_result():
    result = Result.of_table(TABLE)
    assert (len(result), result.columns, result.rowcount, bool(result)) == (3, ("number", "name"), 3, True)
    assert result.to_arrow() is TABLE
    assert result == Result(("number", "name"), ROWS, 3)
    assert result.rows is result.rows
    assert (result.scalar(), result[1].name, result.first(), result.column("number")) == (
        1,
        None,
        ROWS[0],
        [1, 2, None],
    )
    assert "name" in str(result)
    assert not Result.of_table(TABLE.slice(0, 0))
    assert Result.of_table(TABLE.slice(0, 0)).first() is None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        result.nothing  # noqa: B018


def test_rows_are_not_made_before_someone_wants_them(monkeypatch):
    monkeypatch.setattr("actors.values.result.rows_of", lambda _: pytest.fail("no tuple is needed"))
    result = Result.of_table(TABLE)
    assert len(pickle.loads(pickle.dumps(result))) == 3
    assert len(result._limited(2)) == 2
    result.to_pandas()
    result.to_polars()


def test_a_result_of_a_table_travels_as_buffers():
    large = Result.of_table(pa.table({"n": pa.array(range(100_000))}), truncated=True)
    packed = pickle.dumps(large)
    assert len(packed) < 100_000 * 8 + 2000, "eight bytes a number, and no tuples"
    arrived = pickle.loads(packed)
    again = pickle.loads(pickle.dumps(arrived))
    for result in (arrived, again):
        assert (len(result), result.truncated, result.columns) == (100_000, True, ("n",))
        assert result.to_arrow().equals(large.to_arrow())


def test_max_rows_cuts_columns():
    cut = Result.of_table(TABLE)._limited(2)
    assert (cut.rows, cut.rowcount, cut.truncated) == (ROWS[:2], 3, True)
    whole = Result.of_table(TABLE)
    assert whole._limited(3) is whole


def test_several_threads_may_read_one_result():
    arrived = pickle.loads(pickle.dumps(Result.of_table(pa.table({"n": pa.array(range(10_000))}))))
    read = []
    threads = [threading.Thread(target=lambda: read.append((arrived.rows[-1], len(arrived)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [((9_999,), 10_000)] * 8


def test_a_table_without_columns_has_rows():
    assert Result.of_table(pa.table({})).rows == []
    assert Columns(TABLE).head(1).table.num_rows == 1


# --- from SQLite --------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda path: path, ChildProcess], ids=["thread", "child"])
def test_sqlite_answers_by_rows_that_become_columns(start, path, wrap):
    db = start(wrap(path), size=1)
    db.ask(Script("CREATE TABLE t(n, s); INSERT INTO t VALUES (1, 'a'), (2.5, NULL), (NULL, 'c')"))
    result = db.ask(Query("SELECT n, s FROM t WHERE n < ? OR n IS NULL", (9,), arrow=True))
    assert result.to_arrow().to_pydict() == {"n": [1.0, 2.5, None], "s": ["a", None, "c"]}
    assert db.ask(Query("SELECT n FROM t", max_rows=1, arrow=True)).truncated
    assert repr(Query("SELECT 1", arrow=True)) != repr(Query("SELECT 1"))
    assert builtins.type(result) is Result
