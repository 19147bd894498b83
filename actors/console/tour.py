"""`querycrew tour`: a prompt that suggests the next line, step by step."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, Final, TextIO

import pykka

from actors.console import tables
from actors.console.arguments import Options, open_crew
from actors.console.commands import Commands
from actors.console.failure import fail
from actors.console.killing import Killer
from actors.console.problems import one_line
from actors.console.repl import best_prompt, namespace_of
from actors.console.showing import say
from actors.console.signals import Signals
from actors.console.statements import first_word
from actors.console.steps import ENDLESS, SETUP, STEPS
from supervisor import QuerycrewError, Script, Status, SupervisorRef, WorkerStatus

__all__ = ["tour"]

_BANNER: Final = """\
A tour of querycrew, on a database of its own, which is removed at the end.
Enter runs the line that stands at the prompt. Change it, or type another one.
`next` and `back` go to another step, `steps` lists them, `quit` ends."""
_PLAIN: Final = "\nThis prompt shows the next line above: an empty line runs it."
_END: Final = "That was the tour. The prompt is yours, and `quit` ends it. `querycrew app.db` opens your own database."
_BEGUN = 0.3  # seconds after which a child has begun its job
_PATIENCE = 10.0  # seconds until the worker of a statement is busy


def tour() -> int:
    """Run the tour, and return the exit code.

    On a terminal it is a prompt. Elsewhere all lines run one after the other, and their text is
    written.
    """
    with tempfile.TemporaryDirectory(prefix="querycrew-tour-") as folder, Killer() as killer:
        path = os.path.join(folder, "tour.db")
        with Signals(), open_crew(Options(database=path, processes=True, size=2)) as db:
            try:
                db.wait(timeout=30)
                db.ask(Script(SETUP))
            except (QuerycrewError, pykka.Timeout) as error:
                return fail(one_line(error))
            namespace = {**namespace_of(db), **_helpers(db, path)}
            commands = Tour(db, sys.stdout, killer, namespace)
            try:
                if sys.stdin is not None and sys.stdin.isatty():
                    _on_a_terminal(commands, namespace)
                else:
                    _as_text(commands, namespace)
            finally:
                commands.close()
                db.shutdown(cancel_pending=True, timeout=0)
    return 0


class Tour(Commands):
    """The commands of the prompt, and a pointer to the line that is suggested."""

    def __init__(self, db: SupervisorRef, stream: TextIO, killer: Killer, namespace: dict[str, Any]) -> None:
        super().__init__(db, stream, killer, namespace, most=10)
        self._stream = stream
        # The step, and the line of the step. One step past the last means that the tour is over.
        self._step = 0
        self._line = 0
        self.shows_lines = True
        """Whether a step shows its lines when it begins."""
        self._commands = {
            **self._commands,
            "next": lambda _: self._go(self._step + 1),
            "back": lambda _: self._go(self._step - (self._line == 0)),
            "steps": self._steps,
            "help": self._tour_help,
        }

    def suggestion(self) -> str:
        """Return the line that the prompt suggests."""
        return STEPS[self._step].lines[self._line] if self._step < len(STEPS) else ""

    def note_run(self, text: str) -> None:
        """Go on after the suggested line, even if it was changed. Another line changes nothing."""
        suggested = self.suggestion()
        if suggested and _key(text) == _key(suggested):
            self._line += 1
            if self._line == len(STEPS[self._step].lines):
                self._go(self._step + 1)

    def begin(self) -> None:
        """Show the step where the tour is."""
        self._go(self._step)

    def _go(self, step: int) -> None:
        self._step, self._line = min(max(step, 0), len(STEPS)), 0
        if self._step == len(STEPS):
            say(self._stream, f"\n{_END}", style="bold")
            return
        shown = STEPS[self._step]
        title = f"── {self._step + 1} of {len(STEPS)} · {shown.title} "
        say(self._stream, f"\n{title}{'─' * max(0, 76 - len(title))}", style="bold cyan")
        say(self._stream, shown.text, style="")
        if self.shows_lines:
            say(self._stream, "".join(f"\n    {line}" for line in shown.lines).lstrip("\n"), style="green")

    def _tour_help(self, argument: str) -> None:
        self._stream.write("  next, back        go to another step\n  steps, steps N    list the steps; go to step N\n")
        self._help(argument)

    def _steps(self, argument: str) -> None:
        if argument.isdecimal() and 1 <= int(argument) <= len(STEPS):
            self._go(int(argument) - 1)
            return
        for number, step in enumerate(STEPS):
            mark = "→" if number == self._step else " "
            self._stream.write(f"{mark} {number + 1:2} {step.title}\n")
        say(self._stream, "`steps N` goes to step N")


def _key(text: str) -> str:
    """Return the part of a line that stays when a visitor changes values in it."""
    text = text.strip()
    name, equals, _ = text.partition(" = ")
    return name if equals and name.isidentifier() else first_word(text)


def _on_a_terminal(commands: Tour, namespace: dict[str, Any]) -> None:
    prompt = best_prompt()
    banner = _BANNER if prompt.__module__.endswith("ipython_prompt") else _BANNER + _PLAIN
    if not tables.HAS_RICH:
        banner += f"\n{tables.MISSING}"
    prompt(commands, namespace, banner, "tour")


def _as_text(commands: Tour, namespace: dict[str, Any]) -> None:
    """Run all lines, and write each behind a prompt, with its output."""
    from actors.console.plain_prompt import lines_run

    commands.shows_lines = False
    commands.begin()
    with lines_run(commands, namespace, "tour") as run:
        while line := commands.suggestion():
            run(line)


def _helpers(db: SupervisorRef, path: str) -> dict[str, Any]:
    """Return the names that only the lines of the tour use."""

    def busy() -> WorkerStatus:
        """Return the worker that runs a statement; wait until there is one."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            for worker in db.ask(Status()).workers:
                # A child that has just got its job may not have begun. Another child would run it.
                if worker.job is not None and worker.pid and worker.seconds > _BEGUN:
                    return worker
            time.sleep(0.01)
        message = "no worker runs a statement: ask for one with block=False first"
        raise LookupError(message)

    def replaced() -> str:
        """Wait until no slot of the crew is empty, and tell its newest worker."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            status = db.ask(Status())
            newest = max(status.workers, key=lambda worker: worker.id)
            if status.restarts and len(status.workers) > status.size and newest.pid:
                return f"worker {newest.id}, the process {newest.pid}, has taken its place"
            time.sleep(0.01)
        return "no worker has taken its place until now: see `status`"

    helpers: dict[str, Callable[..., Any] | Any] = {
        "endless": ENDLESS,
        "busy": busy,
        "replaced": replaced,
        "commits": lambda: _commits(path + "-wal"),
        "os": os,
        "signal": signal,
    }
    return helpers


def _commits(path: str) -> int:
    """Count the commits in a write-ahead log of SQLite.

    The last page of each commit has the size of the database behind it, in the header of its frame.
    """
    with open(path, "rb") as file:
        log = file.read()
    size, salt = int.from_bytes(log[8:12], "big"), log[16:24]
    frames = range(32, len(log) - 24 - size + 1, 24 + size)
    return sum(log[at + 8 : at + 16] == salt and log[at + 4 : at + 8] != bytes(4) for at in frames)
