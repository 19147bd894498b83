"""The demo: a crew at work on real data, and the death of one of its workers.

load ─► send all searches at once ─► watch ─► kill the worker of the doomed search ─► its job is
                                       │      rejected, a new worker takes its place, others go on
                                       └────► status, summary
"""

import json
import logging
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import apsw
import pykka

from actors.console import characters
from actors.console.kill_switch import KillSwitch
from actors.console.screen import BAD, DIM, GOOD, STRONG, Screen
from actors.console.searches import DOOMED, SEARCHES, Search
from actors.console.signals import Signals
from supervisor import (
    CrewStatus,
    Query,
    QuerycrewError,
    Reply,
    Result,
    Status,
    Supervisor,
    SupervisorRef,
    SupervisorStopped,
    WorkerDied,
    WorkerStatus,
)

__all__ = ["FAILURES", "demo"]

FAILURES: Final = (QuerycrewError, apsw.Error, pykka.Timeout, OSError)
"""Errors, mostly of the temporary file, that the command shows without a traceback."""

_BATCH = 2000  # characters that are loaded with one statement
_LINE_EACH = 15  # batches; without a terminal, a line reports the loading after so many
_SHORT = 5.0  # seconds; a shorter demo does not load the ideographs
_LOADING = 0.35  # the part of the time that loading may take
_TICK = 0.08  # seconds from one look at the crew to the next
_ENDING = 0.2  # seconds to stop the crew and remove the file


def demo(seconds: float) -> int:
    """Run the demo on standard output, and return the exit code.

    The temporary file is removed and the crew is stopped, also after an error or a signal.

    Args:
        seconds: how long it may take; the searches that still run then are interrupted.
    """
    began = time.monotonic()
    # The demo shows the crew's warnings in its own words.
    logging.basicConfig(handlers=[logging.NullHandler()])
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="querycrew-", ignore_cleanup_errors=True))
        kill_switch = stack.enter_context(KillSwitch())
        db = Supervisor.start(Path(folder) / "unicode.db", size=_size())
        stack.callback(db.shutdown, cancel_pending=True, timeout=0)
        stack.callback(signals.ignore)
        return _Demo(db, kill_switch, Screen(sys.stdout), began, seconds).run()


def _size() -> int:
    """Return the number of workers: at least two, so that one goes on while the other dies."""
    return min(4, max(2, os.cpu_count() or 2))


