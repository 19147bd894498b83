"""Requests: the values that they accept, refuse and never show."""

import pickle
from collections import ChainMap, UserList, namedtuple

import pytest

from actors.values.requests import Query, Script, Shutdown, Status, WorkerDown, shorten

Point = namedtuple("Point", "x y")  # noqa: PYI024  # a subclass of tuple


class Text(str):
    __slots__ = ()


def test_a_query_keeps_its_text_and_a_tuple_of_parameters_as_they_are():
    params = (1, "two", None)
    query = Query("SELECT ?, ?, ?", params)
    assert query.sql == "SELECT ?, ?, ?"
    assert query.params is params


def test_a_query_has_no_parameters_unless_they_are_given():
    assert Query("SELECT 1").params == ()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([1, 2], (1, 2)),
        (range(3), (0, 1, 2)),
        (Point(1, 2), (1, 2)),
        (UserList([b"x"]), (b"x",)),
        ({"a": 1}, {"a": 1}),
        (ChainMap({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
        ([], ()),
        ({}, {}),
    ],
)
def test_other_sequences_and_mappings_become_plain_ones(given, kept):
    params = Query("SELECT 1", given).params
    assert params == kept
    assert type(params) is type(kept)


@pytest.mark.parametrize("params", [[1], {"a": 1}], ids=["list", "dict"])
def test_a_caller_may_go_on_changing_its_own_parameters(params):
    query = Query("SELECT 1", params)
    before = query.params.copy() if isinstance(params, dict) else query.params
    params.clear()
    assert query.params == before


@pytest.mark.parametrize("params", ["text", b"bytes", bytearray(b"x"), memoryview(b"x"), 5, None, {1, 2}, iter(())])
def test_parameters_that_are_no_sequence_are_refused_with_the_remedy(params):
    with pytest.raises(TypeError, match=rf"not {type(params).__name__}; write \(value,\) for a single one"):
        Query("SELECT ?", params)


def test_names_of_parameters_must_be_texts():
    with pytest.raises(TypeError, match="by name needs str names, not int"):
        Query("SELECT :a", {1: "a"})


@pytest.mark.parametrize("request_class", [Query, Script])
def test_a_statement_must_be_a_text(request_class):
    with pytest.raises(TypeError, match=rf"^{request_class.__name__}\(sql\) must be a str, not bytes$"):
        request_class(b"SELECT 1")


@pytest.mark.parametrize("request_class", [Query, Script])
@pytest.mark.parametrize("sql", ["", "  ", "\n\t"])
def test_a_statement_must_not_be_empty(request_class, sql):
    with pytest.raises(ValueError, match=rf"^{request_class.__name__}\(sql\) is empty"):
        request_class(sql)


def test_a_subclass_of_str_is_a_statement_too():
    assert Query(Text("SELECT 1")).sql == "SELECT 1"
    with pytest.raises(ValueError, match="is empty"):
        Query(Text(" "))


def test_parameters_are_never_shown():
    query = Query("SELECT ?", ("s3cret",))
    assert "s3cret" not in repr(query)
    assert "s3cret" not in str(query)


def test_requests_print_as_their_shortened_statement():
    assert str(Query("SELECT\n  1")) == "Query('SELECT 1')"
    assert str(Script("BEGIN;\nCOMMIT")) == "Script('BEGIN; COMMIT')"


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("SELECT 1", "SELECT 1"),
        ("  SELECT \n\t 1  ", "SELECT 1"),
        ("x" * 120, "x" * 120),
        ("x" * 121, "x" * 119 + "…"),
        ("y" * 1_000_000, "y" * 119 + "…"),
    ],
    ids=["short", "spaces", "just fits", "one too long", "huge"],
)
def test_a_statement_is_shortened_to_one_line(sql, shown):
    assert shorten(sql) == shown


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (Query("SELECT 1", [1]), "sql"),
        (Query("SELECT 1", [1]), "params"),
        (Script("SELECT 1"), "sql"),
        (Status(), "anything"),
        (WorkerDown(1, None), "cause"),
        (Shutdown(cancel_pending=True, timeout=None), "timeout"),
    ],
)
def test_messages_are_frozen_values_that_can_be_pickled(message, name):
    with pytest.raises(AttributeError):
        setattr(message, name, None)
    with pytest.raises(AttributeError):
        delattr(message, name)
    assert pickle.loads(pickle.dumps(message)) == message


def test_messages_with_equal_fields_are_equal_and_of_one_kind_only():
    assert Query("SELECT 1", [1]) == Query("SELECT 1", (1,))
    assert hash(Query("SELECT 1", [1])) == hash(Query("SELECT 1", (1,)))
    assert Query("SELECT 1", [1]) != Query("SELECT 1", [2])
    assert Query("SELECT 1") != Script("SELECT 1")


def test_messages_are_matched_by_their_fields():
    match Query("SELECT ?", [1]):
        case Query(sql, params):
            assert (sql, params) == ("SELECT ?", (1,))
        case _:
            pytest.fail("no match")
