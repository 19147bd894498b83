"""`querycrew tour`: step by step on a terminal, and as plain text elsewhere."""

import os
import subprocess

import pytest

from actors.console.steps import STEPS
from tests.console.screens import COMMAND, environment

pytestmark = pytest.mark.usefixtures("plain_signals")


@pytest.mark.parametrize(("argument", "code", "shown"), [("--help", 0, "step by step"), ("app.db", 2, "unrecognized")])
def test_it_takes_no_argument(tmp_path, argument, code, shown):
    ran = subprocess.run(
        [*COMMAND, "tour", argument],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert ran.returncode == code
    assert "usage: querycrew tour" in ran.stdout + ran.stderr
    assert shown in ran.stdout + ran.stderr
    assert not os.listdir(tmp_path), "the name is no database"


def test_without_a_terminal_all_lines_run_and_are_shown(tmp_path):
    ran = subprocess.run(
        [*COMMAND, "tour"],
        cwd=tmp_path,
        env=environment(tmp_path, TMPDIR=str(tmp_path)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    places = [ran.stdout.index(f"{line}\n") for step in STEPS for line in step.lines[:1]]
    assert len(places) == len(STEPS)
    for step in STEPS:
        assert step.title in ran.stdout
        for line in step.lines:
            assert f"> {line}\n" in ran.stdout
    for shown in (
        "雪国",
        "│        ^ ",
        "─ QueryTimeout ─",
        "─ QueryCancelled ─",
        "─ WorkerDied ─",
        "has taken its place",
        "restarts 1",
        "5000050000",
    ):
        assert shown in ran.stdout, ran.stdout
    committed = ran.stdout.partition("(1000, ")[2].partition(")")[0]
    assert 0 < int(committed) < 500
    for wrong in ("Traceback", "no such table", "is not defined"):
        assert wrong not in ran.stdout
    assert all(len(line) <= 80 for step in STEPS for line in step.text.split("\n"))
    assert all(len(f"tour*> {line}") <= 80 for step in STEPS for line in step.lines)
    assert not any("tour" in name for name in os.listdir(tmp_path)), "its folder is still there"


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_enter_runs_the_line_that_is_suggested(prompt, tmp_path, size):
    screen = prompt("tour", columns=size[0], lines=size[1], TMPDIR=str(tmp_path / "own"))
    screen.wait_for("1 of 11 · Ask")
    enter(prompt, screen)
    screen.wait_for("(4 rows)")
    enter(prompt, screen)
    screen.wait_for("2 of 11 · Results")
    assert max(map(len, screen.text.splitlines())) <= size[0]


def enter(prompt, screen, line=None):
    """Press Enter on the suggested line, or on another one in its place."""
    screen.wait_for("\ntour>")
    times = screen.text.count("\ntour>")
    if line and not prompt.is_plain:
        screen.type("\x15")  # the line is empty now
    screen.enter(line or "")
    screen.wait_for("\ntour>", times=times + 1 + (prompt.is_plain and not line))


def test_a_line_can_be_changed_and_other_lines_leave_the_step_where_it_is(prompt):
    screen = prompt("tour")
    enter(prompt, screen, "1000 + 234")
    screen.wait_for("1234")
    assert "2 of 11" not in screen.text
    enter(prompt, screen, "select title from books where id = 2")
    screen.wait_for("(1 row)")
    enter(prompt, screen)
    screen.wait_for("2 of 11 · Results")


def test_next_back_and_steps_go_to_another_step(prompt):
    screen = prompt("tour")
    enter(prompt, screen, "next")
    screen.wait_for("2 of 11 · Results")
    enter(prompt, screen, "back")
    screen.wait_for("1 of 11 · Ask", times=2)
    enter(prompt, screen, "steps")
    screen.wait_for("→  1 Ask")
    enter(prompt, screen, "steps 11")
    screen.wait_for("11 of 11")
    enter(prompt, screen, "next")
    screen.wait_for("That was the tour")
    screen.enter("quit")
    assert screen.end() == 0


def test_it_ends_at_the_end_of_the_input_and_removes_its_database(prompt, tmp_path):
    (tmp_path / "own").mkdir()
    screen = prompt("tour", TMPDIR=str(tmp_path / "own"))
    assert [name for name in os.listdir(tmp_path / "own") if name.startswith("querycrew-tour")]
    screen.wait_for("\ntour>")
    screen.type("\x03")
    if prompt.is_plain:
        screen.wait_for("\ntour>", times=2)
    else:
        screen.wait_until(lambda text: text.endswith("tour>"))  # it has emptied the line
    screen.type("\x04")
    assert screen.end() == 0
    assert not [name for name in os.listdir(tmp_path / "own") if name.startswith("querycrew-tour")]