class _Demo:
    """One run of the demo. It runs in the main thread, which never waits for a search."""

    def __init__(
        self, db: SupervisorRef, kill_switch: KillSwitch, screen: Screen, began: float, seconds: float
    ) -> None:
        self._db = db
        self._kill_switch = kill_switch
        self._screen = screen
        self._began = began
        self._seconds = seconds
        self._ends = began + seconds - _ENDING
        # Every search that was sent, with its reply.
        self._replies: dict[Search, Reply[Result]] = {}
        # Searches in the order in which they were settled. The crew's threads put them in.
        self._settled: SimpleQueue[Search] = SimpleQueue()
        self._titles = {str(Query(search.sql)): search.title for search in (DOOMED, *SEARCHES)}
        self._sent_at = 0.0
        # The ids of the killed worker and of its replacement; 0 means not yet.
        self._killed = 0
        self._replacement = 0
        # All workers at the time of the kill, and that time.
        self._known: set[int] = set()
        self._killed_at = 0.0

    def run(self) -> int:
        self._introduce()
        self._load()
        self._send()
        self._watch()
        return self._conclude()

    # --- loading --------------------------------------------------------------------------

    def _introduce(self) -> None:
        size = self._db.ask(Status()).size
        self._screen.say(
            f"querycrew demo: {size} workers on one SQLite file, for {self._seconds:g} seconds at most", style=STRONG
        )

    def _load(self) -> None:
        own, by_rule = characters.named_codes()
        codes = own if self._seconds < _SHORT else own + by_rule
        self._written(self._db.ask(Query(characters.CREATE), block=False))
        stop_at = self._began + self._seconds * _LOADING
        loaded = 0
        batch: Reply[Result] | None = None
        for start in range(0, len(codes), _BATCH):
            rows = json.dumps([characters.row(code) for code in codes[start : start + _BATCH]])
            # A worker writes one batch while this thread makes the next one ready.
            loaded += self._written(batch)
            if loaded and time.monotonic() > stop_at:
                batch = None
                break
            self._show_loading(loaded, len(codes))
            batch = self._db.ask(Query(characters.INSERT, (rows,)), block=False)
        loaded += self._written(batch)
        self._screen.draw([])
        self._report_loaded(loaded, len(own) + len(by_rule))

    def _written(self, batch: Reply[Result] | None) -> int:
        """Wait for a statement, and return how many rows it wrote."""
        if batch is None:
            return 0
        try:
            return batch.get(timeout=max(0.0, self._ends - time.monotonic())).rowcount
        except pykka.Timeout:
            message = f"the temporary file could not be written within {self._seconds:g} seconds"
            raise TimeoutError(message) from None

    def _show_loading(self, loaded: int, wanted: int) -> None:
        if self._screen.live:
            self._draw_bar([], loaded / wanted, f" {loaded:,} of {wanted:,} characters")
        elif loaded and loaded % (_BATCH * _LINE_EACH) == 0:
            self._screen.say(f"  {loaded:,} of {wanted:,} characters")

    def _report_loaded(self, loaded: int, all_named: int) -> None:
        version, took = characters.VERSION, time.monotonic() - self._began
        if loaded == all_named:
            text = f"loaded the {loaded:,} named characters of Unicode {version} in {took:.1f} s"
        else:
            text = f"loaded {loaded:,} of the {all_named:,} named characters of Unicode {version} in {took:.1f} s"
        self._screen.say(text, hang="  ")

    # --- searching ------------------------------------------------------------------------

    def _send(self) -> None:
        self._sent_at = time.monotonic()
        for search in (DOOMED, *SEARCHES):
            reply = self._db.ask(Query(search.sql), block=False)
            self._replies[search] = reply
            reply.add_done_callback(partial(_put, self._settled, search))
        self._screen.say(f"sent {len(self._replies)} slow searches at once")

    def _watch(self) -> None:
        """Show the workers until every search is settled, or the time is over."""
        reported = 0
        while time.monotonic() < self._ends:
            status = self._db.ask(Status())
            self._kill_if_due(status)
            self._report_replacement(status)
            if reported == len(self._replies) and self._replacement:
                break
            self._draw(status, reported)
            # After the kill it looks more often, to show how soon the replacement comes.
            pause = 0.002 if self._killed and not self._replacement else _TICK
            for search in _drain(self._settled, pause):
                reported += 1
                self._report(search)
        self._screen.draw([])

    def _kill_if_due(self, status: CrewStatus) -> None:
        if self._killed:
            return
        query = str(Query(DOOMED.sql))
        for worker in status.workers:
            if worker.job == query and worker.seconds >= min(1.0, self._seconds / 8):
                self._killed, self._known = worker.id, {other.id for other in status.workers}
                self._screen.say(
                    f"killing worker {worker.id}, {worker.seconds:.1f} s into its search", hang="  ", style=BAD
                )
                self._killed_at = time.monotonic()
                self._kill_switch.is_on = True

    def _report_replacement(self, status: CrewStatus) -> None:
        """Report the worker that has taken the place of the killed worker."""
        if not self._killed or self._replacement or not self._replies[DOOMED].done():
            return
        for worker in status.workers:
            if worker.id not in self._known and worker.state != "starting":
                self._replacement = worker.id
                after = (time.monotonic() - self._killed_at) * 1000
                self._screen.say(
                    f"worker {worker.id} has taken the place of worker {self._killed}, {after:.0f} ms after the kill",
                    hang="  ",
                    style=GOOD,
                )
                return

    def _report(self, search: Search) -> None:
        """Report how a search ended."""
        reply = self._replies[search]
        error = reply.exception(0)
        if error is None:
            after = time.monotonic() - self._sent_at
            answer = reply.get().scalar() or "nothing"
            self._screen.say(f"{after:5.1f} s  {search.title}: {answer}", hang=" " * 9)
            return
        self._screen.say(f"the search for {search.title} is rejected:", indent="  ", hang="  ", style=BAD)
        self._screen.say(f"{type(error).__name__}: {error}", indent="    ")
        self._screen.say(f"executed={getattr(error, 'executed', None)}", indent="    ")

    # --- the lines that are redrawn -------------------------------------------------------

    def _draw(self, status: CrewStatus, settled: int) -> None:
        lines = [self._worker_line(worker) for worker in status.workers]
        searches = len(self._replies)
        passed = time.monotonic() - self._began
        text = f" {settled} of {searches} settled, {status.queued} queued, {passed:.1f} s"
        self._draw_bar(lines, settled / searches, text)

    def _worker_line(self, worker: WorkerStatus) -> str:
        what = worker.state if worker.job is None else self._titles.get(worker.job, worker.job)
        return f"{worker.seconds:5.1f} s  worker {worker.id}: {what}"

    def _draw_bar(self, lines: list[str], part: float, text: str) -> None:
        width = max(5, min(30, self._screen.columns - len(text)))
        self._screen.draw([*lines, self._screen.bar(part, width) + text])

    # --- the end --------------------------------------------------------------------------

    def _conclude(self) -> int:
        screen = self._screen
        screen.say("")
        screen.say(str(self._db.ask(Status())), hang="    ", style=DIM)
        screen.say("")
        self._db.shutdown(cancel_pending=True, timeout=0)
        replies = self._replies.values()
        errors = [reply.exception(0) for reply in replies if reply.done()]
        answered = errors.count(None)
        died = sum(isinstance(error, WorkerDied) for error in errors)
        cut_off = sum(isinstance(error, SupervisorStopped) for error in errors)
        failed = len(errors) - answered - died - cut_off
        counts = [
            f"{answered} searches answered",
            f"{died} rejected with its worker",
            *([f"{cut_off} cut off at the time limit"] if cut_off else []),
            *([f"{failed} failed"] if failed else []),
            f"{len(replies) - len(errors)} unanswered",
        ]
        passed = time.monotonic() - self._began
        screen.say(f"{', '.join(counts)}, in {passed:.1f} s", hang="  ", style=STRONG)
        return 1 if failed else 0


def _put(settled: "SimpleQueue[Search]", search: Search, reply: Any) -> None:
    del reply
    settled.put(search)


def _drain(settled: "SimpleQueue[Search]", seconds: float) -> list[Search]:
    """Wait up to so many seconds for settled searches, and return all of them."""
    found: list[Search] = []
    try:
        found.append(settled.get(timeout=seconds))
        while True:
            found.append(settled.get_nowait())
    except Empty:
        return found
