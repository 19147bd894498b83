"""A crew answers as one plain connection does, for each form of asking."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import pytest

from supervisor import (
    Call,
    ChildProcess,
    Query,
    Script,
    SQLite,
    Status,
    Stream,
    SupervisorRef,
    Transaction,
    TransactionBroken,
)
from tests.support import call_functions
from tests.support.common import PATIENCE, error_of
from tests.support.health import same_workers

KINDS = {
    "file": SQLite,
    "rollback journal": lambda path: SQLite(path, journal_mode="delete"),
    "memory": lambda path: SQLite(),
    "child": ChildProcess,
    "child's memory": lambda path: ChildProcess(),
}


@pytest.fixture(params=KINDS)
def db(request, start, path):
    return start(KINDS[request.param](path), size=1)


# --- forms of asking ----------------------------------------------------------------------


def one_by_one(db: SupervisorRef, statements: list[Query]) -> list[Any]:
    return [db.ask(query) for query in statements]


def together(db: SupervisorRef, statements: list[Query]) -> list[Any]:
    """Ask for all at once, so that writes share a commit."""
    return [reply.get(timeout=PATIENCE) for reply in [db.ask(query, block=False) for query in statements]]


def in_a_transaction(db: SupervisorRef, statements: list[Query]) -> list[Any]:
    return db.ask(Transaction(statements))


def in_a_session(db: SupervisorRef, statements: list[Query]) -> list[Any]:
    with db.transaction() as tx:
        return [tx.ask(query) for query in statements]


FORMS = [one_by_one, together, in_a_transaction, in_a_session]


@dataclass(frozen=True)
class Case:
    """Statements, and the right answers that a plain connection does not return."""

    what: str
    setup: str
    statements: list[Query]
    rowcounts: list[int] | None = None
    """The counts that a plain connection does not return: of many runs, and of reads."""
    inserted: list[int | None] | None = None
    looks: list[str] = field(default_factory=list)
    """The statements that read both databases afterwards."""
    apart: bool = True
    """Whether the answers are the same if each statement is a request of its own."""

    def __str__(self) -> str:
        return self.what


LOGGED = """
CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE log(id INTEGER PRIMARY KEY, what, rowid_then);
CREATE TRIGGER t_in AFTER INSERT ON t BEGIN INSERT INTO log(what, rowid_then) VALUES (new.a, last_insert_rowid()); END;
INSERT INTO log VALUES (100, 'begin', 0);
"""
FAMILY = """
CREATE TABLE parent(id INTEGER PRIMARY KEY); INSERT INTO parent VALUES (1), (2), (3);
CREATE TABLE child(p REFERENCES parent ON DELETE CASCADE); INSERT INTO child VALUES (1), (1), (1), (2), (3);
"""

CASES = [
    Case(
        "the rowid of the insert before",
        "CREATE TABLE p(a); CREATE TABLE c(p)",
        [Query("INSERT INTO p VALUES (7)"), Query("INSERT INTO c VALUES (last_insert_rowid())")],
        inserted=[1, 1],
        looks=["SELECT * FROM c"],
        apart=False,
    ),
    Case(
        "the rowid of the insert before, by an update, a select and a default",
        "CREATE TABLE p(a); CREATE TABLE c(p, d DEFAULT (last_insert_rowid())); INSERT INTO c VALUES (0, 0)",
        [
            Query("INSERT INTO p(rowid) VALUES (70)"),
            Query("UPDATE c SET p = last_insert_rowid()"),
            Query("INSERT INTO c(p) VALUES (5)"),
            Query("INSERT INTO c(p) SELECT last_insert_rowid() + 1"),
            Query("SELECT last_insert_rowid()"),
        ],
        inserted=[70, None, 2, 3, None],
        looks=["SELECT * FROM c"],
        apart=False,
    ),
    Case(
        "the rowid of the insert before, by texts that are run again and again",
        "CREATE TABLE p(a); CREATE TABLE c(p)",
        [
            query
            for rowid in (70, 80, 90, 60)
            for query in (
                Query("INSERT INTO p(rowid) VALUES (?)", (rowid,)),
                Query("INSERT INTO c VALUES (last_insert_rowid() + ?)", many=[(100,)]),
                Query("INSERT INTO p(rowid) VALUES (?)", (rowid + 1,)),
                Query("INSERT INTO c VALUES (last_insert_rowid()) RETURNING p", max_rows=5),
                Query("UPDATE c SET p = last_insert_rowid() WHERE rowid = ?", many=[(100,)]),
            )
        ],
        looks=["SELECT * FROM c"],
        apart=False,
    ),
    Case(
        "the rowid that a trigger sees",
        LOGGED,
        [Query("INSERT INTO t(a) VALUES ('x')"), Query("INSERT INTO t(a) VALUES ('y'), ('z')")],
        inserted=[1, 3],
        looks=["SELECT * FROM log WHERE id > 100"],
    ),
    Case(
        "rowids of inserts that insert nothing, or update instead",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, n DEFAULT 0); INSERT INTO t VALUES (5, 'x', 0)",
        [
            Query("INSERT INTO t(a) VALUES ('y')"),
            Query("INSERT OR IGNORE INTO t(a) VALUES ('x')"),
            Query("INSERT INTO t(a) VALUES ('x') ON CONFLICT(a) DO UPDATE SET n = n + 1"),
            Query("INSERT INTO t(a) VALUES ('x') ON CONFLICT DO NOTHING"),
            Query("REPLACE INTO t(a) VALUES ('x')"),
            Query("UPDATE t SET n = 2"),
            Query("DELETE FROM t WHERE a = 'y'"),
            Query("INSERT INTO t(id, a) VALUES (-9223372036854775808, 'least')"),
        ],
        inserted=[6, None, None, None, 7, None, None, -(2**63)],
        looks=["SELECT * FROM t ORDER BY id"],
    ),
    Case(
        "rowids of tables without, of virtual tables, and of views",
        "CREATE TABLE w(k PRIMARY KEY) WITHOUT ROWID; CREATE VIRTUAL TABLE f USING fts5(x);"
        "CREATE TABLE t(a); CREATE VIEW v AS SELECT a FROM t;"
        "CREATE TRIGGER v_in INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (new.a); END",
        [
            Query("INSERT INTO w VALUES (1)"),
            Query("INSERT INTO f VALUES ('one'), ('two')"),
            Query("INSERT INTO v VALUES (1)"),
            Query("INSERT INTO f(rowid, x) VALUES (50, 'fifty')"),
        ],
        inserted=[None, 2, None, 50],
        looks=["SELECT * FROM w", "SELECT rowid, x FROM f", "SELECT * FROM t"],
    ),
    Case(
        "counts of many runs with a trigger",
        LOGGED,
        [Query("INSERT INTO t(a) VALUES (?)", many=[("x",), ("y",), ("z",)])],
        rowcounts=[3],
        inserted=[3],
        looks=["SELECT what, rowid_then FROM log WHERE id > 100"],
    ),
    Case(
        "counts of many runs with cascades",
        FAMILY,
        [Query("DELETE FROM parent WHERE id = ?", many=[(1,), (2,), (99,)])],
        rowcounts=[2],
        looks=["SELECT * FROM child"],
    ),
    Case(
        "counts of many runs of a virtual table",
        "CREATE VIRTUAL TABLE f USING fts5(x)",
        [Query("INSERT INTO f VALUES (?)", many=[("one",), ("two",), ("three",)]), Query("DELETE FROM f")],
        rowcounts=[3, 3],
    ),
    Case(
        "counts of single statements with triggers, cascades and views",
        LOGGED + FAMILY + "CREATE VIEW v AS SELECT * FROM t;"
        "CREATE TRIGGER v_out INSTEAD OF DELETE ON v BEGIN DELETE FROM t WHERE id = old.id; END",
        [
            Query("INSERT INTO t(a) VALUES (1), (2)"),
            Query("DELETE FROM parent WHERE id < 3"),
            Query("DELETE FROM v"),
            Query("UPDATE child SET p = 3"),
            Query("DELETE FROM child"),
        ],
        rowcounts=[2, 2, 0, 1, 1],
    ),
    Case(
        "ALTER TABLE in its forms",
        "CREATE TABLE t(a); CREATE TABLE u(a, b, c)",
        [
            Query("ALTER TABLE t ADD COLUMN p INTEGER NOT NULL"),
            Query("ALTER TABLE t ADD COLUMN q CHECK (q > 0)"),
            Query("ALTER TABLE t ADD COLUMN r GENERATED ALWAYS AS (a * 2) VIRTUAL NOT NULL"),
            Query("ALTER TABLE u DROP COLUMN c"),
            Query("ALTER TABLE u RENAME COLUMN b TO z"),
            Query("ALTER TABLE u RENAME TO uu"),
        ],
        rowcounts=[0] * 6,
        looks=["SELECT sql FROM sqlite_schema ORDER BY name"],
    ),
    Case(
        "columns of ALTER TABLE that is explained",
        "CREATE TABLE t(a)",
        [Query("EXPLAIN QUERY PLAN ALTER TABLE t ADD COLUMN b"), Query("SELECT * FROM t")],
    ),
    Case(
        "counts and rowids of statements that change the schema, or only a search index",
        "CREATE TABLE log(id INTEGER PRIMARY KEY); INSERT INTO log VALUES (10)",
        [
            Query("CREATE VIRTUAL TABLE f USING fts5(x)"),
            Query("INSERT INTO f VALUES ('a'), ('b')"),
            *[Query("UPDATE f SET x = 'c'")] * 4,
            Query("CREATE TABLE c AS SELECT 1 AS a UNION SELECT 2"),
            Query("DELETE FROM f"),
            Query("DROP TABLE f"),
        ],
        rowcounts=[0, 2, 2, 2, 2, 2, 0, 2, 0],
        inserted=[None, 2, None, None, None, None, None, None, None],
    ),
    Case(
        "rowids of inserts that ask for the rowid of the insert before",
        "CREATE TABLE p(a); CREATE TABLE w(k PRIMARY KEY) WITHOUT ROWID; CREATE TABLE u(a UNIQUE, n);"
        "CREATE VIEW v AS SELECT k FROM w;"
        "CREATE TRIGGER v_in INSTEAD OF INSERT ON v BEGIN INSERT INTO w VALUES (new.k); END",
        [
            Query("INSERT INTO p(rowid) VALUES (70)"),
            Query("INSERT INTO w VALUES (last_insert_rowid())"),
            Query("INSERT INTO v VALUES (last_insert_rowid() + 1)"),
            Query("INSERT INTO u VALUES (last_insert_rowid(), last_insert_rowid())"),
            Query("INSERT INTO u VALUES (70, last_insert_rowid()) ON CONFLICT(a) DO UPDATE SET n = excluded.n"),
            Query("INSERT OR IGNORE INTO u SELECT 70, last_insert_rowid()"),
        ],
        rowcounts=[1, 1, 0, 1, 1, 0],
        inserted=[70, None, None, 1, None, None],
        looks=["SELECT * FROM w", "SELECT * FROM u"],
        apart=False,
    ),
]


def plain(case: Case) -> tuple[list[Any], list[Any]]:
    """Return the rows and columns of each statement and of the looks on a plain connection."""
    connection = apsw.Connection(":memory:")
    connection.pragma("foreign_keys", True)
    connection.execute(case.setup)
    answers = []
    for query in case.statements:
        columns: tuple[str, ...] = ()

        def look(cursor: apsw.Cursor, *_: object) -> bool:
            nonlocal columns
            columns = tuple(name for name, _ in cursor.get_description())
            return True

        cursor = connection.cursor()
        cursor.exec_trace = look
        if query.many is not None:
            rows = cursor.executemany(query.sql, query.many).fetchall()
        else:
            rows = cursor.execute(query.sql, query.params).fetchall()
        answers.append(((), rows) if query.sql.startswith("ALTER") else (columns, rows))
    looks = [connection.execute(sql).fetchall() for sql in case.looks]
    connection.close()
    return answers, looks


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_crew_answers_as_a_plain_connection_does(db, case, form):
    if form in (one_by_one, together) and not case.apart:
        pytest.skip("a request does not see the inserted rowid of another request")
    db.ask(Script(case.setup))
    results = form(db, case.statements)
    answers, looks = plain(case)
    assert [(result.columns, result.rows) for result in results] == answers
    assert [db.ask(Query(sql)).rows for sql in case.looks] == looks
    if case.rowcounts is not None:
        assert [result.rowcount for result in results] == case.rowcounts
    if case.inserted is not None:
        assert [result.lastrowid for result in results] == case.inserted


def test_a_function_sees_the_rowid_of_its_own_insert(db):
    db.ask(Script("CREATE TABLE p(a)"))
    for rowid in (42, 41):
        assert db.ask(Call(call_functions.last_rowid_after, f"INSERT INTO p(rowid) VALUES ({rowid})")) == rowid
        db.ask(Query("UPDATE p SET a = 1"))


def test_a_script_counts_the_changes_of_its_own_statements(db):
    db.ask(Script(LOGGED + "CREATE TABLE c(r)"))
    done = db.ask(
        Script("INSERT INTO t(a) VALUES (1); INSERT INTO t(a) VALUES (2), (3); UPDATE t SET a = last_insert_rowid();")
    )
    assert (done.rowcount, done.lastrowid) == (6, 3)
    assert db.ask(Query("SELECT DISTINCT a FROM t")).rows == [(3,)]
    done = db.ask(Script("INSERT INTO t(id) VALUES (60); INSERT INTO c VALUES (last_insert_rowid())"))
    assert (done.rowcount, done.lastrowid) == (2, 1)
    assert db.ask(Query("SELECT r FROM c")).rows == [(60,)]


# --- pragmas that read the schema ----------------------------------------------------------

PRAGMAS = [
    "foreign_key_list(t)",
    "index_list(t)",
    "index_info(t_a)",
    "index_xinfo(t_a)",
    "table_info(t)",
    "table_xinfo(t)",
    "foreign_key_check(t)",
    "table_list(t)",
    "main.index_list(t)",
]


@pytest.mark.parametrize("pragma", PRAGMAS)
def test_a_pragma_sees_the_schema_as_it_is_now(db, pragma):
    name, _, argument = pragma.removeprefix("main.").removesuffix(")").partition("(")
    asks = {
        "Query": lambda: db.ask(Query(f"PRAGMA {pragma}")).rows,
        "Query with a limit": lambda: db.ask(Query(f"PRAGMA {pragma}", max_rows=1000)).rows,
        "function": lambda: db.ask(Query(f"SELECT * FROM pragma_{name}(?)", (argument,))).rows,
        "Stream": lambda: list(map(tuple, db.ask(Stream(f"PRAGMA {pragma}")))),
        "Transaction": lambda: db.ask(Transaction([Query(f"PRAGMA {pragma}")], readonly=True))[0].rows,
        "writing Transaction": lambda: db.ask(Transaction([Query(f"PRAGMA {pragma}")]))[0].rows,
        "Call": lambda: db.ask(Call(call_functions.rows_of, f"PRAGMA {pragma}", readonly=True)),
    }
    db.ask(Query("SELECT 1 FROM sqlite_schema"))
    schemas = [
        "CREATE TABLE t(a REFERENCES t(a), b); CREATE UNIQUE INDEX t_a ON t(a); INSERT INTO t VALUES (NULL, 1)",
        "CREATE UNIQUE INDEX t_b ON t(b); ALTER TABLE t ADD COLUMN c REFERENCES t(b)",
        "DROP INDEX t_a; CREATE UNIQUE INDEX t_a ON t(a, b DESC, c); CREATE UNIQUE INDEX also ON t(a)",
        "DROP TABLE t; CREATE TABLE t(x INT PRIMARY KEY, y INT REFERENCES t(x)) STRICT; CREATE INDEX t_a ON t(y)",
    ]
    connection = apsw.Connection(":memory:")
    for schema in schemas:
        db.ask(Script(schema))
        connection.execute(schema)
        right = connection.execute(f"PRAGMA {pragma}").fetchall()
        for form, ask in asks.items():
            assert ask() == right, form
    connection.close()


def test_a_pragma_sees_the_tables_of_another_process(start, path):
    db = start(path, size=2)
    db.ask(Query("SELECT 1 FROM sqlite_schema"))
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE t(a REFERENCES t(a))")
    other.close()
    for _ in range(4):
        assert len(db.ask(Query("PRAGMA foreign_key_list(t)")).rows) == 1
    with db.transaction() as tx:
        assert len(tx.ask(Query("PRAGMA foreign_key_list(t)")).rows) == 1


# --- PRAGMA foreign_keys inside a transaction ----------------------------------------------

REBUILD = """
CREATE TABLE fresh(id INTEGER PRIMARY KEY, more); INSERT INTO fresh(id) SELECT id FROM parent; DROP TABLE parent;
ALTER TABLE fresh RENAME TO parent;
"""


def test_foreign_keys_cannot_be_switched_off_where_that_has_no_effect(db):
    db.ask(Script(FAMILY))
    off = "PRAGMA foreign_keys = OFF"

    def in_a_session():
        with db.transaction() as tx:
            tx.ask(Query(off))

    with same_workers(db):
        for ask in (
            lambda: db.ask(Transaction([Query(off), Query("DROP TABLE parent")])),
            lambda: db.ask(Call(call_functions.execute, off)),
            lambda: db.ask(Script(f"BEGIN; {off}; DROP TABLE parent; COMMIT")),
            in_a_session,
        ):
            with pytest.raises(ValueError, match=r"foreign_keys has no effect inside a transaction.*Script"):
                ask()
        assert db.ask(Query("SELECT count(*) FROM child")).scalar() == 5
        for same in ("PRAGMA foreign_keys = ON", "PRAGMA foreign_keys = 1", "PRAGMA foreign_keys(yes)"):
            db.ask(Transaction([Query(same)]))
        db.ask(Script(f"{off}; BEGIN IMMEDIATE; {REBUILD} COMMIT"))
    assert db.ask(Query("SELECT count(*) FROM child")).scalar() == 5
    assert db.ask(Query("PRAGMA foreign_key_check")).rows == []
    if db.ask(Query("SELECT file FROM pragma_database_list WHERE name = 'main'")).scalar():
        with pytest.raises(apsw.ConstraintError):
            db.ask(Query("INSERT INTO child VALUES (77)"))


# --- after an error -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setup", "sql"),
    [
        ("CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES (3)", "INSERT OR FAIL INTO t VALUES (1), (2), (3)"),
        ("CREATE TABLE t(a UNIQUE ON CONFLICT FAIL); INSERT INTO t VALUES (3)", "INSERT INTO t VALUES (1), (2), (3)"),
        ("CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES (3), (5), (6)", "UPDATE OR FAIL t SET a = 10"),
        (
            """
            CREATE TABLE t(a); INSERT INTO t VALUES (3);
            CREATE TRIGGER stop AFTER INSERT ON t WHEN new.a = 9 BEGIN SELECT raise(FAIL, 'stop'); END
            """,
            "INSERT INTO t VALUES (7), (8), (9)",
        ),
        ("CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES (3)", "INSERT OR ROLLBACK INTO t VALUES (1), (3)"),
        ("CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES (3)", "INSERT INTO t VALUES (1), (3)"),
        ("CREATE TABLE t(a INT) STRICT; INSERT INTO t VALUES (3)", "INSERT INTO t VALUES (1), ('x')"),
        ("CREATE TABLE t(a INT) STRICT; INSERT INTO t VALUES (3), (4)", "UPDATE t SET a = iif(a = 4, 'x', 1)"),
    ],
)
def test_a_statement_that_fails_is_undone_as_a_whole(db, setup, sql):
    db.ask(Script(f"{setup}; CREATE TABLE other(a)"))
    before = db.ask(Query("SELECT a FROM t")).rows
    add = Query("INSERT INTO other VALUES (1)")
    with same_workers(db):
        for wrong in (
            *(Query(sql), Query(sql + " RETURNING a"), Query(sql, many=[()]), Transaction([add, Query(sql)])),
            *(Script(sql), Script(f"SELECT 1; {sql}; SELECT 2"), Script(f"BEGIN; {add.sql}; {sql}; COMMIT")),
        ):
            assert isinstance(error_of(db.ask(wrong, block=False)), apsw.ConstraintError)
            assert db.ask(Query("SELECT a FROM t")).rows == before
        replies = [db.ask(query, block=False) for query in (add, add, Query(sql), add, Query(sql), add)]
        kinds = [type(error_of(reply)) for reply in replies]
        assert kinds == [type(None), type(None), apsw.ConstraintError, type(None), apsw.ConstraintError, type(None)]
        assert db.ask(Query("SELECT a FROM t")).rows == before
        assert db.ask(Query("SELECT count(*) FROM other")).scalar() == 4
    if "ROLLBACK" not in sql:
        with db.transaction() as tx:
            tx.ask(add)
            assert isinstance(error_of(tx.ask(Query(sql), block=False)), apsw.ConstraintError)
            tx.ask(add)
        assert db.ask(Query("SELECT a FROM t")).rows == before
        assert db.ask(Query("SELECT count(*) FROM other")).scalar() == 6


@pytest.mark.parametrize("ends", [["ROLLBACK", "BEGIN"], ["ROLLBACK", "BEGIN IMMEDIATE"], ["ROLLBACK"]])
def test_a_function_that_begins_a_new_transaction_breaks_its_own(db, ends):
    db.ask(Script("CREATE TABLE t(a)"))
    add = "INSERT INTO t VALUES (?)"
    with same_workers(db):
        with pytest.raises(TransactionBroken) as caught:
            db.ask(Call(call_functions.insert_around, add, ends))
        assert caught.value.executed is False
        assert db.ask(Query("SELECT a FROM t")).rows == []


def test_a_commit_by_a_function_commits_nothing(db):
    db.ask(Script("CREATE TABLE t(a)"))
    with pytest.raises((TransactionBroken, apsw.ConstraintError)):
        db.ask(Call(call_functions.insert_around, "INSERT INTO t VALUES (?)", ["COMMIT", "BEGIN"]))
    assert db.ask(Query("SELECT a FROM t")).rows == []


def test_a_damaged_virtual_table_is_an_error_of_its_statement(db):
    db.ask(Script("CREATE VIRTUAL TABLE f USING fts5(x, content=t); CREATE TABLE t(x); INSERT INTO t VALUES ('a')"))
    db.ask(Query("INSERT INTO f(rowid, x) VALUES (1, 'something else')"))
    check = "INSERT INTO f(f, rank) VALUES ('integrity-check', 1)"
    with same_workers(db):
        for request in (Query(check), Script(check), Transaction([Query(check)]), Call(call_functions.execute, check)):
            error = error_of(db.ask(request, block=False))
            assert isinstance(error, apsw.CorruptError), error
            assert error.extendedresult == apsw.SQLITE_CORRUPT_VTAB
        replies = [db.ask(Query(sql), block=False) for sql in ("INSERT INTO t VALUES ('b')", check) * 3]
        assert [type(error_of(reply)) for reply in replies] == [type(None), apsw.CorruptError] * 3
    assert db.ask(Query("SELECT count(*) FROM t")).scalar() == 4


def test_a_script_that_cannot_wait_for_the_lock_names_the_remedy(start, path):
    db = start(SQLite(path, busy_timeout=0.02), size=1)
    db.ask(Script("CREATE TABLE t(a)"))
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    error = error_of(db.ask(Script("BEGIN; SELECT * FROM t; INSERT INTO t VALUES (1); COMMIT"), block=False))
    other.close()
    assert isinstance(error, apsw.BusyError)
    assert any("BEGIN IMMEDIATE" in note and "Transaction" in note for note in error.__notes__)


# --- statements that are answered while others wait ---------------------------------------


def test_neighbours_in_a_commit_have_their_own_answers(db):
    db.ask(Script(LOGGED))
    queries = [Query("INSERT INTO t(a) VALUES (?)", (number,)) for number in range(20)]
    queries[7] = Query("UPDATE t SET a = a")
    queries[9] = Query("INSERT INTO t(a) VALUES (?) RETURNING id, a", ("x",))
    queries[11] = Query("INSERT INTO t(id, a) VALUES (1, 1)")
    gate = threading.Event()
    replies = [db.ask(query, block=False) for query in queries]
    gate.set()
    answers = [reply.exception(PATIENCE) or reply.get() for reply in replies]
    assert isinstance(answers.pop(11), apsw.ConstraintError)
    assert [answer.lastrowid for answer in answers] == [*range(1, 8), None, *range(8, 19)]
    assert [answer.rowcount for answer in answers] == [1] * 7 + [7] + [1] * 11
    assert answers[9].rows == [(9, "x")]
    assert db.ask(Status()).failed == 1


# --- files --------------------------------------------------------------------------------


def test_a_database_with_a_strange_name_is_one_file(tmp_path: Path, start):
    for name in ("a?b.db", "a#b.db", "a%41.db", "file:x.db", "with space.db", ":memory:x.db"):
        path = tmp_path / name
        db = start(path)
        db.ask(Script("CREATE TABLE t(a); INSERT INTO t VALUES (1)"))
        db.stop()
        assert path.exists()
        only_read = start(SQLite(path, readonly=True))
        assert only_read.ask(Query("SELECT a FROM t")).scalar() == 1
        only_read.stop()
