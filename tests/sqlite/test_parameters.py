"""Parameters: values go into a statement and come back, or are refused if they do not fit."""

import decimal
import enum
import math
import traceback
from types import MappingProxyType

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor import DatabaseUnavailable, Query, QueueFull, Script, SQLite, Status, SupervisorStopped, WorkerDied
from tests.conftest import eventually
from tests.support.common import PATIENCE
from tests.support.fakes import FakeDatabase, Gate, lost
from tests.support.health import same_workers

INT_MAX, INT_MIN = 2**63 - 1, -(2**63)


@pytest.fixture
def db(start):
    crew = start()
    crew.ask(Script("CREATE TABLE kept(value)"))
    return crew


# --- by position and by name --------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "params", "row"),
    [
        ("SELECT ?, ?", (1, "a"), (1, "a")),
        ("SELECT ?, ?", [1, "a"], (1, "a")),
        ("SELECT ?1, ?2", (1, 2), (1, 2)),
        ("SELECT ?2, ?1, ?2", (1, 2), (2, 1, 2)),
        ("SELECT ?2", (1, 2), (2,)),
        ("SELECT ?1, ?", (1, 2), (1, 2)),
        ("SELECT :a, @b, $c", {"a": 1, "b": 2, "c": 3}, (1, 2, 3)),
        ("SELECT :a, :a, :b", {"a": 1, "b": 2}, (1, 1, 2)),
        ("SELECT :a", MappingProxyType({"a": 1}), (1,)),
        ("SELECT :größe", {"größe": 1}, (1,)),
        ("SELECT ?1", {"1": "by its number"}, ("by its number",)),
        # A name that the statement does not have is ignored, as in SQLite's own shell.
        ("SELECT :a", {"a": 1, "b": 2}, (1,)),
        # Names are numbered in the order in which they first appear.
        ("SELECT :a, :b, :a", (1, 2), (1, 2, 1)),
        ("SELECT 1", (), (1,)),
        ("SELECT 1", {}, (1,)),
    ],
)
def test_parameters_are_given_by_position_or_by_name(db, sql, params, row):
    assert db.ask(Query(sql, params)).rows == [row]
    assert db.ask(Query(sql, params)).rows == [row], "a remembered statement takes other parameters"


def test_a_query_keeps_the_parameters_it_was_made_with(db):
    params = [1]
    query = Query("SELECT ?", params)
    params[0] = 2
    assert db.ask(query).scalar() == 1


@pytest.mark.parametrize(
    ("sql", "params", "error", "text"),
    [
        ("INSERT INTO kept VALUES (?)", (), apsw.BindingsError, "uses 1 and there are 0"),
        ("INSERT INTO kept VALUES (?)", (1, 2), apsw.BindingsError, "uses 1 and there are 2"),
        ("INSERT INTO kept VALUES (1)", (1,), apsw.BindingsError, "uses 0 and there are 1"),
        ("INSERT INTO kept VALUES (?2)", (1,), apsw.BindingsError, "uses 2 and there are 1"),
        ("INSERT INTO kept VALUES (?)", {"a": 1}, apsw.BindingsError, "has no name"),
        ("INSERT INTO kept VALUES (:a + :missing)", {"a": 1}, KeyError, "missing"),
        ("INSERT INTO kept VALUES (:a)", {":a": 1}, KeyError, "a"),
    ],
)
def test_parameters_that_do_not_fit_the_statement_are_refused_before_it_runs(db, sql, params, error, text):
    with same_workers(db):
        with pytest.raises(error, match=text) as caught:
            db.ask(Query(sql, params))
        assert any("INSERT INTO kept" in note for note in caught.value.__notes__), "the error names no statement"
        assert db.ask(Query("SELECT count(*) FROM kept")).scalar() == 0


def test_a_remembered_statement_checks_its_parameters_too(db):
    query = "SELECT ?"
    assert db.ask(Query(query, (1,))).scalar() == 1
    with pytest.raises(apsw.BindingsError), same_workers(db):
        db.ask(Query(query))
    with pytest.raises(TypeError, match="complex"), same_workers(db):
        db.ask(Query(query, (1j,)))
    assert db.ask(Query(query, (2,))).scalar() == 2


# --- the types of SQLite ------------------------------------------------------------------


