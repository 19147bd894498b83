"""What the crew tells those who subscribed: public, frozen messages to other actors.

An actor meets them in its `on_receive`: `match message: case WorkerUp(crew, worker_id): …`.
"""

from actors.values.record import Record

__all__ = ["Event", "Resumed", "Suspended", "WorkerLost", "WorkerUp"]


class WorkerUp(Record):
    """A worker has opened its connection, and takes jobs."""

    crew: str
    """The crew's name."""
    worker_id: int
    """Never used again for another worker."""


class WorkerLost(Record):
    """A worker is gone; another will take its place."""

    crew: str
    """The crew's name."""
    worker_id: int
    """Never used again for another worker."""
    cause: BaseException | None
    """Why; `None` where it was asked to stop."""


class Suspended(Record):
    """No worker can open the database: jobs are rejected with `DatabaseUnavailable` until `Resumed`."""

    crew: str
    """The crew's name."""
    cause: BaseException | None
    """Why the last attempt failed."""
    role: str | None = None
    """`writer` if only jobs that write are rejected."""


class Resumed(Record):
    """A worker came up again after `Suspended`."""

    crew: str
    """The crew's name."""
    role: str | None = None
    """As of the `Suspended` that it ends."""


Event = WorkerUp | WorkerLost | Suspended | Resumed
