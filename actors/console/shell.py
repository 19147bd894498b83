"""`querycrew DATABASE "SQL"`: run SQL, write the rows, and end."""

import io
import os
import sys
from collections.abc import Callable
from typing import TextIO

from actors.console import tables
from actors.console.arguments import Options, open_crew
from actors.console.failure import fail
from actors.console.formats import WRITERS, Format
from actors.console.kinds import SQLITE
from actors.console.problems import block, one_line
from actors.console.progress import Progress
from actors.console.runner import Runner, opened
from actors.console.showing import show
from actors.console.statements import Statement, gives_rows, only_reads, split
from actors.console.visible import visible
from supervisor import Result

__all__ = ["run_sql"]

_ENOUGH = 5  # hints of one run that are written


def run_sql(options: Options, text: str) -> int:
    """Run the statements of `text`; return the exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C; the statement that ran is cancelled.
        BrokenPipeError: nobody reads the output; the statement that ran is cancelled.
    """
    statements = list(split(text))
    creates = not all(only_reads(statement.sql) for statement in statements)
    if not creates and (missing := _missing(options)):
        return fail(f"there is no database {visible(missing)}: a statement that writes creates it")
    try:
        db = open_crew(options, create=creates, size=1)
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        return fail(one_line(error))
    with db:
        run = _Run(options, Runner(db, options.kind))
        try:
            return run.all(statements, text)
        except BrokenPipeError:
            raise
        except db.errors as error:
            return run.fail(error)
        except (ValueError, TypeError, OverflowError, MemoryError, OSError) as error:
            return run.fail(error)


def _missing(options: Options) -> str | None:
    """Return the path of a file that is not there; a URI is left to SQLite."""
    path = options.database
    is_file = options.kind is SQLITE and not options.in_memory
    if not is_file or path is None or path.startswith("file:") or "://" in path or os.path.exists(path):
        return None
    return path


class _Run:
    """One run of the command: where it writes, and how far it has come."""

    def __init__(self, options: Options, runner: Runner) -> None:
        self._options = options
        self._runner = runner
        terminal = sys.stdout.isatty()
        self._format = options.format or ("table" if terminal else "csv")
        self._screen = sys.stdout if self._format == "table" else None
        # Rows that are written to the terminal would be mixed with the line of the progress.
        self._shows_progress = self._screen is not None or not terminal
        if self._screen is None:
            self._writer: Format = WRITERS[self._format](_write_to(sys.stdout), header=options.header)
        elif not tables.HAS_RICH:
            print(f"querycrew: {tables.MISSING}", file=sys.stderr)
        # The SQL that an error is about: the whole text, or one statement of it.
        self._text = ""
        self._hints = 0

    def all(self, statements: list[Statement], text: str) -> int:
        """Run all statements; return the exit code."""
        if len(statements) > 1 and not any(gives_rows(statement.sql) for statement in statements):
            self._text = text
            self._run(text, script=True)
            return 0
        for statement in statements:
            # The text up to its end, so that the lines are counted from the beginning.
            self._text = _alone(text, statement)
            self._run(statement.sql)
            if len(statements) > 1 and (hint := self._runner.hint(statement.sql)) and self._hints < _ENOUGH:
                self._hints += 1
                print(f"querycrew: note: {hint}", file=sys.stderr)
        if self._runner.close():
            return fail("the SQL ends inside a transaction, which was rolled back: COMMIT is missing")
        return 0

    def _run(self, sql: str, *, script: bool = False) -> None:
        with (
            Progress(sys.stderr, on=self._shows_progress, timed=self._screen is not None) as progress,
            opened(self._runner.run_script(sql) if script else self._runner.run(sql)) as answer,
        ):
            if self._screen is not None:
                show(answer, self._screen, progress, self._options.rows)
            elif answer.columns:
                self._writer.begin(answer.columns)
                for chunk in [answer] if isinstance(answer, Result) else answer.chunks():
                    self._writer.rows(chunk.rows)
                    progress.rows += len(chunk.rows)
                self._writer.end()
        sys.stdout.flush()

    def fail(self, error: BaseException) -> int:
        """Write the error; return the exit code."""
        sys.stdout.flush()
        if sys.stderr.isatty():
            block(sys.stderr, error, self._text or None)
            return 1
        return fail(one_line(error, self._text or None))


def _alone(text: str, statement: Statement) -> str:
    """Return the text with nothing but this statement, on its lines and in its columns."""
    before = text[: statement.start]
    line = before.rpartition("\n")[2]
    return "\n" * before.count("\n") + " " * len(line) + statement.sql


def _write_to(stream: TextIO) -> Callable[[str], object]:
    """Return a function that writes text for another program: UTF-8, with plain line ends."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream.write
    stream.flush()
    if stream.isatty():
        # A terminal must not obey the values of a database.
        return lambda text: stream.write("\n".join(map(visible, text.split("\n"))))
    binary = stream.buffer

    def write(text: str) -> None:
        binary.write(text.encode("utf-8", "replace"))

    return write