class Number(enum.IntEnum):
    TWO = 2


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "kind", "comes_back"),
    [
        (None, "null", None),
        (True, "integer", 1),
        (0, "integer", 0),
        (INT_MAX, "integer", INT_MAX),
        (INT_MIN, "integer", INT_MIN),
        (Number.TWO, "integer", 2),
        (1.5, "real", 1.5),
        (5e-324, "real", 5e-324),
        (-0.0, "real", -0.0),
        (math.inf, "real", math.inf),
        (-math.inf, "real", -math.inf),
        (math.nan, "null", None),  # SQLite stores no NaN
        ("", "text", ""),
        ("größer 日本", "text", "größer 日本"),
        ("nul \0 inside \0", "text", "nul \0 inside \0"),
        ("astral \U0001f600 \U0010ffff", "text", "astral \U0001f600 \U0010ffff"),
        ("\ufeff marked, decomposed a\u0308", "text", "\ufeff marked, decomposed a\u0308"),
        (Text("a str of a kind"), "text", "a str of a kind"),
        (b"", "blob", b""),
        (b"\0\xff\0", "blob", b"\0\xff\0"),
        (bytearray(b"array"), "blob", b"array"),
        (memoryview(b"a view of some")[2:6], "blob", b"view"),
        ("x" * 1_000_000, "text", "x" * 1_000_000),
        (b"\xff" * 1_000_000, "blob", b"\xff" * 1_000_000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_of_every_type_of_sqlite_comes_back_unchanged(db, value, kind, comes_back):
    db.ask(Query("INSERT INTO kept VALUES (?)", (value,)))
    [(kept, stored_as)] = db.ask(Query("SELECT value, typeof(value) FROM kept")).rows
    assert (type(kept), kept, stored_as) == (type(comes_back), comes_back, kind)
    assert math.copysign(1, kept) == math.copysign(1, comes_back) if isinstance(kept, float) else True


VALUES = st.one_of(
    st.none(),
    st.integers(INT_MIN, INT_MAX),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=20))
def test_any_row_of_values_comes_back_unchanged(values):
    connection = SQLite().connect()
    try:
        sql = f"SELECT {', '.join('?' * len(values))}"
        for _ in ("for the first time", "remembered"):
            [row] = connection.execute(Query(sql, values)).rows
            assert [(type(value), value) for value in row] == [(type(value), value) for value in values]
    finally:
        connection.close()


def test_an_integer_beyond_64_bits_is_an_error_and_is_never_cut_off(db):
    for value in (INT_MAX + 1, INT_MIN - 1, 10**30):
        with same_workers(db), pytest.raises(OverflowError):
            db.ask(Query("INSERT INTO kept VALUES (?)", (value,)))
    assert len(db.ask(Query("SELECT * FROM kept"))) == 0


def test_a_sum_beyond_64_bits_is_an_error_of_the_statement(db):
    with same_workers(db), pytest.raises(apsw.SQLError, match="integer overflow"):
        db.ask(Query("SELECT sum(column1) FROM (VALUES (?), (1))", (INT_MAX,)))


def test_a_lone_surrogate_is_refused_in_each_place(db):
    for query in (
        Query("INSERT INTO kept VALUES (?)", ("half \ud83d a pair",)),
        Query("INSERT INTO kept VALUES ('half \ude00 a pair')"),
        Query("INSERT INTO kept VALUES (:a)", {"a": "\udfff"}),
        Script("INSERT INTO kept VALUES ('\ud800')"),
    ):
        with same_workers(db), pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
            db.ask(query)
    assert len(db.ask(Query("SELECT * FROM kept"))) == 0


def test_text_in_the_database_that_is_not_utf_8_is_an_error_of_its_statement_alone(db):
    db.ask(Query("INSERT INTO kept VALUES (1), (CAST(x'61ff62' AS TEXT)), (2)"))
    for _ in ("for the first time", "and again"):
        with same_workers(db), pytest.raises(UnicodeDecodeError):
            db.ask(Query("SELECT value FROM kept"))
    # A blob has no encoding, so a cast to a blob returns the bytes.
    assert db.ask(Query("SELECT CAST(value AS BLOB) FROM kept")).column(0)[1] == b"a\xffb"


class Opaque:
    """An object for which SQLite has no type."""


@pytest.mark.parametrize(
    "value",
    [decimal.Decimal("1.5"), Opaque(), 1j, {1, 2}, [1], {"a": 1}, range(3), Opaque, iter([1])],
    ids=lambda value: type(value).__name__,
)
def test_a_type_that_sqlite_does_not_have_is_an_error_that_names_it(db, value):
    with same_workers(db):
        with pytest.raises(TypeError, match=f"argument #2: type .*{type(value).__name__}"):
            db.ask(Query("INSERT INTO kept SELECT ? + ?", (1, value)))
        with pytest.raises(TypeError, match=type(value).__name__):
            db.ask(Query("INSERT INTO kept VALUES (:it)", {"it": value}))
        assert len(db.ask(Query("SELECT * FROM kept"))) == 0


# --- never shown --------------------------------------------------------------------------

SECRET = "hunter2"


class Secretive:
    """A value whose text is secret, and of a type that SQLite does not have."""

    def __repr__(self):
        return SECRET


def shown(error):
    """Return the whole text of an error as a program prints it, with its causes."""
    return "".join([repr(error), str(error), *error.__notes__, *traceback.format_exception(error)])


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("INSERT INTO secrets VALUES (?)", (SECRET,)),  # the value is in the table already
        ("INSERT INTO secrets VALUES (:it)", {"it": SECRET}),
        ("INSERT INTO secrets VALUES (?)", (SECRET.encode(),)),  # the table takes no blobs
        ("INSERT INTO secrets VALUES (?)", (Secretive(),)),
        ("INSERT INTO secrets VALUES (?)", (SECRET, SECRET)),
        ("INSERT INTO secrets VALUES (:it)", {"at": SECRET}),
        ("SELECT ? FROM nowhere", (SECRET,)),
        ("SELECT ?; SELECT 2", (SECRET,)),
    ],
)
def test_no_parameter_is_shown_by_the_error_of_its_statement(start, path, caplog, sql, params):
    caplog.set_level("DEBUG")
    db = start(path, size=1)
    db.ask(Script("CREATE TABLE secrets(it UNIQUE CHECK (typeof(it) = 'text'))"))
    db.ask(Query("INSERT INTO secrets VALUES (?)", (SECRET,)))
    request = Query(sql, params)
    reply = db.ask(request, block=False)
    texts = [shown(reply.exception(PATIENCE)), repr(reply), repr(request), str(request)]
    db.tell(request)
    assert eventually(lambda: "told_request_failed" in caplog.text)
    assert SECRET not in "".join([*texts, caplog.text, repr(db), str(db.ask(Status()))])


