"""The setting of a crew: the places of its connections and its database, and its difficulties."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor import ChildProcess, RestartPolicy, SQLite, Supervisor, SupervisorRef
from tests.stress.truth import called
from tests.stress.truth.asking import PATIENCE
from tests.stress.truth.file import File, Memory

__all__ = ["Setting", "start"]

_LEAST_MEMORY = 1 << 25  # bytes that a child must be allowed
_RESTART = RestartPolicy(
    max_restarts=10**6, backoff_initial=0.001, backoff_max=0.01, quiet_period=0.0, poison_after=0, grace=PATIENCE
)


@dataclass(frozen=True)
class Setting:
    """The arguments of a crew."""

    place: str
    """`threads` or `children`, on a file; `memory` or `children's memory`."""
    journal: str
    synchronous: str
    timeout: float | None = None
    """The crew's own, in seconds."""
    is_small: bool = False
    """Whether its children have little memory."""
    is_shaky: bool = False
    """Whether some of its connections do not open."""

    @property
    def is_in_children(self) -> bool:
        """Whether the connections are."""
        return self.place.startswith("children")

    @property
    def is_in_memory(self) -> bool:
        """Whether the database is."""
        return self.place.endswith("memory")


def start(setting: Setting, path: Path, child: Callable[[SQLite], Any]) -> tuple[SupervisorRef, File]:
    """Start a crew, and open its database; `child` makes the database of the children."""
    if setting.is_in_memory:
        memory = ChildProcess(SQLite()) if setting.is_in_children else SQLite()
        db = Supervisor.start(memory, restart=_RESTART)
        return db, Memory(db)
    database = SQLite(
        path,
        journal_mode=setting.journal,
        synchronous=setting.synchronous,
        on_connect=called.open_or_not if setting.is_shaky else None,
    )
    where: Any = database
    if setting.is_in_children:
        where = ChildProcess(child(database), memory_limit=_LEAST_MEMORY if setting.is_small else None)
    file = File(path, setting.journal)
    return Supervisor.start(where, size=1, restart=_RESTART, timeout=setting.timeout), file
