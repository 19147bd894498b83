"""Files and SQL of strangers: each attack that the security advice of SQLite names fails."""

import os
import sqlite3
from contextlib import closing

import apsw
import pytest

from supervisor import (
    Call,
    ChildProcess,
    DatabaseUnavailable,
    Query,
    QueryTimeout,
    Script,
    SQLite,
    Stream,
    Transaction,
)
from tests.support import call_functions
from tests.support.common import error_of
from tests.support.health import same_workers

KINDS = {"thread": lambda database: database, "child": ChildProcess}


@pytest.fixture(params=KINDS)
def on(request):
    """Return a function that turns a database into one for threads or for children."""
    return KINDS[request.param]


def add_leak(connection: apsw.Connection) -> None:
    """Register a function of the program, which its own statements may call."""
    connection.create_scalar_function("leak", lambda *_: "leaked")
    connection.enable_load_extension(True)


@pytest.fixture
def strange(path):
    """A file whose view, trigger and default call functions of the program that opens it."""
    connection = sqlite3.connect(path)
    connection.create_function("leak", -1, lambda *_: "?", deterministic=True)
    connection.executescript(
        """
        PRAGMA journal_mode = wal;
        CREATE TABLE t(a, b DEFAULT (leak('default'))); INSERT INTO t VALUES (1, 2);
        CREATE VIEW v AS SELECT leak('view') AS x;
        CREATE TRIGGER tr AFTER UPDATE ON t BEGIN SELECT leak('trigger'); END;
        """
    )
    connection.close()
    return path


# --- files of strangers -------------------------------------------------------------------


def test_a_strange_schema_calls_no_function_of_the_program(start, on, strange):
    db = start(on(SQLite(strange, untrusted=True, on_connect=add_leak)), size=1)
    with same_workers(db):
        for sql in (
            "SELECT x FROM v",
            "UPDATE t SET a = 2",
            "INSERT INTO t(a) VALUES (3)",
        ):
            error = error_of(db.ask(Query(sql), block=False))
            assert isinstance(error, apsw.SQLError), sql
            assert "unsafe use of leak" in str(error)
        assert db.ask(Query("SELECT leak()")).scalar() == "leaked", "a statement of the program itself cannot call it"
        assert db.ask(Query("SELECT * FROM t")).rows == [(1, 2)]


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE INDEX i ON t(leak(a))",
        "CREATE INDEX i ON t(a) WHERE leak(a)",
        "CREATE TABLE checked(a CHECK (leak(a) <> 1))",
        "CREATE TABLE computed(a, b AS (leak(a)))",
    ],
)
def test_a_file_whose_schema_is_useless_without_such_a_function_is_not_opened(start, on, strange, schema):
    connection = sqlite3.connect(strange)
    connection.create_function("leak", -1, lambda *_: 0, deterministic=True)
    connection.execute(schema)
    connection.close()
    db = start(on(SQLite(strange, untrusted=True, on_connect=add_leak)), size=1)
    for sql in ("INSERT INTO t(a) VALUES (3)", "INSERT INTO checked VALUES (3)", "SELECT b FROM computed"):
        error = error_of(db.ask(Query(sql), block=False))
        assert isinstance(error, (DatabaseUnavailable, apsw.SQLError)), sql
        assert "unsafe use of leak" in str(error) or "no such table" in str(error)


def test_a_strange_schema_calls_a_function_of_the_program_if_it_is_trusted(start, strange):
    db = start(SQLite(strange, on_connect=add_leak), size=1)
    assert db.ask(Query("SELECT x FROM v")).scalar() == "leaked"


