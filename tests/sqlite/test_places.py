"""The place of a SQLite database: links, URIs, folders, removed logs and copies."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from actors.databases.sqlite.backup import _name_of_this_system
from supervisor import (
    Backup,
    Call,
    ChildProcess,
    DatabaseUnavailable,
    Query,
    Script,
    SQLite,
    Status,
    Stream,
    Transaction,
    WorkerDied,
)
from tests.conftest import eventually
from tests.support import call_functions
from tests.support.common import PATIENCE, environment, error_of, up
from tests.support.health import run_python, same_workers

KINDS = {"thread": lambda database: database, "child": ChildProcess}


@pytest.fixture(params=KINDS)
def on(request):
    """Return a function that turns a database into one for threads or for children."""
    return KINDS[request.param]


def made(path, *numbers, journal_mode="wal"):
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", journal_mode)
    connection.execute("CREATE TABLE kept(number)")
    with connection:  # one commit: each commit waits for the disk
        connection.executemany("INSERT INTO kept VALUES (?)", [(number,) for number in numbers])
    connection.close()
    return path


def numbers(db):
    return db.ask(Query("SELECT number FROM kept ORDER BY number"), timeout=PATIENCE).column("number")


def add(number):
    return Query("INSERT INTO kept VALUES (?)", (number,))


# --- links --------------------------------------------------------------------------------


@pytest.fixture
def link(tmp_path):
    """A link to a database in another folder, through a link to that folder."""
    (tmp_path / "real").mkdir()
    (tmp_path / "by").symlink_to(tmp_path / "real")
    made(tmp_path / "real" / "app.db", 1)
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "by" / "app.db")
    return link


def test_a_commit_of_another_process_is_seen_through_a_link(start, on, link):
    other = apsw.Connection(str(link.resolve()))
    other.execute("INSERT INTO kept VALUES (2)")
    db = start(on(SQLite(link, readonly=True)), size=2)
    assert numbers(db) == [1, 2]
    other.execute("INSERT INTO kept VALUES (3)")
    assert numbers(db) == [1, 2, 3]
    other.close()
    assert sorted(file.name for file in link.parent.iterdir()) == ["by", "link.db", "real"]


def test_a_link_that_leads_elsewhere_is_followed(start, on, link, tmp_path):
    db = start(on(link), size=2)
    db.ask(add(2))
    made(tmp_path / "other.db", 7)
    assert eventually(lambda: up(db) == 3)
    with same_workers(db):
        fresh = tmp_path / "fresh.db"
        fresh.symlink_to(tmp_path / "other.db")
        os.replace(fresh, link)
        assert eventually(lambda: numbers(db) == [7])
        db.ask(add(8))
        assert eventually(lambda: numbers(db) == [7, 8])
    assert not (tmp_path / "link.db-wal").exists()


def test_a_replaced_database_behind_a_link_is_noticed(start, on, link, tmp_path):
    real = link.resolve()
    db = start(on(link), size=2)
    assert numbers(db) == [1]
    assert eventually(lambda: up(db) == 2)
    for ending in ("-wal", "-shm"):
        real.with_name(real.name + ending).unlink()
    os.replace(made(tmp_path / "new.db", 7), real)
    assert eventually(lambda: numbers(db) == [7])


def test_a_backup_onto_a_link_replaces_the_file_behind_it(start, on, path, link):
    made(path, 5, 6)
    db = start(on(path), size=1)
    db.ask(Backup(link))
    assert link.is_symlink()
    copy = apsw.Connection(str(link.resolve()))
    assert copy.execute("SELECT number FROM kept").fetchall() == [(5,), (6,)]
    copy.close()
    with pytest.raises(ValueError, match="is the database itself"):
        start(on(link), size=1, name="link").ask(Backup(link.resolve()))


# --- URIs and folders ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["app.db", "file:app.db", "file:./app.db", "file:app.db?psow=1", "file:app%2Edb#fragment", "./app.db"]
)
def test_a_relative_place_is_one_file_in_spite_of_a_change_of_the_folder(start, on, tmp_path, monkeypatch, text):
    made(tmp_path / "app.db", 1)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    db = start(on(SQLite(text)), size=2)
    assert numbers(db) == [1]
    monkeypatch.chdir(tmp_path / "other")
    db.ask(add(2))
    assert numbers(db) == [1, 2]
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize("folder", ["{}", "/{}", "//{}", "file:{}", "file://{}", "file://localhost{}", "file:///{}"])
@pytest.mark.parametrize("name", ["app.db", "u%231.db"])
def test_a_crew_that_only_reads_makes_no_file_for_any_form_of_the_place(start, on, tmp_path, folder, name):
    is_uri = folder.startswith("file:")
    file = tmp_path / (name.replace("%23", "#") if is_uri else name)
    made(file, 1)
    db = start(on(SQLite(f"{folder.format(tmp_path)}/{name}", readonly=True)), size=1)
    assert numbers(db) == [1]
    assert [entry.name for entry in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("text", "in_memory"),
    [
        ("", True),
        (":memory:", True),
        ("file::memory:", True),
        ("file::memory:?cache=shared", True),
        ("file:named?mode=memory&cache=shared", True),
        ("file:/x?vfs=memdb", True),
        ("file:k.db?a=mode=memory", False),
        ("file:g:memory:x.db", False),
        ("file:k.db?mode=ro", False),
        ("x:memory:", False),
        ("mode=memory", False),
    ],
)
def test_a_database_is_in_memory_exactly_if_sqlite_says_so(text, in_memory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    database = SQLite(text)
    assert database.in_memory is in_memory
    assert database.max_size == (1 if in_memory else None)
    assert "=" not in str(database)[7:-1] or not text.startswith("file:")


@pytest.mark.parametrize("text", ["file:/x?vfs=memdb", "file:named?mode=memory&cache=shared", "file::memory:"])
def test_a_database_in_memory_by_its_uri_keeps_its_rows(start, on, text):
    db = start(on(SQLite(text)))
    db.ask(Script("CREATE TABLE kept(number)"))
    with same_workers(db):
        for number in range(5):
            db.ask(add(number))
            assert numbers(db) == [*range(number + 1)]


# --- a log that is removed -----------------------------------------------------------------

WRITER = """
import os, sys
from supervisor import ChildProcess, Query, Supervisor
kind, path = sys.argv[1:]
db = Supervisor.start(ChildProcess(path) if kind == "child" else path, size=2)
add = lambda number: db.ask(Query("INSERT INTO kept VALUES (?)", (number,)))
add(2)
for ending in sys.stdin.readline().split():
    os.remove(path + ending)
