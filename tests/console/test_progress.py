"""The line that shows how long a statement takes: no interrupt leaves it behind."""

import io

import pytest

from actors.console.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def progress(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    progress = Progress(Terminal())
    yield progress
    progress._end.set()


def interrupted_once(monkeypatch, target, name, *, after):
    """Let Ctrl-C come at the first call of a method, before its work or after it."""
    method = getattr(target, name)

    def interrupted(*arguments):
        monkeypatch.setattr(target, name, method)
        if after:
            method(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(target, name, interrupted)


def test_ctrl_c_while_it_starts_leaves_no_thread_that_draws(progress, monkeypatch):
    interrupted_once(monkeypatch, progress._thread, "start", after=True)
    with pytest.raises(KeyboardInterrupt), progress:
        pass
    progress._thread.join(20)
    assert not progress._thread.is_alive()


@pytest.mark.parametrize("part", ["set", "join"])
def test_ctrl_c_while_it_stops_leaves_no_thread_that_draws(progress, monkeypatch, part):
    target = progress._end if part == "set" else progress._thread
    interrupted_once(monkeypatch, target, part, after=False)
    with pytest.raises(KeyboardInterrupt), progress:
        pass
    progress._thread.join(20)
    assert not progress._thread.is_alive()