def test_the_schema_of_an_untrusted_file_cannot_be_written(start, on, strange):
    db = start(on(SQLite(strange, untrusted=True)), size=1)
    change = "UPDATE sqlite_schema SET sql = 'CREATE TABLE t(a, b)' WHERE name = 't'"
    for request in (
        Script(f"PRAGMA writable_schema = ON; {change}"),
        Call(call_functions.execute, f"PRAGMA writable_schema = ON; {change}"),
        Query("DELETE FROM sqlite_dbpage"),
    ):
        assert isinstance(error_of(db.ask(request, block=False)), apsw.Error)
    assert db.ask(Query("SELECT sql FROM sqlite_schema WHERE name = 't'")).scalar().endswith("(leak('default')))")


def test_on_connect_cannot_leave_the_loading_of_extensions_switched_on(start, on, strange):
    db = start(on(SQLite(strange, untrusted=True, on_connect=add_leak)), size=1)
    error = error_of(db.ask(Query("SELECT load_extension('evil')"), block=False))
    assert isinstance(error, apsw.SQLError)
    assert "not authorized" in str(error)


def test_a_damaged_file_is_found_as_it_is_opened(start, on, path):
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE t(a); CREATE INDEX i ON t(a)")
    with connection:
        connection.executemany("INSERT INTO t VALUES (?)", [(f"row {number}" * 20,) for number in range(2000)])
    connection.commit()
    connection.close()
    with open(path, "r+b") as file:
        file.seek(4096 * 20)
        file.write(os.urandom(4096))
    trusting = start(SQLite(path, readonly=True), size=1, name="trusting")
    assert trusting.ask(Query("SELECT 1")).scalar() == 1
    db = start(on(SQLite(path, untrusted=True)), size=1)
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert "damaged" in str(error) or "malformed" in str(error)


def test_a_file_with_an_endless_schema_is_bounded(start, on, path):
    deep = "SELECT 1" + " UNION ALL SELECT 1" * 200
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE VIEW v AS {deep}")
    connection.close()
    db = start(on(SQLite(path, untrusted=True)), size=1)
    error = error_of(db.ask(Query("SELECT count(*) FROM v"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    assert "too many terms in compound SELECT" in str(error)


# --- SQL of strangers ---------------------------------------------------------------------


@pytest.fixture
def sandbox(start, on, path):
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA journal_mode = wal; CREATE TABLE t(a PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    connection.close()
    return start(on(SQLite(path, sandbox=True)), size=1)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (3)",
        "DELETE FROM t",
        "WITH x AS (SELECT 3) INSERT INTO t SELECT * FROM x",
        "CREATE TABLE u(a)",
        "CREATE TEMP TABLE u(a)",
        "DROP TABLE t",
        "ATTACH '/etc/passwd' AS p",
        "ATTACH ':memory:' AS p",
        "DETACH main",
        "PRAGMA writable_schema = ON",
        "PRAGMA query_only = OFF",
        "PRAGMA journal_mode = delete",
        "PRAGMA user_version = 7",
        "PRAGMA temp_store_directory = '/tmp'",
        "PRAGMA cache_size = 1000000000",
        "PRAGMA hard_heap_limit = 1",
        "PRAGMA database_list",
        "PRAGMA wal_checkpoint",
        "VACUUM",
        "VACUUM INTO '/tmp/copy-of-everything.db'",
        "ANALYZE",
        "REINDEX t",
        "BEGIN",
        "BEGIN EXCLUSIVE",
        "SAVEPOINT s",
        "SELECT load_extension('evil')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT * FROM t; DROP TABLE t",
    ],
)
def test_a_stranger_may_only_read(sandbox, sql):
    with same_workers(sandbox):
        for request in (Query(sql), Query(sql, max_rows=5), Stream(sql), Transaction([Query(sql)], readonly=True)):
            error = error_of(sandbox.ask(request, block=False))
            assert isinstance(error, (apsw.Error, ValueError)), request
        assert sandbox.ask(Query("SELECT a FROM t")).rows == [(1,), (2,)]
    assert not os.path.exists("/tmp/copy-of-everything.db")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a FROM t ORDER BY a DESC",
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 10) SELECT sum(i) FROM n",
        "VALUES (1), (2)",
        "PRAGMA table_info(t)",
        "PRAGMA index_list(t)",
        "SELECT name FROM pragma_table_info('t')",
        "SELECT upper('a'), json_extract('{\"a\": 1}', '$.a'), count(*) FROM t",
        "EXPLAIN QUERY PLAN SELECT * FROM t",
    ],
)
def test_a_stranger_may_read(sandbox, sql):
    for _ in range(2):  # the second time, the statement is prepared already
        assert len(sandbox.ask(Query(sql))) >= 1
        assert len(sandbox.ask(Query(sql, max_rows=1))) == 1
        assert len(list(sandbox.ask(Stream(sql)))) >= 1


