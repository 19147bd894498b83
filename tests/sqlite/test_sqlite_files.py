"""The file of a SQLite database: only read, removed, replaced, locked, and kept up."""

import os
import threading
from pathlib import Path

import apsw
import pykka
import pytest

from actors.databases.sqlite import upkeep as sqlite_upkeep
from supervisor import (
    Backup,
    ChildProcess,
    DatabaseUnavailable,
    Query,
    QueryTimeout,
    RestartPolicy,
    Script,
    SQLite,
    Status,
    Stream,
    Supervisor,
    Transaction,
)
from tests.conftest import eventually
from tests.support.common import PATIENCE, error_of, up
from tests.support.health import same_workers

KINDS = {"thread": lambda database: database, "child": ChildProcess}


@pytest.fixture(params=KINDS)
def on(request):
    """Return a function that turns a database into one for threads or for children."""
    return KINDS[request.param]


def made(path, *numbers, journal_mode="wal"):
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", journal_mode)
    connection.execute("CREATE TABLE kept(number)")
    with connection:
        connection.executemany("INSERT INTO kept VALUES (?)", [(number,) for number in numbers])
    connection.close()
    return path


def look(path: Path):
    """Return all facts about the files of a folder that another program can see."""
    found = {}
    for file in sorted(path.parent.iterdir()):
        status = file.stat()
        found[file.name] = (status.st_ino, status.st_size, status.st_mtime_ns, file.read_bytes())
    return found


def numbers(db):
    return db.ask(Query("SELECT number FROM kept ORDER BY number"), timeout=PATIENCE).column("number")


# --- new files ----------------------------------------------------------------------------


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("uri", [False, True])
def test_a_missing_file_is_not_made_if_the_program_forbids_it(start, path, on, uri, readonly):
    db = start(on(SQLite(f"file:{path}?x=1" if uri else path, create=False, readonly=readonly)), size=2)
    with pytest.raises(DatabaseUnavailable, match=r"open database file: there is no .*app.db, and SQLite\(create=F"):
        db.wait(timeout=PATIENCE)
    assert list(path.parent.iterdir()) == []
    made(path, 7)
    assert eventually(lambda: up(db))
    assert numbers(db) == [7]


def test_an_existing_file_is_opened_by_a_crew_that_makes_no_files(start, path, on):
    db = start(on(SQLite(made(path, 7), create=False)), size=2)
    db.ask(Query("INSERT INTO kept VALUES (8)"), timeout=PATIENCE)
    assert numbers(db) == [7, 8]


def test_a_missing_file_is_made_by_default(start, path, on):
    assert start(on(SQLite(path)), size=1).wait(timeout=PATIENCE) is None
    assert path.exists()


@pytest.mark.parametrize("path", ["", ":memory:", "file:shared?mode=memory"])
def test_a_database_in_memory_is_always_a_new_one(path):
    with pytest.raises(ValueError, match=r"SQLite\(create=False\) needs a file"):
        SQLite(path, create=False)


@pytest.mark.parametrize("option", ["create", "readonly"])
def test_a_switch_is_on_or_off(option):
    with pytest.raises(TypeError, match=rf"SQLite\({option}\) must be a bool, not int"):
        SQLite("app.db", **{option: 1})


# --- only read ----------------------------------------------------------------------------


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_a_crew_that_only_reads_creates_and_changes_nothing(start, on, path, journal_mode):
    made(path, 1, 2, journal_mode=journal_mode)
    before = look(path)
    db = start(on(SQLite(path, readonly=True)), size=2)
    assert numbers(db) == [1, 2]
    assert [len(rows) for rows in db.ask(Transaction([Query("SELECT * FROM kept")] * 2, readonly=True))] == [2, 2]
    assert [row.number for row in db.ask(Stream("SELECT number FROM kept", chunk=1))] == [1, 2]
    for wrong in (
        Query("INSERT INTO kept VALUES (3)"),
        Query("WITH v(n) AS (VALUES (3)) INSERT INTO kept SELECT n FROM v"),
        Query("PRAGMA user_version = 3"),
        Script("CREATE TABLE other(a)"),
        Transaction([Query("DELETE FROM kept")]),
        Query(f"ATTACH '{path.with_name('new.db')}' AS new"),
    ):
        assert isinstance(error_of(db.ask(wrong, block=False)), (apsw.ReadOnlyError, apsw.CantOpenError)), wrong
    assert eventually(lambda: [worker.role for worker in db.ask(Status()).workers] == [None, None]), "no worker writes"
    assert look(path) == before
    db.stop()
    assert look(path) == before


