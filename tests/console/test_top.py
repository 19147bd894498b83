"""`querycrew top`, `db.watch()` and `watch` at the prompt, on a terminal as a person sees it."""

import fcntl
import os
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import pytest

from supervisor import ChildProcess, Query, Status, WorkerDied
from tests.conftest import eventually
from tests.console.screens import COMMAND, WITHOUT, Screen, environment
from tests.support.common import PATIENCE, RUNAWAY, error_of

pytestmark = [
    pytest.mark.usefixtures("plain_signals"),
    pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the system has no Unix sockets"),
]

HIDDEN = b"\x1b[?1049h"
"""The code by which the view hides the text on the terminal."""
SHOWN = b"\x1b[?1049l"


@pytest.fixture(autouse=True)
def runtime(monkeypatch):
    """Keep the sockets of a test in a folder with a short path."""
    with tempfile.TemporaryDirectory(prefix="qc") as place:
        monkeypatch.setenv("XDG_RUNTIME_DIR", place)
        monkeypatch.setenv("TMPDIR", place)
        yield Path(place)


@pytest.fixture
def db(start, path):
    return start(path, size=1, monitor=True)


@pytest.fixture
def top(tmp_path, path):
    """Open `querycrew top` on a terminal."""
    pytest.importorskip("rich")
    screens = []

    def open_top(*arguments, **options):
        screens.append(Screen(tmp_path, "top", *(arguments or (path,)), **options))
        return screens[-1]

    yield open_top
    for screen in screens:
        screen.__exit__()


def settings(screen):
    """Return the settings of the terminal, as every program on it finds them."""
    return termios.tcgetattr(screen._master)


def is_restored(screen):
    flags = settings(screen)[3]
    return bool(flags & termios.ICANON and flags & termios.ECHO and flags & termios.ISIG)


def seen_last(screen):
    """Return the text that the terminal shows after the view has gone."""
    assert screen.written.count(HIDDEN) == screen.written.count(SHOWN) == 1
    assert b"\x1b[?25h" in screen.written.rpartition(HIDDEN)[2]
    return screen.written.rpartition(SHOWN)[2].decode()


