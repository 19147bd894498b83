"""`db.ask(Backup(path))` makes a whole copy of one state, or no copy.

An older file in its place stays until the copy is whole.
"""

import asyncio
import os
import signal
import threading

import apsw
import pytest

from supervisor import (
    Backup,
    Call,
    Query,
    QueryCancelled,
    QueryTimeout,
    RestartPolicy,
    Script,
    SQLite,
    Status,
    SupervisorStopped,
    WorkerDied,
    WouldDeadlock,
)
from tests.conftest import eventually
from tests.support import call_functions
from tests.support.common import PATIENCE, error_of
from tests.support.health import KINDS, assert_serves, is_idle, run_python, same_workers

EAGER = RestartPolicy(max_restarts=1_000_000, backoff_initial=0.0, quiet_period=0.0)
FILL = Script(
    "CREATE TABLE kept(number INTEGER PRIMARY KEY, value);"
    "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n LIMIT 300)"
    "INSERT INTO kept SELECT i, randomblob(1000) FROM n"
)
# Some hundred kilobytes, which is enough for as many steps as a test needs.


@pytest.fixture(params=KINDS, ids=str)
def kind(request):
    return request.param


@pytest.fixture
def crew(start, path):
    """Start crews of a kind. At the end of the test each crew must still serve."""
    refs = []

    def start_crew(kind="file", size=1, **options):
        ref = start(KINDS[kind](path), size=size, **options)
        ref.ask(FILL)
        refs.append(ref)
        return ref

    yield start_crew
    for ref in refs:
        if ref.is_alive():
            assert_healthy(ref)


@pytest.fixture
def db(kind, crew):
    return crew(kind)


@pytest.fixture
def copies(tmp_path):
    """A folder that holds an older copy alone."""
    folder = tmp_path / "copies"
    folder.mkdir()
    (folder / "old.db").write_text("the older copy")
    return folder


def assert_healthy(db):
    assert_serves(db, Query("INSERT INTO kept VALUES (1000, NULL)"))
    assert db.ask(Query("PRAGMA integrity_check"), timeout=PATIENCE).scalar() == "ok"


