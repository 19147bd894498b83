"""Faults of disks, files and locks. Each is one clear error."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest

from actors.databases.sqlite.connection import ALONE, SQLiteConnection
from supervisor import DatabaseUnavailable, Query, RestartPolicy, Script, SQLite, Status, WorkerDied
from tests.support.common import PATIENCE, SQLiteWith, error_of
from tests.support.health import run_python, same_workers

FILL = Script("CREATE TABLE kept(number, filling); INSERT INTO kept VALUES (1, NULL), (2, NULL)")
NUMBERS = Query("SELECT number FROM kept ORDER BY number")
MANY = "WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n LIMIT 2000) SELECT i, randomblob(2000) FROM n"


# --- full disks and failing disks ---------------------------------------------------------


class SmallConnection(SQLiteConnection):
    """A connection whose file may have 100 pages."""

    def _open(self):
        super()._open()
        self.connection.pragma("max_page_count", 100)
        self._settings.is_changed = False  # this setting belongs to the test, not to a job


@dataclass(frozen=True)
class SmallDisk:
    path: Path
    name: str = "small-disk"
    max_size: int | None = None

    def connect(self):
        return SmallConnection(SQLite(self.path), ALONE)


@pytest.mark.parametrize(
    "request_",
    [
        Query(f"INSERT INTO kept {MANY}"),
        Query("INSERT INTO kept VALUES (3, zeroblob(4000000))"),
        Script(f"BEGIN; INSERT INTO kept VALUES (3, NULL); INSERT INTO kept {MANY}; COMMIT"),
        Script("BEGIN; DELETE FROM kept; INSERT INTO kept VALUES (3, zeroblob(4000000)); COMMIT"),
    ],
    ids=str,
)
def test_a_full_disk_is_one_error_without_half_a_transaction_and_the_next_small_write_works(start, path, request_):
    db = start(SmallDisk(path), size=1)
    db.ask(FILL)
    with same_workers(db):
        for _ in range(2):
            with pytest.raises(apsw.FullError):
                db.ask(request_)
            assert db.ask(NUMBERS).column(0) == [1, 2]
        assert db.ask(Query("INSERT INTO kept VALUES (3, 'small')")).rowcount == 1
        assert db.ask(NUMBERS).column(0) == [1, 2, 3]
        assert db.ask(Query("PRAGMA integrity_check")).scalar() == "ok"


FAILING_DISK = """
import resource, sys
import apsw
from supervisor import Query, Script, SQLite, Status, Supervisor, WorkerDied

