"""`%sql` and `%%sql`: SQL in a cell of a notebook, or at the prompt of IPython.

`%load_ext actors.console.notebook` adds both. They ask the crew in the variable `db`.
"""

import time
from functools import partial
from typing import Any, Final

import pykka
from IPython.core.error import UsageError
from IPython.display import Pretty, display

from actors.console import tables
from actors.console.kinds import is_refused_write
from actors.console.problems import described
from actors.console.statements import only_reads, placeholders, split
from supervisor import Query, Reply, Result, Stream, SupervisorRef

__all__ = ["load_ipython_extension"]

_BEGINS: Final = 0.7  # seconds that pass in silence
_EVERY: Final = 0.25  # seconds


def load_ipython_extension(shell: Any) -> None:
    """Add the magics. IPython calls this for `%load_ext`."""
    shell.register_magic_function(partial(_sql, shell), "line_cell", "sql")


def _sql(shell: Any, line: str, cell: str | None = None) -> Result | None:
    """Run SQL on the crew in `db`, and return the rows of its last statement.

    `%sql select …` is one line. Below `%%sql` stand statements, and `%%sql other` asks the crew in
    the variable `other`. `:name` stands for the value of the variable `name`.

    Raises:
        UsageError: there is no crew, no SQL, or a variable is missing.
        Exception: the crew's error, or the driver's.
    """
    name, text = ("db", line) if cell is None else (line.strip() or "db", cell)
    db = shell.user_ns.get(name)
    if not isinstance(db, SupervisorRef):
        message = f"{name!r} is no crew: write `{name} = Supervisor.start(…)` first"
        raise UsageError(message)
    result: Result | None = None
    statements = list(split(text))
    if not statements:
        message = "there is no SQL: write `%sql select …`"
        raise UsageError(message)
    for statement in statements:
        try:
            result = _run(shell, db, statement.sql)
        except UsageError:
            raise
        except Exception as error:
            # IPython shows these lines in the place of its own frames.
            error._render_traceback_ = partial(list, described(error, statement.sql))  # type: ignore[attr-defined]
            raise
        except KeyboardInterrupt as interrupt:
            told = ["KeyboardInterrupt: the statement is cancelled"]
            interrupt._render_traceback_ = partial(list, told)  # type: ignore[attr-defined]
            raise
    return result


def _values(names: dict[str, Any], sql: str) -> dict[str, Any] | tuple[()]:
    """Return the variables that a statement names as `:name`."""
    wanted = placeholders(sql)
    missing = [name for name in wanted if name not in names]
    if missing:
        message = f"there is no variable {missing[0]!r} for :{missing[0]}"
        raise UsageError(message)
    return {name: names[name] for name in wanted} or ()


def _run(shell: Any, db: SupervisorRef, sql: str) -> Result:
    """Run one statement, and show the time and the rows while it takes long."""
    params = _values(shell.user_ns, sql)
    progress = _Progress(on=hasattr(shell, "kernel"))  # a terminal cannot replace its text
    changed: Result
    try:
        if not only_reads(sql):
            changed = progress.wait(db.ask(Query(sql, params), block=False))
            return changed
        try:
            stream = progress.wait(db.ask(Stream(sql, params), block=False))
        except ValueError as error:
            if not is_refused_write(error):
                raise
            # The statement writes, though it begins like a query.
            changed = progress.wait(db.ask(Query(sql, params), block=False))
            return changed
        rows: list[tuple[Any, ...]] = []
        with stream:
            for chunk in stream.chunks():
                rows += chunk.rows
                progress.draw(len(rows))
        return Result(stream.columns, rows, len(rows))
    finally:
        progress.clear()


class _Progress:
    """A line of the output that says how long a statement takes, and how many rows there are."""

    def __init__(self, *, on: bool) -> None:
        self._on = on
        self._started_at = time.monotonic()
        self._drawn_at = self._started_at + _BEGINS - _EVERY
        self._line: Any = None

    def wait(self, reply: Reply[Any]) -> Any:
        """Wait for an answer; draw meanwhile. An interrupt cancels the statement."""
        try:
            while True:
                try:
                    return reply.get(timeout=_EVERY)
                except pykka.Timeout:
                    if reply.done():
                        raise  # the error of a deadline is such an error, too
                    self.draw(0)
        except KeyboardInterrupt:
            reply.cancel()
            raise

    def draw(self, rows: int) -> None:
        """Draw the line, unless it was drawn a moment ago."""
        now = time.monotonic()
        if not self._on or now - self._drawn_at < _EVERY:
            return
        self._drawn_at = now
        counted = f"   {tables.in_words(rows)}" if rows else ""
        self._show(f"{now - self._started_at:.1f} s{counted}   an interrupt cancels")

    def clear(self) -> None:
        """Remove the line."""
        if self._line is not None:
            self._show("")

    def _show(self, text: str) -> None:
        if self._line is None:
            self._line = display(Pretty(text), display_id=True)
        else:
            self._line.update(Pretty(text))
