"""The prompt of the standard library, with history, completion and `await`."""

import ast
import asyncio
import code
import inspect
import os
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from actors.console.commands import Commands
from actors.console.visible import is_dumb_terminal
from supervisor import Result

try:
    import readline
    import rlcompleter
except ImportError:  # Windows has none
    HAS_READLINE = False
else:
    HAS_READLINE = True

__all__ = ["prompt"]

_HISTORY = 2000  # lines


def prompt(commands: Commands, namespace: dict[str, Any], banner: str, name: str) -> None:
    """Read and run lines until `quit` or the end of the input."""
    with asyncio.Runner() as runner, _readline(commands, namespace), _results_shown(commands, namespace):
        print(banner)
        commands.begin()
        _Prompt(commands, namespace, runner, name).interact(banner="", exitmsg="")


@contextmanager
def lines_run(commands: Commands, namespace: dict[str, Any], name: str) -> Iterator[Callable[[str], object]]:
    """Return a function that writes a line behind the prompt, and runs it."""
    with asyncio.Runner() as runner, _results_shown(commands, namespace):
        console = _Prompt(commands, namespace, runner, name)

        def run(line: str) -> None:
            print(f"{console.first}{line}")
            console.push(line)

        yield run


class _Prompt(code.InteractiveConsole):
    """Python's own console, which hands SQL and commands to `Commands`."""

    def __init__(self, commands: Commands, namespace: dict[str, Any], runner: asyncio.Runner, name: str) -> None:
        # The lines of a statement that is not complete; the base class calls `resetbuffer`.
        self._sql: list[str] = []
        self._commands = commands
        self._runner = runner
        self._name = name
        super().__init__(namespace)
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

    @property
    def first(self) -> str:
        """The text before the first line of a statement."""
        return f"{self._name}{'*' if self._commands.runner.in_transaction else ''}> "

    def raw_input(self, prompt: str = "") -> str:
        """Read a line, behind a prompt with the name of the database."""
        del prompt
        self._commands.announce()
        first = self.first
        if self._sql or self.buffer:
            return input(" " * (len(first) - 5) + "...> ")
        line = input(first)
        if not line and (suggested := self._commands.suggestion()):
            print(first + suggested)
            return suggested
        return line

    def push(self, line: str, *rest: Any, **options: Any) -> bool:
        """Take a line; say whether more lines have to follow."""
        lines = [*self._sql, *self.buffer, line]
        is_sql = bool(self._sql) or self._commands.take(line)
        # Pasted lines of Python run as typed ones do. Pasted SQL is one text.
        for each in [line] if is_sql else line.split("\n"):
            is_open = self._push(each, *rest, **options)
        if not is_open:
            self._commands.note_run("\n".join(lines))
        return is_open

    def _push(self, line: str, *rest: Any, **options: Any) -> bool:
        if self._sql or (not self.buffer and self._commands.take(line)):
            self._sql.append(line)
            text = "\n".join(self._sql)
            if line and not self._commands.is_complete(text):
                return True
            self._sql = []
            self._commands.run(text)
            return False
        return super().push(line, *rest, **options)

    def resetbuffer(self) -> None:
        """Forget the lines of a statement that is not complete."""
        super().resetbuffer()
        self._sql = []

    def runcode(self, code: types.CodeType) -> None:
        """Run compiled Python, also with `await`. Ctrl-C cancels the task that waits."""
        try:
            coroutine = types.FunctionType(code, self.locals)()
            if inspect.iscoroutine(coroutine):
                self._runner.run(coroutine)
        except SystemExit:
            raise
        except KeyboardInterrupt:
            self.write("\ncancelled\n")
        except BaseException as error:  # noqa: BLE001  # a prompt shows every error, and goes on
            if isinstance(error, self.locals["db"].errors):
                self._commands.show_error(error)
            else:
                self.showtraceback()


@contextmanager
def _results_shown(commands: Commands, namespace: dict[str, Any]) -> Iterator[None]:
    """Show a `Result` that a line of Python gives as a table."""
    before = sys.displayhook

    def display(value: object) -> None:
        if isinstance(value, Result):
            namespace["_"] = value
            commands.show(value)
        else:
            before(value)

    sys.displayhook = display
    try:
        yield
    finally:
        sys.displayhook = before


@contextmanager
def _readline(commands: Commands, namespace: dict[str, Any]) -> Iterator[None]:
    """Complete at Tab, and keep the history in the user's folder of state."""
    if not HAS_READLINE:
        yield
        return
    python = rlcompleter.Completer(namespace)
    found: list[str] = []

    def complete(text: str, state: int) -> str | None:
        if state == 0:
            before = readline.get_line_buffer()[: readline.get_endidx()]
            found[:] = _candidates(before, text)
        return found[state] if state < len(found) else None

    def _candidates(before: str, text: str) -> list[str]:
        if commands.take(before + "x" if before.endswith(" ") else before):
            word, candidates = commands.names.candidates(before)
            head = text[: len(text) - len(word)]
            return [head + candidate for candidate in candidates]
        matches: list[str] = []
        while (match := python.complete(text, len(matches))) is not None:
            matches.append(match)
        words = commands.first_words(before) if before == text else []
        return [*words, *matches]

    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n`~!@#$%^&*()-=+[{]}\\|;:'\",<>/?")
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
    if not libedit and not is_dumb_terminal():
        # Pasted lines arrive as one text. Python has turned this off for its own prompt.
        readline.parse_and_bind("set enable-bracketed-paste on")
    path = _history_path()
    with suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        readline.set_completer(None)
        readline.set_history_length(_HISTORY)
        with suppress(OSError):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            readline.write_history_file(path)


def _history_path() -> str:
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "querycrew", "history")