for number in range(3, 40):
    add(number)
    print(number, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("endings", ["-wal", "-shm", "-wal -shm"])
def test_acknowledged_writes_are_kept_though_the_log_was_removed(path, kind, endings):
    made(path, 1)
    program = subprocess.run(
        [sys.executable, "-c", WRITER, kind, str(path)],
        check=False,
        input=endings + "\n",
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    acknowledged = [*map(int, program.stdout.split())]
    assert "was removed while it was open. Its content has been written" in program.stderr
    assert eventually(lambda: rows_of(path) is not None)
    assert rows_of(path) == [1, 2, *acknowledged]


def rows_of(path):
    """Return the numbers in a file, or `None` while a child of a killed program holds a lock."""
    try:
        connection = apsw.Connection(str(path))
        found = [number for (number,) in connection.execute("SELECT number FROM kept ORDER BY number")]
        assert connection.pragma("integrity_check") == "ok"
        connection.close()
    except apsw.BusyError:
        return None
    return found


@pytest.mark.parametrize("endings", [("-wal",), ("-shm",), ("-wal", "-shm")])
def test_reads_continue_and_writes_are_refused_until_a_new_crew_starts(start, on, path, endings):
    made(path, 1)
    db = start(on(path), size=2)
    db.ask(add(2))
    assert eventually(lambda: up(db) == 3)
    with same_workers(db):
        for ending in endings:
            path.with_name(f"app.db{ending}").unlink()
        for _ in range(5):
            for request in (add(3), Transaction([add(3)]), Script("DELETE FROM kept"), Query("DELETE FROM kept")):
                error = error_of(db.ask(request, block=False))
                assert isinstance(error, apsw.CantOpenError)
                assert "stop this crew and start it anew" in str(error)
            assert numbers(db) == [1, 2]
    db.stop()
    again = start(on(path), size=2)
    again.ask(add(3))
    assert numbers(again) == [1, 2, 3]


def test_a_missing_log_that_another_program_has_open_is_not_made_again(start, on, path):
    made(path, 1)
    other = apsw.Connection(str(path))
    other.execute("INSERT INTO kept VALUES (2)")
    path.with_name("app.db-wal").unlink()
    db = start(on(path), size=1)
    error = error_of(db.ask(Query("SELECT * FROM kept"), block=False))
    assert isinstance(error, DatabaseUnavailable)
    other.close()
    assert eventually(lambda: db.ask(Status()).state == "up")
    assert numbers(db) == [1, 2]


# --- a child that is killed during a commit -------------------------------------------------


class Killer(apsw.VFS):
    """SQLite's own VFS, whose log kills its process right after it is synced.

    The commit is then in the log, but not in the index of the log."""

    def __init__(self) -> None:
        super().__init__("killer", "unix")

    def xOpen(self, name, flags):  # noqa: N802  # SQLite's name
        return KillerFile("unix", name, flags)


class KillerFile(apsw.VFSFile):
    def __init__(self, vfs, name, flags):
        super().__init__(vfs, name, flags)
        self._is_log = bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        self._flag = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "").with_name("kill")

    def xSync(self, flags):  # noqa: N802
        super().xSync(flags)
        if self._is_log and self._flag.exists():
            self._flag.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


class Killed:
    """A database file behind the VFS `Killer`."""

    max_size = None

    def __init__(self, path):
        self.path = str(path)
        self.name = "killed"

    def __str__(self):
        return "Killed()"

    def lanes(self):
        return tuple(Lane(self.path, number) for number in (0, 1))

    def connect(self):
        raise NotImplementedError


class Lane(Killed):
    def __init__(self, path, number):
        super().__init__(path)
        self.number = number

    def lanes(self):
        return (self,)

    @property
    def groups(self):
        return self.number == 1

    def connect(self):
        self.vfs = Killer()  # in the child
        return SQLite(f"file:{self.path}?vfs=killer").lanes()[self.number].connect()


def test_the_half_commit_of_a_killed_child_is_settled_before_another_write(start, path):
    made(path, 1)
    db = start(ChildProcess(Killed(path)), size=2)
    for number in range(2, 5):
        assert numbers(db) == [1]
        path.with_name("kill").touch()
        error = error_of(db.ask(add(number), block=False))
        assert isinstance(error, WorkerDied)
        assert error.executed is None
        there = db.ask(Transaction([Query("SELECT number FROM kept")]), timeout=PATIENCE)[0].column(0)
        assert numbers(db) == there == [1]
        # A copy of the files stands for the death of all other processes at this moment. The
        # log must hold the rows that were seen, and no others.
        copy = path.with_name("copy.db")
        for ending in ("", "-wal"):
            (copy.with_name(copy.name + ending)).write_bytes(path.with_name(path.name + ending).read_bytes())
        assert rows_of(copy) == there
        for file in copy.parent.glob("copy.db*"):
            file.unlink()


# --- to read only ---------------------------------------------------------------------------


def test_a_function_does_not_read_half_of_a_change(start, on, path):
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE kept(number, pad)")
    connection.executemany("INSERT INTO kept VALUES (?, ?)", [(1, "x" * 3000) for _ in range(100)])
    connection.pragma("journal_mode", "wal")
    connection.close()
    db = start(on(SQLite(path, readonly=True)), size=1)
    error = error_of(db.ask(Call(call_functions.sum_twice, str(path), readonly=True), block=False))
    assert isinstance(error, apsw.BusyError)
    assert "another process has changed the database" in str(error)
    assert db.ask(Query("SELECT sum(number) FROM kept"), timeout=PATIENCE).scalar() == 200


# --- copies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("modes", [(0o600, None, 0o600), (0o640, 0o600, 0o600), (0o600, 0o644, 0o644)])
def test_a_copy_has_the_permissions_of_its_target_or_its_source(start, on, path, modes):
    source_mode, target_mode, wanted = modes
    made(path, 1)
    path.chmod(source_mode)
    target = path.with_name("copy.db")
    if target_mode is not None:
        made(target)
        target.chmod(target_mode)
    seen = set()

    def look(copied, pages):
        del copied, pages
        seen.update(file.stat().st_mode & 0o777 for file in path.parent.glob("*.partial*"))

    db = start(on(path), size=1)
    db.ask(Backup(target, pages=1, progress=look))
    assert target.stat().st_mode & 0o777 == wanted
    assert seen == {wanted}


def test_only_the_files_of_a_dead_process_of_this_system_are_removed(start, on, path):
    made(path, 1)
    target = path.with_name("copy.db")
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    mine, other = _name_of_this_system(), "00000000"
    names = [
        f"copy.db.{system}-{dead.pid}-0123abcd.partial{end}" for system in (mine, other) for end in ("", "-journal")
    ]
    living = f"copy.db.{mine}-{os.getpid()}-0123abcd.partial"
    for name in (*names, living):
        path.with_name(name).touch()
    start(on(path), size=1).ask(Backup(target))
    left = {file.name for file in path.parent.glob("*.partial*")}
    assert left == {*names[2:], living}


NO_ROOM = """
import resource, sys
from supervisor import Backup, ChildProcess, Supervisor
kind, path, place = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
db = Supervisor.start(ChildProcess(path) if kind == "child" else path, size=1)
error = db.ask(Backup(place, pages=1), block=False).exception(20)
print(error, *error.__notes__, sep="; ")
db.shutdown(timeout=0)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_that_does_not_fit_says_so(path, kind):
    made(path, *range(20_000))
    said = run_python(NO_ROOM, kind, path, path.with_name("copy.db"))
    assert "not an error" not in said
    assert "copy.db" in said
    assert "disk" in said or "cannot be written" in said


# --- texts ----------------------------------------------------------------------------------


def test_a_parameter_without_a_value_is_named(start, on, path):
    db = start(on(path), size=1)
    for request in (
        Query("SELECT :a, :b", {"a": "s3cret"}),
        Transaction([Query("SELECT :a, $b", {"a": "s3cret"})]),
        Stream("SELECT :a, @b", {"a": "s3cret"}),
        Query("SELECT :a, :b", many=[{"a": "s3cret"}]),
    ):
        error = error_of(db.ask(request, block=False))
        assert isinstance(error, KeyError)
        assert "the statement has a parameter 'b', and params has no value for it" in str(error)
        assert "s3cret" not in str(error)


def test_a_value_that_cannot_be_sent_is_named(start, path):
    db = start(ChildProcess(path), size=1)
    error = error_of(db.ask(Call(call_functions.return_in_containers), block=False))
    assert isinstance(error, TypeError)
    assert "holds a lock" in str(error) or "a lock" in str(error)
    error = error_of(db.ask(Call(call_functions.return_it, {"a": [lambda: 1]}), block=False))
    assert isinstance(error, TypeError)
    assert "the function" in str(error)
    assert "lambda" in str(error)


def test_a_database_that_cannot_be_opened_leaves_no_file(start, on, path):
    db = start(on(SQLite(path, readonly=True)), size=1)
    assert isinstance(error_of(db.ask(Query("SELECT 1"), block=False)), DatabaseUnavailable)
    assert db.ask(Status()).state == "suspended"
    assert list(path.parent.iterdir()) == []
