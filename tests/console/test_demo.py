"""`querycrew demo`, as a user runs it: on a terminal, with a pipe, and with all that goes wrong."""

import fcntl
import os
import re
import signal
import struct
import subprocess
import termios
import time
from xml.etree import ElementTree as ET

import pytest

from actors.console import demo as demo_module
from actors.console import demo_crew, main, scene_crash, scene_loading
from actors.console.demo import demo
from actors.console.main import run
from actors.console.searches import Search
from tests.conftest import eventually
from tests.console.screens import COMMAND, WITHOUT, Screen, environment

pytestmark = pytest.mark.usefixtures("plain_signals")

# Without warnings as errors: a signal may come after a file was opened and before its `with` block
# has begun. Then the garbage collector closes the file, and warns.
INTERRUPTED = (COMMAND[0], *COMMAND[3:])
QUICK = ("demo", "--seconds", "2")
TITLES = {
    "load": "Load a SQLite file",
    "crash": "Search side by side",
    "deadline": "A query without an end meets its deadline",
    "overload": "Ask more than 2 threads can do",
    "writes": "A thousand writes",
    "actors": "Pykka actors ask",
    "figures": "The figures, and the code that made them",
}


def running(folder, *arguments, command=COMMAND, **variables):
    """Start the command with pipes; its temporary files lie in `folder`."""
    return subprocess.Popen(
        [*command, *arguments],
        env=environment(folder, TMPDIR=str(folder), **variables),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def querycrew(folder, *arguments, **options):
    with running(folder, *arguments, **options) as process:
        output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def on_a_terminal(folder, *arguments, **options):
    """Run the command on a terminal; return the terminal and the exit code."""
    with Screen(folder, *arguments, TMPDIR=str(folder), **options) as screen:
        return screen, screen.end(120)


def left_behind(folder):
    """Return the files of a demo that has ended."""
    return [path.name for path in folder.iterdir() if path.name != "ipython"]


def is_gone(pid):
    """Say whether a process has ended. A child whose parent has ended may need a moment."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def check_story(text):
    """Check that the demo's text is complete, independent of its line breaks."""
    text = " ".join(text.split())
    for title in TITLES.values():
        assert text.count(title) == 1, title
    pid, killed = re.search(r"kill -9 (\d+): reader (\d+), [\d.]+ s into its search", text).groups()
    died = rf"WorkerDied: crew 'unicode': worker {killed} died of ChildProcessEnded: child process {pid} was killed"
    assert re.search(died, text)
    assert "(executed=None)" in text
    replacement = re.search(rf"reader (\d+) \(pid \d+\) took the place of reader {killed}, \d+ ms later", text)
    assert int(replacement.group(1)) > int(killed)
    assert re.search(r"QueryTimeout after [\d.]+ s, executed=False", text)
    assert re.search(r"QueryCancelled [\d.]+ ms after the cancel, executed=False", text)
    assert "The crew answers the next query. No worker was lost." in text
    assert "Overloaded: crew 'busy' is overloaded" in text
    assert re.search(r"writer \d+ waits for the lock\.", text)
    commits = re.search(r"1,000 writes in (\d+) commits", text).group(1)
    assert 0 < int(commits) < 100
    assert re.search(r"an actor hears WorkerLost\(\d+\), then WorkerUp\(\d+\)", text)
    assert re.search(r"\b8 searches answered db\.ask\(Query\(…\), block=False\)", text)
    assert re.search(r"\b1 rejected with its worker", text)
    assert re.search(r"answered, 0 failed, 1 died, 0 rejected, 1 cancelled, 1 timed out, [\d,]+ shed", text)
    assert re.search(r"[\d,]+ requests, 0 unanswered, in [\d.]+ s", text)


# --- on streams of all kinds --------------------------------------------------------------


def test_the_demo_without_a_terminal_prints_plain_lines(tmp_path):
    code, output, errors = querycrew(tmp_path, *QUICK)
    assert (code, errors) == (0, "")
    assert "\x1b" not in output
    assert max(map(len, output.splitlines())) < 80
    check_story(output)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (40, 24), (120, 40)])
def test_the_demo_fits_its_terminal_and_leaves_only_the_paragraphs(tmp_path, columns, lines):
    screen, code = on_a_terminal(tmp_path, *QUICK, columns=columns, lines=lines)
    assert code == 0
    written = screen.written.decode()
    check_story(screen.text)
    # The rows of the workers were drawn, and are gone.
    pids = {int(pid) for pid in re.findall(r"pid (\d+)  \S", written)}
    assert len(pids) >= demo_crew.SIZE
    assert not re.search(r"^  (reader|writer) \d+ +pid", screen.text, re.MULTILINE)
    assert max(map(len, screen.text.splitlines())) < columns
    # The cursor was never hidden, so a terminal needs no repair.
    assert "\x1b[?" not in written
    assert all(eventually(lambda pid=pid: is_gone(pid)) for pid in pids)
    assert left_behind(tmp_path) == []