def test_a_crew_that_only_reads_needs_a_file(start, on, path):
    db = start(on(SQLite(path, readonly=True)), size=1)
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert isinstance(error.__cause__, apsw.CantOpenError)
    assert not path.exists()
    made(path, 1)
    assert eventually(lambda: error_of(db.ask(Query("SELECT 1"), block=False)) is None), "the crew stays suspended"


def test_a_crew_that_only_reads_sees_the_writes_of_another_program(start, on, path):
    made(path, 1)
    db = start(on(SQLite(path, readonly=True)), size=2)
    assert numbers(db) == [1]
    with apsw.Connection(str(path)) as writing:
        writing.execute("INSERT INTO kept VALUES (2)")
    for _ in range(3):  # for both readers
        assert numbers(db) == [1, 2]
    writing.execute("INSERT INTO kept VALUES (3)")
    assert numbers(db) == [1, 2, 3], "the row that is in the log alone is missing"
    writing.close()
    assert numbers(db) == [1, 2, 3]


def test_a_stream_over_a_file_that_begins_to_change_does_not_go_on_with_torn_rows(start, path):
    made(path, *range(100))
    db = start(SQLite(path, readonly=True), size=1)
    stream = db.ask(Stream("SELECT number FROM kept", chunk=10))
    assert next(stream).number == 0
    writing = apsw.Connection(str(path))
    writing.execute("UPDATE kept SET number = -number")
    writing.close()
    with pytest.raises(apsw.BusyError, match="another process has changed the database"):
        list(stream)
    assert numbers(db)[0] == -99


def test_a_log_without_its_index_is_explained(start, path):
    made(path)
    copy = path.with_name("copy.db")
    writing = apsw.Connection(str(path))
    writing.execute("INSERT INTO kept VALUES (1)")
    for ending in ("", "-wal"):
        copy.with_name(copy.name + ending).write_bytes(path.with_name(path.name + ending).read_bytes())
    writing.close()
    db = start(SQLite(copy, readonly=True), size=1)
    error = error_of(db.ask(Query("SELECT 1"), block=False))
    assert "a program that may write must open the database first" in str(error.__cause__)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"path": ":memory:", "readonly": True}, ValueError, "needs a file"),
        ({"path": "x.db", "readonly": 1}, TypeError, r"SQLite\(readonly\) must be a bool"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options, kind, said):
    with pytest.raises(kind, match=said):
        SQLite(**options)


# --- removed and replaced -----------------------------------------------------------------


def said(db, request):
    """Return the text of the error of a request, if the file cannot be opened."""
    error = error_of(db.ask(request, block=False))
    return str(error) if isinstance(error, apsw.CantOpenError) else ""


def test_a_removed_file_is_an_error_and_no_empty_file_takes_its_place(start, on, path):
    made(path, 1)
    db = start(on(path), size=2)
    assert numbers(db) == [1]
    db.ask(Query("INSERT INTO kept VALUES (2)"))
    elsewhere = path.with_name("elsewhere.db")
    assert eventually(lambda: up(db) == 3)
    with same_workers(db):
        path.rename(elsewhere)
        for request in (
            Query("SELECT * FROM kept"),
            Query("INSERT INTO kept VALUES (3)"),
            Transaction([Query("SELECT * FROM kept")], readonly=True),
            Stream("SELECT * FROM kept"),
        ):
            assert eventually(lambda request=request: "was removed, or moved away" in said(db, request)), request
        assert not path.exists()
        elsewhere.rename(path)
        assert numbers(db) == [1, 2]
        db.ask(Query("INSERT INTO kept VALUES (3)"))
        assert numbers(db) == [1, 2, 3]


