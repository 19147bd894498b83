"""Result and Row: plain values that print as a table."""

import copy
import pickle
import sqlite3

import pytest

from actors.values.result import Result, Row
from supervisor import Query

PEOPLE = Result(("name", "age"), [("ann", 31), ("bob", 22)], 2)
NOTHING = Result(("name", "age"), [], 0)


# --- rows ---------------------------------------------------------------------------------


def test_a_row_answers_to_position_name_and_attribute():
    row = PEOPLE[0]
    assert (row[0], row["name"], row.name, row[-1], row["age"], row.age) == ("ann", "ann", "ann", 31, 31, 31)


def test_a_row_is_the_tuple_of_its_values():
    row = PEOPLE[0]
    assert isinstance(row, tuple)
    assert row == ("ann", 31)
    assert hash(row) == hash(("ann", 31))
    assert row[:1] == ("ann",)
    name, age = row
    assert (name, age) == ("ann", 31)


def test_an_unknown_column_is_refused_with_the_names_of_the_columns():
    row = PEOPLE[0]
    with pytest.raises(KeyError, match="no column 'size'; its columns: name, age"):
        row["size"]
    with pytest.raises(AttributeError, match="no column 'size'; its columns: name, age"):
        _ = row.size
    with pytest.raises(IndexError):
        row[2]


def test_a_name_of_two_columns_means_the_first():
    row = Result(("a", "a", "b"), [(1, 2, 3)])[0]
    assert row["a"] == row.a == 1
    assert row.asdict() == {"a": 1, "b": 3}


def test_a_column_named_like_a_method_is_reached_by_its_name_in_brackets():
    row = Result(("count", "_hidden"), [(7, 8)])[0]
    assert row["count"] == 7
    assert row["_hidden"] == 8
    assert row.count(7) == 1


def test_columns_named_like_methods_are_part_of_a_dictionary():
    row = Result(("keys", "asdict", "columns"), [(1, 2, 3)])[0]
    assert (row["keys"], row["asdict"], row["columns"]) == (1, 2, 3)
    assert dict(row) == row.asdict() == {"keys": 1, "asdict": 2, "columns": 3}


def taken(**named):
    return named


def test_a_row_becomes_a_dictionary_in_every_way_that_python_has():
    row = PEOPLE[0]
    wanted = {"name": "ann", "age": 31}
    assert dict(row) == {**row} == {} | dict(row) == taken(**row) == row.asdict() == wanted
    assert list(dict(row)) == list(row.columns), "the dictionary keeps the order of the columns"


@pytest.mark.parametrize("sql", ["SELECT 1 AS a, 'x' AS b", "SELECT 1 AS a, 2 AS a, 3 AS b", "SELECT 1 AS keys"])
def test_a_row_has_the_keys_of_a_row_of_the_standard_library(start, sql):
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    theirs = connection.execute(sql).fetchone()
    connection.close()
    ours = start().ask(Query(sql)).one()
    assert (ours.keys(), dict(ours)) == (theirs.keys(), dict(theirs))


def test_of_two_columns_with_one_name_a_dictionary_has_the_first_and_another_name_shows_both(start):
    db = start()
    row = db.ask(Query("SELECT 1 AS id, 2 AS id")).one()
    assert (row.keys(), dict(row), row.asdict()) == (["id", "id"], {"id": 1}, {"id": 1})
    with pytest.raises(TypeError, match="multiple values for keyword argument 'id'"):
        taken(**row)
    row = db.ask(Query("SELECT 1 AS id, 2 AS other_id")).one()
    assert dict(row) == {"id": 1, "other_id": 2}


def test_the_keys_of_a_row_are_a_list_of_the_callers_own():
    row = PEOPLE[0]
    row.keys().clear()
    assert row.keys() == ["name", "age"]


def test_a_row_names_its_fields_as_a_named_tuple_does():
    assert PEOPLE[0]._fields == ("name", "age")
    assert not hasattr(Row, "_fields"), "a row without columns would look like an empty named tuple"


@pytest.mark.parametrize("columns", [("name", "age"), ("name", "name"), ("count", "index")])
def test_pandas_takes_the_names_of_columns(columns):
    pandas = pytest.importorskip("pandas")
    result = Result(columns, [("ann", 31), ("bob", 22)])
    for frame in (pandas.DataFrame(result), pandas.DataFrame(result.rows, columns=result.columns)):
        assert (tuple(frame.columns), frame.values.tolist()) == (columns, [["ann", 31], ["bob", 22]])


def test_a_row_prints_its_names_and_values():
    assert repr(PEOPLE[0]) == "Row(name='ann', age=31)"


