"""Slot: a place in the crew that always has a worker, or will."""

from enum import Enum

from actors.databases.base import Database
from actors.worker import Worker

__all__ = ["LaneSlots", "Slot", "SlotState"]


class SlotState(Enum):
    """What a slot holds.

    WAITING → STARTING (its time has come) → UP (the worker reported) → WAITING (the worker is gone);
    STARTING → WAITING (the start failed, or took too long).
    """

    WAITING = "waiting"
    STARTING = "starting"
    UP = "up"


class Slot:
    """A place for one worker, which always has one, or will."""

    __slots__ = ("due", "failures", "lane", "state", "taken", "up_since", "worker")

    def __init__(self, lane: "LaneSlots") -> None:
        self.lane = lane
        self.state = SlotState.WAITING
        self.worker: Worker | None = None
        self.due = 0.0
        """Monotonic seconds. WAITING: from when a worker may be started. STARTING: when the start has failed."""
        self.failures = 0
        """Deaths and failed starts in a row, without a quiet period between."""
        self.up_since = 0.0
        self.taken = False
        """Whether it ever had a worker, so that the next one is a restart."""


class LaneSlots:
    """The slots of those who serve in one lane."""

    __slots__ = ("database", "last_cause", "last_start_failed", "number", "opened", "role", "slots")

    def __init__(self, number: int, database: Database, size: int) -> None:
        self.number = number
        """Of the lane."""
        self.database = database
        """What its workers connect to."""
        self.role = "writer" if number else None
        """What an event says of it."""
        self.slots = [Slot(self) for _ in range(size)]
        self.last_cause: BaseException | None = None
        """Why the last worker could not start or died: the cause of a suspension."""
        self.last_start_failed = False
        self.opened = False
        """Whether a worker of it has ever been up."""

    @property
    def is_up(self) -> bool:
        """Whether a worker of it is up."""
        return any(slot.state is SlotState.UP for slot in self.slots)

    @property
    def starting(self) -> list[Slot]:
        """The slots whose workers are starting."""
        return [slot for slot in self.slots if slot.state is SlotState.STARTING]

    @property
    def was_ever_staffed(self) -> bool:
        """Whether any slot of it ever had a worker."""
        return any(slot.taken for slot in self.slots)
