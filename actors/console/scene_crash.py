"""The scene `crash`: searches run side by side, and the worker of one search is killed.

send all searches ─► watch ─► kill -9 the worker of the doomed search ─► its job gets an error,
                       │      another worker takes its place, the other searches go on
                       └────► all searches are answered
"""

import time
from typing import Final

from actors.console.demo_crew import SIZE, DemoCrew, label_of, worker_rows
from actors.console.searches import DOOMED, SEARCHES, SLICES, Search
from actors.console.stage import Row
from actors.console.visible import visible
from supervisor import CrewStatus, Query, Reply, Result, WorkerDied, WorkerStatus

__all__ = ["play"]

_WARNED: Final = 1.2  # seconds of the usual demo after which the screen announces the kill
_KILLED: Final = 2.2  # seconds of the usual demo that the doomed search runs
_PATIENCE: Final = 20.0  # seconds in which a replacement comes, also on a busy machine
_SOON: Final = 0.004  # seconds between two looks while the replacement is awaited

_CODE: Final = 'db = Supervisor.start(ChildProcess("unicode.db"), size=4)'


def play(crew: DemoCrew) -> None:
    """Show the searches and the death of a worker."""
    how = f"{SIZE} child processes, and kill -9" if crew.in_children else f"{SIZE} threads, and end one"
    crew.stage.scene(f"Search side by side, in {how}", _CODE)
    _Crash(crew).run()
    crew.rest(1.5)


class _Crash:
    """One run of the scene. The main thread never waits for a search."""

    def __init__(self, crew: DemoCrew) -> None:
        self._crew = crew
        self._stage = crew.stage
        self._sent_at = time.monotonic()
        self._replies: dict[Search, Reply[Result]] = {}
        # The searches whose end was reported.
        self._reported: set[Search] = set()
        # The killed worker and the time of the kill. `None` means not yet.
        self._killed: WorkerStatus | None = None
        self._killed_at = 0.0
        # The ids of all workers at the time of the kill.
        self._known: set[int] = set()
        self._replacement: WorkerStatus | None = None
        # Milliseconds from the kill to the replacement.
        self._gap = 0.0

    def run(self) -> None:
        for search in (DOOMED, *SEARCHES):
            self._crew.name(search.sql, search.title)
            self._replies[search] = self._crew.db.ask(Query(search.sql), block=False)
        self._stage.note(f"sent {len(self._replies)} searches at once")
        while len(self._reported) < len(self._replies) or self._awaits_replacement:
            self._step(self._crew.status())
            self._crew.tick(*([_SOON] if self._awaits_replacement else []))
        self._stage.keep(self._search_rows())
        self._count()

    def _step(self, status: CrewStatus) -> None:
        doomed = self._doomed_worker(status)
        if doomed is not None and doomed.seconds >= self._crew.pace.seconds(_KILLED):
            self._kill(doomed, status)
        self._look_for_the_replacement(status)
        for search, reply in self._replies.items():
            if reply.done() and search not in self._reported:
                self._report(search, reply)
        self._stage.draw([*self._search_rows(doomed), Row(""), *worker_rows(self._crew, status)])

    @property
    def _awaits_replacement(self) -> bool:
        """Whether a worker is dead and has no replacement. This ends, also if none can start."""
        if self._killed is None or self._replacement is not None:
            return False
        return time.monotonic() - self._killed_at < _PATIENCE

    # --- the kill -------------------------------------------------------------------------

    def _doomed_worker(self, status: CrewStatus) -> WorkerStatus | None:
        """Return the worker that runs the doomed search and lives."""
        query = str(Query(DOOMED.sql))
        running = (worker for worker in status.workers if worker.job == query)
        return next(running, None) if self._killed is None else None

    def _kill(self, worker: WorkerStatus, status: CrewStatus) -> None:
        self._killed, self._known = worker, {each.id for each in status.workers}
        how = "its thread ends" if worker.pid is None else f"kill -9 {worker.pid}"
        self._stage.say(f"{how}: {label_of(worker)}, {worker.seconds:.1f} s into its search", "bad")
        self._killed_at = time.monotonic()
        self._crew.kill(worker)

    def _look_for_the_replacement(self, status: CrewStatus) -> None:
        killed = self._killed
        if killed is None or self._replacement is not None or not self._replies[DOOMED].done():
            return
        for worker in status.workers:
            if worker.id not in self._known and worker.role == killed.role and worker.state != "starting":
                self._replacement, self._gap = worker, 1000 * (time.monotonic() - self._killed_at)
                where = "" if worker.pid is None else f" (pid {worker.pid})"
                text = f"{label_of(worker)}{where} took the place of {label_of(killed)}, {self._gap:.0f} ms later"
                self._stage.say(text, "good")
                return

    # --- the searches ---------------------------------------------------------------------

    def _report(self, search: Search, reply: Reply[Result]) -> None:
        """Report how a search ended."""
        self._reported.add(search)
        error = reply.exception(0)
        if error is None:
            self._stage.note(f"{time.monotonic() - self._sent_at:4.1f} s  {search.title}: {_answer(reply)}")
        else:
            executed = getattr(error, "executed", None)
            self._stage.say(f"{type(error).__name__}: {visible(str(error))} (executed={executed})", "bad")

    def _search_rows(self, doomed: WorkerStatus | None = None) -> list[Row]:
        return [self._search_row(search, reply, doomed) for search, reply in self._replies.items()]

    def _search_row(self, search: Search, reply: Reply[Result], doomed: WorkerStatus | None) -> Row:
        # The gauge holds the number of the slice that the search reads.
        part = max(0, self._crew.gauges.read(search.slot) - 1) / SLICES
        if not reply.done():
            text = f"{part:.0%}" if part else "begins" if self._crew.gauges.read(search.slot) else "waits"
            if search is DOOMED and doomed is not None and doomed.seconds >= self._crew.pace.seconds(_WARNED):
                return Row(search.title, f"{text}, kill -9 comes", part, "bad")
            return Row(search.title, text, part)
        error = reply.exception(0)
        if error is None:
            return Row(search.title, _answer(reply), 1.0, "good")
        return Row(search.title, f"{type(error).__name__}, executed={getattr(error, 'executed', None)}", part, "bad")

    # --- the end --------------------------------------------------------------------------

    def _count(self) -> None:
        errors = [reply.exception(0) for reply in self._replies.values()]
        died = sum(isinstance(error, WorkerDied) for error in errors)
        failed = len(errors) - errors.count(None) - died
        count = self._crew.count
        count(errors.count(None), "searches answered", "db.ask(Query(…), block=False)")
        count(died, "rejected with its worker", "Supervisor.start(ChildProcess(…))")
        count(f"{self._gap:.0f} ms", "from a kill to a new worker", "restart=RestartPolicy()")
        if failed:
            count(failed, "searches failed")
            self._crew.failed += failed


def _answer(reply: Reply[Result]) -> str:
    return visible(str(reply.get().scalar() or "nothing"))
