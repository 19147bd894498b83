"""Each kind of request on PostgreSQL: values, placeholders, transactions, COPY, texts."""

import datetime as dt
import decimal
import enum
import ipaddress
import uuid
from contextlib import suppress

import psycopg
import pytest
from psycopg.types.json import Jsonb

from supervisor import (
    Call,
    ConnectionLost,
    PostgreSQL,
    Query,
    ResultLost,
    Script,
    Transaction,
    TransactionBroken,
    TransactionLeftOpen,
)
from tests.postgres.together import opened, run_together

TABLE = Script("CREATE TABLE kept(number integer PRIMARY KEY, text text); INSERT INTO kept VALUES (1, 'one')")


@pytest.fixture
def connection(uri):
    with opened(PostgreSQL(uri)) as connection:
        connection.execute(TABLE)
        yield connection


def numbers(connection):
    return connection.execute(Query("SELECT number FROM kept ORDER BY number")).column("number")


# --- values and placeholders --------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        True,
        2**15,
        2**31,
        -(2**63),
        2**80,
        decimal.Decimal("0.1000"),
        float("inf"),
        "ü \U0001f600",
        b"\0\xff",
        dt.date(2000, 2, 29),
        dt.time(23, 59, 59, 999999),
        dt.datetime(2000, 1, 1, 12, tzinfo=dt.UTC),
        dt.timedelta(days=-1, seconds=5),
        uuid.UUID(int=7),
        ipaddress.ip_network("10.0.0.0/8"),
        [1, 2, 3],
        ["a", None, "ü"],
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_the_drivers_python_types(server, connection, value):
    [(expected,)] = server.run("SELECT %s AS v", value)
    for _ in range(7):  # also once it is prepared
        [(found,)] = connection.execute(Query("SELECT %s AS v", (value,))).rows
        assert (found, type(found)) == (expected, type(expected))


def test_a_json_document_travels_as_a_python_value(connection):
    for _ in range(7):
        answer = connection.execute(Query("SELECT %s AS v", (Jsonb({"a": [1, None]}),)))
        assert answer.rows == [({"a": [1, None]},)]


def test_placeholders_have_the_form_of_psycopg(connection):
    assert connection.execute(Query("SELECT %s, %s", (1, "a"))).rows == [(1, "a")]
    assert connection.execute(Query("SELECT %(b)s, %(a)s, %(b)s", {"a": 1, "b": 2})).rows == [(2, 1, 2)]
    assert connection.execute(Query("SELECT %s || '%%'", ("50",))).rows == [("50%",)]
    assert connection.execute(Query("SELECT 'a' LIKE '%'")).rows == [(True,)]
    assert connection.execute(Query("SELECT 5 % 3")).rows == [(2,)]
    assert connection.execute(Query("SELECT '{\"a\": 1}'::jsonb ? 'a'")).rows == [(True,)]


def test_one_text_may_be_asked_with_and_without_parameters_by_turns(connection):
    for _ in range(8):
        assert connection.execute(Query("SELECT '%%'")).rows == [("%%",)]
        assert connection.execute(Query("SELECT '%%'", ())).rows == [("%%",)]
        with pytest.raises(psycopg.ProgrammingError):
            connection.execute(Query("SELECT '%%'", (1,)))
        with pytest.raises(TypeError):
            connection.execute(Query("SELECT %s", {"a": 1}))
        assert connection.execute(Query("SELECT %s", (3,))).rows == [(3,)]


def test_too_many_parameters_are_refused_alone(connection):
    marks = ", ".join(["%s"] * 70_000)
    good = Query("SELECT 1")
    before, error, after = run_together(connection, good, Query(f"SELECT {marks}", (1,) * 70_000), good)
    assert (before.scalar(), after.scalar()) == (1, 1)
    assert isinstance(error, psycopg.ProgrammingError)
    assert "65535" in str(error)


def test_a_text_with_the_character_nul_is_refused_and_never_cut_off(connection):
    cut = "DELETE FROM kept \0 WHERE false"
    for request in (
        Query(cut),
        Query("DELETE FROM kept WHERE number > %s \0 AND false", (0,)),
        Query("INSERT INTO kept VALUES (%s) \0", many=[(5,)]),
        Script(cut),
        Transaction([Query(cut)]),
    ):
        with pytest.raises(psycopg.NotSupportedError, match="NUL"):
            connection.execute(request)
        one, error = run_together(connection, Query("SELECT 1"), request)
        assert one.scalar() == 1
        assert isinstance(error, psycopg.NotSupportedError)
    with pytest.raises(psycopg.DataError):
        connection.execute(Query("SELECT %s", ("a\0b",)))
    assert numbers(connection) == [1]


