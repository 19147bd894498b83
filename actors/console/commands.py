"""Commands: the lines of the prompt that are no Python, which are SQL and a few words."""

import io
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TextIO

from actors.console import tables
from actors.console.background import Background, BackgroundError
from actors.console.completion import Names
from actors.console.killing import Killer, NoSuchWorker
from actors.console.kinds import SQLITE, Kind
from actors.console.problems import block
from actors.console.progress import Progress
from actors.console.runner import Runner, opened
from actors.console.showing import say, show
from actors.console.statements import first_word, for_background, is_complete, only_reads, split, without_comments
from actors.console.visible import visible
from actors.console.watching import watch
from supervisor import (
    Query,
    Result,
    SessionClosed,
    Status,
    SupervisorRef,
    TransactionBroken,
    WorkerDied,
)

__all__ = ["HELP", "Commands"]

HELP: Final = """\
  select …          SQL just runs; `last` holds the rows that were shown
  select … &        the statement runs in the background, and the prompt goes on
  jobs              the statements in the background; `fg N` shows one, `cancel N` ends one
  begin … commit    statements in between are one transaction
  tables            the tables and views
  schema [TABLE]    the SQL that made them
  explain select …  how SQLite runs a query
  status            the crew: its workers, its queue, its times
  watch             the crew, live
  kill N            kill worker N, and see another one take its place
  timer on|off      show how long each statement takes
  help, quit

  db.ask(Query("select …", (1,)))    Python, with every public name of querycrew
  ask("select …", 1)                 the same, shorter
  await db.ask(…, block=False)       `await` works here

Ctrl-C cancels the statement that runs. Tab completes."""

_SQL: Final = frozenset(
    (
        *("alter", "analyze", "attach", "begin", "commit", "create", "delete", "detach", "drop", "end"),
        *("explain", "insert", "pragma", "reindex", "release", "replace", "rollback", "savepoint"),
        *("select", "update", "vacuum", "values", "with"),
    )
)
_OF_TRANSACTIONS: Final = ("begin", "commit", "end", "rollback", "savepoint", "release")
_ALONE: Final = frozenset(("analyze", "begin", "commit", "end", "reindex", "rollback", "vacuum"))
"""The words that are a whole statement."""
_MAY_BE_ALONE: Final = ("schema", "timer", "kill", "fg", "cancel", "steps")
"""The commands that take an argument or none."""
_PYTHON: Final = re.compile(r"\s*(?:[=,.:)\]]|[-+*/%&|^@<>!]=|is\b|in\b|if\b|and\b|or\b)")
"""How a line of Python goes on behind a name."""
_WITH: Final = re.compile(
    r"with\s+(recursive\s|[\w\"`\[\]]+\s*(\([^)]*\)\s*)?as\s+(not\s+)?(materialized\s+)?\()", re.IGNORECASE
)


