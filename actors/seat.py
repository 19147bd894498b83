"""Seat: a place in the crew that always has a worker, or will."""

from enum import Enum

from actors.worker import Worker

__all__ = ["Seat", "SeatState"]


class SeatState(Enum):
    """What a seat holds.

    WAITING → STARTING (its time has come) → UP (the worker reported) → WAITING (the worker is gone);
    STARTING → WAITING (the start failed, or took too long).
    """

    WAITING = "waiting"
    STARTING = "starting"
    UP = "up"


class Seat:
    """A place for one worker, which always has one, or will."""

    __slots__ = ("due", "failures", "state", "taken", "up_since", "worker")

    def __init__(self) -> None:
        self.state = SeatState.WAITING
        self.worker: Worker | None = None
        self.due = 0.0
        """Monotonic seconds. WAITING: from when a worker may be started. STARTING: when the start has failed."""
        self.failures = 0
        """Deaths and failed starts in a row, without a quiet period between."""
        self.up_since = 0.0
        self.taken = False
        """Whether it ever had a worker, so that the next one is a restart."""
