"""DemoCrew: the crew of the demo, and all that its scenes share."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from actors.console.gauges import Gauges, connect_to
from actors.console.killing import Killer
from actors.console.pace import Pace
from actors.console.stage import Number, Row, Stage
from actors.console.visible import visible
from supervisor import (
    ChildProcess,
    CrewStatus,
    Database,
    Query,
    RestartPolicy,
    SQLite,
    Status,
    Supervisor,
    SupervisorRef,
    WorkerStatus,
)

__all__ = ["ENDLESS", "SIZE", "DemoCrew", "label_of", "opened", "worker_rows"]

SIZE: Final = 4
"""How many workers read."""

ENDLESS: Final = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
"""A query without an end."""

# A busy machine may take long until a child hears its interrupt, and until a lock is free.
_GRACE: Final = 3.0  # seconds
_BUSY: Final = 30.0  # seconds
_TICK: Final = 0.08  # seconds from one look at the crew to the next


@dataclass
class DemoCrew:
    """A crew on a temporary file, with the stage of the demo. For the main thread only."""

    stage: Stage
    pace: Pace
    path: Path
    """The file with the characters."""
    db: SupervisorRef
    """The crew."""
    in_children: bool
    """Whether the workers are child processes. Otherwise they are threads."""
    gauges: Gauges
    killer: Killer
    numbers: list[Number] = field(default_factory=list)
    """The figures for the end, in the order of the scenes."""
    statuses: list[CrewStatus] = field(default_factory=list)
    """The last status of each other crew that a scene had."""
    failed: int = 0
    """How many requests failed that should have an answer."""
    titles: dict[str, str] = field(default_factory=dict)
    """Names of requests, by the text that a status shows."""

    def status(self) -> CrewStatus:
        """Return the status of the crew."""
        return self.db.ask(Status())

    def tick(self, seconds: float = _TICK) -> None:
        """Let some time go by, until the next look."""
        time.sleep(seconds)

    def rest(self, usual: float) -> None:
        """Give a viewer time to read, until the planned end of the scene at most."""
        seconds = min(self.pace.seconds(usual), self.pace.left)
        if self.stage.live and seconds > 0:
            time.sleep(seconds)

    def kill(self, worker: WorkerStatus) -> None:
        """Kill a worker: a child process by SIGKILL, a thread by a SystemExit from inside."""
        if worker.pid is None:
            self.killer.kill(self.db, worker.id)
        else:
            os.kill(worker.pid, signal.SIGKILL)

    def name(self, sql: str, title: str) -> None:
        """Let rows show `title` in the place of a query."""
        self.titles[str(Query(sql))] = title

    def count(self, value: float | str, meaning: str, code: str = "") -> None:
        """Note a figure for the end."""
        self.numbers.append(Number(value if isinstance(value, str) else f"{value:,}", meaning, code))


@contextmanager
def opened(folder: Path, stage: Stage, pace: Pace) -> Iterator[DemoCrew]:
    """Start the crew of the demo; stop it at the end. Its workers are child processes if possible.

    Args:
        folder: an empty folder for the files. The caller removes it.
        stage: where the scenes are shown.
        pace: how fast they go.
    """
    path, gauge_file = folder / "unicode.db", folder / "gauges"
    with Gauges(gauge_file) as gauges, Killer() as killer:
        database: Database = SQLite(path, busy_timeout=_BUSY, on_connect=partial(connect_to, gauge_file))
        try:
            database = ChildProcess(database)
        except NotImplementedError as error:
            stage.say(f"The workers are threads: {error}", "dim")
        db = Supervisor.start(database, size=SIZE, name="unicode", restart=RestartPolicy(grace=_GRACE))
        try:
            yield DemoCrew(stage, pace, path, db, not isinstance(database, SQLite), gauges, killer)
        finally:
            db.shutdown(cancel_pending=True, timeout=0)


def worker_rows(crew: DemoCrew, status: CrewStatus) -> list[Row]:
    """Return a row for each worker: its role, its process, its job."""
    return [_worker_row(crew, worker) for worker in status.workers]


def label_of(worker: WorkerStatus) -> str:
    """Return the role and the id of a worker."""
    return f"{worker.role or 'worker'} {worker.id}"


def _worker_row(crew: DemoCrew, worker: WorkerStatus) -> Row:
    where = "" if worker.pid is None else f"pid {worker.pid}  "
    label = label_of(worker)
    if worker.waits_for_lock:
        return Row(label, f"{where}waits for the lock, {worker.seconds:.1f} s", look="bad")
    if worker.job is None:
        return Row(label, where + worker.state, look="dim")
    title = crew.titles.get(worker.job) or visible(worker.job)
    return Row(label, f"{where}{title}, {worker.seconds:.1f} s")
