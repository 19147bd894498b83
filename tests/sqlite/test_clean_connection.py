"""A job leaves nothing behind on its worker's connection for the next job."""

from dataclasses import dataclass, field
from pathlib import Path

import apsw
import pytest

from actors.databases.sqlite.connection import ALONE, SQLiteConnection
from supervisor import Query, Script, SQLite, Status, TransactionLeftOpen, WorkerDied
from tests.conftest import eventually
from tests.support.common import SQLiteWith, ask_writer, can_lock, error_of
from tests.support.health import run_python, same_workers

FRESH = {
    "busy_timeout": 0,
    "cache_size": -2000,
    "defer_foreign_keys": 0,
    "foreign_keys": 1,
    "ignore_check_constraints": 0,
    "journal_mode": "wal",
    "locking_mode": "normal",
    "query_only": 0,
    "recursive_triggers": 0,
    "synchronous": 2,
    "temp_store": 0,
    "wal_autocheckpoint": 1000,
    "writable_schema": 0,
}
"""The settings of an unused connection. A connection that only reads is also `query_only`."""

FILL = Script("CREATE TABLE kept(number); INSERT INTO kept VALUES (1), (2)")


@pytest.fixture(params=["reader and writer", "one connection"])
def db(start, path, request):
    """A crew of one reader, with or without a writer.

    The next job therefore runs on the connection of the job before."""
    crew = start(path if request.param == "reader and writer" else SQLiteWith(path, {}), size=1)
    crew.ask(FILL)
    return crew


def assert_clean(db):
    """Check that no job has left anything behind, on the reader and on the writer."""
    reader, writer = [lambda sql: db.ask(Query(sql)), lambda sql: ask_writer(db, sql)[0]]
    two = len(db.ask(Status()).workers) == 2
    for ask, fresh in ((reader, {**FRESH, "query_only": int(two)}), (writer, FRESH)):
        assert {name: ask(f"PRAGMA {name}").scalar() for name in FRESH} == fresh
        assert set(ask("PRAGMA database_list").column("name")) <= {"main", "temp"}
        assert ask("SELECT type, name FROM sqlite_temp_schema").rows == []
        assert ask("SELECT 'a' LIKE 'A'").scalar() == 1
        assert ask("SELECT number FROM kept ORDER BY number").column(0) == [1, 2]


# --- settings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pragma",
    [
        "busy_timeout = 1",
        "cache_size(77)",
        "case_sensitive_like = ON",
        "defer_foreign_keys = ON",
        "foreign_keys = OFF",
        "ignore_check_constraints = ON",
        "main.locking_mode = EXCLUSIVE",
        "query_only(ON)",
        "query_only(OFF)",
        "recursive_triggers = 1",
        "synchronous = OFF",
        "main.synchronous = 0",
        "temp_store = MEMORY",
        "wal_autocheckpoint = 0",
        "writable_schema = ON",
    ],
)
def test_a_setting_lasts_for_its_own_job(db, pragma):
    with same_workers(db):
        for _ in ("for the first time", "and again"):
            db.ask(Query(f"PRAGMA {pragma}"))
            assert_clean(db)
        db.ask(Script(f"PRAGMA {pragma}; SELECT count(*) FROM kept"))
        assert_clean(db)
        with pytest.raises(apsw.Error):
            db.ask(Script(f"PRAGMA {pragma}; SELECT missing"))
        assert_clean(db)


def test_the_journal_mode_lasts_for_its_own_job(start, path):
    db = start(SQLiteWith(path, {}), size=1)
    db.ask(FILL)
    with same_workers(db):
        for _ in ("for the first time", "and again"):
            db.ask(Query("PRAGMA JOURNAL_MODE = DELETE"))
            assert_clean(db)
        db.ask(Script("PRAGMA JOURNAL_MODE = DELETE; SELECT count(*) FROM kept"))
        assert_clean(db)
        with pytest.raises(apsw.Error):
            db.ask(Script("PRAGMA JOURNAL_MODE = DELETE; SELECT missing"))
        assert_clean(db)


def test_the_journal_mode_stays_where_other_programs_have_the_file_open(start, path):
    db = start(path, size=1)
    db.ask(FILL)
    # The crew's own reader does not do: it may be opening its connection anew at that moment.
    other = apsw.Connection(str(path))
    assert other.execute("SELECT count(*) FROM kept").fetchall() == [(2,)]
    with same_workers(db):
        for request in (Query("PRAGMA JOURNAL_MODE = DELETE"), Script("PRAGMA JOURNAL_MODE = DELETE")):
            with pytest.raises(apsw.BusyError):
                db.ask(request)
            assert_clean(db)
    other.close()


