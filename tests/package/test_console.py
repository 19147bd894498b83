"""The command `querycrew`, as a user runs it: in its own process, with a pipe and on a terminal."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from actors.console import characters
from actors.console import demo as demo_module
from actors.console.demo import demo
from actors.console.main import run
from actors.console.searches import SEARCHES, Search
from actors.console.signals import Signals
from supervisor import Query
from tests.support.terminal import shown

pytestmark = pytest.mark.usefixtures("plain_signals")

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "actors.console"]


def environment(folder, **variables):
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    wanted = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "TERM": "xterm", "TMPDIR": str(folder)}
    return {**kept, **wanted, **variables}


def querycrew(folder, *arguments, **variables):
    env = environment(folder, **variables)
    # The command does not run in the project's folder, since `-m` puts the current folder on the
    # path.
    return subprocess.run(
        [*COMMAND, *arguments], env=env, cwd=folder, capture_output=True, encoding="utf-8", timeout=60, check=False
    )


def on_a_terminal(folder, columns, *arguments, **variables):
    """Run the command on a pseudo-terminal with `columns`; return its output and its exit code."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = environment(folder, **variables)
    process = subprocess.Popen([*COMMAND, *arguments], stdin=slave, stdout=slave, stderr=slave, env=env, cwd=folder)
    os.close(slave)
    written = b""
    try:
        while chunk := os.read(master, 65536):
            written += chunk
    except OSError:
        pass  # on Linux, the other end is closed
    os.close(master)
    return written.decode(), process.wait(60)


def check_story(text):
    """Check that the demo's text is complete, independent of its line breaks."""
    text = " ".join(text.split())
    assert re.search(r"loaded [\d,]+ of the [\d,]+ named characters", text)
    killed = re.search(r"killing worker (\d+)", text).group(1)
    assert f"WorkerDied: crew 'unicode': worker {killed} died of SystemExit: killed by the demo" in text
    assert "executed=None" in text
    replacement = re.search(rf"worker (\d+) has taken the place of worker {killed}", text).group(1)
    assert int(replacement) > int(killed)
    assert "unicode: up, SQLite(" in text
    assert re.search(r"died 1, .*restarts 1,", text)
    assert re.search(r"\d searches answered, 1 rejected with its worker, .*\b0 unanswered, in [\d.]+ s$", text)


# --- arguments ----------------------------------------------------------------------------


