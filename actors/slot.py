"""Seat: a place in the crew that always has a worker, or will."""

from enum import Enum

from actors.databases.base import Database
from actors.worker import Worker

__all__ = ["Seat", "SeatState", "Team"]


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

    __slots__ = ("due", "failures", "state", "taken", "team", "up_since", "worker")

    def __init__(self, team: "Team") -> None:
        self.team = team
        self.state = SeatState.WAITING
        self.worker: Worker | None = None
        self.due = 0.0
        """Monotonic seconds. WAITING: from when a worker may be started. STARTING: when the start has failed."""
        self.failures = 0
        """Deaths and failed starts in a row, without a quiet period between."""
        self.up_since = 0.0
        self.taken = False
        """Whether it ever had a worker, so that the next one is a restart."""


class Team:
    """The seats of those who serve in one lane."""

    __slots__ = ("database", "last_cause", "last_start_failed", "number", "opened", "role", "seats")

    def __init__(self, number: int, database: Database, size: int) -> None:
        self.number = number
        """Of the lane."""
        self.database = database
        """What its workers connect to."""
        self.role = "writer" if number else None
        """What an event says of it."""
        self.seats = [Seat(self) for _ in range(size)]
        self.last_cause: BaseException | None = None
        """Why the last worker could not start or died: the cause of a suspension."""
        self.last_start_failed = False
        self.opened = False
        """Whether a worker of it has ever been up."""

    @property
    def is_up(self) -> bool:
        """Whether a worker of it is up."""
        return any(seat.state is SeatState.UP for seat in self.seats)

    @property
    def starting(self) -> list[Seat]:
        """The seats whose workers are starting."""
        return [seat for seat in self.seats if seat.state is SeatState.STARTING]

    @property
    def was_ever_staffed(self) -> bool:
        """Whether any seat of it ever had a worker."""
        return any(seat.taken for seat in self.seats)
