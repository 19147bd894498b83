"""Events: immutable messages from the crew to the actors that subscribed.

An actor gets them in its `on_receive`: `match message: case WorkerUp(crew, worker_id): …`.
"""

from actors.values.record import Record

__all__ = ["Event", "Resumed", "Suspended", "WorkerLost", "WorkerUp"]


class WorkerUp(Record):
    """A worker has opened its connection and takes jobs."""

    crew: str
    """The crew's name."""
    worker_id: int
    """The worker's number. No other worker ever gets it."""


class WorkerLost(Record):
    """A worker is gone. Another worker will take its place."""

    crew: str
    """The crew's name."""
    worker_id: int
    """The worker's number. No other worker ever gets it."""
    cause: BaseException | None
    """The reason. `None` if the supervisor asked the worker to stop."""


class Suspended(Record):
    """No worker can open the database.

    The crew rejects jobs with `DatabaseUnavailable` until `Resumed`.
    """

    crew: str
    """The crew's name."""
    cause: BaseException | None
    """The reason why the last attempt failed."""
    role: str | None = None
    """`writer` if the crew rejects only jobs that write."""


class Resumed(Record):
    """A worker came up again after `Suspended`."""

    crew: str
    """The crew's name."""
    role: str | None = None
    """The `role` of the `Suspended` that this event ends."""


Event = WorkerUp | WorkerLost | Suspended | Resumed