def test_a_dumb_terminal_gets_plain_lines(tmp_path):
    screen, code = on_a_terminal(tmp_path, *QUICK, TERM="dumb")
    assert code == 0
    assert b"\x1b" not in screen.written
    check_story(screen.text)


def test_a_terminal_without_colours_is_drawn_on_without_colours(tmp_path):
    screen, code = on_a_terminal(tmp_path, *QUICK, NO_COLOR="1")
    assert code == 0
    assert b"\xe2\x94\x81" in screen.written  # ━
    assert not re.search(rb"\x1b\[[\d;]*3\d", screen.written)
    check_story(screen.text)


def test_without_rich_a_terminal_gets_plain_lines_and_one_sentence(tmp_path):
    screen, code = on_a_terminal(tmp_path, *QUICK, command=WITHOUT("rich"))
    assert code == 0
    assert b"\x1b" not in screen.written
    assert screen.text.count("pip install 'querycrew[console]'") == 1
    check_story(screen.text)


def test_a_terminal_that_changes_its_size_is_drawn_on_to_the_end(tmp_path):
    with Screen(tmp_path, *QUICK, TMPDIR=str(tmp_path)) as screen:
        screen.wait_for("the commonest letters")
        for columns, lines in ((30, 10), (200, 50), (60, 5)):
            fcntl.ioctl(screen._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            screen._read(0.2)
        assert screen.end(120) == 0
    assert "0 unanswered" in screen.text
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("scene", ["crash", "deadline", "overload", "writes", "actors"])
def test_one_scene_is_shown_alone(tmp_path, scene):
    code, output, errors = querycrew(tmp_path, "demo", scene, "--seconds", "2")
    assert (code, errors) == (0, "")
    assert output.startswith("  This takes about 1 second. Ctrl-C ends it.\n")
    shown = [name for name, title in TITLES.items() if title in output]
    assert shown == ["load", scene, "figures"]
    assert "0 unanswered" in output


def test_the_command_line_knows_every_scene_of_the_story():
    assert list(main._SCENES) == list(demo_module._SCENES)[1:]


def test_a_scene_that_is_not_there_is_refused(tmp_path):
    code, output, errors = querycrew(tmp_path, "demo", "nothing")
    assert (code, output) == (2, "")
    assert "invalid choice: 'nothing'" in errors


# --- how it ends early --------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["Load", "Search"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_demo_cleanly(tmp_path, moment, number, code):
    with running(tmp_path, "demo", "--seconds", "60", command=INTERRUPTED) as process:
        while not process.stdout.readline().startswith(moment):
            assert process.poll() is None
        assert len(left_behind(tmp_path)) == 1
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors == ("querycrew: interrupted\n" if number == signal.SIGINT else "")
    assert left_behind(tmp_path) == []


def test_ctrl_c_on_a_terminal_clears_the_rows_and_leaves_no_child(tmp_path):
    with Screen(tmp_path, "demo", "--seconds", "60", command=INTERRUPTED, TMPDIR=str(tmp_path)) as screen:
        screen.wait_for("the commonest letters").wait_for("reader 4")
        pids = [int(pid) for pid in re.findall(r"pid (\d+)", screen.text)]
        screen.type("\x03")
        assert screen.end() == 130
    assert pids
    assert screen.text.endswith("querycrew: interrupted")
    assert "pid" not in screen.text
    assert all(eventually(lambda pid=pid: is_gone(pid)) for pid in pids)
    assert left_behind(tmp_path) == []


def test_a_terminal_that_goes_away_ends_the_demo_cleanly(tmp_path):
    with Screen(tmp_path, "demo", "--seconds", "60", command=INTERRUPTED, TMPDIR=str(tmp_path)) as screen:
        screen.wait_for("the commonest letters")
        spare = os.open(os.devnull, os.O_RDONLY)
        os.dup2(spare, screen._master)  # closes the terminal, and so hangs up
        os.close(spare)
        assert screen._process.wait(60) != 0
    assert left_behind(tmp_path) == []


def test_a_reader_that_goes_away_ends_the_demo_cleanly(tmp_path):
    with running(tmp_path, "demo") as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (128 + signal.SIGPIPE, "")
    assert left_behind(tmp_path) == []


def test_a_full_disk_is_reported_in_one_line(tmp_path):
    limited = ["sh", "-c", 'ulimit -f 4000; exec "$0" "$@"', *COMMAND]
    code, _, errors = querycrew(tmp_path, "demo", command=limited)
    assert code == 1
    assert re.fullmatch(r"querycrew: error: \w+: .*\n", errors)
    assert left_behind(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_left_for_another(tmp_path):
    with subprocess.Popen(
        [*COMMAND, "demo", "deadline", "--seconds", "1"],
        env=environment(tmp_path, TMPDIR="/proc"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert "0 unanswered" in output


def test_a_system_without_a_place_for_files_is_reported_in_one_line(monkeypatch, capsys):
    def refuse(**_):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(demo_module.tempfile, "TemporaryDirectory", refuse)
    assert run(["demo"]) == 1
    told = "querycrew: error: FileNotFoundError: [Errno 2] No usable temporary directory found\n"
    assert capsys.readouterr().err == told


# --- searches that fail, and machines that are slow ---------------------------------------


def test_a_search_that_fails_makes_the_demo_fail(monkeypatch, capsys):
    monkeypatch.setattr(scene_crash, "SEARCHES", (Search("something broken", 2, "SELECT nonsense"),))
    assert demo(2, "crash") == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "SQLError: no such column: nonsense" in text
    assert "0 searches answered" in text
    assert "1 searches failed" in text


def test_a_slow_machine_searches_less_and_answers_all(monkeypatch, capsys):
    monkeypatch.setattr(scene_loading, "_FULL", 1e12)
    monkeypatch.setattr(scene_loading, "_MEASURED", 0)
    assert demo(2, "crash") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert re.search(r"loaded 2,000 of the 1\d\d,\d{3} named characters", text)
    assert re.search(r"Of 1\d\d,\d{3} characters, 2,000 are enough: this machine searches them in time", text)
    assert "8 searches answered" in text


def test_a_viewer_gets_time_to_read_only_while_the_demo_is_in_time(monkeypatch):
    rests = []
    monkeypatch.setattr(demo_crew.time, "sleep", rests.append)
    pace = demo_crew.Pace(30, time.monotonic())
    crew = demo_crew.DemoCrew(_Live(), pace, None, None, True, None, None)
    crew.rest(1.0)
    assert rests == []
    pace.plan(5000)
    crew.rest(1.0)
    assert rests == [2.0]
    crew.rest(6000)
    assert 2.0 < rests[1] < 10_000
    crew.stage.live = False
    crew.rest(1.0)
    assert len(rests) == 2


class _Live:
    live = True


def test_a_late_demo_hurries():
    pace = demo_crew.Pace(30, time.monotonic() - 4)
    pace.plan(1.0)
    assert pace.seconds(1.0) == 1.0
    pace.plan(5000)
    assert pace.seconds(1.0) == 1.0
    pace.plan(1.0)
    assert pace.seconds(1.0) == 2.0


def test_where_no_child_can_be_started_the_workers_are_threads(monkeypatch, capsys):
    def refuse(_):
        raise NotImplementedError("ChildProcess needs POSIX")

    monkeypatch.setattr(demo_crew, "ChildProcess", refuse)
    assert demo(2) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "The workers are threads: ChildProcess needs POSIX" in text
    assert "kill -9" not in text
    killed = re.search(r"reader (\d+), [\d.]+ s into its search", text).group(1)
    assert f"worker {killed} died of SystemExit" in text
    assert f"took the place of reader {killed}" in text
    assert "8 searches answered" in text
    assert "0 unanswered" in text


# --- the picture --------------------------------------------------------------------------


def test_the_picture_shows_the_story_and_needs_no_other_file(tmp_path):
    code, output, errors = querycrew(tmp_path, *QUICK, "--record", "picture.svg")
    assert (code, errors) == (0, "")
    assert output.endswith("The picture is picture.svg.\n")
    picture = (tmp_path / "picture.svg").read_text("utf-8")
    root = ET.fromstring(picture)
    texts = [(float(each.get("y")), each.text) for each in root.iter("{http://www.w3.org/2000/svg}text")]
    check_story(" ".join(text for _, text in texts))
    assert texts[0][1] == "$ querycrew demo"
    assert max(y for y, _ in texts) < float(root.get("viewBox").split()[3])
    assert not re.search(r"(?:href|src|url)\b|@import|/tmp/", picture)


@pytest.mark.parametrize(("place", "error"), [(".", "IsADirectoryError"), ("none/a.svg", "FileNotFoundError")])
def test_a_picture_that_cannot_be_written_is_refused_before_the_demo(tmp_path, place, error):
    code, output, errors = querycrew(tmp_path, *QUICK, "--record", place)
    assert code == 1
    assert TITLES["load"] not in output
    assert re.fullmatch(rf"querycrew: error: {error}: .*\n", errors)


def test_a_demo_that_is_interrupted_changes_no_picture(tmp_path):
    picture = tmp_path / "picture.svg"
    picture.write_text("the old picture")
    with running(tmp_path, "demo", "--seconds", "60", "--record", "picture.svg", command=INTERRUPTED) as process:
        while not process.stdout.readline().startswith("Search"):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert picture.read_text() == "the old picture"


def test_a_picture_without_rich_is_refused_in_one_sentence(tmp_path):
    code, output, errors = querycrew(tmp_path, "demo", "--record", "a.svg", command=WITHOUT("rich"))
    assert (code, output) == (1, "")
    assert errors == "querycrew: error: --record draws with rich: pip install 'querycrew[console]'\n"
