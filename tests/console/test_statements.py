"""SQL as text: statements, their kinds, and the places of errors."""

import apsw
import pytest

from actors.console.statements import first_word, gives_rows, is_complete, only_reads, place_of, split


def sqls(text):
    return [statement.sql for statement in split(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  -- nothing\n;; /* ; */", []),
        ("select 1", ["select 1"]),
        ("select 1; select 2;", ["select 1;", "select 2;"]),
        ("select ';'; select \"a;\", `;`, [;]", ["select ';';", 'select "a;", `;`, [;]']),
        ("select 'it''s;'; select 2", ["select 'it''s;';", "select 2"]),
        ("select 1 -- ; no\n; select 2 /* ; */", ["select 1 -- ; no\n;", "select 2 /* ; */"]),
        ("select 'open; select 2", ["select 'open; select 2"]),
        (
            "create temp trigger t after insert on a begin select 1; select 2; end; select 3",
            ["create temp trigger t after insert on a begin select 1; select 2; end;", "select 3"],
        ),
    ],
)
def test_a_text_is_split_where_its_statements_end(text, expected):
    assert sqls(text) == expected


def test_a_long_text_with_many_semicolons_is_split_fast():
    text = ("insert into t values ('" + ";" * 500_000 + "');") * 3
    assert len(sqls(text)) == 3


@pytest.mark.parametrize(
    ("sql", "reads", "rows"),
    [
        ("select 1", True, True),
        ("/* x */ VALUES (1)", True, True),
        ("with a as (select 1) select 'delete'", True, True),
        ("with a as (select 1) delete from t", False, True),
        ("insert into t values (1)", False, False),
        ("insert into t values ('returning')", False, False),
        ("delete from t returning a", False, True),
        ("pragma user_version", True, True),
        ("pragma user_version = 3", True, False),
        ("create table t (a)", False, False),
    ],
)
def test_the_words_of_a_statement_tell_its_kind(sql, reads, rows):
    assert (only_reads(sql), gives_rows(sql)) == (reads, rows)


def test_the_first_word_stands_behind_comments():
    assert first_word(" -- a\n/* b */ SELECT 1") == "select"
    assert first_word("1") == ""


@pytest.mark.parametrize("sql", ["select (1", "select 'a", 'select "a', "select 1 /* a", "select `a"])
def test_an_open_parenthesis_or_quote_is_not_complete(sql):
    assert not is_complete(sql)


@pytest.mark.parametrize("sql", ["select (1)", "select 'it''s (' -- (", "select 1 /* ( */", "select [(]"])
def test_a_parenthesis_in_a_text_opens_nothing(sql):
    assert is_complete(sql)


def test_a_trigger_is_complete_at_its_end():
    assert not is_complete("create trigger t after insert on a begin select 1;")
    assert is_complete("create trigger t after insert on a begin select 1; end;")


def error_of(sql):
    with pytest.raises(apsw.Error) as caught:
        apsw.Connection(":memory:").execute(sql)
    return caught.value


def test_a_place_is_counted_in_characters_and_lines():
    sql = "select 'é日',\n  nope"
    place = place_of(error_of(sql), sql, list(split(sql)))
    assert (place.line, place.column, place.text, place.at) == (2, 3, "  nope", 2)


def test_the_place_in_a_script_is_found_by_the_text_that_the_message_repeats():
    sql = "create table é (a);\n\n  insert into é valuez (1);\ninsert into é values (2);"
    place = place_of(error_of(sql), sql, list(split(sql)))
    assert (place.line, place.column) == (3, 17)


def test_a_place_that_several_statements_may_mean_is_not_told():
    sql = " selec 1; selec 1;"
    assert place_of(error_of(" selec 1"), sql, list(split(sql))) is None


def test_an_error_without_a_place_has_none():
    assert place_of(ValueError("x"), "select 1", list(split("select 1"))) is None
