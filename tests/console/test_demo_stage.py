"""The stages of the demo: plain lines, a terminal that is drawn on, and a picture."""

import io
from types import SimpleNamespace

import pytest

from actors.console import looks
from actors.console.screen import Screen, can_draw_on
from actors.console.stage import Number, Row, Stage
from tests.support.terminal import Terminal, shown


@pytest.fixture
def terminal(monkeypatch):
    for name, value in {"TERM": "xterm", "COLUMNS": "40", "LINES": "5", "NO_COLOR": ""}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


@pytest.fixture
def clock(monkeypatch):
    """The screen's clock; each frame comes long after the frame before, unless a test says more."""
    times = iter(range(100))
    clock = SimpleNamespace(monotonic=lambda: float(next(times)))
    monkeypatch.setattr("actors.console.screen.time", clock)
    return clock


@pytest.mark.parametrize(("term", "draws"), [("dumb", False), ("", False), ("vt100", True), ("xterm-256color", True)])
def test_only_a_capable_terminal_is_drawn_on(terminal, monkeypatch, term, draws):
    monkeypatch.setenv("TERM", term)
    assert can_draw_on(terminal) is draws
    assert not can_draw_on(io.StringIO())


def test_a_paragraph_is_written_above_the_rows(terminal, clock):
    screen = Screen(terminal)
    screen.draw([Row("one", "text"), Row("two", "text " * 20, 0.5)])
    screen.say("a paragraph of more than forty columns, so it is wrapped")
    wrapped = ["  a paragraph of more than forty", "  columns, so it is wrapped"]
    rows = ["  one            text", "  two            ━━━━────  text text t…"]
    assert shown(terminal.written) == [*wrapped, *rows, ""]
    screen.keep([Row("two", "", 1.0)])
    assert shown(terminal.written) == [*wrapped, "  two            ━━━━━━━━", ""]
    screen.close()
    assert shown(terminal.written) == [*wrapped, "  two            ━━━━━━━━", ""]


def test_no_more_rows_are_drawn_than_the_terminal_has(terminal, clock):
    screen = Screen(terminal)
    screen.draw([Row(str(number)) for number in range(9)])
    assert shown(terminal.written) == ["  0", "  1", "  2", "  3", ""]
    screen.close()
    assert shown(terminal.written) == [""]


def test_a_terminal_that_knows_ascii_only_gets_plain_bars(monkeypatch, terminal, clock):
    stream = Terminal("ascii")
    screen = Screen(stream)
    screen.say("naïve")
    screen.draw([Row("bar", "", 0.5)])
    assert shown(stream.written)[:2] == ["  na?ve", "  bar            ====----"]


def test_rows_that_a_narrower_terminal_has_broken_are_overwritten_as_a_whole(terminal, clock, monkeypatch):
    screen = Screen(terminal)
    screen.draw([Row("wide", "x" * 40), Row("short")])
    monkeypatch.setenv("COLUMNS", "30")
    screen.say("narrower")
    # The first row now takes two lines, so three lines are overwritten.
    assert "\x1b[3F  narrower" in terminal.written


def test_frames_that_come_too_fast_are_left_out_but_never_the_last(terminal, monkeypatch):
    now = iter([10.0, 10.001, 10.1])
    monkeypatch.setattr("actors.console.screen.time", SimpleNamespace(monotonic=lambda: next(now)))
    screen = Screen(terminal)
    for label in ("first", "too soon", "second"):
        screen.draw([Row(label)])
    assert shown(terminal.written) == ["  second", ""]
    assert "too soon" not in terminal.written
    screen.close()
    assert shown(terminal.written) == [""]


def test_a_terminal_that_is_gone_does_not_keep_the_screen_from_closing(terminal, clock):
    screen = Screen(terminal)
    screen.draw([Row("row")])
    terminal.close()
    screen.close()


def test_the_text_of_a_row_is_no_markup_and_a_long_label_is_cut(terminal, clock):
    screen = Screen(terminal)
    screen.say("[bold]not markup[/bold] :smile:")
    screen.keep([Row("a label of many words", "[red]text[/red]")])
    assert shown(terminal.written)[:2] == ["  [bold]not markup[/bold] :smile:", "  a label of m…  [red]text[/red]"]


@pytest.mark.parametrize(("part", "drawn"), [(-1, "────────"), (0, "────────"), (0.5, "━━━━────"), (7, "━━━━━━━━")])
def test_a_bar_is_never_longer_than_its_place(terminal, clock, part, drawn):
    screen = Screen(terminal)
    screen.keep([Row("bar", "", part)])
    assert shown(terminal.written)[0].split()[1] == drawn


@pytest.mark.parametrize(("columns", "lines"), [(79, 1), (39, 2)])
def test_the_code_of_a_figure_stands_beside_it_or_below_it(columns, lines):
    from rich.console import Console

    console = Console(file=io.StringIO(), width=columns)
    console.print(looks.numbers([Number("8", "searches answered", "db.ask(query)")], columns))
    written = console.file.getvalue().splitlines()
    assert len(written) == lines
    assert "searches answered" in written[0]
    assert "db.ask(query)" in written[-1]


def test_the_plain_stage_writes_lines_of_less_than_eighty_columns():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    stage = Stage(stream)
    stage.scene("A scene", "a = b")
    stage.say("word " * 30)
    stage.draw([Row("not shown")])
    stage.keep([Row("not shown")])
    stage.numbers([Number("8", "things…", "code()"), Number("1,000", "others")])
    stage.close()
    lines = stream.buffer.getvalue().decode("ascii").splitlines()
    assert lines[:3] == ["", "A scene", "    a = b"]
    assert max(map(len, lines)) < 80
    assert lines[-3:] == ["      8  things?", "             code()", "  1,000  others"]
