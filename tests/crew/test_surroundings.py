"""A program in which threads or child processes cannot work is refused, with the remedy."""

import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import pytest

from actors import options
from supervisor import ChildProcess, Query, SQLite, Supervisor
from tests.support.common import PATIENCE, environment, program, run_program

# --- no Python for a child ----------------------------------------------------------------


def refused():
    """Return the text of the error that refuses a child process."""
    with pytest.raises(
        NotImplementedError, match=r"^ChildProcess cannot be used here: .* workers are threads$"
    ) as caught:
        ChildProcess("app.db")
    return str(caught.value)


def test_a_frozen_program_would_be_its_own_child_and_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert "this program is frozen" in refused()
    assert sys.executable in refused()


@pytest.mark.parametrize("executable", ["", None, "/nowhere/python3"])
def test_a_program_that_knows_no_python_is_refused(monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    assert f"sys.executable, and that is {executable!r}" in refused()


def test_a_program_that_embeds_python_and_names_itself_is_refused(monkeypatch, tmp_path):
    server = tmp_path / "uwsgi"
    server.touch()
    monkeypatch.setattr(sys, "orig_argv", [])
    monkeypatch.setattr(sys, "executable", str(server))
    assert "set it to a Python of this version" in refused()


@pytest.mark.parametrize(("name", "arguments"), [("Python", []), ("pypy3.11", []), ("mayapy", ["mayapy", "job.py"])])
def test_an_interpreter_by_another_name_is_a_python(monkeypatch, tmp_path, name, arguments):
    (tmp_path / name).touch()
    monkeypatch.setattr(sys, "orig_argv", arguments)
    monkeypatch.setattr(sys, "executable", str(tmp_path / name))
    assert ChildProcess("app.db").name == "app"


def test_a_program_that_embeds_python_and_names_one_has_children(monkeypatch, start, path):
    monkeypatch.setattr(sys, "orig_argv", [])
    assert start(ChildProcess(path), size=1).ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


def test_a_program_that_is_started_in_place_of_a_child_starts_no_further_program(tmp_path):
    again = tmp_path / "again"
    again.write_text(f'#!/bin/sh\nexec {" ".join(program("started_again"))} "$@"\n')
    again.chmod(0o755)
    log = tmp_path / "starts"
    variables = {"STARTS": str(log), "AGAIN": str(again), "DATABASE": str(tmp_path / "app.db")}
    given = {"env": {**environment(), **variables}, "timeout": 60}
    done = subprocess.run(program("started_again"), capture_output=True, text=True, check=True, **given)
    assert done.stdout.splitlines()[-2:] == ["DatabaseUnavailable ChildProcessEnded", "suspended"]
    assert "starts this program again instead of a Python" in done.stderr
    assert set(log.read_text().split()) == {"first", "second"}


# --- replaced threads ---------------------------------------------------------------------

ALL = {"threading", "queue", "os", "select", "subprocess"}


def patch_gevent(monkeypatch, names):
    """Pretend that gevent replaced modules before the import of this library."""
    monkeypatch.setitem(sys.modules, "gevent.monkey", SimpleNamespace(is_module_patched=lambda name: name in names))
    if "queue" in names:
        monkeypatch.setattr(options, "SimpleQueue", SimpleNamespace(__module__="gevent.queue"))


def patch_eventlet(monkeypatch, names):
    """Pretend that eventlet replaced modules."""
    monkeypatch.setitem(sys.modules, "eventlet.patcher", SimpleNamespace(is_monkey_patched=lambda name: name in names))


@pytest.mark.parametrize("names", [ALL, ALL - {"threading"}, ALL - {"queue"}, {"threading"}, {"queue"}])
@pytest.mark.parametrize("database", [None, "app.db", SQLite("app.db")])
def test_a_crew_of_threads_is_refused_if_gevent_has_replaced_threads(monkeypatch, names, database):
    patch_gevent(monkeypatch, names)
    with pytest.raises(RuntimeError, match=r"gevent has replaced .*Supervisor.start\(ChildProcess\(…\)\)"):
        Supervisor.start(database)


@pytest.mark.parametrize("left_out", sorted(ALL))
def test_a_crew_of_children_is_refused_if_gevent_has_left_a_module_out(monkeypatch, left_out):
    patch_gevent(monkeypatch, ALL - {left_out})
    with pytest.raises(RuntimeError, match=r"Call monkey.patch_all\(\), with nothing left out"):
        Supervisor.start(ChildProcess("app.db"))


def test_a_crew_of_children_is_refused_if_gevent_came_after_the_import(monkeypatch):
    monkeypatch.setitem(sys.modules, "gevent.monkey", SimpleNamespace(is_module_patched=lambda name: True))
    with pytest.raises(RuntimeError, match="before supervisor is imported"):
        Supervisor.start(ChildProcess("app.db"))


@pytest.mark.parametrize("names", [set(), {"socket", "ssl", "time"}])
@pytest.mark.parametrize("kind", [SQLite, ChildProcess])
def test_a_gevent_that_leaves_threads_alone_changes_nothing(monkeypatch, start, path, names, kind):
    patch_gevent(monkeypatch, names)
    assert start(kind(path), size=1).ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


def test_a_crew_of_threads_works_if_gevent_has_left_threads_and_queues_out(monkeypatch, start, path):
    patch_gevent(monkeypatch, {"os", "select", "subprocess"})
    assert start(path, size=1).ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


@pytest.mark.parametrize(
    ("names", "kind", "told"),
    [
        ({"thread", "select"}, SQLite, "thread"),
        ({"thread", "select"}, ChildProcess, "thread, select"),
        ({"thread"}, ChildProcess, "thread"),
        ({"select"}, ChildProcess, "select"),
    ],
)
def test_a_crew_is_refused_if_eventlet_has_replaced_its_threads(monkeypatch, names, kind, told):
    patch_eventlet(monkeypatch, names)
    with pytest.raises(RuntimeError, match=rf"^eventlet has replaced {told}: .*monkey_patch\(thread=False, select=Fal"):
        Supervisor.start(kind("app.db"))


@pytest.mark.parametrize(
    ("names", "kind"),
    [({"select"}, SQLite), ({"socket", "os", "subprocess"}, SQLite), ({"socket", "os", "subprocess"}, ChildProcess)],
)
def test_an_eventlet_that_leaves_threads_alone_changes_nothing(monkeypatch, start, path, names, kind):
    patch_eventlet(monkeypatch, names)
    assert start(kind(path), size=1).ask(Query("SELECT 1"), timeout=PATIENCE).scalar() == 1


WORKS = ["timed out False", "cancelled True", "answered 20000", "stopped True"]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("gevent", ["refused gevent has replaced threading, queue"] * 2 + WORKS + ["others went on True"]),
        ("gevent, threads left", WORKS),
        ("eventlet", ["refused eventlet has replaced thread", "refused eventlet has replaced thread, select"]),
        ("eventlet, threads left", WORKS),
    ],
)
def test_the_real_gevent_and_eventlet_are_refused_or_work(tmp_path, kind, wanted):
    library = kind.partition(",")[0]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed here")
    done = run_program("green", kind, tmp_path / "app.db")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [*wanted, "end"]
    assert done.returncode == 0