class Commands:
    """Recognizes and runs the lines that are no Python.

    Nothing that a line does ends the prompt, except `quit`: an error is shown as a block, and
    Ctrl-C cancels the statement.
    """

    def __init__(
        self,
        db: SupervisorRef,
        stream: TextIO,
        killer: Killer,
        namespace: dict[str, Any],
        *,
        most: int,
        kind: Kind = SQLITE,
    ) -> None:
        self.runner = Runner(db, kind)
        self.names = Names(db, kind)
        self._kind = kind
        self.background = Background(db, most)
        self._db = db
        self._stream = stream
        self._killer = killer
        self._namespace = namespace
        self._most = most
        self._timed = False
        self._commands: Mapping[str, Callable[[str], None]] = {
            "status": self._status,
            "watch": self._watch,
            "tables": self._tables,
            "schema": self._schema,
            "explain": self._explain,
            "timer": self._timer,
            "kill": self._kill,
            "jobs": self._jobs,
            "fg": self._fg,
            "cancel": self._cancel,
            "help": self._help,
            "quit": self._quit,
            "exit": self._quit,
        }

    # --- recognizing ----------------------------------------------------------------------

    def take(self, text: str) -> bool:
        """Say whether a text is SQL or a command, and no Python.

        A name that the user has defined is Python: after `status = 1`, `status` shows 1.
        """
        text = without_comments(text).removeprefix(".").strip()
        word = first_word(text)
        typed, behind = text[: len(word)], text[len(word) :]
        if not word or typed in self._namespace or behind[:1].isidentifier() or behind[:1].isdigit():
            return False
        argument = behind.strip().rstrip(";").strip()
        if word == "with":
            return _WITH.match(text) is not None and not text.endswith(":")
        if _is_python(behind):
            return False
        if typed in self._commands:
            return bool(argument) == (word == "explain") or word in _MAY_BE_ALONE
        return word in _SQL and (bool(argument) or word in _ALONE)

    def is_complete(self, text: str) -> bool:
        """Say whether a text that `take` takes can run, or goes on in the next line."""
        return not text.endswith("\\") and is_complete(text)

    # --- running --------------------------------------------------------------------------

    def run(self, text: str) -> None:
        """Run a text that `take` takes; show its rows, or its error.

        Raises:
            SystemExit: the command was `quit`.
        """
        text = without_comments(text.replace("\\\n", "\n")).removeprefix(".").strip()
        started = time.monotonic()
        word = first_word(text)
        try:
            command = self._commands.get(word)
            if (
                command is None
                or not text.startswith(word)
                or (word == "explain" and re.match(r"explain\s+query\b", text, re.IGNORECASE))
            ):
                self._sql(text)
            else:
                command(text[len(word) :].strip().rstrip(";").strip())
        except KeyboardInterrupt:
            self._stream.write("\n")
            say(self._stream, f"cancelled after {time.monotonic() - started:.1f} s")
            self._end_transaction()
        except (NoSuchWorker, BackgroundError) as error:
            say(self._stream, str(error), style="red")
        except Exception as error:  # noqa: BLE001  # a prompt shows every error, and goes on
            block(self._stream, error, text)
            if isinstance(error, (SessionClosed, TransactionBroken, WorkerDied)):
                self._end_transaction()

    def show_error(self, error: BaseException) -> None:
        """Show an error of the crew that a line of Python has raised."""
        block(self._stream, error)

    def show(self, result: Result) -> None:
        """Show a result that a line of Python has given."""
        show(result, self._stream, Progress(self._stream, on=False), self._most)

    def table_of(self, result: Result) -> str:
        """Return a result as a table for the terminal, with its codes for colours."""
        text = io.StringIO()
        text.isatty = self._stream.isatty  # type: ignore[method-assign]  # so that it has colours
        show(result, text, Progress(text, on=False), self._most)
        return text.getvalue().rstrip("\n")

    def first_words(self, beginning: str) -> list[str]:
        """Return the words that begin a line which is no Python, in the case of the beginning."""
        words = sorted({*self._commands, *_SQL})
        upper = beginning[:1].isupper()
        return [word.upper() if upper else word for word in words if word.startswith(beginning.lower())]

    def begin(self) -> None:
        """Write the lines below the banner of the prompt."""

    def suggestion(self) -> str:
        """Return a line that the prompt offers to run; here none."""
        return ""

    def note_run(self, text: str) -> None:
        """Note that the prompt has run a text, be it SQL, a command or Python."""

    def close(self) -> None:
        """Roll back the transaction that is open, cancel the statements that run, and say so."""
        self._end_transaction()
        self.background.on_end = lambda: None
        if cancelled := self.background.close():
            say(self._stream, f"{tables.in_words(cancelled, 'statement')} in the background cancelled")

    def _end_transaction(self) -> None:
        if self.runner.close():
            say(self._stream, "the transaction was rolled back")

    def _sql(self, text: str) -> None:
        before = for_background(text)
        if before is not None:
            self._start(before)
            return
        for statement in split(text):
            with (
                Progress(self._stream, timed=self._timed) as progress,
                opened(self.runner.run(statement.sql)) as answer,
            ):
                last = show(answer, self._stream, progress, self._most)
            self._namespace["last"] = last
            if not only_reads(statement.sql):
                self.names.forget()
                if not last.columns and not last.rowcount:
                    say(self._stream, f"done, {progress.seconds:.3f} s" if self._timed else "done")
            if hint := self.runner.hint(statement.sql):
                say(self._stream, hint)

    def _start(self, text: str) -> None:
        """Run a statement in the background."""
        statements = list(split(text))
        if self.runner.in_transaction:
            message = "a transaction is open, and its statements run one after the other: COMMIT or ROLLBACK first"
            raise BackgroundError(message)
        if len(statements) != 1 or first_word(text) in _OF_TRANSACTIONS:
            message = "`&` stands behind one statement, which is a transaction of its own"
            raise BackgroundError(message)
        job = self.background.start(statements[0].sql)
        say(self._stream, f"[{job.number}] runs in the background; `fg {job.number}` shows its result")
        if not only_reads(text):
            self.names.forget()
        if "':memory:'" in self._db.ask(Status()).database:
            say(self._stream, "a database in memory has one worker: the next statement waits for this one")

    def announce(self) -> None:
        """Say which statements in the background have ended since the last call."""
        for line in self.background.news():
            say(self._stream, line)

    def _jobs(self, argument: str) -> None:
        del argument
        self.background.news()
        for job in self.background.all():
            self._stream.write(job.line() + "\n")
        if not self.background.all():
            say(self._stream, "nothing runs in the background: write `&` behind a statement")

    def _fg(self, argument: str) -> None:
        job = self.background.find(argument)
        say(self._stream, job.line())
        try:
            with Progress(self._stream) as progress:
                result = self.background.take(job)
                self._namespace["last"] = show(result, self._stream, progress, self._most)
        except self._db.errors as error:
            block(self._stream, error, job.sql)
            return
        if result.truncated:
            say(self._stream, "there are more rows: a statement in the background keeps the rows of one table")

    def _cancel(self, argument: str) -> None:
        job = self.background.find(argument)
        if not self.background.cancel(job):
            say(self._stream, f"[{job.number}] has ended already")
        self.announce()

    def _status(self, argument: str) -> None:
        del argument
        self._stream.write(f"{_visible_lines(str(self._db.ask(Status())))}\n")

    def _watch(self, argument: str) -> None:
        del argument
        watch(self._db, killer=self._killer)

    def _tables(self, argument: str) -> None:
        del argument
        result = self._db.ask(Query(self._kind.tables))
        if result:
            tables.print_rows(self._stream, result.columns, result.rows)
        else:
            say(self._stream, "there is no table")

    def _schema(self, argument: str) -> None:
        name = argument.strip("\"'`[]") or None
        result = self._db.ask(self._kind.schema_of(name))
        for (sql,) in result.rows:
            self._stream.write(f"{_visible_lines(sql.rstrip(';'))};\n")
        if not result:
            say(self._stream, f"there is no table {visible(name)}" if name else "there is no table")

    def _explain(self, argument: str) -> None:
        plan = self._db.ask(Query(f"{self._kind.explain} {argument}"))
        if self._kind is not SQLITE:
            for row in plan.rows:
                self._stream.write(f"{_visible_lines(str(row[-1]))}\n")
            return
        depth = {0: 0}
        for id_, parent, _, detail in plan.rows:
            depth[id_] = depth.get(parent, 0) + 1
            self._stream.write(f"{'   ' * (depth[id_] - 1)}└─ {visible(detail)}\n")
        if not plan:
            say(self._stream, "SQLite has no plan for this statement")

    def _timer(self, argument: str) -> None:
        if argument not in ("on", "off"):
            say(self._stream, f"the timer is {'on' if self._timed else 'off'}: write `timer on` or `timer off`")
            return
        self._timed = argument == "on"

    def _kill(self, argument: str) -> None:
        if not argument.isdecimal():
            ids = ", ".join(str(worker.id) for worker in self._db.ask(Status()).workers)
            say(self._stream, f"write `kill N`; the workers are: {ids}")
            return
        self._stream.write(f"{_visible_lines(self._killer.kill(self._db, int(argument)))}\n")
        if "':memory:'" in self._db.ask(Status()).database:
            say(self._stream, "a database in memory ends with its worker: this one is empty now")
        self.names.forget()

    def _help(self, argument: str) -> None:
        del argument
        self._stream.write(HELP + "\n")

    def _quit(self, argument: str) -> None:
        del argument
        raise SystemExit


def _is_python(behind: str) -> bool:
    return _PYTHON.match(behind) is not None


def _visible_lines(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))