def test_without_a_command_it_prints_its_help(tmp_path):
    done = querycrew(tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: querycrew")
    assert "demo" in done.stdout


def test_it_prints_its_version_also_if_it_is_not_installed(tmp_path):
    done = querycrew(tmp_path, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"querycrew \d+\.\d+\.\d+.*\n|querycrew, run from its source .*\n", done.stdout)


@pytest.mark.parametrize("seconds", ["0", "-3", "nan", "inf", "ten", "0.5", ""])
def test_seconds_that_make_no_sense_are_refused_with_a_reason(tmp_path, seconds):
    done = querycrew(tmp_path, "demo", f"--seconds={seconds}")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(r"--seconds: (must be 1 or more seconds, not |'.*' is not a number of seconds)", done.stderr)


def test_help_is_quick_since_it_loads_neither_pykka_nor_apsw(tmp_path):
    code = "import sys\ntry: run(['--help'])\nfinally: print({'pykka', 'apsw', 'supervisor'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"from actors.console.main import run\n{code}"],
        env=environment(tmp_path),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize("arguments", [["demo"], []])
@pytest.mark.parametrize("content", ["", "raise SystemError('supervisord wants something')"])
def test_a_foreign_supervisor_package_is_reported_in_one_sentence(tmp_path, arguments, content):
    (tmp_path / "other" / "supervisor").mkdir(parents=True)
    (tmp_path / "other" / "supervisor" / "__init__.py").write_text(content)
    done = querycrew(tmp_path, *arguments, PYTHONPATH=os.pathsep.join([str(tmp_path / "other"), str(ROOT)]))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "querycrew: error: `import supervisor` " in done.stderr
    assert ("supervisord wants something" if content else "environment of its own") in done.stderr


# --- the demo -----------------------------------------------------------------------------


def test_the_demo_without_a_terminal_prints_plain_lines(tmp_path):
    done = querycrew(tmp_path, "demo", "--seconds", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 80
    check_story(done.stdout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("columns", [40, 80])
def test_the_demo_fits_in_its_terminal_and_completes_its_last_frame(tmp_path, columns):
    written, code = on_a_terminal(tmp_path, columns, "demo", "--seconds", "4")
    assert code == 0
    assert "━" in written
    assert "settled" in written
    lines = shown(written)
    check_story("\n".join(lines))
    assert max(map(len, lines)) < columns
    assert not [line for line in lines if "━" in line or "settled" in line]
    assert list(tmp_path.iterdir()) == []


def test_a_dumb_terminal_gets_plain_lines(tmp_path):
    written, code = on_a_terminal(tmp_path, 80, "demo", "--seconds", "2", TERM="dumb")
    assert code == 0
    assert "\x1b" not in written
    check_story(written)


@pytest.mark.parametrize("moment", ["querycrew demo:", "sent"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_demo_cleanly(tmp_path, moment, number, code):
    with subprocess.Popen(
        [*COMMAND, "demo", "--seconds", "60"],
        env=environment(tmp_path),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        while not process.stdout.readline().startswith(moment):
            assert process.poll() is None
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert errors == ("querycrew: interrupted\n" if number == signal.SIGINT else "")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_ends_the_demo_cleanly(tmp_path):
    with subprocess.Popen(
        [*COMMAND, "demo"], env=environment(tmp_path), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (128 + signal.SIGPIPE, b"")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_in_one_line(tmp_path):
    limited = ["sh", "-c", 'ulimit -f 4000; exec "$0" "$@"', *COMMAND, "demo"]
    done = subprocess.run(
        limited, env=environment(tmp_path), cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.returncode == 1
    assert re.fullmatch(r"querycrew: error: \w+: .*\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_search_that_fails_makes_the_demo_fail(monkeypatch, capsys):
    monkeypatch.setattr(demo_module, "SEARCHES", (Search("something broken", "SELECT nonsense"),))
    assert demo(2) == 1
    text = capsys.readouterr().out
    assert "SQLError: no such column: nonsense" in text
    assert "0 searches answered, 1 rejected with its worker, 1 failed, 0 unanswered" in text


def test_a_search_that_runs_at_the_time_limit_is_cut_off(monkeypatch, capsys):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    monkeypatch.setattr(demo_module, "SEARCHES", (Search("the end of all numbers", endless),))
    assert demo(2) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "0 searches answered, 1 rejected with its worker, 1 cut off at the time limit, 0 unanswered" in text


def test_loading_that_takes_too_long_is_cut_short(monkeypatch, capsys):
    monkeypatch.setattr(demo_module, "_LOADING", 0)
    monkeypatch.setattr(demo_module, "SEARCHES", ())
    assert demo(2) == 0
    assert "loaded 2,000 of the " in capsys.readouterr().out


def test_a_file_that_is_not_written_in_time_is_reported(monkeypatch, capsys):
    monkeypatch.setattr(demo_module, "_ENDING", 60)
    assert run(["demo", "--seconds", "7"]) == 1
    told = "querycrew: error: TimeoutError: the temporary file could not be written within 7 seconds\n"
    assert capsys.readouterr().err == told


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            signals.ignore()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# --- its parts ----------------------------------------------------------------------------


def test_the_rows_agree_with_pythons_unicode_data():
    half = (0xBD, "½", "VULGAR FRACTION ONE HALF", "No", "ON", "<fraction> 0031 2044 0032", 0.5, 0, 0, "A")
    assert characters.row(0xBD) == half
    own, by_rule = characters.named_codes()
    assert len(own) + len(by_rule) == len({*own, *by_rule}) > 138_000
    assert (0xBD in own, 0x4E00 in by_rule) == (True, True)


def test_every_search_answers_one_text(start, path):
    db = start(path, size=1)
    db.ask(Query(characters.CREATE))
    rows = [characters.row(code) for code in characters.named_codes()[0] if code < 0x2A00 or code > 0x1F000]
    db.ask(Query(characters.INSERT, (demo_module.json.dumps(rows),)))
    for search in SEARCHES:
        answer = db.ask(Query(search.sql)).one()
        assert [type(value) for value in answer] == [str], search.title