path, journal_mode, many = sys.argv[1:]
with Supervisor.start(SQLite(path, journal_mode=journal_mode), size=1) as db:
    db.ask(Script("CREATE TABLE kept(number, filling); INSERT INTO kept VALUES (1, NULL), (2, NULL)"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    try:
        db.ask(Script(f"BEGIN; DELETE FROM kept; INSERT INTO kept {many}; COMMIT"))
    except WorkerDied as error:
        assert isinstance(error.__cause__, apsw.IOError), error.__cause__
        assert error.executed is None
    else:
        raise AssertionError("nothing failed")
    assert db.ask(Query("SELECT number FROM kept")).column(0) == [1, 2]
    assert db.ask(Query("INSERT INTO kept VALUES (3, 'small')")).rowcount == 1
    assert db.ask(Query("PRAGMA integrity_check")).scalar() == "ok"
    status = db.ask(Status())
    assert (status.died, status.restarts, status.failed_starts) == (1, 1, 0), status
print("survived")
"""


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_an_io_error_costs_one_job_and_one_worker_and_nothing_in_the_file(path, journal_mode):
    assert run_python(FAILING_DISK, path, journal_mode, MANY) == "survived\n"


# --- a damaged file -----------------------------------------------------------------------

PATIENT = RestartPolicy(max_restarts=3, within=600, backoff_initial=0, poison_after=0)
"""Three workers are replaced at once, and a fourth worker only after minutes."""


@pytest.fixture
def filled(path):
    """A database of about 500 pages, which are all in the file itself and not in a log."""
    connection = SQLite(path, journal_mode="delete").connect()
    connection.execute(FILL)
    connection.execute(Query("CREATE TABLE small(a)"))
    connection.execute(Query(f"INSERT INTO kept {MANY}"))
    connection.close()
    return path


def overwrite(path, at, content):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


@pytest.mark.parametrize("damage", ["no header", "a header cut off", "another file"])
def test_a_file_that_is_no_database_is_unavailable_at_once_and_is_tried_again(start, filled, damage):
    good = filled.read_bytes()
    match damage:
        case "no header":
            overwrite(filled, 0, bytes(100))
        case "a header cut off":
            filled.write_bytes(good[:600])
        case "another file":
            filled.write_text("These are notes and no database. " * 100)
    db = start(SQLite(filled, journal_mode="delete"), size=2, restart=RestartPolicy(backoff_initial=0.2, jitter=0))
    for _ in range(100):
        error = error_of(db.ask(NUMBERS, block=False))
        assert type(error) is DatabaseUnavailable, error
        assert isinstance(error.__cause__, (apsw.NotADBError, apsw.CorruptError))
    assert db.ask(Status()).failed_starts < 10
    assert filled.stat().st_size > 0


def test_a_header_that_is_damaged_under_a_running_crew_costs_one_job_and_then_suspends(start, filled):
    db = start(SQLite(filled, journal_mode="delete"), size=1)
    assert db.ask(NUMBERS).rowcount == 2002
    good = filled.read_bytes()[:100]
    overwrite(filled, 0, b"\xff" * 100)
    errors = [error_of(db.ask(NUMBERS, block=False)) for _ in range(20)]
    assert type(errors[0]) is WorkerDied
    assert isinstance(errors[0].__cause__, apsw.NotADBError)
    assert {type(error) for error in errors[1:]} == {DatabaseUnavailable}
    status = db.ask(Status())
    assert (status.died, status.state) == (1, "suspended")
    assert "NotADBError" in status.cause
    overwrite(filled, 0, good)


def test_a_damaged_page_costs_its_readers_until_the_restarts_are_used_up(start, filled):
    overwrite(filled, 200 * 4096, b"\xff" * 4096 * 100)
    db = start(SQLite(filled, journal_mode="delete"), size=1, restart=PATIENT)
    errors = []
    for _ in range(3):
        errors.append(error_of(db.ask(Query("SELECT sum(length(filling)) FROM kept"), block=False)))
        assert db.ask(Query("SELECT count(*) FROM small")).scalar() == 0, "the sound part of the file cannot be read"
    errors.append(error_of(db.ask(Query("SELECT sum(length(filling)) FROM kept"), block=False)))
    assert {type(error) for error in errors} == {WorkerDied}
    assert all(isinstance(error.__cause__, apsw.CorruptError) for error in errors)
    assert "SELECT sum(length(filling)) FROM kept" in str(errors[0])
    # The next replacement waits for the window. Until then each request is refused at once.
    refused = [error_of(db.ask(Query("SELECT count(*) FROM small"), block=False)) for _ in range(20)]
    assert {type(error) for error in refused} == {DatabaseUnavailable}
    assert isinstance(refused[0].__cause__, apsw.CorruptError)
    status = db.ask(Status())
    assert (status.died, status.restarts, status.failed_starts) == (4, 3, 0)


def test_a_file_cut_in_half_is_a_clear_error(start, filled):
    os.truncate(filled, filled.stat().st_size // 2 // 4096 * 4096)
    db = start(SQLite(filled, journal_mode="delete"), size=1, restart=RestartPolicy(max_restarts=3, within=600))
    errors = [error_of(db.ask(Query("SELECT count(filling) FROM kept"), block=False)) for _ in range(20)]
    assert {type(error) for error in errors} <= {WorkerDied, DatabaseUnavailable}
    assert {type(error.__cause__) for error in errors} == {apsw.CorruptError}
    assert db.ask(Status()).restarts < 10


# --- locks of other programs --------------------------------------------------------------

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("INSERT INTO kept VALUES (99, NULL)")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another_process(path):
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        yield
        holder.stdin.close()
        assert holder.wait(PATIENCE) == 0


def test_a_write_waits_no_longer_than_busy_timeout_for_the_lock_of_another_process(start, path):
    db = start(SQLite(path, busy_timeout=0.02), size=1)
    db.ask(FILL)
    with same_workers(db):
        with held_by_another_process(path):
            for request, waits in (
                (Query("INSERT INTO kept VALUES (3, NULL)"), 0.02),
                (Script("BEGIN IMMEDIATE; INSERT INTO kept VALUES (3, NULL); COMMIT"), 0.02),
            ):
                with pytest.raises(apsw.BusyError) as caught:
                    db.ask(request)
                [note] = [note for note in caught.value.__notes__ if "waited" in note]
                waited = float(re.search(r"waited ([\d.]+) seconds", note)[1])
                assert waited >= waits
                assert "busy_timeout is 0.02" in note
            # A transaction that has read and then writes is refused at once, since its wait could
            # never end.
            with pytest.raises(apsw.BusyError) as caught:
                db.ask(Script("BEGIN; SELECT * FROM kept; INSERT INTO kept VALUES (3, NULL); COMMIT"))
            assert any("begin it with BEGIN IMMEDIATE" in note for note in caught.value.__notes__)
            assert db.ask(NUMBERS).column(0) == [1, 2], "a reader waits for the lock"
        assert db.ask(Query("INSERT INTO kept VALUES (3, NULL)")).rowcount == 1
        assert db.ask(NUMBERS).column(0) == [1, 2, 3]


def test_a_write_waits_for_a_lock_until_it_is_free(start, path):
    db = start(SQLite(path, busy_timeout=PATIENCE), size=1)
    db.ask(FILL)
    with held_by_another_process(path):
        reply = db.ask(Query("INSERT INTO kept VALUES (3, NULL)"), block=False)
        assert not reply.done()
    assert reply.get(timeout=PATIENCE).rowcount == 1


def test_a_reader_that_becomes_a_writer_too_late_is_refused_at_once_and_undone(start, path):
    def write_elsewhere():
        other = apsw.Connection(str(path))
        other.execute("INSERT INTO kept VALUES (50, NULL)")
        other.close()
        return 1

    db = start(SQLiteWith(path, {"write_elsewhere": write_elsewhere}), size=1)
    db.ask(FILL)
    sql = "BEGIN; SELECT count(*) FROM kept; SELECT write_elsewhere(); INSERT INTO kept VALUES (3, NULL); COMMIT"
    with same_workers(db):
        with pytest.raises(apsw.BusyError) as caught:
            db.ask(Script(sql))
        assert caught.value.extendedresult == apsw.SQLITE_BUSY_SNAPSHOT
        assert db.ask(NUMBERS).column(0) == [1, 2, 50]
        assert db.ask(Query("INSERT INTO kept VALUES (3, NULL)")).rowcount == 1
