"""The output of the console on a terminal, and on other streams."""

from types import SimpleNamespace

import pytest

from actors.console.screen import Screen
from tests.support.terminal import Terminal, shown


@pytest.fixture
def terminal(monkeypatch):
    for name, value in {"TERM": "xterm", "COLUMNS": "40", "LINES": "5", "NO_COLOR": ""}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


@pytest.mark.parametrize(("name", "value", "live"), [("TERM", "dumb", 0), ("NO_COLOR", "1", 0), ("TERM", "vt100", 1)])
def test_only_a_capable_terminal_gets_redrawn_lines(terminal, monkeypatch, name, value, live):
    monkeypatch.setenv(name, value)
    screen = Screen(terminal)
    screen.draw(["working"])
    screen.say("done", style="1")
    assert ("\x1b" in terminal.written, "working" in terminal.written) == (bool(live), bool(live))
    assert "done" in terminal.written


def test_a_paragraph_is_written_above_the_lines_that_are_redrawn(terminal):
    screen = Screen(terminal)
    screen.draw(["one", "two " * 20])
    screen.say("a paragraph of more than forty columns, so it is wrapped", hang="  ")
    wrapped = ["a paragraph of more than forty columns,", "  so it is wrapped"]
    assert shown(terminal.written) == [*wrapped, "one", "two " * 9 + "tw…", ""]
    screen.draw([])
    assert shown(terminal.written) == [*wrapped, ""]


def test_no_more_lines_are_drawn_than_the_terminal_has(terminal):
    screen = Screen(terminal)
    screen.draw([str(number) for number in range(9)])
    assert shown(terminal.written) == ["0", "1", "2", "3", ""]


def test_a_character_outside_the_encoding_is_replaced(monkeypatch):
    stream = Terminal("ascii")
    screen = Screen(stream)
    screen.say("naïve")
    assert "na?ve" in stream.written
    assert screen.bar(0.5, 4) == "==--"


def test_lines_that_a_narrower_terminal_has_broken_are_overwritten_as_a_whole(terminal, monkeypatch):
    screen = Screen(terminal)
    screen.draw(["thirty-nine columns of text, all in all."[:39], "short"])
    monkeypatch.setenv("COLUMNS", "30")
    screen.say("narrower")
    # The first line now takes two rows, so three rows are overwritten.
    assert "\x1b[3Fnarrower" in terminal.written


def test_frames_that_come_too_fast_are_left_out_but_never_the_last(terminal, monkeypatch):
    now = iter([10.0, 10.001, 10.1, 10.101])
    monkeypatch.setattr("actors.console.screen.time", SimpleNamespace(monotonic=lambda: next(now)))
    screen = Screen(terminal)
    for line in ("first", "too soon", "second"):
        screen.draw([line])
    assert shown(terminal.written) == ["second", ""]
    assert "too soon" not in terminal.written
    screen.draw([])
    assert shown(terminal.written) == [""]
