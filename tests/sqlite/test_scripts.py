"""A script runs its statements in order, and an error undoes the failed statement."""

import apsw
import pytest

from actors.databases.sqlite.sql_text import statements_of
from supervisor import Query, Script
from tests.support.common import error_of
from tests.support.health import KINDS, same_workers

FAMILY = """
CREATE TABLE parent(id INTEGER PRIMARY KEY); CREATE TABLE t(a UNIQUE, p REFERENCES parent DEFERRABLE INITIALLY DEFERRED)
"""


@pytest.fixture(params=KINDS)
def db(request, start, path):
    return start(KINDS[request.param](path), size=1)


# --- where a statement ends -----------------------------------------------------------------

TRIGGER = "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT CASE WHEN 1 THEN ';' END; DELETE FROM t; END;"


@pytest.mark.parametrize(
    "parts",
    [
        ["SELECT 1;", " SELECT 2;", "\nSELECT 3"],
        ["SELECT ';';", 'SELECT ";";', "SELECT `;`;", "SELECT [;];", "SELECT 'it''s;';"],
        ["/* ; */ SELECT 1;", " -- ;\nSELECT 2;", "SELECT /* ; */ 3 -- ;"],
        [f"{TRIGGER}", f" {TRIGGER.replace('TRIGGER', 'TEMP TRIGGER')}", f"\n/* ; */ EXPLAIN {TRIGGER}", "SELECT 1;"],
        ["\ufeffSELECT 1;", f"\ufeff{TRIGGER}", "SELECT 2;"],
        ["SELECT 1;", "SELECT 'and no end; SELECT 2;"],
        ["SELECT 1;", "SELECT 2 /* and no end; SELECT 3;"],
        ["SELECT 1;", " ;;SELECT 2;", ";-- nothing\n SELECT 3"],
        ["BEGIN;", "INSERT INTO t VALUES ('\0');", "SELECT \0;"],
    ],
)
def test_a_script_is_cut_where_sqlite_ends_a_statement(parts):
    assert list(statements_of("".join(parts))) == [part for part in parts if part.strip()]


@pytest.mark.parametrize("script", ["", " ", ";", ";; -- nothing", "/* nothing */;", "\ufeff"])
def test_a_script_of_comments_holds_no_statement(script):
    assert list(statements_of(script)) == []


def test_a_long_text_full_of_semicolons_is_one_statement(db):
    text = "it''s; " * 100_000
    done = db.ask(Script(f"CREATE TABLE t(a); INSERT INTO t VALUES ('{text}'); INSERT INTO t VALUES (2)"))
    assert done.rowcount == 2
    assert db.ask(Query("SELECT length(a) FROM t")).column(0) == [len(text.replace("''", "'")), 1]


# --- errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ("INSERT OR FAIL INTO t(a) VALUES (8), (3), (9)", apsw.ConstraintError),
        ("/* of */ WITH k(a) AS (VALUES (8), (3)) INSERT OR FAIL INTO t(a) SELECT a FROM k", apsw.ConstraintError),
        ("INSERT OR ROLLBACK INTO t(a) VALUES (8), (3)", apsw.ConstraintError),
        ("INSERT INTO t(a) VALUES (8) RETURNING CAST(x'ff' AS TEXT)", UnicodeDecodeError),
        ("INSERT INTO t(a, p) VALUES (8, 1)", apsw.ConstraintError),
        ("INSERT INTO t(a) VALUES (8), (abs(-9223372036854775808))", apsw.SQLError),
    ],
)
def test_an_error_in_a_script_undoes_its_statement_and_no_earlier_statement(db, wrong, kind):
    db.ask(Script(f"{FAMILY}; INSERT INTO t(a) VALUES (3)"))
    with same_workers(db):
        add = "INSERT INTO t(a) VALUES ({})".format
        error = error_of(db.ask(Script(f"{add(7)}; {wrong}; {add(10)}"), block=False))
        assert isinstance(error, kind)
        assert db.ask(Query("SELECT a FROM t ORDER BY a")).column("a") == [3, 7]
        for begin in ("BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT s"):
            end = "RELEASE s" if begin.startswith("SAVEPOINT") else "COMMIT"
            assert isinstance(error_of(db.ask(Script(f"{begin}; {add(10)}; {wrong}; {end}"), block=False)), kind)
            assert db.ask(Query("SELECT a FROM t ORDER BY a")).column("a") == [3, 7]


def test_a_setting_between_statements_that_write_takes_effect(db):
    db.ask(Script(FAMILY))
    db.ask(Script("INSERT INTO t(a) VALUES (1); PRAGMA foreign_keys = OFF; INSERT INTO t(a, p) VALUES (2, 77)"))
    assert db.ask(Query("SELECT p FROM t ORDER BY a")).column("p") == [None, 77]


def test_a_search_index_that_a_script_makes_does_not_count(db):
    done = db.ask(Script("CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES ('a'); UPDATE f SET x = 'b'"))
    assert (done.rowcount, done.lastrowid) == (2, 1)
    assert db.ask(Script("CREATE VIRTUAL TABLE f2 USING fts5(x)")).lastrowid is None