def test_a_replaced_worker_makes_no_empty_file_in_place_of_a_removed_file(start, on, path):
    made(path, 1)
    db = start(on(path), size=1, restart=RestartPolicy(backoff_initial=0.0, quiet_period=0.0))
    assert numbers(db) == [1]
    elsewhere = path.with_name("elsewhere.db")
    path.rename(elsewhere)
    (worker,) = pykka.ActorRegistry.get_by_class_name("Worker")
    worker.stop(block=False)
    assert eventually(lambda: db.ask(Status()).state == "suspended")
    assert not path.exists()
    elsewhere.rename(path)
    assert eventually(lambda: db.ask(Status()).state == "up")
    assert numbers(db) == [1]


def test_the_writer_makes_no_empty_file_in_place_of_a_removed_file(start, path):
    made(path, 1)
    db = start(path, size=1)
    assert numbers(db) == [1]
    path.unlink()
    error = error_of(db.ask(Query("INSERT INTO kept VALUES (2)"), block=False))
    assert isinstance(error.__cause__, apsw.CantOpenError)
    assert not path.exists()


def test_a_replaced_file_is_read_and_written_as_the_new_file(start, on, path):
    made(path, 1)
    db = start(on(path), size=2)
    assert numbers(db) == [1]  # the log holds no part of it
    assert eventually(lambda: up(db) == 2)
    with same_workers(db):
        for at in (path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            at.unlink()
        os.replace(made(path.with_name("new.db"), 7), path)
        assert eventually(lambda: numbers(db) == [7])
        db.ask(Query("INSERT INTO kept VALUES (8)"))
        assert numbers(db) == [7, 8]


def test_a_replaced_file_is_never_mixed_with_the_log_of_the_old_file(start, on, path):
    made(path, 1)
    db = start(on(path), size=1)
    db.ask(Query("INSERT INTO kept VALUES (2)"))
    os.replace(made(path.with_name("new.db"), 7), path)
    for request in (Query("SELECT * FROM kept"), Query("INSERT INTO kept VALUES (3)")):
        assert eventually(lambda request=request: "the log of the old one is still there" in said(db, request))
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink()
    assert numbers(db) == [7]


# --- locks of other programs --------------------------------------------------------------


def test_a_status_shows_which_worker_writes_and_which_waits_for_the_lock(start, on, path):
    made(path)
    db = start(on(path), size=1)
    db.ask(Query("INSERT INTO kept VALUES (1)"))
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    waiting = db.ask(Query("INSERT INTO kept VALUES (2)"), block=False)

    def writer():
        return next(worker for worker in db.ask(Status()).workers if worker.role == "writer")

    assert eventually(lambda: writer().waits_for_lock)
    assert db.ask(Status()).writing is None
    assert "(waits for a lock)" in str(db.ask(Status()))
    assert numbers(db) == [1], "a reader waits for the lock"
    other.execute("ROLLBACK")
    other.close()
    assert error_of(waiting) is None
    with db.transaction() as tx:
        tx.ask(Query("INSERT INTO kept VALUES (3)"))
        assert eventually(lambda: db.ask(Status()).writing == "transaction()")
    assert db.ask(Status()).writing is None


@pytest.mark.parametrize("end", ["cancel", "deadline"])
def test_a_job_that_waits_for_a_lock_can_be_cancelled_and_has_a_deadline(start, on, path, end):
    made(path)
    db = start(on(path), size=1)
    db.ask(Query("INSERT INTO kept VALUES (1)"))
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    with same_workers(db):
        timeout = 0.1 if end == "deadline" else None
        first = db.ask(Query("INSERT INTO kept VALUES (2)", timeout=timeout), block=False)
        second = db.ask(Query("INSERT INTO kept VALUES (3)"), block=False)
        assert eventually(lambda: db.ask(Status()).running)
        if end == "cancel":
            first.cancel()
        error = error_of(first)
        assert error.executed is False
        assert isinstance(error, QueryTimeout) is (end == "deadline")
        other.execute("ROLLBACK")
        other.close()
        assert error_of(second) is None
    assert numbers(db) == [1, 3]


# --- upkeep -------------------------------------------------------------------------------


def insert_alone(db, query):
    db.ask(query)


def insert_in_a_session(db, query):
    with db.transaction() as tx:
        tx.ask(query)


@pytest.mark.parametrize("insert", [insert_alone, insert_in_a_session])
def test_the_log_begins_again_though_a_reader_is_always_active(start, path, monkeypatch, insert):
    monkeypatch.setattr(sqlite_upkeep, "_LOG", 200_000)
    monkeypatch.setattr(sqlite_upkeep, "_SELDOM", 1)
    db = start(path, size=2)
    db.ask(Query("CREATE TABLE kept(number, what)"))
    log, over = path.with_name(f"{path.name}-wal"), threading.Event()

    def read():
        while not over.is_set():
            db.ask(Query("SELECT count(*) FROM kept"))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        written, before, shrunk = 0, 0, 0
        while shrunk < 3 and written < 200_000_000:
            insert(db, Query("INSERT INTO kept VALUES (?, randomblob(50000))", (written,)))
            written += 50_000
            size = log.stat().st_size
            shrunk += size < before
            before = size
    finally:
        over.set()
        for reader in readers:
            reader.join()
    assert shrunk == 3, f"{log.stat().st_size} bytes after {written} were written"


def test_the_query_planner_gets_statistics_at_the_end(path):
    with Supervisor.start(path, size=1) as db:
        db.ask(Script("CREATE TABLE kept(number, what); CREATE INDEX by_number ON kept(number)"))
        many = [(number % 7, "x") for number in range(2000)]
        db.ask(Query("INSERT INTO kept VALUES (?, ?)", many=many))
    connection = apsw.Connection(str(path))
    assert connection.execute("SELECT count(*) FROM sqlite_stat1").fetchall() == [(1,)]
    connection.close()


def test_a_crew_that_wrote_nothing_changes_nothing_at_its_end(path):
    made(path, 1)
    before = path.read_bytes()
    with Supervisor.start(path, size=1) as db:
        assert numbers(db) == [1]
    assert path.read_bytes() == before


def test_a_backup_runs_on_a_worker_that_reads(start, path):
    made(path, 1)
    db = start(path, size=1)
    db.ask(Backup(path.with_name("copy.db")))
    assert [worker.role for worker in db.ask(Status()).workers] == ["reader"]


# --- a full disk --------------------------------------------------------------------------


def test_a_full_disk_is_one_error_of_each_large_write_and_heals(start, on, path):
    db = start(on(SQLite(path, pragmas={"max_page_count": 20})), size=1)
    db.ask(Query("CREATE TABLE kept(number, what)"))
    for _ in range(5):
        small = [db.ask(Query("INSERT INTO kept VALUES (?, '')", (n,)), block=False) for n in range(10)]
        large = [db.ask(Query("INSERT INTO kept VALUES (-1, zeroblob(500000))"), block=False) for _ in range(3)]
        more = [db.ask(Query("INSERT INTO kept VALUES (?, '')", (n,)), block=False) for n in range(10)]
        assert [error_of(reply) for reply in [*small, *more]] == [None] * 20
        assert [type(error_of(reply)) for reply in large] == [apsw.FullError] * 3
    assert db.ask(Query("SELECT count(*), min(number) FROM kept")).rows == [(100, 0)]
    assert db.ask(Query("PRAGMA integrity_check")).scalar() == "ok"
    assert db.ask(Status()).restarts == 0


def test_upkeep_does_not_touch_a_transaction_that_is_open(start, path, monkeypatch):
    monkeypatch.setattr(sqlite_upkeep, "_SELDOM", 1)
    monkeypatch.setattr(sqlite_upkeep, "_DAY", -1.0)  # the upkeep is always due
    monkeypatch.setattr(sqlite_upkeep, "_PATIENCE", 0.0)
    db = start(path, size=1)
    db.ask(Script("CREATE TABLE kept(number, what); CREATE INDEX by_number ON kept(number)"))
    db.ask(Query("INSERT INTO kept VALUES (?, 'x')", many=[(number % 7,) for number in range(2000)]))
    with db.transaction() as tx:
        for number in range(5):
            tx.ask(Query("INSERT INTO kept VALUES (?, 'y')", (number,)))
    assert db.ask(Query("SELECT count(*) FROM kept WHERE what = 'y'")).scalar() == 5
