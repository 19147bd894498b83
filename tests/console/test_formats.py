"""The formats for a pipe."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.console.formats import WRITERS, unique

ROWS = [
    (1, "a,b", None, b"\x00\xff", 1.5),
    (-2, 'say "b\'"', "", b"", float("inf")),
    (3, "line\nbreak", "日本", None, 0.1),
]
COLUMNS = ("id", "text", "none", "blob", "number")


def written(name, *results, header=True):
    text = io.StringIO()
    writer = WRITERS[name](text.write, header=header)
    for columns, *chunks in results:
        writer.begin(columns)
        for rows in chunks:
            writer.rows(rows)
        writer.end()
    return text.getvalue()


def test_csv_is_read_back_by_another_program():
    text = written("csv", (COLUMNS, ROWS[:1], ROWS[1:]))
    assert list(csv.reader(io.StringIO(text))) == [
        list(COLUMNS),
        ["1", "a,b", "", "00ff", "1.5"],
        ["-2", 'say "b\'"', "", "", "inf"],
        ["3", "line\nbreak", "日本", "", "0.1"],
    ]


@pytest.mark.parametrize("blob", [b"", b"a", b"'", b'"', b"'\"", b",", b"\n", bytes(range(256))])
def test_a_blob_is_hexadecimal_in_csv(blob):
    assert written("csv", (["a"], [(blob,)]), header=False).strip('"\n') == blob.hex()


def test_a_text_that_looks_like_a_blob_stays_a_text():
    assert written("csv", (["a", "b"], [("b'x'", b"\x01")]), header=False) == "b'x',01\n"


VALUES = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.binary(max_size=3),
    st.text(max_size=5),
    st.sampled_from(["None", "b'x'", 'b"', ",", "\n", "\r", '"', "", " ", "%s", "N"]),
)


@given(st.integers(1, 3).flatmap(lambda n: st.lists(st.tuples(*[VALUES] * n), min_size=1, max_size=4)))
def test_the_quick_way_to_csv_agrees_with_pythons_writer(rows):
    text = io.StringIO()
    plain = [tuple(value.hex() if isinstance(value, bytes) else value for value in row) for row in rows]
    csv.writer(text, lineterminator="\n").writerows(plain)
    assert written("csv", ([], rows), header=False) == text.getvalue()


def test_csv_goes_without_its_header():
    assert written("csv", (["a"], [(1,)]), header=False) == "1\n"


def test_two_results_in_csv_have_an_empty_line_between_them():
    assert written("csv", (["a"], [(1,)]), (["b"], [(2,)])) == "a\n1\n\nb\n2\n"


def test_json_is_an_array_of_objects_over_any_number_of_chunks():
    found = json.loads(written("json", (COLUMNS, ROWS[:1], [], ROWS[1:])))
    assert found[0] == {"id": 1, "text": "a,b", "none": None, "blob": "00ff", "number": 1.5}
    assert found[1]["number"] == float("inf")
    assert len(found) == 3


def test_json_without_rows_is_an_empty_array():
    assert written("json", (["a"],), (["a"], [])) == "[]\n[]\n"


def test_lines_of_json_are_an_object_each():
    lines = written("jsonl", (COLUMNS, ROWS), (["a"], [("é",)])).splitlines()
    assert len(lines) == 4
    assert lines[3] == '{"a": "é"}'


def test_columns_of_one_name_get_numbers_in_json():
    assert unique(["a", "a", "a_2", "a"]) == ("a", "a_2", "a_2_2", "a_3")


def test_markdown_escapes_its_own_signs():
    text = written("markdown", (["n", "a|b"], [(1, "x|y\nz\\"), (None, "q")]))
    assert text == "| n | a\\|b |\n| ---: | --- |\n| 1 | x\\|y<br>z\\\\ |\n| NULL | q |\n"


def test_markdown_without_rows_has_its_head():
    assert written("markdown", (["a"],)) == "| a |\n| --- |\n"
