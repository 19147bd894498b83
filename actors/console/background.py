"""Statements in the background: a statement with `&` behind it runs while the prompt goes on."""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pykka

from actors.console import tables
from actors.console.problems import one_line
from actors.console.visible import visible
from supervisor import Query, QueryCancelled, Reply, Result, SupervisorRef

__all__ = ["Background", "BackgroundError", "BackgroundJob"]

_PATIENCE = 2.0  # seconds for the end of a statement that was cancelled
_SHOWN = 50  # characters of the SQL that a line shows


class BackgroundError(Exception):
    """A statement cannot go to the background, or is not there. The text says why."""


@dataclass
class BackgroundJob:
    """One statement in the background."""

    number: int
    sql: str
    reply: Reply[Result]
    started_at: float = field(default_factory=time.monotonic)
    ended_at: float | None = None
    """When the reply was settled; `None` while the statement runs or waits."""

    @property
    def has_more_to_show(self) -> bool:
        """Whether the job has rows, or an error with a place in the SQL, beside its line."""
        error = self.reply.exception(0)
        return bool(self.reply.get(timeout=0).columns) if error is None else not isinstance(error, QueryCancelled)

    def line(self) -> str:
        """Return the job as one line: its number, its state, and its SQL."""
        sql = visible(" ".join(self.sql[: 4 * _SHOWN].split()))
        sql = sql if len(sql) <= _SHOWN else sql[: _SHOWN - 1] + "…"
        return f"[{self.number}] {self._state()}: {sql}"

    def _state(self) -> str:
        if self.ended_at is None:
            return f"runs since {time.monotonic() - self.started_at:.1f} s"
        took = f"{self.ended_at - self.started_at:.1f} s"
        error = self.reply.exception(0)
        if isinstance(error, QueryCancelled):
            return f"cancelled after {took}"
        if error is not None:
            return f"failed after {took}, {one_line(error, self.sql)}"
        result = self.reply.get(timeout=0)
        if result.columns:
            more = "more than " if result.truncated else ""
            return f"done after {took}, {more}{tables.in_words(len(result.rows))}"
        return f"done after {took}" + (f", {tables.in_words(result.rowcount)} changed" if result.rowcount else "")


class Background:
    """The statements in the background, with the numbers 1, 2, 3 and so on."""

    def __init__(self, db: SupervisorRef, most: int) -> None:
        self._db = db
        self._most = most
        self._jobs: dict[int, BackgroundJob] = {}
        # The jobs that have ended and are not announced. Workers add them.
        self._ended: deque[BackgroundJob] = deque()
        self._last = 0
        self.on_end: Callable[[], object] = _nothing
        """Called when a statement has ended, in the thread of its worker."""

    def start(self, sql: str) -> BackgroundJob:
        """Hand a statement to the crew, and return at once."""
        reply = self._db.ask(Query(sql, max_rows=self._most or None), block=False)
        self._last += 1
        job = self._jobs[self._last] = BackgroundJob(self._last, sql, reply)
        reply.add_done_callback(lambda _: self._note_end(job))
        return job

    def _note_end(self, job: BackgroundJob) -> None:
        job.ended_at = time.monotonic()
        self._ended.append(job)
        self.on_end()

    def all(self) -> list[BackgroundJob]:
        """Return all jobs whose results were not taken."""
        return list(self._jobs.values())

    def news(self) -> list[str]:
        """Return a line for each job that has ended since the last call."""
        lines: list[str] = []
        with suppress(IndexError):
            while True:
                job = self._ended.popleft()
                if job.number in self._jobs:  # else `fg` has shown it
                    lines.append(job.line())
                if not job.has_more_to_show:
                    self._jobs.pop(job.number, None)
        return lines

    def find(self, number: str) -> BackgroundJob:
        """Return the job with this number; without a number, the job that was started last.

        Raises:
            BackgroundError: there is none.
        """
        jobs = self.all()
        found = [job for job in jobs if not number or number.removeprefix("%") == str(job.number)]
        if not found:
            numbers = ", ".join(str(job.number) for job in jobs)
            is_there = f"the numbers are: {numbers}" if jobs else "write `&` behind a statement"
            message = f"no statement in the background has this number; {is_there}"
            raise BackgroundError(message)
        return found[-1]

    def take(self, job: BackgroundJob) -> Result:
        """Wait for the answer of a job, and forget the job.

        Raises:
            KeyboardInterrupt: Ctrl-C; the statement is cancelled.
            Exception: the error of the statement.
        """
        try:
            return job.reply.get()
        except KeyboardInterrupt:
            job.reply.cancel()
            raise
        finally:
            self._jobs.pop(job.number, None)

    def cancel(self, job: BackgroundJob) -> bool:
        """Cancel a job, and wait a moment for its end; say whether it had not ended before."""
        if not job.reply.cancel():
            return False
        with suppress(pykka.Timeout):
            job.reply.exception(_PATIENCE)
        return True

    def close(self) -> int:
        """Cancel all statements that run; return how many."""
        return sum(job.reply.cancel() for job in self.all())


def _nothing() -> None:
    """Do nothing."""