def test_no_parameter_is_shown_by_the_crews_own_errors_logs_and_status(start, caplog):
    caplog.set_level("DEBUG")
    gate = Gate()
    database = FakeDatabase({"wait": gate, "die": lost(), "what?": lambda: iter([1])})
    db = start(database, size=1, max_queue=1)
    replies = [db.ask(Query("wait", (SECRET,)), block=False)]
    assert gate.entered.wait(PATIENCE)
    replies += [db.ask(Query(sql, {"it": SECRET}), block=False) for sql in ("die", "one too many")]
    texts = [repr(replies), repr(db), repr(db.ask(Status())), str(db.ask(Status()))]
    gate.opened.set()
    errors = [reply.exception(PATIENCE) for reply in replies]
    errors.append(db.ask(Query("what?", (SECRET,)), block=False).exception(PATIENCE))
    db.stop()
    errors.append(db.ask(Query("too late", (SECRET,)), block=False).exception(PATIENCE))
    kinds = [type(error) for error in errors]
    assert kinds == [type(None), WorkerDied, QueueFull, TypeError, SupervisorStopped]
    texts += [str(error) + repr(error) + "".join(traceback.format_exception(error)) for error in errors[1:]]
    assert SECRET not in "".join([*texts, caplog.text])


def test_no_parameter_is_shown_by_a_crew_that_cannot_open_its_database(start, tmp_path, caplog):
    caplog.set_level("DEBUG")
    db = start(tmp_path, size=1)  # a folder
    error = db.ask(Query("SELECT ?", (SECRET,)), block=False).exception(PATIENCE)
    assert type(error) is DatabaseUnavailable
    assert SECRET not in "".join([*traceback.format_exception(error), repr(error), caplog.text, str(db.ask(Status()))])
