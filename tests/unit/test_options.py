"""`Supervisor.start` refuses a wrong option in the caller, by its name, and starts nothing."""

import os
from pathlib import Path

import pytest

from actors.databases.sqlite.database import SQLite
from actors.options import check_database, check_max_queue, check_type, usable_size
from actors.values.checks import check_whole
from supervisor import ChildProcess, RestartPolicy, Supervisor
from tests.support.fakes import FakeDatabase

FILE = FakeDatabase()
SINGLE = FakeDatabase(max_size=1)


@pytest.mark.parametrize("database", [FILE, SQLite("app.db")])
def test_an_object_that_can_connect_is_a_database(database):
    check_database(database)


class NoMethod:
    connect = "not a function"


@pytest.mark.parametrize(
    ("database", "name"),
    [(5, "int"), (b"app.db", "bytes"), (object(), "object"), (FakeDatabase, "type"), (NoMethod(), "NoMethod")],
)
def test_an_object_that_cannot_connect_is_refused(database, name):
    with pytest.raises(TypeError, match=rf"Supervisor.start\(database\) must be a path or a database .*, not {name}$"):
        check_database(database)


def test_an_option_is_omitted_or_of_its_type():
    check_type("name", None, str)
    check_type("name", "app", str)
    check_max_queue(None)
    check_max_queue(0)
    check_whole("Supervisor.start", "size", 1, at_least=1)


def test_an_option_of_another_type_is_refused_by_name():
    with pytest.raises(TypeError, match=r"^Supervisor.start\(name\) must be a str, not int$"):
        check_type("name", 5, str)


@pytest.mark.parametrize("value", [True, 1.0, "1"])
def test_an_option_that_is_no_whole_number_is_refused_by_name(value):
    with pytest.raises(
        TypeError, match=rf"^Supervisor.start\(size\) must be a whole number, not {type(value).__name__}$"
    ):
        check_whole("Supervisor.start", "size", value, at_least=1)


@pytest.mark.parametrize("value", [0, -3])
def test_an_option_that_is_too_small_is_refused_with_its_least_value(value):
    with pytest.raises(ValueError, match=rf"^Supervisor.start\(size={value}\) must be 1 or more$"):
        check_whole("Supervisor.start", "size", value, at_least=1)


# --- how many workers ---------------------------------------------------------------------


def use_cpus(monkeypatch, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(count)), raising=False)


def test_there_are_as_many_workers_as_asked_for():
    assert usable_size(64, FILE) == 64


def test_there_are_as_many_workers_as_cpus_that_this_process_may_use(monkeypatch):
    use_cpus(monkeypatch, 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 96)
    assert usable_size(None, FILE) == 3


@pytest.mark.parametrize(("cpus", "size"), [(7, 7), (None, 1)])
def test_a_system_that_does_not_tell_which_cpus_gives_all_of_them(monkeypatch, cpus, size):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    assert usable_size(None, FILE) == size


def test_a_database_of_one_connection_gets_one_worker(monkeypatch):
    use_cpus(monkeypatch, 3)
    assert usable_size(None, SINGLE) == 1
    assert usable_size(1, SINGLE) == 1
    with pytest.raises(ValueError, match=r"start\(size=2\): FakeDatabase\(\) serves at most 1 worker"):
        usable_size(2, SINGLE)


def test_a_database_with_more_room_than_cpus_gets_one_worker_a_cpu(monkeypatch):
    use_cpus(monkeypatch, 3)
    assert usable_size(None, FakeDatabase(max_size=5)) == 3


@pytest.mark.parametrize("size", [0, -1])
def test_a_crew_without_workers_is_refused(size):
    with pytest.raises(ValueError, match=rf"start\(size={size}\) must be 1 or more"):
        usable_size(size, FILE)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"database": 5}, TypeError, "database"),
        ({"size": "2"}, TypeError, "size"),
        ({"size": 0}, ValueError, "size=0"),
        ({"max_queue": -1}, ValueError, "max_queue=-1"),
        ({"max_queue": 1.5}, TypeError, "max_queue"),
        ({"restart": 3}, TypeError, r"restart\) must be a RestartPolicy"),
        ({"name": b"app"}, TypeError, "name"),
        ({"database": "file\0name"}, ValueError, "null character"),
        ({"database": "file:app%00.db"}, ValueError, "null character"),
        ({"database": "app\udcff.db"}, ValueError, "must be text that UTF-8 can hold, not .*app"),
        ({"database": "file:app%ff.db"}, ValueError, "must be text that UTF-8 can hold, not 'app"),
        ({"database": "file://host/app.db"}, ValueError, "a URI with a host, and SQLite takes none but"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_started(options, error, text):
    # The fixture that looks for remaining actors and threads checks that none was started.
    with pytest.raises(error, match=text):
        Supervisor.start(**options)


# --- URLs --------------------------------------------------------------------------------

TAKERS = {"Supervisor.start": Supervisor.start, "SQLite": SQLite, "ChildProcess": ChildProcess}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter2@host/app",
        "postgres://user:hunter2@host/app",
        "postgresql+psycopg://user:hunter2@host/app",
        " mysql://user:hunter2@host/app",
        "sqlite:///hunter2.db",
        "https://user:hunter2@host/app.db",
        "FILE:///hunter2.db",
    ],
)
def test_a_url_is_refused_without_being_shown(taker, url):
    with pytest.raises(
        ValueError, match=r"SQLite\(path\) must be a path or a URI .* and \w+(\+\w+)?://… is neither"
    ) as caught:
        TAKERS[taker](url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "path", ["C://app.db", "a folder/b://c.db", "://", "1x://app.db", "app.db", "file:app.db", Path("pg://app.db")]
)
def test_a_path_that_looks_like_a_url_is_a_path(path):
    assert isinstance(SQLite(path).path, str)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), {}),
        (("app.db",), {}),
        ((), {"database": "app.db"}),
        (("app.db",), {"size": 4, "max_queue": 1, "restart": RestartPolicy(), "name": "app", "timeout": 1.0}),
        (("app.db", 4, None, None), {}),
    ],
)
def test_a_call_of_the_class_names_the_method_that_starts_a_crew(arguments, options):
    with pytest.raises(TypeError, match=r"^Supervisor\(…\) starts no crew: call Supervisor.start\(…\)"):
        Supervisor(*arguments, **options)
