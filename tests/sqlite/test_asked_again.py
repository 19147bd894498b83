"""A statement gets the same answer each time, even if its text was asked before."""

from contextlib import closing
from typing import Any

import apsw
import pytest

from supervisor import ChildProcess, Query, Script, Stream, SupervisorRef, Transaction
from tests.support.common import error_of
from tests.support.health import KINDS, same_workers


@pytest.fixture(params=[*KINDS, "child's memory"])
def db(request, start, path):
    kind = request.param
    return start(ChildProcess() if kind == "child's memory" else KINDS[kind](path), size=1)


# --- columns after a change of the schema --------------------------------------------------


def by_session(db: SupervisorRef, sql: str, **options: bool) -> Any:
    with db.transaction(**options) as tx:
        return tx.ask(Query(sql)).columns


def by_stream(db: SupervisorRef, sql: str) -> Any:
    with db.ask(Stream(sql)) as stream:
        return stream.columns


WRITING_WAYS = {
    "Query": lambda db, sql: db.ask(Query(sql)).columns,
    "Query with a limit": lambda db, sql: db.ask(Query(sql, max_rows=5)).columns,
    "Query for many": lambda db, sql: db.ask(Query(sql, many=[(), ()])).columns,
    "Transaction": lambda db, sql: db.ask(Transaction([Query(sql)]))[0].columns,
    "session": by_session,
}
READING_WAYS = {
    **WRITING_WAYS,
    "Stream": by_stream,
    "Transaction that only reads": lambda db, sql: db.ask(Transaction([Query(sql)], readonly=True))[0].columns,
    "session that only reads": lambda db, sql: by_session(db, sql, readonly=True),
}


@pytest.mark.parametrize("first", READING_WAYS)
def test_columns_follow_a_change_of_the_schema_even_without_rows(db, first):
    db.ask(Script("CREATE TABLE t(a)"))
    columns: tuple[str, ...] = ("a",)
    for new in "bcd":
        for ways, sql in ((READING_WAYS, "SELECT * FROM t"), (WRITING_WAYS, "DELETE FROM t RETURNING *")):
            order = [first, *ways] if first in ways else list(ways)
            for way in [*order, *order]:
                assert ways[way](db, sql) == columns, way
        db.ask(Query(f"ALTER TABLE t ADD COLUMN {new}"))
        columns = (*columns, new)


@pytest.mark.parametrize("way", READING_WAYS)
@pytest.mark.parametrize("explain", ["EXPLAIN", "EXPLAIN QUERY PLAN"])
def test_an_explain_of_a_dropped_table_is_an_error(db, way, explain):
    sql = f"{explain} SELECT * FROM t"
    db.ask(Script("CREATE TABLE t(a)"))
    for _ in range(3):
        assert len(READING_WAYS[way](db, sql)) > 3
    db.ask(Query("DROP TABLE t"))
    with pytest.raises(apsw.SQLError, match="no such table"):
        READING_WAYS[way](db, sql)


# --- the rowid of the insert before ---------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"max_rows": 5}, {"many": [()]}])
@pytest.mark.parametrize("returning", ["", " RETURNING r"])
def test_an_insert_finds_the_rowid_of_the_insert_before_each_time(db, options, returning):
    db.ask(Script("CREATE TABLE p(a); CREATE TABLE c(r)"))
    insert = Query("INSERT INTO c VALUES (last_insert_rowid())" + returning, **options)
    for rowid in range(70, 76):
        db.ask(Transaction([Query(f"INSERT INTO p(rowid) VALUES ({rowid})"), insert]))
        with db.transaction() as tx:
            tx.ask(Query(f"INSERT INTO p(rowid) VALUES ({rowid + 100})"))
            tx.ask(insert)
    found = db.ask(Query("SELECT r FROM c ORDER BY r")).column("r")
    assert found == [*range(70, 76), *range(170, 176)]


@pytest.mark.parametrize("options", [{}, {"max_rows": 5}])
def test_an_insert_that_fails_is_undone_each_time(db, options):
    db.ask(Script("CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES (3)"))
    sql = "INSERT OR FAIL INTO t VALUES (?), (?) RETURNING a"
    with same_workers(db):
        for _ in range(4):
            db.ask(Query(sql, (1, 2), **options))
            db.ask(Query("DELETE FROM t WHERE a < 3"))
            assert error_of(db.ask(Query(sql, (1, 3), **options), block=False)) is not None
            assert db.ask(Query("SELECT a FROM t")).rows == [(3,)]


# --- after an error -------------------------------------------------------------------------

UNREADABLE = "SELECT CAST(x'ff' AS TEXT), a FROM t"


@pytest.mark.parametrize("readonly", [True, False])
def test_unreadable_rows_disturb_no_later_statement(db, readonly):
    db.ask(Script("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2)"))
    with same_workers(db):
        for sql in (UNREADABLE, f"{UNREADABLE} ; -- and no more"):
            with db.transaction(readonly=readonly) as tx:
                assert isinstance(error_of(tx.ask(Query(sql), block=False)), UnicodeDecodeError)
                assert tx.ask(Query("SELECT count(*) FROM t")).scalar() == 2
            with db.transaction(readonly=readonly) as tx:
                assert isinstance(error_of(tx.ask(Query(sql), block=False)), UnicodeDecodeError)
            db.ask(Query("UPDATE t SET a = a + 1", timeout=2.0))


@pytest.mark.parametrize("way", WRITING_WAYS)
@pytest.mark.parametrize(
    "begin", ["WITH x(a) AS (VALUES (1)) INSERT INTO v SELECT a FROM x", "EXPLAIN INSERT INTO v VALUES (1)"]
)
def test_a_statement_that_the_old_schema_refuses_runs_with_the_new_schema(db, way, begin):
    db.ask(Script("CREATE TABLE t(a); CREATE VIEW v AS SELECT a FROM t"))
    assert "view" in str(error_of(db.ask(Query(begin), block=False)))
    assert "view" in str(error_of(db.ask(Query("SELECT * FROM no_view"), block=False)))
    db.ask(Script("CREATE TRIGGER g INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (new.a); END"))
    with same_workers(db):
        WRITING_WAYS[way](db, begin)
    runs = 0 if begin.startswith("EXPLAIN") else 2 if "many" in way else 1
    assert db.ask(Query("SELECT count(*) FROM t")).scalar() == runs


@pytest.mark.parametrize("kind", ["thread", "child"])
@pytest.mark.parametrize(
    "script", [Script("INSERT INTO v VALUES (1)"), Script("BEGIN; INSERT INTO v VALUES (1); COMMIT")]
)
def test_a_script_runs_with_the_schema_that_another_program_has_made(start, path, kind, script):
    db = start(path if kind == "thread" else ChildProcess(path), size=1)
    db.ask(Script("CREATE TABLE t(a); CREATE VIEW v AS SELECT a FROM t"))
    assert "view" in str(error_of(db.ask(script, block=False)))
    with closing(apsw.Connection(str(path))) as other:
        other.execute("CREATE TRIGGER g INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (new.a); END")
    db.ask(script)
    assert db.ask(Query("SELECT count(*) FROM t")).scalar() == 1