def plain(tmp_path, *arguments, command=COMMAND):
    return subprocess.run(
        [*command, "top", *map(str, arguments)],
        env=environment(tmp_path),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# --- the view -----------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (120, 40), (40, 24)])
def test_it_shows_the_workers_and_their_jobs(db, top, columns, lines):
    reply = db.ask(Query(RUNAWAY), block=False)
    screen = top(columns=columns, lines=lines).wait_for("WITH RECUR").wait_for("? help")
    assert f"app, process {os.getpid()}  up" in screen.text
    assert len(screen.text.split("\n")) == lines
    assert screen.text.split("\n")[-1].endswith("? help")
    screen.type("q")
    assert screen.end() == 0
    assert reply.cancel()


def test_c_cancels_the_selected_job_and_no_other(db, top):
    running = db.ask(Query(RUNAWAY), block=False)
    assert eventually(lambda: db.ask(Status()).running == 1)
    waiting = db.ask(Query("SELECT 'waiting'"), block=False)
    screen = top().wait_for("SELECT 'waiting'")
    screen.type("\x1b[B" * 3)
    screen.type("c")
    screen.wait_for(f"job {waiting.id} is cancelled")
    assert waiting.cancelled()
    assert not running.done()
    screen.type("\x1b[Hc")
    screen.wait_for(f"job {running.id} is cancelled")
    assert type(error_of(running)).__name__ == "QueryCancelled"
    screen.type("c")
    screen.wait_for("the selected worker has no job")


def test_k_kills_the_selected_worker_after_a_yes(start, path, top):
    db = start(ChildProcess(str(path)), size=1, monitor=True)
    db.wait(timeout=PATIENCE)
    reply = db.ask(Query(RUNAWAY), block=False)
    screen = top().wait_for("WITH RECUR")
    screen.type("k")
    screen.wait_for("kill worker 1? y / n")
    screen.type("n")
    screen.wait_for("worker 1 lives on")
    assert not reply.done()
    screen.type("ky")
    screen.wait_for("worker 1 was killed")
    assert isinstance(error_of(reply), WorkerDied)
    screen.wait_for("restarts 1")


def test_a_thread_is_not_killed_and_the_view_says_why(db, top):
    db.wait(timeout=PATIENCE)
    screen = top().wait_for("idle")
    screen.type("ky")
    screen.wait_for("worker 1 has no process of its own, so it cannot be killed")
    assert db.ask(Query("SELECT 1")).scalar() == 1


def test_it_follows_the_size_of_the_terminal(db, top):
    screen = top().wait_for("? help")
    for columns, lines in ((40, 12), (120, 40)):
        screen._screen.resize(lines, columns)
        fcntl.ioctl(screen._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        screen._screen.reset()
        screen.wait_for("? help")
        assert screen.text.split("\n")[-1].endswith("? help")
        assert len(screen.text.split("\n")) == lines


def test_many_workers_scroll(start, path, top):
    db = start(path, size=64, monitor=True)
    assert eventually(lambda: len(db.ask(Status()).workers) == 64)
    screen = top().wait_for("lines above")
    screen.type("\x1b[F")
    screen.wait_for("0 below")
    assert " 64 " in screen.text


def test_help_is_a_key_away(db, top):
    screen = top().wait_for("? help")
    screen.type("?")
    screen.wait_for("cancel the job of the selected line")
    screen.type(" ")
    screen.wait_for("STATEMENT")


def test_a_hostile_statement_writes_visible_text_only(db, top):
    reply = db.ask(Query(f"{RUNAWAY} /* \x1b]0;owned\x07\x1b[2J */"), block=False)
    screen = top(columns=200).wait_for("owned")
    assert b"\x1b]0;owned" not in screen.written
    assert b"\x1b[2J" not in screen.written.partition(HIDDEN)[2]
    assert reply.cancel()


# --- every way out ------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["q", "\x03", "\x04"], ids=["q", "Ctrl-C", "Ctrl-D"])
def test_a_key_ends_it_and_restores_the_terminal(db, top, key):
    screen = top().wait_for("? help")
    assert not is_restored(screen)
    screen.type(key)
    assert screen.end() == 0
    assert is_restored(screen)
    assert seen_last(screen) == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 0)])
def test_a_signal_ends_it_and_restores_the_terminal(db, top, number, code):
    screen = top().wait_for("? help")
    screen._process.send_signal(number)
    assert screen.end() == code
    assert is_restored(screen)
    assert seen_last(screen) == ""


def test_the_end_of_the_crew_ends_it_and_it_says_so(db, top):
    screen = top().wait_for("? help")
    db.stop()
    assert screen.end() == 0
    assert is_restored(screen)
    assert seen_last(screen).strip() == f"crew 'app' of process {os.getpid()}: the crew has ended"


def test_a_terminal_that_is_gone_ends_it(db, top):
    screen = top().wait_for("? help")
    os.close(screen._master)
    screen._master = os.open(os.devnull, os.O_RDWR)
    assert screen._process.wait(PATIENCE) in (0, 129)


PROGRAM = """
import sys, time
from supervisor import Supervisor
db = Supervisor.start(sys.argv[1], size=1, monitor=True)
db.wait(timeout=10)
print("up", flush=True)
input()
"""


def test_a_program_that_does_not_answer_is_named_until_it_does(path, top):
    command, pipe = [sys.executable, "-c", PROGRAM, path], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment(path.parent)) as program:
        assert program.stdout.readline() == b"up\n"
        screen = top().wait_for("? help")
        program.send_signal(signal.SIGSTOP)
        screen.wait_for("the program does not answer")
        program.send_signal(signal.SIGCONT)
        screen.wait_for("? help")
        program.kill()
        assert screen.end() == 0
        assert "the crew has ended" in seen_last(screen)