def test_a_text_that_has_no_encoding_is_the_error_of_its_caller_alone(connection):
    bad = Query("SELECT '\ud800'")
    for outcome in run_together(connection, bad, Query("SELECT %s", ("\ud800",))):
        assert isinstance(outcome, UnicodeEncodeError)
    assert numbers(connection) == [1]


def test_bytes_that_are_no_text_are_the_servers_error_alone(connection):
    one, error, two = run_together(
        connection, Query("SELECT 1"), Query("SELECT convert_from(%s, 'UTF8')", (b"\xff",)), Query("SELECT 2")
    )
    assert (one.scalar(), two.scalar()) == (1, 2)
    assert isinstance(error, psycopg.errors.CharacterNotInRepertoire)


def test_an_ascii_database_gives_bytes_and_says_its_errors(server):
    uri = server.new_database("ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
    with opened(PostgreSQL(uri)) as connection:
        assert connection.execute(Query("SELECT %s::text", ("ü",))).rows == [("ü".encode(),)]
        named = connection.execute(Query('SELECT 1 AS "a"'))
        assert named.columns == ("a",)
    with opened(PostgreSQL(uri, client_encoding="utf8")) as connection:
        assert connection.execute(Query("SELECT %s::text AS ü", ("ü",))).dicts() == [{"ü": "ü"}]
    server.drop(uri)


def test_a_client_encoding_of_on_connect_holds_for_texts_values_and_errors(uri):
    with opened(PostgreSQL(uri, on_connect="SET client_encoding TO latin1")) as connection:
        for _ in range(2):
            assert connection.execute(Query("SELECT 'ü', %s, octet_length('ü')", ("ü",))).rows == [("ü", "ü", 2)]
            connection.execute(Script("DROP TABLE IF EXISTS ü; CREATE TABLE ü(n integer)"))
            assert connection.execute(Query("SELECT count(*) FROM ü")).scalar() == 0
            with pytest.raises(psycopg.errors.UndefinedColumn, match="ö"):
                connection.execute(Query("SELECT ö FROM ü"))


def test_errors_in_another_language_keep_their_class(uri):
    try:
        connection = PostgreSQL(uri, options="-c lc_messages=de_DE.UTF-8").connect()
    except psycopg.OperationalError:
        pytest.skip("the server's machine lacks the locale de_DE.UTF-8")
    try:
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute(Query("SELECT 1 FROM nowhere"))
    finally:
        connection.close()


def test_a_written_row_that_python_cannot_hold_is_a_lost_result(connection):
    connection.execute(Script("CREATE TABLE days(day date)"))
    insert = Query("INSERT INTO days VALUES ('infinity') RETURNING day")
    with pytest.raises(ResultLost) as caught:
        connection.execute(insert)
    assert caught.value.executed is True
    outcomes = run_together(connection, insert, Query("SELECT 1"), insert)
    assert [type(outcome).__name__ for outcome in outcomes] == ["ResultLost", "Result", "ResultLost"]
    assert connection.execute(Query("SELECT count(*) FROM days")).scalar() == 3


def test_in_a_transaction_a_row_that_python_cannot_hold_undoes_all(connection):
    connection.execute(Script("CREATE TABLE days(day date)"))
    with pytest.raises(psycopg.DataError):
        connection.execute(
            Transaction([Query("INSERT INTO days VALUES ('infinity') RETURNING day"), Query("SELECT 1")])
        )
    assert connection.execute(Query("SELECT count(*) FROM days")).scalar() == 0


# --- many, transactions, scripts, calls ---------------------------------------------------


def test_many_is_one_transaction(connection):
    insert = "INSERT INTO kept(number) VALUES (%s)"
    assert connection.execute(Query(insert, many=[(2,), (3,)])).rowcount == 2
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute(Query(insert, many=[(4,), (1,), (5,)]))
    assert connection.execute(Query(insert, many=[])).rowcount == 0
    assert numbers(connection) == [1, 2, 3]


def test_a_transaction_is_one(connection):
    one, two = connection.execute(
        Transaction([Query("INSERT INTO kept(number) VALUES (2)"), Query("SELECT max(number) FROM kept")])
    )
    assert (one.rowcount, two.scalar()) == (1, 2)
    with pytest.raises(psycopg.errors.DivisionByZero) as caught:
        connection.execute(Transaction([Query("INSERT INTO kept(number) VALUES (3)"), Query("SELECT 1 / 0")]))
    assert any("statement 2 of 2" in note for note in caught.value.__notes__)
    with pytest.raises(TransactionBroken):
        connection.execute(Transaction([Query("INSERT INTO kept(number) VALUES (3)"), Query("/* */ COMMIT")]))
    assert numbers(connection) == [1, 2]


@pytest.mark.parametrize("isolation", [None, "read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("readonly", [False, True])
def test_a_transaction_has_its_isolation(connection, isolation, readonly):
    shown = connection.execute(
        Transaction(
            [Query("SHOW transaction_isolation"), Query("SHOW transaction_read_only")],
            isolation=isolation,
            readonly=readonly,
        )
    )
    level = isolation or ("repeatable read" if readonly else "read committed")
    assert [each.scalar() for each in shown] == [level, "on" if readonly else "off"]
    if readonly:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute(Transaction([Query("INSERT INTO kept(number) VALUES (9)")], readonly=True))


def test_a_script_is_one_transaction(connection):
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute(Script("INSERT INTO kept(number) VALUES (2); INSERT INTO kept(number) VALUES (1)"))
    assert numbers(connection) == [1]
    assert connection.execute(Script("INSERT INTO kept(number) VALUES (2), (3); SELECT 1")).rowcount == 2


def test_a_transaction_that_stays_open_is_rolled_back(connection):
    for request in (Query("BEGIN"), Script("BEGIN; INSERT INTO kept(number) VALUES (5)")):
        with pytest.raises(TransactionLeftOpen):
            connection.execute(request)
    assert numbers(connection) == [1]


def _insert(connection, number):
    connection.execute("INSERT INTO kept(number) VALUES (%s)", (number,))
    return connection.execute("SELECT count(*) FROM kept").fetchone()[0]


def _insert_and(connection, sql):
    _insert(connection, 50)
    connection.execute(sql)


def _fail(connection):
    _insert(connection, 50)
    raise KeyError("mine")


def test_a_call_is_one_transaction_and_gets_the_connection_of_psycopg(connection):
    assert connection.execute(Call(_insert, 2)) == 2
    with pytest.raises(KeyError):
        connection.execute(Call(_fail))
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute(Call(_insert, 3, readonly=True))
    with pytest.raises(psycopg.ProgrammingError):
        connection.execute(Call(lambda driver: driver.commit()))
    with pytest.raises(TypeError, match="Cursor"):
        connection.execute(Call(lambda driver: driver.execute("SELECT 1")))
    for sql in ("ROLLBACK", "ROLLBACK; BEGIN"):
        with pytest.raises(TransactionBroken) as caught:
            connection.execute(Call(_insert_and, sql))
        assert caught.value.executed is None
    assert numbers(connection) == [1, 2]


def test_a_call_that_ends_its_transaction_by_commit_says_that_nobody_knows(connection):
    with pytest.raises(TransactionBroken) as caught:
        connection.execute(Call(_insert_and, "COMMIT"))
    assert caught.value.executed is None
    assert numbers(connection) == [1, 50]


def _stop_early(driver, kept, error):
    _insert(driver, 50)
    rows = driver.cursor().stream("SELECT generate_series(1, 100000)")
    kept.append(rows)
    next(rows)
    if error is not None:
        raise error


@pytest.mark.parametrize("error", [None, KeyError("mine")])
def test_a_call_that_leaves_a_stream_open_loses_its_connection_and_ends(uri, error):
    with opened(PostgreSQL(uri)) as connection:
        connection.execute(TABLE)
        kept = []
        with pytest.raises(ConnectionLost) as caught:
            connection.execute(Call(_stop_early, kept, error))
        assert error in (None, caught.value.__cause__)
        with suppress(psycopg.Error):
            kept.pop().close()
    with opened(PostgreSQL(uri)) as connection:
        assert numbers(connection) == [1]


def _copy_in(driver):
    with driver.cursor() as cursor, cursor.copy("COPY kept FROM STDIN") as copy:
        for number in range(2, 1002):
            copy.write_row((number, "x"))


def _copy_out(driver):
    with driver.cursor() as cursor, cursor.copy("COPY kept TO STDOUT") as copy:
        return len(list(copy.rows()))


def test_copy_works_in_a_call(connection):
    connection.execute(Call(_copy_in))
    assert connection.execute(Call(_copy_out)) == 1001


@pytest.mark.parametrize(
    "sql",
    [
        "COPY kept FROM STDIN",
        "copy kept to /* * / */ stdout",
        "COPY (SELECT 1) TO\n--\nSTDOUT",
        "/**/COPY kept FROM STDIN",
    ],
)
def test_copy_is_refused_elsewhere_and_the_connection_goes_on(connection, sql):
    for request in (Query(sql), Transaction([Query(sql)]), Query(sql, many=[()])):
        with pytest.raises(psycopg.Error):
            connection.execute(request)
        one, error, two = run_together(connection, Query("SELECT 1"), request, Query("SELECT 2"))
        assert (one.scalar(), two.scalar()) == (1, 2)
        assert isinstance(error, psycopg.Error)
    assert numbers(connection) == [1]


def test_copy_in_a_script_takes_no_rows_from_the_client(connection):
    with pytest.raises(psycopg.Error, match="COPY"):
        connection.execute(Script("INSERT INTO kept(number) VALUES (2); COPY kept FROM STDIN"))
    assert numbers(connection) == [1], "a script is one transaction"
    connection.execute(Script("COPY kept TO STDOUT; INSERT INTO kept(number) VALUES (3)"))  # its rows are dropped
    assert numbers(connection) == [1, 3]


# --- max_rows -----------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 1, 2, 999, 1000, 1001, 5000])
def test_max_rows_cuts_the_rows_and_counts_them_all(start, uri, most):
    db = start(PostgreSQL(uri), size=1)
    for _ in range(8):  # also once it is prepared
        answer = db.ask(Query("SELECT n FROM generate_series(1, %s) AS n", (2500,), max_rows=most))
        assert answer.columns == ("n",)
        assert answer.rows == [(n,) for n in range(1, min(most, 2500) + 1)]
        assert answer.rowcount == 2500
        assert answer.truncated == (most < 2500)
    with pytest.raises(psycopg.errors.DivisionByZero):
        db.ask(Query("SELECT 1 / (2000 - n) FROM generate_series(1, 2500) AS n", max_rows=most))
    assert db.ask(Query("SELECT 1", max_rows=most)).rowcount == 1


def test_max_rows_holds_for_writes_and_for_statements_without_rows(start, uri):
    db = start(PostgreSQL(uri), size=1)
    db.ask(TABLE)
    written = db.ask(Query("INSERT INTO kept SELECT generate_series(10, 20) RETURNING number", max_rows=3))
    assert (written.column("number"), written.rowcount, written.truncated) == ([10, 11, 12], 11, True)
    assert db.ask(Query("DELETE FROM kept WHERE number > 15", max_rows=3)).rowcount == 5
    assert db.ask(Query("SELECT number FROM kept WHERE false", max_rows=3)).columns == ("number",)


def test_max_rows_keeps_memory_bounded(uri):
    with opened(PostgreSQL(uri)) as connection:
        bound = connection.prepared.bind("SELECT repeat('x', 1000) FROM generate_series(1, 300000)")
        parts = connection.wire.run_limited(bound, 5000)
        assert sum(part.ntuples for part in parts) <= 7000
        assert sum(part.command_tuples or 0 for part in parts) == 300_000


def test_max_rows_works_with_a_libpq_without_chunks(uri, monkeypatch):
    monkeypatch.setattr(type(psycopg.capabilities), "has_stream_chunked", lambda *_, **__: False)
    with opened(PostgreSQL(uri)) as connection:
        answer = connection.execute(Query("SELECT generate_series(1, 50)", max_rows=5))
        assert [n for (n,) in answer.rows][:5] == [1, 2, 3, 4, 5]
        assert (len(answer.rows), answer.rowcount) == (7, 50)


class Colour(enum.Enum):
    RED = "red"


def test_an_own_adapter_of_on_connect_holds(uri):
    def dump_colours(driver):
        class Dumper(psycopg.adapt.Dumper):
            def dump(self, obj):
                return obj.value.encode()

        driver.adapters.register_dumper(Colour, Dumper)

    with opened(PostgreSQL(uri, on_connect=dump_colours)) as connection:
        for _ in range(7):
            assert connection.execute(Query("SELECT %s::text", (Colour.RED,))).scalar() == "red"
        connection.execute(Script("SET search_path TO pg_catalog"))
        assert connection.execute(Query("SELECT %s::text AS again", (Colour.RED,))).scalar() == "red"
