"""SQLite: the value that names a database, and the statements of queries and scripts."""

import os
from pathlib import Path

import apsw
import pytest

from supervisor import Query, Script, SQLite, TransactionLeftOpen


@pytest.fixture
def connection(path):
    connection = SQLite(path).connect()
    connection.execute(Script("CREATE TABLE kept(number); INSERT INTO kept VALUES (1), (2)"))
    yield connection
    connection.close()


def numbers(connection):
    return connection.execute(Query("SELECT number FROM kept ORDER BY number")).column(0)


# --- the value ----------------------------------------------------------------------------


def test_a_path_is_made_absolute_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    database = SQLite(Path("app.db"))
    monkeypatch.chdir("/")
    assert database.path == str(tmp_path / "app.db")
    assert (database.name, database.max_size, database.in_memory) == ("app", None, False)
    with pytest.raises(AttributeError):
        database.path = "other.db"


@pytest.mark.parametrize("path", [":memory:", "", "file::memory:", "file:some?mode=memory&cache=private"])
def test_a_database_in_memory_has_one_worker(path):
    database = SQLite(path)
    assert (database.name, database.max_size, database.in_memory) == ("memory", 1, True)


def test_a_uri_keeps_its_options_and_does_not_show_them(tmp_path):
    SQLite(tmp_path / "app.db").connect().close()
    database = SQLite(f"file:{tmp_path}/app.db?mode=ro&key=hunter2", journal_mode="wal")
    assert "hunter2" not in str(database) + database.name
    connection = database.connect()
    with pytest.raises(apsw.ReadOnlyError):
        connection.execute(Query("CREATE TABLE t(a)"))
    connection.close()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"path": 7}, TypeError, "path"),
        ({"path": b"app.db"}, TypeError, "path"),
        ({"path": "a\0b"}, ValueError, "null"),
        ({"journal_mode": "fast"}, ValueError, "journal_mode='fast'"),
        ({"journal_mode": None}, ValueError, "journal_mode"),
        ({"synchronous": 2}, ValueError, "synchronous=2"),
        ({"busy_timeout": -1}, ValueError, "busy_timeout=-1"),
        ({"busy_timeout": float("nan")}, ValueError, "busy_timeout"),
        ({"busy_timeout": 2**31}, ValueError, "busy_timeout"),
        ({"busy_timeout": True}, ValueError, "busy_timeout"),
    ],
)
def test_an_option_out_of_its_range_is_refused_by_name(arguments, error, text):
    with pytest.raises(error, match=text):
        SQLite(**arguments)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}),
        (
            {"journal_mode": "DELETE", "synchronous": "OFF", "foreign_keys": False, "busy_timeout": 0.25},
            {"journal_mode": "delete", "synchronous": 0, "foreign_keys": 0},
        ),
    ],
)
def test_a_connection_has_the_settings_of_its_value(path, options, settings):
    connection = SQLite(path, **options).connect()
    found = {name: connection.execute(Query(f"PRAGMA {name}")).scalar() for name in settings}
    connection.close()
    assert found == settings


def test_the_error_of_a_database_that_cannot_be_opened_names_the_cause(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("These are notes and no database. " * 100)
    for path, note in (
        (tmp_path / "missing" / "app.db", "there is no directory"),
        (tmp_path, "is a directory"),
        (text, "is not a SQLite database"),
    ):
        with pytest.raises(apsw.Error) as caught:
            SQLite(path).connect()
        assert note in caught.value.__notes__[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_missing_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(apsw.CantOpenError) as caught:
        SQLite(tmp_path / "app.db").connect()
    assert "may not write" in caught.value.__notes__[0]


# --- one statement a query ----------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1;",
        "  \t\r\n\f SELECT 1 \n",
        "SELECT 1;;; ; \n;",
        "SELECT 1; -- to the end",
        "SELECT 1; -- to the end of the line\n",
        "SELECT 1 -- no semicolon",
        "SELECT 1; /* a comment; with a semicolon */ -- and\n ; /**/ -- another",
        "SELECT 1; /* that nobody ends; SELECT 2",
        "SELECT 1; /* stars *** / */ /*/ */",
        "/* SELECT 2; */ SELECT 1",
        "-- SELECT 2;\nSELECT 1",
        "; SELECT 1",
        "\ufeffSELECT 1",
        "SELECT /* within; */ 1",
        "SELECT count(*) FROM (SELECT ';--' AS \"a;b\" WHERE ';' <> '/*')",
        "SELECT 1;" + " /* again */ ;" * 300,
    ],
)
def test_comments_and_semicolons_around_a_statement_are_allowed(connection, sql):
    for _ in ("for the first time", "and again"):
        assert connection.execute(Query(sql)).rows == [(1,)]