def test_a_setting_holds_within_its_script(db):
    db.ask(Script("CREATE TABLE parent(id INTEGER PRIMARY KEY); CREATE TABLE child(parent REFERENCES parent)"))
    db.ask(Script("PRAGMA foreign_keys = OFF; INSERT INTO child VALUES (1)"))
    with pytest.raises(apsw.ConstraintError, match="FOREIGN KEY"):
        db.ask(Query("INSERT INTO child VALUES (2)"))
    with pytest.raises(apsw.ReadOnlyError):
        db.ask(Script("PRAGMA query_only = ON; DELETE FROM child"))
    assert db.ask(Query("DELETE FROM child")).rowcount == 1


def test_a_setting_of_the_file_stays(db):
    db.ask(Query("PRAGMA user_version = 7"))
    assert db.ask(Query("PRAGMA user_version")).scalar() == 7
    assert_clean(db)


@pytest.mark.parametrize("sql", ["PRAGMA table_info(kept)", "PRAGMA foreign_keys", "PRAGMA integrity_check(1)"])
def test_asking_for_a_setting_does_not_cost_a_new_connection(path, sql):
    connection = SQLite(path).connect()
    before = connection.connection
    connection.execute(Query(sql))
    connection.refresh()
    assert connection.connection is before
    connection.execute(Query("PRAGMA foreign_keys = OFF"))
    connection.refresh()
    assert connection.connection is not before
    connection.close()


# --- temporary objects --------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TEMP TABLE notes(a)",
        "CREATE TABLE temp.notes(a)",
        "CREATE TEMP TABLE notes AS SELECT 1",
        "CREATE TEMP VIEW seen AS SELECT 1",
        "CREATE VIEW temp.seen AS SELECT 1",
        "CREATE TEMP TRIGGER hook AFTER INSERT ON kept BEGIN DELETE FROM kept; END",
        "CREATE TRIGGER temp.hook AFTER INSERT ON kept BEGIN DELETE FROM kept; END",
        "CREATE VIRTUAL TABLE temp.words USING fts5(text)",
        "CREATE VIRTUAL TABLE temp.pages USING dbstat(main)",
    ],
)
def test_a_temporary_object_lasts_for_its_own_job(db, sql):
    with same_workers(db):
        for request in (Query(sql), Script(sql), Script(f"{sql}; SELECT * FROM kept")):
            db.ask(request)
            assert_clean(db)
        with pytest.raises(apsw.SQLError):
            db.ask(Script(f"{sql}; SELECT missing"))
        assert_clean(db)
        db.ask(Query("INSERT INTO kept VALUES (3)"))
        db.ask(Query("DELETE FROM kept WHERE number = 3"))
        assert_clean(db)


def test_a_temporary_table_does_not_hide_the_real_one_from_the_next_job(db):
    db.ask(Script("CREATE TEMP TABLE kept(number); INSERT INTO kept VALUES (77)"))
    db.ask(Script("CREATE TABLE temp.kept(number); INSERT INTO kept VALUES (77)"))
    assert_clean(db)


@pytest.mark.parametrize("end", ["", "; SELECT missing", "; BEGIN; INSERT INTO extra.t VALUES (1)"])
def test_an_attached_database_lasts_for_its_own_job(db, path, end):
    other = path.with_name("extra.db")
    script = Script(f"ATTACH '{other}' AS extra; CREATE TABLE IF NOT EXISTS extra.t(a); SELECT * FROM extra.t{end}")
    with same_workers(db):
        assert isinstance(error_of(db.ask(script, block=False)), (type(None), apsw.SQLError, TransactionLeftOpen))
        for ask in (lambda sql: db.ask(Query(sql)), lambda sql: ask_writer(db, sql)):
            with pytest.raises(apsw.SQLError, match=r"no such table: extra\.t"):
                ask("SELECT * FROM extra.t")
        assert_clean(db)
    assert can_lock(other)


def test_a_database_in_memory_keeps_its_data_through_such_jobs(start):
    db = start()
    db.ask(Script("CREATE TABLE kept(number); INSERT INTO kept VALUES (1), (2)"))
    db.ask(Query("CREATE TEMP TABLE notes(a)"))
    db.ask(Query("PRAGMA recursive_triggers = ON"))
    with pytest.raises(apsw.SQLError):
        db.ask(Script("PRAGMA cache_size = 5; SELECT missing"))
    assert db.ask(Query("SELECT count(*) FROM kept")).scalar() == 2