def test_a_row_offers_its_columns_to_a_prompt():
    assert {"name", "age", "asdict"} <= set(dir(PEOPLE[0]))


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda row: pickle.loads(pickle.dumps(row))])
def test_a_copied_row_still_knows_its_columns(clone):
    row = clone(PEOPLE[1])
    assert (row, row.name, row.columns) == (("bob", 22), "bob", ("name", "age"))


def test_rows_with_the_same_columns_share_a_class():
    assert type(PEOPLE[0]) is type(NOTHING.first() or PEOPLE[1])
    assert issubclass(type(PEOPLE[0]), Row)


def test_a_row_keeps_no_room_for_anything_else():
    with pytest.raises(AttributeError):
        PEOPLE[0].extra = 1


# --- the sequence -------------------------------------------------------------------------


def test_a_result_is_a_sequence_of_rows():
    assert len(PEOPLE) == 2
    assert [row.name for row in PEOPLE] == ["ann", "bob"]
    assert PEOPLE[-1].name == "bob"
    assert [row.age for row in PEOPLE[1:]] == [22]
    assert ("bob", 22) in PEOPLE
    assert PEOPLE.index(("bob", 22)) == 1
    assert [row.name for row in reversed(PEOPLE)] == ["bob", "ann"]
    with pytest.raises(IndexError):
        PEOPLE[2]


def test_a_result_is_no_mapping_and_does_not_take_two_columns_for_keys_and_values():
    for result in (PEOPLE, NOTHING, Result(("a", "b", "c"), [(1, 2, 3)]), Result(rowcount=1)):
        for convert in (dict, lambda result: {**result}, lambda result: taken(**result)):
            with pytest.raises(TypeError, match=r"result.dicts\(\) for JSON, or dict\(result.rows\)"):
                convert(result)
    assert dict(PEOPLE.rows) == {"ann": 31, "bob": 22}


def test_a_result_without_rows_is_false_and_none_is_something_else():
    for result in (NOTHING, Result(rowcount=3)):
        assert not result
        assert result is not None


def test_an_empty_result_keeps_its_columns():
    assert NOTHING.columns == ("name", "age")


def test_the_rows_are_the_same_tuples_as_the_drivers():
    rows = [("ann", 31)]
    assert Result(("name", "age"), rows).rows is rows


def test_a_result_of_nothing_has_no_columns_and_no_rows():
    result = Result()
    assert (result.columns, result.rows, result.rowcount, result.lastrowid) == ((), [], 0, None)
    assert result.rows is not Result().rows


def test_first_is_the_first_row_or_none():
    assert PEOPLE.first() == ("ann", 31)
    assert PEOPLE.first().name == "ann"
    assert NOTHING.first() is None


def test_one_is_the_only_row():
    assert Result(("n",), [(5,)]).one().n == 5


@pytest.mark.parametrize(("result", "count"), [(NOTHING, 0), (PEOPLE, 2)])
def test_one_refuses_none_and_many_and_says_how_many(result, count):
    with pytest.raises(ValueError, match=f"exactly one row, and the result has {count}$"):
        result.one()


def test_scalar_is_the_first_value_or_none():
    assert PEOPLE.scalar() == "ann"
    assert NOTHING.scalar() is None


def test_a_column_is_found_by_name_and_by_position():
    assert PEOPLE.column("age") == PEOPLE.column(1) == PEOPLE.column(-1) == [31, 22]
    assert NOTHING.column("age") == []


def test_a_column_that_is_not_there_is_an_error_even_without_rows():
    with pytest.raises(KeyError, match="no column 'size'; its columns: name, age"):
        NOTHING.column("size")
    for position in (2, -3):
        with pytest.raises(IndexError):
            NOTHING.column(position)


def test_dicts_are_rows_by_name():
    assert PEOPLE.dicts() == [{"name": "ann", "age": 31}, {"name": "bob", "age": 22}]


def test_results_are_equal_when_all_their_fields_are():
    assert Result(("a",), [(1,)], 1, 7) == Result(("a",), [(1,)], 1, 7)
    assert Result(("a",), [(1,)], 1, 7) != Result(("b",), [(1,)], 1, 7)
    assert Result(("a",), [(1,)], 1, 7) != Result(("a",), [(2,)], 1, 7)
    assert Result(("a",), [(1,)], 1, 7) != Result(("a",), [(1,)], 2, 7)
    assert Result(("a",), [(1,)], 1, 7) != Result(("a",), [(1,)], 1, 8)
    assert Result(("a",), [(1,)]) != [(1,)]