@pytest.mark.parametrize(
    "between",
    [
        "",
        "\n",
        " ; ; ",
        "-- a comment\n",
        "/**/",
        "/* a comment */",
        "/* one */ -- two\n /* three */",
        "/* ; */",
        "-- /*\n",
        "/* -- */",
        "/* again */" * 100,
    ],
)
@pytest.mark.parametrize("behind", ["", ";", " /* the end */", " -- the end"])
def test_a_second_statement_is_refused_before_the_first_has_run(connection, between, behind):
    for second in ("DELETE FROM kept", "SELECT 2", "and some nonsense"):
        with pytest.raises(ValueError, match=r"more than one statement.*Script"):
            connection.execute(Query(f"INSERT INTO kept VALUES (3);{between}{second}{behind}"))
        assert numbers(connection) == [1, 2]


@pytest.mark.parametrize("space", ["\v", "\u00a0", "\u2003", "\x85", "\x1c", "\0"])
def test_white_space_of_python_alone_does_not_let_half_a_query_run(connection, space):
    with pytest.raises((ValueError, apsw.SQLError)):
        connection.execute(Query(f"INSERT INTO kept VALUES (3);{space}"))
    assert numbers(connection) == [1, 2]


@pytest.mark.parametrize("sql", ["-- nothing", "/* nothing */", ";", " ; -- nothing\n ; ", "/* nothing", "\ufeff"])
def test_a_query_without_a_statement_has_an_empty_answer(connection, sql):
    for _ in ("for the first time", "and again"):
        result = connection.execute(Query(sql))
        assert (result.columns, result.rows, result.rowcount, result.lastrowid) == ((), [], 0, None)


# --- transactions -------------------------------------------------------------------------


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "begin;", "SAVEPOINT here"])
def test_a_query_that_begins_a_transaction_is_refused_and_leaves_none_behind(connection, path, begin):
    for _ in ("for the first time", "and again"):
        with pytest.raises(
            TransactionLeftOpen, match="write BEGIN, the statements and COMMIT into one Script"
        ) as caught:
            connection.execute(Query(begin))
        assert caught.value.executed is False
        assert begin in str(caught.value)
    other = SQLite(path, busy_timeout=0).connect()
    other.execute(Query("INSERT INTO kept VALUES (3)"))
    other.close()
    assert numbers(connection) == [1, 2, 3]


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "END", "RELEASE here"])
def test_a_query_that_ends_a_transaction_finds_none(connection, end):
    with pytest.raises(apsw.SQLError, match=r"no transaction is active|no such savepoint"):
        connection.execute(Query(end))
    assert numbers(connection) == [1, 2]


# --- scripts ------------------------------------------------------------------------------


def test_a_script_commits_each_statement_by_itself_and_stops_at_an_error(connection):
    with pytest.raises(apsw.SQLError, match="no such column: missing"):
        connection.execute(Script("INSERT INTO kept VALUES (3); SELECT missing; INSERT INTO kept VALUES (4)"))
    assert numbers(connection) == [1, 2, 3]


def test_an_error_inside_a_scripts_own_transaction_undoes_all_of_it(connection):
    with pytest.raises(apsw.SQLError):
        connection.execute(Script("BEGIN; DELETE FROM kept; INSERT INTO kept VALUES (3); SELECT missing; COMMIT"))
    assert numbers(connection) == [1, 2]


def test_a_scripts_transaction_is_committed_and_its_changes_are_counted(connection):
    sql = "BEGIN; INSERT INTO kept VALUES (3), (4); UPDATE kept SET number = number + 10; COMMIT; SELECT * FROM kept"
    result = connection.execute(Script(sql))
    assert (result.columns, result.rows, result.rowcount, result.lastrowid) == ((), [], 6, 4)
    assert numbers(connection) == [11, 12, 13, 14]


@pytest.mark.parametrize(
    "script",
    [
        "INSERT INTO kept VALUES (3); BEGIN; DELETE FROM kept",
        "INSERT INTO kept VALUES (3); SAVEPOINT here; DELETE FROM kept; SAVEPOINT there",
        "BEGIN; INSERT INTO kept VALUES (3); COMMIT; BEGIN IMMEDIATE; DELETE FROM kept; SELECT 1",
    ],
)
def test_a_script_that_ends_inside_a_transaction_loses_it_and_keeps_its_commits(connection, script):
    with pytest.raises(TransactionLeftOpen) as caught:
        connection.execute(Script(script))
    assert caught.value.executed is None
    assert numbers(connection) == [1, 2, 3]


def test_a_script_may_be_full_of_comments_and_takes_no_parameters(connection):
    connection.execute(Script("-- first\n; /* ; */ INSERT INTO kept VALUES (3) /* behind */;; -- the end"))
    assert numbers(connection) == [1, 2, 3]
    assert connection.execute(Script("-- nothing")).rowcount == 0
    with pytest.raises(apsw.BindingsError):
        connection.execute(Script("DELETE FROM kept WHERE number = ?"))
    assert numbers(connection) == [1, 2, 3]


def test_a_script_can_define_a_trigger_whose_body_has_statements_of_its_own(connection):
    connection.execute(
        Script(
            "CREATE TRIGGER twice AFTER INSERT ON kept BEGIN "
            "UPDATE kept SET number = number * 2 WHERE rowid = new.rowid; DELETE FROM kept WHERE number < 2; END; "
            "INSERT INTO kept VALUES (4)"
        )
    )
    assert numbers(connection) == [2, 8]