@pytest.mark.parametrize("module", ["fts5", "fts4"])
def test_a_stranger_may_search_a_text(start, on, path, module):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"PRAGMA journal_mode = wal; CREATE VIRTUAL TABLE s USING {module}(x); INSERT INTO s VALUES ('a fox')"
        )
    sandbox = start(on(SQLite(path, sandbox=True)), size=1)
    search = Query("SELECT x FROM s WHERE s MATCH ?", ("fox",))
    with same_workers(sandbox):
        assert sandbox.ask(search).rows == [("a fox",)]
        assert sandbox.ask(Transaction([search], readonly=True))[0].rows == [("a fox",)]
        error = error_of(sandbox.ask(Query("PRAGMA page_size = 8192"), block=False))
        assert isinstance(error, apsw.AuthError)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT zeroblob(2000000)",
        "SELECT printf('%2000000d', 1)",
        "SELECT 1" + " UNION ALL SELECT 1" * 20,
        "SELECT " + "-(" * 60 + "a" + ")" * 60 + " FROM t",
        "SELECT " + ", ".join(["1"] * 300),
        "SELECT '" + "x" * 200_000 + "'",
        "SELECT 'a' LIKE '" + "%a" * 100 + "'",
    ],
)
def test_a_stranger_gets_no_huge_value(sandbox, sql):
    with same_workers(sandbox):
        assert isinstance(error_of(sandbox.ask(Query(sql), block=False)), apsw.Error)


def test_a_stranger_is_bounded_in_time_rows_and_memory(start, path):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA journal_mode = wal; CREATE TABLE t(a)")
    endless = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT"
    db = start(ChildProcess(SQLite(path, sandbox=True), memory_limit=64 << 20), size=1)
    assert isinstance(error_of(db.ask(Query(f"{endless} count(*) FROM n", timeout=0.1), block=False)), QueryTimeout)
    some = db.ask(Query(f"{endless} i FROM n", max_rows=10))
    assert len(some) == 10
    assert some.truncated
    error = error_of(db.ask(Query(f"{endless} zeroblob(900000) FROM n"), block=False))
    assert isinstance(error, (MemoryError, apsw.NoMemError)), error
    assert db.ask(Query("SELECT 1")).scalar() == 1


def test_the_program_itself_may_call_functions_in_a_sandbox(start, path):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE t(a); INSERT INTO t VALUES (5)")
    db = start(SQLite(path, sandbox=True), size=1)
    assert db.ask(Call(call_functions.rows_of, "SELECT a FROM t", readonly=True)) == [(5,)]
    with db.transaction(readonly=True) as tx:
        assert tx.ask(Query("SELECT a FROM t")).scalar() == 5


# --- paths of strangers -------------------------------------------------------------------


def test_a_path_of_a_user_is_a_uri_only_if_asked(start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = "file:evil.db?mode=memory"
    assert SQLite(evil).in_memory
    for database in (SQLite(evil, uri=False), SQLite(tmp_path / evil)):
        assert not database.in_memory
        db = start(database, size=1)
        db.ask(Script("CREATE TABLE IF NOT EXISTS t(a)"))
        db.stop()
    assert (tmp_path / evil).exists()
    assert SQLite("plain.db", uri=True) == SQLite("file:plain.db")
    assert str(SQLite(":memory:", uri=False).path) == ":memory:"