def rows_of(path):
    """Check a whole copy, and return its rows."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        assert connection.pragma("integrity_check") == "ok"
        return connection.execute("SELECT * FROM kept ORDER BY number").fetchall()
    finally:
        connection.close()


def rows(db):
    return db.ask(Query("SELECT * FROM kept ORDER BY number"), timeout=PATIENCE).rows


def files(folder):
    return sorted(file.name for file in folder.iterdir())


def assert_untouched(copies):
    assert eventually(lambda: files(copies) == ["old.db"]), "an unfinished copy was left"
    assert (copies / "old.db").read_text() == "the older copy"


class Halfway:
    """A progress function that stops the backup after its first step until `go_on` is set."""

    def __init__(self):
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self.steps = []

    def __call__(self, copied, pages):
        self.steps.append((copied, pages))
        if not self.reached.is_set():
            self.reached.set()
            assert self.go_on.wait(PATIENCE)


def halfway(db, path, **options):
    """Begin a backup, wait for its first step, and return its reply and its progress function."""
    progress = Halfway()
    reply = db.ask(Backup(path, pages=10, progress=progress, **options), block=False)
    assert progress.reached.wait(PATIENCE)
    return reply, progress


# --- a whole copy -------------------------------------------------------------------------


@pytest.mark.parametrize("pages", [1, 7, 1000])
def test_a_backup_is_a_whole_copy(db, copies, pages):
    with same_workers(db):
        result = db.ask(Backup(copies / "new.db", pages=pages))
    assert files(copies) == ["new.db", "old.db"]
    assert result.one().bytes == (copies / "new.db").stat().st_size
    assert result.one().pages == db.ask(Query("PRAGMA page_count")).scalar()
    assert rows_of(copies / "new.db") == rows(db)


def test_a_copy_is_a_database_that_a_crew_can_use(crew, start, copies):
    db = crew()
    db.ask(Backup(copies / "new.db"))
    copy = start(copies / "new.db", size=1)
    copy.ask(Query("DELETE FROM kept WHERE number > 5"))
    assert len(rows(copy)) == 5
    assert len(rows(db)) == 300


def test_an_older_copy_is_replaced(db, copies):
    for ending in ("-wal", "-shm", "-journal"):
        (copies / f"old.db{ending}").touch()
    for _ in range(2):
        db.ask(Backup(copies / "old.db"))
        db.ask(Query("INSERT INTO kept SELECT max(number) + 1, NULL FROM kept"))
    assert files(copies) == ["old.db"]
    assert len(rows_of(copies / "old.db")) == 301


@pytest.mark.parametrize("ending", ["-wal", "-journal"])
def test_a_database_that_has_a_log_is_not_replaced(db, copies, ending):
    (copies / f"old.db{ending}").write_text("the log of the older copy")
    with same_workers(db), pytest.raises(FileExistsError, match="in use or was not closed"):
        db.ask(Backup(copies / "old.db"))
    assert files(copies) == ["old.db", f"old.db{ending}"]
    assert (copies / "old.db").read_text() == "the older copy"


def test_an_older_copy_stays_until_the_new_copy_is_whole(db, copies):
    seen = []

    def look(copied, pages):
        whole = copied == pages
        seen.append(whole or (copies / "old.db").read_text() == "the older copy")

    db.ask(Backup(copies / "old.db", pages=10, progress=look))
    assert all(seen)
    assert len(seen) > 5
    assert rows_of(copies / "old.db") == rows(db)


def test_progress_is_called_after_each_step(db, copies):
    steps, processes = [], set()

    def note(copied, pages):
        steps.append((copied, pages))
        processes.add(os.getpid())

    pages = db.ask(Backup(copies / "new.db", pages=20, progress=note)).one().pages
    assert steps == [(min(step * 20, pages), pages) for step in range(1, -(-pages // 20) + 1)]
    assert processes == {os.getpid()}, "progress ran outside of the program's process"


def test_an_empty_database_can_be_copied(start, copies):
    for database in (SQLite(), copies.parent / "empty.db"):
        start(database, size=1).ask(Backup(copies / "new.db", timeout=PATIENCE))
        connection = apsw.Connection(str(copies / "new.db"))
        assert connection.execute("SELECT * FROM sqlite_schema").fetchall() == []
        connection.close()


def test_a_database_that_is_only_read_can_be_copied(crew, start, path, copies):
    writing = crew()
    expected = rows(writing)
    writing.stop()
    db = start(SQLite(path, readonly=True), size=1)
    db.ask(Backup(copies / "new.db"))
    assert rows_of(copies / "new.db") == expected


def test_a_relative_path_belongs_to_the_folder_in_which_the_request_was_made(crew, copies, monkeypatch):
    db = crew()
    monkeypatch.chdir(copies)
    request = Backup("new.db")
    monkeypatch.chdir(copies.parent)
    db.ask(request)
    assert files(copies) == ["new.db", "old.db"]


def test_a_backup_works_with_tell_and_with_await(crew, copies):
    db = crew()
    db.tell(Backup(copies / "told.db"))
    assert eventually((copies / "told.db").exists)

    async def main():
        return await db.ask(Backup(copies / "awaited.db"), block=False)

    assert asyncio.run(main()).one().pages > 10
    assert eventually(lambda: files(copies) == ["awaited.db", "old.db", "told.db"])


# --- while others work --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "child"])
def test_a_copy_holds_one_state_in_spite_of_writes_meanwhile(crew, kind, copies):
    db = crew(kind)
    before = rows(db)
    reply, progress = halfway(db, copies / "new.db")
    db.ask(Query("DELETE FROM kept WHERE number % 2"), timeout=PATIENCE)
    db.ask(Query("UPDATE kept SET value = randomblob(3000)"), timeout=PATIENCE)
    progress.go_on.set()
    reply.get(timeout=PATIENCE)
    assert rows_of(copies / "new.db") == before


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_writer_that_commits_all_the_time_never_makes_a_backup_begin_again(crew, path, copies, elsewhere):
    db, steps = crew(), []
    other = apsw.Connection(str(path))
    other.set_busy_timeout(int(PATIENCE * 1000))

    def write(copied, pages):
        steps.append(copied)
        if elsewhere:
            other.execute("UPDATE kept SET value = randomblob(1000) WHERE number = 1")
        else:
            db.ask(Query("UPDATE kept SET value = randomblob(1000) WHERE number = 1"), block=False)
        assert len(steps) < 1000, "the backup begins again and again"

    before = rows(db)
    pages = db.ask(Backup(copies / "new.db", pages=5, progress=write), timeout=PATIENCE).one().pages
    other.close()
    assert steps == [min(step * 5, pages) for step in range(1, -(-pages // 5) + 1)]
    assert rows_of(copies / "new.db") == before


@pytest.mark.parametrize("kind", ["file", "child"])
def test_other_requests_read_and_write_during_a_backup(crew, kind, copies):
    db = crew(kind, size=2)
    reply, progress = halfway(db, copies / "new.db")
    assert len(rows(db)) == 300
    assert db.ask(Query("DELETE FROM kept WHERE number > 10"), timeout=PATIENCE).rowcount == 290
    assert db.ask(Status()).running == 1
    assert not reply.done()
    progress.go_on.set()
    assert reply.get(timeout=PATIENCE).one().pages > 10


def test_two_backups_to_different_places_run_side_by_side(crew, copies):
    db = crew(size=2)
    one, first = halfway(db, copies / "one.db")
    two, second = halfway(db, copies / "two.db")
    first.go_on.set()
    one.get(timeout=PATIENCE)
    second.go_on.set()
    two.get(timeout=PATIENCE)
    assert rows_of(copies / "one.db") == rows_of(copies / "two.db") == rows(db)


def test_two_backups_to_one_place_leave_a_whole_copy_there_at_any_time(crew, copies):
    db = crew(size=2)
    one, first = halfway(db, copies / "new.db")
    two, second = halfway(db, copies / "new.db")  # the crew may also refuse it
    first.go_on.set()
    if error_of(one) is None:
        assert rows_of(copies / "new.db") == rows(db), "the first backup is done, and its copy is not whole"
    second.go_on.set()
    errors = [error_of(one), error_of(two)]
    assert None in errors
    assert not any(isinstance(error, WorkerDied) for error in errors)
    assert rows_of(copies / "new.db") == rows(db)
    assert files(copies) == ["new.db", "old.db"]


# --- no copy ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "memory", "child"])
def test_a_cancelled_backup_leaves_the_older_copy(crew, kind, copies):
    db = crew(kind)
    with same_workers(db):
        reply, progress = halfway(db, copies / "old.db")
        assert reply.cancel() is True
        progress.go_on.set()
        error = error_of(reply)
        assert isinstance(error, QueryCancelled)
        assert error.executed is False
        assert_untouched(copies)


@pytest.mark.parametrize("kind", ["file", "memory", "child"])
def test_a_backup_whose_deadline_passes_leaves_the_older_copy(crew, kind, copies):
    db = crew(kind)
    never = threading.Event()
    with same_workers(db):
        reply = db.ask(
            Backup(copies / "old.db", pages=1, progress=lambda *_: never.wait(0.01), timeout=0.05), block=False
        )
        error = error_of(reply)
        assert isinstance(error, QueryTimeout)
        assert error.executed is False
        assert_untouched(copies)


@pytest.mark.parametrize("kind", ["file", "memory", "child"])
def test_an_error_in_progress_ends_the_backup_and_leaves_the_older_copy(crew, kind, copies):
    db, own = crew(kind), LookupError("the caller's own")

    def fail(copied, pages):
        if copied >= 20:
            raise own

    with same_workers(db):
        with pytest.raises(LookupError) as caught:
            db.ask(Backup(copies / "old.db", pages=10, progress=fail))
        assert caught.value is own
        assert_untouched(copies)


@pytest.mark.parametrize("kind", ["file", "child"])
def test_an_error_in_the_last_progress_leaves_the_older_copy(crew, kind, copies):
    db = crew(kind)

    def fail(copied, pages):
        raise LookupError

    with pytest.raises(LookupError):
        db.ask(Backup(copies / "old.db", pages=100_000, progress=fail))
    assert_untouched(copies)


@pytest.mark.parametrize("kind", ["file", "child"])
def test_a_system_exit_in_progress_leaves_the_older_copy(crew, kind, copies):
    db = crew(kind, restart=EAGER)

    def fail(copied, pages):
        raise SystemExit

    error = error_of(db.ask(Backup(copies / "old.db", pages=10, progress=fail), block=False))
    assert isinstance(error, (WorkerDied, SystemExit))
    assert eventually(lambda: is_idle(db))
    assert_untouched(copies)


def test_a_progress_that_waits_for_its_own_crew_gets_an_error(crew, copies):
    db = crew(size=2)
    with pytest.raises(WouldDeadlock):
        db.ask(Backup(copies / "old.db", pages=10, progress=lambda *_: db.ask(Query("SELECT 1"))))
    assert_untouched(copies)


@pytest.mark.parametrize("kind", ["file", "memory", "child"])
def test_a_shutdown_at_its_time_limit_leaves_the_older_copy(crew, kind, copies):
    db = crew(kind)
    reply, progress = halfway(db, copies / "old.db")
    db.shutdown(wait=False, timeout=0)
    progress.go_on.set()
    error = error_of(reply)
    assert isinstance(error, SupervisorStopped)
    assert error.executed is False
    assert db.wait_until_ended(PATIENCE)
    assert_untouched(copies)


def test_a_cancelled_task_cancels_its_backup(crew, copies):
    db = crew()
    progress = Halfway()

    async def work():
        await db.ask(Backup(copies / "old.db", pages=10, progress=progress), block=False)

    async def main():
        task = asyncio.create_task(work())
        await asyncio.to_thread(progress.reached.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    progress.go_on.set()
    assert eventually(lambda: is_idle(db))
    assert_untouched(copies)


def test_a_killed_child_costs_the_new_copy_and_not_the_older_copy(crew, copies):
    db = crew("child", restart=EAGER)
    reply, progress = halfway(db, copies / "old.db")
    (busy,) = [worker for worker in db.ask(Status()).workers if worker.job]
    os.kill(busy.pid, signal.SIGKILL)
    progress.go_on.set()
    assert isinstance(error_of(reply), WorkerDied)
    assert (copies / "old.db").read_text() == "the older copy"
    db.ask(Backup(copies / "old.db"), timeout=PATIENCE)
    assert rows_of(copies / "old.db") == rows(db)
    assert files(copies) == ["old.db"], "the next backup must remove the unfinished copy of a killed child"


# --- places -------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", ["itself", "symbolic link", "hard link", "dots"])
@pytest.mark.parametrize("kind", ["file", "rollback journal", "child"])
def test_a_backup_onto_its_own_database_is_refused(crew, kind, path, alias):
    db = crew(kind)
    place = {
        "itself": path,
        "symbolic link": path.with_name("soft.db"),
        "hard link": path.with_name("hard.db"),
        "dots": path.parent / "x" / ".." / path.name,
    }[alias]
    if alias == "symbolic link":
        place.symlink_to(path)
    if alias == "hard link":
        place.hardlink_to(path)
    with same_workers(db):
        with pytest.raises(ValueError, match="is the database itself"):
            db.ask(Backup(place))
        assert len(rows(db)) == 300
        assert not list(path.parent.glob("*partial*"))


def test_a_database_with_the_name_of_an_unfinished_copy_is_not_removed(start, tmp_path):
    path = tmp_path / "app.db.partial"
    db = start(path, size=1)
    db.ask(FILL)
    error_of(db.ask(Backup(tmp_path / "app.db"), block=False))  # the crew may also refuse it
    assert path.exists(), "the database was removed, so all later writes are lost"
    db.ask(Query("DELETE FROM kept WHERE number > 5"))
    db.stop()
    assert len(rows_of(path)) == 5


def test_a_file_of_another_owner_with_that_name_is_not_removed(crew, copies):
    db = crew()
    (copies / "old.db.partial").write_text("of another owner")
    error_of(db.ask(Backup(copies / "old.db"), block=False))
    assert (copies / "old.db.partial").read_text() == "of another owner"


@pytest.mark.parametrize("ending", ["-wal", "-shm"])
def test_a_backup_onto_the_log_of_its_database_is_refused(crew, path, ending):
    db = crew()
    db.ask(Query("DELETE FROM kept WHERE number > 5"))  # only the log holds this change
    log = path.with_name(path.name + ending)
    before = log.read_bytes()[:16]
    error_of(db.ask(Backup(log), block=False))
    assert log.read_bytes()[:16] == before, "the log was overwritten, so another process loses the last write"


def test_a_missing_folder_is_an_error_of_its_caller(db, tmp_path):
    with same_workers(db), pytest.raises((apsw.CantOpenError, OSError)):
        db.ask(Backup(tmp_path / "missing" / "new.db"))


@pytest.mark.parametrize("kind", ["file", "child"])
def test_a_place_that_cannot_be_replaced_is_an_error_and_leaves_no_file(crew, kind, copies):
    db = crew(kind)
    (copies / "folder").mkdir()
    (copies / "folder-wal").write_text("the log of another file")
    with same_workers(db), pytest.raises(OSError):
        db.ask(Backup(copies / "folder"))
    assert files(copies) == ["folder", "folder-wal", "old.db"]


@pytest.mark.parametrize("kind", ["file", "child"])
def test_a_pipe_or_a_device_is_not_replaced(crew, kind, copies):
    os.mkfifo(copies / "pipe")
    db = crew(kind)
    with same_workers(db), pytest.raises(FileExistsError, match="is no regular file"):
        db.ask(Backup(copies / "pipe"))
    assert (copies / "pipe").is_fifo()
    assert files(copies) == ["old.db", "pipe"]


NO_ROOM = """
import resource, sys
from supervisor import Backup, ChildProcess, Query, Status, Supervisor
kind, path, place = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
db = Supervisor.start(ChildProcess(path) if kind == "child" else path, size=1)
db.ask(Query("SELECT 1"))
error = db.ask(Backup(place, pages=10), block=False).exception(20)
print(type(error).__name__)
print(db.ask(Query("SELECT count(*) FROM kept")).scalar(), db.ask(Status()).restarts)
db.shutdown(timeout=0)
"""


@pytest.mark.parametrize("kind", ["thread", "child"])
def test_a_full_disk_is_an_error_of_its_caller_and_leaves_the_older_copy(crew, path, kind, copies):
    db = crew()
    db.stop()
    lines = run_python(NO_ROOM, kind, path, copies / "old.db").splitlines()
    assert lines[0] in ("FullError", "IOError"), "the error must be the driver's own"
    assert lines[1] == "300 0", "no worker died"
    assert_untouched(copies)


# --- refused requests ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda: Backup(5), TypeError, r"Backup\(path\) must be a str or a path, not int"),
        (lambda: Backup(b"x.db"), TypeError, r"Backup\(path\) must be a str or a path, not bytes"),
        (lambda: Backup(""), ValueError, r"Backup\(path\) must name a file"),
        (lambda: Backup("a\0b"), ValueError, r"Backup\(path\) must name a file"),
        (lambda: Backup("x.db", pages=0), ValueError, r"Backup\(pages=0\) must be 1 or more"),
        (lambda: Backup("x.db", pages=-1), ValueError, r"Backup\(pages=-1\) must be 1 or more"),
        (lambda: Backup("x.db", pages=1.5), TypeError, r"Backup\(pages\) must be a whole number"),
        (lambda: Backup("x.db", pages=True), TypeError, r"Backup\(pages\) must be a whole number"),
        (lambda: Backup("x.db", progress=5), TypeError, r"Backup\(progress\) must be a function"),
        (lambda: Backup("x.db", timeout=-1), ValueError, r"Backup\(timeout=-1\)"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(make, kind, said):
    with pytest.raises(kind, match=said):
        make()


def test_more_pages_than_the_database_has_copy_all_of_it(crew, copies):
    db = crew()
    db.ask(Backup(copies / "new.db", pages=10**12))
    assert rows_of(copies / "new.db") == rows(db)


def test_a_backup_works_between_two_transactions(crew, copies):
    db = crew("memory")
    db.ask(Call(call_functions.return_it, 1))
    db.ask(Backup(copies / "new.db"))
    assert db.ask(Call(call_functions.return_it, 2)) == 2
    assert rows_of(copies / "new.db") == rows(db)