# --- transactions and cursors -------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        Query("BEGIN EXCLUSIVE"),
        Query("SAVEPOINT here"),
        Script("BEGIN IMMEDIATE; DELETE FROM kept"),
        Script("BEGIN; DELETE FROM kept; SELECT missing"),
        Script("SAVEPOINT here; DELETE FROM kept; SAVEPOINT there; PRAGMA foreign_keys"),
    ],
    ids=str,
)
def test_a_transaction_is_over_with_its_job(db, path, request_):
    with same_workers(db):
        assert isinstance(error_of(db.ask(request_, block=False)), (TransactionLeftOpen, apsw.SQLError))
        assert can_lock(path)
        assert_clean(db)


WRITE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
connection.execute("INSERT INTO kept(number) VALUES (3)")
connection.close()
print("written")
"""


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        # Both fail at the second row, after the first row was read. The first statement fails
        # in SQLite. The second fails in Python, while its cursor is still open.
        ("SELECT abs(number) FROM kept", apsw.SQLError),
        ("SELECT CAST(text AS TEXT) FROM kept", UnicodeDecodeError),
    ],
)
def test_an_error_that_the_caller_keeps_holds_no_lock(start, path, sql, error):
    # With a rollback journal, an unfinished reader blocks every writer.
    db = start(SQLite(path, journal_mode="delete"), size=1)
    db.ask(Script("CREATE TABLE kept(number, text); INSERT INTO kept VALUES (1, ''), (-9223372036854775808, x'ff')"))
    with pytest.raises(error) as caught:
        db.ask(Query(sql))
    assert caught.value.__traceback__ is not None
    assert run_python(WRITE, path) == "written\n"


def test_an_error_that_is_kept_with_all_its_frames_holds_no_lock(path):
    connection = SQLite(path, journal_mode="delete").connect()
    connection.execute(Script("CREATE TABLE kept(text); INSERT INTO kept VALUES ('good'), ('good')"))
    for _ in range(2):
        connection.execute(Query("SELECT text FROM kept"))
    connection.execute(Query("UPDATE kept SET text = CAST(x'ff' AS TEXT) WHERE rowid = 2"))
    with pytest.raises(UnicodeDecodeError) as caught:
        connection.execute(Query("SELECT text FROM kept"))
    assert can_lock(path)
    assert caught.value.__traceback__ is not None
    connection.close()


def test_a_cursor_that_a_function_leaves_open_is_closed_with_its_job(start, path):
    left_open = []

    def leave_a_cursor():
        left_open.append(database.connections[-1].connection.execute("SELECT number FROM kept"))
        return 1

    database = SQLiteWith(path, {"leave_a_cursor": leave_a_cursor})
    db = start(database, size=1)
    db.ask(Script("CREATE TABLE kept(number); INSERT INTO kept VALUES (1), (2)"))
    assert db.ask(Query("SELECT leave_a_cursor()")).scalar() == 1
    assert len(left_open) == 1
    assert eventually(lambda: can_lock(path))  # the writer may be doing upkeep of its log now
    other = SQLite(path).connect()
    other.execute(Query("INSERT INTO kept VALUES (3)"))
    other.close()
    assert db.ask(Query("SELECT count(*) FROM kept")).scalar() == 3, "the next job reads an old state of the file"


# --- a closed connection ------------------------------------------------------------------


class ClosesItself(SQLiteConnection):
    """A connection on which the query `SELECT 'close'` closes the connection under itself."""

    def _query(self, query):
        result = super()._query(query)
        if query.sql == "SELECT 'close'":
            self.connection.close(True)
        return result


@dataclass(frozen=True)
class Closing:
    path: Path
    name: str = "closing"
    max_size: int | None = None
    opened: list[SQLiteConnection] = field(default_factory=list)

    def connect(self):
        self.opened.append(ClosesItself(SQLite(self.path), ALONE))
        return self.opened[-1]


def test_a_job_that_closes_the_connection_costs_its_worker_and_no_other_job(start, path):
    db = start(Closing(path), size=1)
    db.ask(Script("CREATE TABLE kept(number); INSERT INTO kept VALUES (1), (2)"))
    replies = [db.ask(Query(sql), block=False) for sql in ("SELECT 1", "SELECT 'close'", "SELECT 2", "SELECT 3")]
    errors = [error_of(reply) for reply in replies]
    assert [type(error) for error in errors] == [type(None), WorkerDied, type(None), type(None)]
    assert isinstance(errors[1].__cause__, apsw.ConnectionClosedError)
    assert db.ask(Status()).restarts == 1
    assert_clean(db)


def test_a_function_cannot_close_the_connection_that_runs_it(start, path):
    database = SQLiteWith(path, {"close": lambda: database.connections[-1].connection.close(True)})
    db = start(database, size=1)
    db.ask(Script("CREATE TABLE kept(number); INSERT INTO kept VALUES (1), (2)"))
    with same_workers(db):
        with pytest.raises(apsw.ThreadingViolationError):
            db.ask(Query("SELECT close()"))
        assert_clean(db)