def test_a_result_cannot_be_a_key():
    with pytest.raises(TypeError, match="unhashable"):
        hash(PEOPLE)


def test_a_result_can_be_pickled():
    result = Result(("a", "b"), [(1, b"x")], 1, 9)
    assert pickle.loads(pickle.dumps(result)) == result


# --- looking at it ------------------------------------------------------------------------


def test_a_result_prints_as_a_table():
    assert repr(PEOPLE).splitlines() == [
        "name │ age",
        "─────┼────",
        "ann  │ 31",
        "bob  │ 22",
        "(2 rows)",
    ]


def test_a_table_of_one_row_says_row():
    assert repr(Result(("n",), [(1,)])).endswith("(1 row)")


def test_a_table_without_rows_shows_its_columns():
    assert repr(NOTHING).splitlines() == ["name │ age", "─────┼────", "(0 rows)"]


def test_a_table_that_was_cut_off_says_that_there_were_more_rows():
    assert str(Result(("n",), [(1,)], 1, None, True)).endswith("(1 row, and there were more)")


def test_a_result_without_columns_prints_the_number_of_changes():
    assert repr(Result(rowcount=3)) == "<Result: no rows, rowcount=3>"
    assert repr(Result(rowcount=1, lastrowid=7)) == "<Result: no rows, rowcount=1, lastrowid=7>"


def test_a_long_table_shows_its_first_twenty_rows():
    result = Result(("n",), [(n,) for n in range(21)])
    lines = repr(result).splitlines()
    assert len(lines) == 2 + 20 + 1
    assert lines[-2:] == ["19", "(21 rows, the first 20 shown)"]
    assert "(20 rows)" in repr(Result(("n",), [(n,) for n in range(20)]))


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, "NULL"),
        (b"\0\1\2", "<3 bytes>"),
        ("two\nlines\0", "two·lines·"),
        ("x" * 40, "x" * 40),
        ("x" * 41, "x" * 39 + "…"),
        ("x" * 10_000_000, "x" * 39 + "…"),
        (1.5, "1.5"),
        ("\ud800", "·"),
    ],
    ids=["null", "blob", "control", "just fits", "too long", "huge", "float", "surrogate"],
)
def test_a_cell_is_one_short_printable_line(value, cell):
    assert repr(Result(("n",), [(value,)])).splitlines()[2] == cell


def test_a_notebook_gets_a_table_without_markup_from_cells():
    html = Result(("a<b",), [("<script>",), (None,), ('" onload="',)])._repr_html_()
    assert ">a&lt;b</th>" in html
    assert ">&lt;script&gt;</td>" in html
    assert '" onload' not in html
    assert html.endswith("<p>(3 rows)</p>")
    assert html.count("<") == html.count(">") == 2 * (1 + 1 + 1 + 1 + 1 + 3 + 3 + 1)


def test_a_notebook_tells_numbers_null_and_blobs_from_text():
    html = Result(("n", "text"), [(1, "NULL"), (None, b"abc"), (2.5, "7")])._repr_html_()
    assert '<th style="text-align:right">n</th><th style="text-align:left">text</th>' in html
    assert '<td style="text-align:right">1</td><td style="text-align:left">NULL</td>' in html
    assert '<td style="text-align:right;opacity:0.5">NULL</td>' in html
    assert '<td style="text-align:left;opacity:0.5">&lt;3 bytes&gt;</td>' in html
    assert '<td style="text-align:left">7</td>' in html


def test_a_notebook_gets_no_more_than_it_can_show():
    wide = Result(tuple(f"column {at}" for at in range(2000)), [tuple(range(2000))])._repr_html_()
    assert wide.count("<th ") == wide.count("<td ") == 60
    assert wide.endswith("<p>(1 row, 1940 more columns)</p>")
    long = Result(("x" * 10_000,), [("y" * 10_000_000,), ("\x1b[31m\u202e\0",)])._repr_html_()
    assert len(long) < 1000
    assert "·[31m··" in long


def test_a_notebook_shows_the_number_of_changes_of_a_statement_without_rows():
    assert Result(rowcount=3, lastrowid=7)._repr_html_() == "<p>&lt;Result: no rows, rowcount=3, lastrowid=7&gt;</p>"
    assert Result(rowcount=2)._repr_html_() == "<p>&lt;Result: no rows, rowcount=2&gt;</p>"
    assert ">name</th>" in NOTHING._repr_html_()


def test_a_notebook_gets_the_first_twenty_rows_only():
    html = Result(("n",), [(n,) for n in range(30)])._repr_html_()
    assert html.count("<td ") == 20
    assert "(30 rows, the first 20 shown)" in html
