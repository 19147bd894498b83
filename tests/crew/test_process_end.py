"""The end and the interruption of a process with a crew.

The process never hangs, it closes its connections, and it loses no acknowledged write."""

import signal
import subprocess

import apsw
import pytest

from tests.support.common import environment, program, run_program

pytestmark = pytest.mark.usefixtures("plain_signals")


def rows(path):
    connection = apsw.Connection(str(path))
    try:
        assert connection.pragma("integrity_check") == "ok"
        return connection.execute("SELECT count(*), min(x), max(x) FROM t").fetchall()
    finally:
        connection.close()


def is_closed_properly(path):
    """Return whether the last connection was closed; SQLite then removes its log."""
    return path.exists() and not path.with_name(path.name + "-wal").exists()


ALL_SETTLED = "replies SupervisorStopped:False=103"


@pytest.mark.parametrize(
    ("how", "returncode"),
    [
        ("return", 0),
        ("exception", 1),
        ("exit", 3),
        ("SIGINT", -signal.SIGINT),
        ("SIGTERM handled", 4),
        ("stopped twice", 0),
        ("asking thread", 0),
    ],
)
def test_a_program_that_ends_without_stop_settles_every_reply_and_closes(path, how, returncode):
    done = run_program("ending", how, path)
    assert done.returncode == returncode, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "acknowledged"
    assert lines[-2:] == [ALL_SETTLED, "late SupervisorStopped"]
    assert ("asked on" in lines) == (how == "asking thread")
    assert "Fatal" not in done.stderr
    assert is_closed_properly(path)
    assert rows(path) == [(100, 0, 99)]


def test_a_program_interrupted_in_a_blocked_ask_ends_and_closes(path):
    running = subprocess.Popen(
        program("ending", "SIGINT in ask", path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with running:
        try:
            assert running.stdout.readline() == "acknowledged\n"
            assert running.stdout.readline() == "ready\n"
            running.send_signal(signal.SIGINT)
            output, errors = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == -signal.SIGINT, errors
    assert output.splitlines() == [ALL_SETTLED, "late SupervisorStopped"]
    assert "KeyboardInterrupt" in errors
    assert is_closed_properly(path)
    assert rows(path) == [(100, 0, 99)]


@pytest.mark.parametrize(("how", "returncode"), [("SIGTERM", -signal.SIGTERM), ("os._exit", 5)])
def test_a_program_that_is_killed_loses_no_acknowledged_write(path, how, returncode):
    done = run_program("ending", how, path)
    assert done.returncode == returncode, done.stderr
    assert done.stdout.splitlines() == ["acknowledged"]
    assert rows(path) == [(100, 0, 99)]


@pytest.mark.parametrize("how", ["one crew", "many crews", "callback"])
def test_a_program_ends_although_a_statement_and_an_opening_ignore_interrupts(how):
    done = run_program("stubborn", how)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_a_statement_runs_interrupts_it_and_leaves_the_crew_usable(path):
    done = run_program("interrupted", "running", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["interrupted True", "usable 1"] * 20 + ["restarts 0"]


def test_ctrl_c_repeats_the_interrupt_of_a_statement_that_missed_the_first_ones():
    done = run_program("interrupted", "lost")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["interrupted True", "usable next", "heard True True True"]


def test_ctrl_c_cancels_the_job_that_the_caller_waits_for(path):
    done = run_program("interrupted", "queued")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        *["interrupted True", "queued 0"] * 20,
        "slow passed",
        "cancelled 20",
        "ran slow",
    ]


def test_ctrl_c_while_stop_waits_leaves_a_crew_that_can_be_stopped_again():
    done = run_program("interrupted", "stopping")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["interrupted True", "slow passed"]


def test_signals_that_raise_anywhere_in_an_ask_leave_the_crew_usable():
    done = run_program("interrupted", "anywhere")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["idle True", "hits 300", "adds up 0"]
