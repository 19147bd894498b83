"""The rows of a statement on a terminal: a table, and below it how many rows there are."""

from typing import TYPE_CHECKING, TextIO

from actors.console import tables
from actors.console.progress import Progress
from supervisor import Result

if TYPE_CHECKING:
    from supervisor import RowStream

__all__ = ["say", "show"]


def show(answer: "RowStream | Result", stream: TextIO, progress: Progress, most: int) -> Result:
    """Write an answer: a table of the first rows, or how many rows were changed.

    The table is written as soon as its rows are there. The rows that follow are counted and
    dropped. Ctrl-C ends the counting, and the table stays.

    Args:
        answer: the answer of the crew.
        stream: the terminal, or a file.
        progress: the line that shows how many rows there are.
        most: how many rows the table may have; 0 for all.

    Returns:
        The rows that the table shows.
    """
    if isinstance(answer, Result):
        first, complete = answer.rows[:most] if most else answer.rows, True
        progress.rows = len(answer.rows)
    else:
        first, complete = _first(answer, progress, most)
    if complete:
        progress.stop()
    kept = Result(answer.columns, first, len(first), getattr(answer, "lastrowid", None))
    if not answer.columns:
        changed = answer.rowcount if isinstance(answer, Result) else 0
        kept.rowcount = changed
        if changed:
            say(stream, f"{tables.in_words(changed)} changed{_time(progress)}")
        return kept
    with progress.paused():
        shown = tables.print_rows(stream, answer.columns, first)
        stream.flush()
    if not complete:
        try:
            _count(answer, progress)
        except KeyboardInterrupt:
            progress.stop()
            say(stream, f"(more than {tables.in_words(progress.rows)}, the first {shown:,} shown{_time(progress)})")
            raise
        progress.stop()
    kept.truncated = len(first) < progress.rows
    cut = f", the first {shown:,} shown" if shown < progress.rows else ""
    say(stream, f"({tables.in_words(progress.rows)}{cut}{_time(progress)})")
    return kept


def _first(answer: "RowStream", progress: Progress, most: int) -> tuple[list[tuple[object, ...]], bool]:
    """Return the first rows, and whether these are all."""
    rows: list[tuple[object, ...]] = []
    for chunk in answer.chunks():
        progress.rows += len(chunk.rows)
        rows += chunk.rows
        if most and len(rows) > most:
            return rows[:most], False
    return rows, True


def _count(answer: object, progress: Progress) -> None:
    for chunk in answer.chunks():  # type: ignore[attr-defined]  # a stream, since its rows are not complete
        progress.rows += len(chunk.rows)


def _time(progress: Progress) -> str:
    return f", {progress.seconds:.3f} s" if progress.timed else ""


def say(stream: TextIO, text: str, style: str = "dim") -> None:
    """Write a line that is no data: dim on a terminal, or in another style of rich."""
    if not tables.HAS_RICH:
        stream.write(text + "\n")
        return
    from rich.text import Text

    tables.console_of(stream).print(Text(text, style=style))