# --- finding a crew -----------------------------------------------------------------------


def test_a_database_that_nobody_offers_is_one_clear_sentence(tmp_path, path):
    done = plain(tmp_path, path)
    assert done.returncode == 1
    assert done.stdout == ""
    how = "a program offers its crew with Supervisor.start(…, monitor=True)"
    assert done.stderr == f"querycrew: error: no program of yours offers a crew for {path}: {how}\n"
    assert f"offers a crew: {how}" in plain(tmp_path).stderr


def test_without_a_database_it_lists_all_crews(db, start, tmp_path):
    start(name="other\x1b", monitor=True)
    done = plain(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = done.stdout.rstrip("\n").split("\n")
    assert head.split() == ["PID", "NAME", "DATABASE"]
    assert [line.split()[:2] for line in lines] == [[str(os.getpid()), "app"], [str(os.getpid()), "other␛"]]


def test_several_crews_are_listed_and_one_is_chosen(start, path, tmp_path):
    for name in ("one", "two"):
        start(path, name=name, monitor=True)
    done = plain(tmp_path, path)
    assert done.returncode == 1
    assert "one" in done.stdout
    assert "2 crews fit: choose one with --pid, or by its name instead of the path" in done.stderr
    assert plain(tmp_path, "two").stdout.startswith("two: up")
    assert plain(tmp_path, "two", "--pid", os.getpid()).returncode == 0
    assert plain(tmp_path, "two", "--pid", os.getpid() + 1).returncode == 1


def test_without_a_terminal_it_writes_plain_lines_once(db, tmp_path, path):
    db.ask(Query("CREATE TABLE t(a)"))
    done = plain(tmp_path, path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("app: up, SQLite(")
    assert "answered 1" in done.stdout
    assert "\x1b" not in done.stdout


def test_without_rich_it_writes_plain_lines_and_names_the_missing_library(db, tmp_path, path):
    with Screen(tmp_path, "top", path, command=WITHOUT("rich")) as screen:
        assert screen.end() == 0
        assert "app: up, SQLite(" in screen.text
        assert "for the live view: pip install 'querycrew[console]'" in screen.text
        assert b"\x1b" not in screen.written


def test_once_writes_plain_lines_on_a_terminal_too(db, top, path):
    screen = top(path, "--once")
    assert screen.end() == 0
    assert "app: up, SQLite(" in screen.text
    assert HIDDEN not in screen.written


@pytest.mark.parametrize("value", ["0", "-1", "nan", "x", "1e9"])
def test_a_refresh_that_makes_no_sense_is_refused(tmp_path, value):
    done = plain(tmp_path, "--refresh", value)
    assert done.returncode == 2
    assert "must be 0.05 to 3600 seconds" in done.stderr


# --- in a program and at the prompt -------------------------------------------------------

WATCHER = """
import sys, threading
from supervisor import Query, Supervisor, ChildProcess
db = Supervisor.start(sys.argv[1], size=1)
db.wait(timeout=10)
endless = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
reply = db.ask(Query(endless), block=False)
{}
print("after:", reply.cancelled() or reply.cancel(), flush=True)
"""


def watcher(tmp_path, path, body="db.watch(refresh=0.2)"):
    return Screen(tmp_path, path, command=(sys.executable, "-W", "error", "-c", WATCHER.format(body)))


def test_a_program_watches_its_own_crew_until_q(tmp_path, path):
    pytest.importorskip("rich")
    with watcher(tmp_path, path) as screen:
        screen.wait_for("app, this program  up")
        screen.wait_for("WITH RECUR")
        screen.type("c")
        screen.wait_for("is cancelled")
        screen.type("k")
        screen.wait_for("y / n")
        screen.type("y")
        screen.wait_for("so it cannot be killed: cancel its job")
        screen.type("q")
        assert screen.end() == 0
        assert seen_last(screen).strip() == "after: True"
        assert is_restored(screen)


def test_a_view_in_another_thread_ends_by_ctrl_c_as_well(tmp_path, path):
    pytest.importorskip("rich")
    body = "thread = threading.Thread(target=db.watch); thread.start(); thread.join()"
    with watcher(tmp_path, path, body) as screen:
        screen.wait_for("WITH RECUR")
        screen.type("\x03")
        assert screen.end() == 0
        assert seen_last(screen).strip() == "after: True"
        assert is_restored(screen)


def test_an_error_in_the_view_restores_the_terminal(tmp_path, path):
    pytest.importorskip("rich")
    body = """
from actors.console import watching
def fail(*_): raise OSError("no more")
threading.Timer(1, lambda: setattr(watching.OwnCrew, "status", fail)).start()
try:
    db.watch(refresh=0.1)
except OSError as error:
    print("failed:", error)
"""
    with watcher(tmp_path, path, body) as screen:
        screen.wait_for("WITH RECUR")
        assert screen.end() == 0
        assert seen_last(screen).split() == ["failed:", "no", "more", "after:", "True"]
        assert is_restored(screen)


def test_a_crew_that_stops_ends_its_view(tmp_path, path):
    pytest.importorskip("rich")
    body = "threading.Timer(0.5, lambda: db.shutdown(cancel_pending=True, timeout=0)).start(); db.watch(refresh=0.1)"
    with watcher(tmp_path, path, body) as screen:
        assert screen.end() == 0
        assert seen_last(screen).split("\n")[0].strip() == "crew 'app' has stopped"
        assert is_restored(screen)


def test_without_a_terminal_watch_writes_the_state_once(start, path, capsys):
    db = start(path, size=1)
    db.watch()
    assert capsys.readouterr().out.startswith("app: up, SQLite(")
    db.stop()
    db.watch()
    assert capsys.readouterr().out == "crew 'app' has stopped\n"
    for wrong, kind in ((-1, ValueError), ("1", TypeError)):
        with pytest.raises(kind, match="refresh"):
            db.watch(refresh=wrong)


@pytest.mark.parametrize("kind", ["IPython", "the standard library"])
def test_watch_at_the_prompt_shows_the_crew_and_comes_back(tmp_path, path, kind):
    pytest.importorskip("rich")
    if kind == "IPython":
        pytest.importorskip("IPython")
    command = COMMAND[:1] + COMMAND[3:] if kind == "IPython" else WITHOUT("IPython")
    with Screen(tmp_path, path, "--size", "1", command=command) as screen:
        screen.wait_for(">")
        screen.enter("status")
        screen.wait_for("reader 1")
        screen.enter("watch")
        screen.wait_for("app, this program  up")
        screen.type("k")
        screen.wait_for("kill worker 1? y / n")
        screen.type("y")
        screen.wait_for("worker 1, a thread, died of SystemExit")
        screen.type("q")
        while ">" not in screen.written.partition(SHOWN)[2].decode("utf-8", "replace"):
            assert screen._read(1)
        screen.enter("select 40 + 2 as answer")
        screen.wait_for("(1 row)")
        screen.enter("quit")
        assert screen.end() == 0
        assert is_restored(screen)


def test_status_at_the_prompt_shows_the_ids_of_jobs(tmp_path, path):
    with Screen(tmp_path, path, "--size", "1", command=WITHOUT("IPython")) as screen:
        screen.wait_for(">")
        screen.enter(f"r = db.ask(Query({RUNAWAY!r}), block=False)")
        screen.enter("status")
        screen.wait_for("job 1")  # it runs, or still waits
        screen.enter("db.cancel(1)")
        screen.wait_for("True")
        screen.enter("quit")
        assert screen.end() == 0
