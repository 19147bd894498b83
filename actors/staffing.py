"""Staffing: which slot of the crew gets a worker, and when.

Pure: news and the time come in, decisions come out. The supervisor reports starts, deaths and
recoveries, and starts the workers that `Staffing` names. OTP's supervisors use the same terms.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum

from actors.databases.base import Database
from actors.values.restart import Deaths, RestartPolicy
from actors.worker import Worker

__all__ = ["LaneSlots", "Slot", "SlotState", "Staffing"]

_SOON = 2.0  # seconds for which jobs wait for the next writer, and are not refused yet


class SlotState(Enum):
    """The state of a slot.

    | from | to | when |
    |---|---|---|
    | WAITING | STARTING | the time of the next start has come |
    | STARTING | UP | the worker has reported that its connection is open |
    | STARTING | WAITING | the start has failed, or took too long |
    | UP | WAITING | the worker is gone |
    """

    WAITING = "waiting"
    STARTING = "starting"
    UP = "up"


class Slot:
    """A place for one worker. The supervisor keeps it occupied."""

    __slots__ = ("due", "failures", "lane", "state", "taken", "up_since", "worker")

    def __init__(self, lane: "LaneSlots") -> None:
        self.lane = lane
        self.state = SlotState.WAITING
        self.worker: Worker | None = None
        self.due = 0.0
        """Monotonic seconds. WAITING: the earliest time of the next start. STARTING: the time at
        which the start has failed."""
        self.failures = 0
        """Deaths and failed starts in a row, without a quiet period between them."""
        self.up_since = 0.0
        self.taken = False
        """Whether it ever had a worker: the next start is a restart."""


class LaneSlots:
    """The slots of the workers of one lane."""

    __slots__ = ("database", "last_cause", "last_start_failed", "number", "opened", "role", "slots")

    def __init__(self, number: int, database: Database, size: int) -> None:
        self.number = number
        """Number of the lane in the dispatcher."""
        self.database = database
        """The database that the workers of the lane connect to."""
        self.role = "writer" if number else None
        """The role that events name."""
        self.slots = [Slot(self) for _ in range(size)]
        self.last_cause: BaseException | None = None
        """Why the last worker died or could not start: the cause of a suspension."""
        self.last_start_failed = False
        self.opened = False
        """Whether a worker of the lane has ever been up."""

    @property
    def is_up(self) -> bool:
        """Whether a worker of the lane is up."""
        return any(slot.state is SlotState.UP for slot in self.slots)

    @property
    def starting(self) -> list[Slot]:
        """The slots whose workers are starting."""
        return [slot for slot in self.slots if slot.state is SlotState.STARTING]

    @property
    def waiting(self) -> list[Slot]:
        """The slots without a worker."""
        return [slot for slot in self.slots if slot.state is SlotState.WAITING]

    @property
    def was_ever_staffed(self) -> bool:
        """Whether any slot of the lane ever had a worker."""
        return any(slot.taken for slot in self.slots)

    @property
    def next_start(self) -> float:
        """The earliest time of the next start. Monotonic seconds."""
        return min(slot.due for slot in self.slots)


class Staffing:
    """The slots of a crew and the rules of its `RestartPolicy`. For the supervisor's thread."""

    def __init__(self, databases: Sequence[Database], size: int, policy: RestartPolicy) -> None:
        """Make a slot for each worker.

        Args:
            databases: one for each lane. The first lane has `size` workers. The second lane, if
                there is one, has the writer.
            size: how many workers the first lane has.
            policy: when a worker is replaced.
        """
        self._policy = policy
        self._deaths = Deaths(policy)
        self.lanes = tuple(LaneSlots(number, each, 1 if number else size) for number, each in enumerate(databases))
        self.slots = [slot for lane in self.lanes for slot in lane.slots]

    # --- looking --------------------------------------------------------------------------

    @property
    def first(self) -> LaneSlots:
        """The lane of the readers, or of all workers."""
        return self.lanes[0]

    def slot_of(self, worker_id: int) -> Slot | None:
        """Return the slot of a worker; `None` if the worker has left it."""
        for slot in self.slots:
            if slot.worker is not None and slot.worker.handle.id == worker_id:
                return slot
        return None

    def starting(self) -> list[Slot]:
        """Return the slots of all lanes whose workers are starting."""
        return [slot for slot in self.slots if slot.state is SlotState.STARTING]

    def needs_workers(self, lane: LaneSlots, has_jobs: Callable[[LaneSlots], bool]) -> bool:
        """Say whether a lane needs workers.

        The writer starts once a job needs it, and after a reader has opened the database: one
        worker alone sets up a new file.
        """
        return lane is self.first or (self.first.opened and (lane.was_ever_staffed or has_jobs(lane)))

    def has_work(self, lane: LaneSlots, has_jobs: Callable[[LaneSlots], bool]) -> bool:
        """Say whether jobs wait for a lane, or for the writer that cannot start before a reader."""
        return any(map(has_jobs, [lane] if self.first.opened else self.lanes))

    def next_time(
        self, now: float, has_jobs: Callable[[LaneSlots], bool], *, is_stopping: bool, starts_end_at: float
    ) -> float | None:
        """Return when the next decision is due without any news; `None` for never.

        Args:
            now: the time.
            has_jobs: says whether jobs wait in a lane.
            is_stopping: whether the crew stops, and starts workers only for the jobs that are left.
            starts_end_at: until when a crew that stops waits for workers that are starting.
        """
        starting = self.starting()
        times = [slot.due for slot in starting]
        if is_stopping and starting and starts_end_at > now:
            times.append(starts_end_at)
        for lane in self.lanes:
            if not self.needs_workers(lane, has_jobs) or (lane.starting and not lane.is_up):
                continue
            if not is_stopping:
                times += [slot.due for slot in lane.waiting]
            elif not lane.is_up and self.has_work(lane, has_jobs):
                times.append(lane.next_start)
        return min(times, default=None)

    # --- deciding -------------------------------------------------------------------------

    def due(self, lane: LaneSlots, now: float) -> Iterator[Slot]:
        """Yield the slots whose workers start now. The caller starts each one before it goes on.

        While no worker of the lane is up, one worker at a time tries to open the database. So one
        worker alone sets up a new file, and a database that cannot be opened costs one attempt.
        """
        if lane.is_up:
            yield from [slot for slot in lane.waiting if slot.due <= now]
            return
        for _ in lane.slots:
            slot = min(lane.slots, key=lambda slot: slot.due)
            if slot.due > now:
                return
            yield slot
            if slot.state is SlotState.STARTING:
                return

    def is_hopeless(self, lane: LaneSlots, now: float) -> bool:
        """Say whether jobs of a lane wait in vain, so that they are refused.

        Called when no worker of the lane is up or starting. If the only writer has died, jobs wait
        for the next writer, provided that it starts soon.
        """
        return not (lane.role and not lane.last_start_failed and lane.next_start - now < _SOON)

    # --- news -----------------------------------------------------------------------------

    def note_start(self, slot: Slot, now: float) -> bool:
        """Note that a worker starts; say whether it is a restart."""
        is_restart, slot.taken = slot.taken, True
        slot.state = SlotState.STARTING
        slot.due = now + self._policy.start_timeout
        return is_restart

    def note_slow_start(self, slot: Slot, now: float) -> None:
        """Note that a worker came up just in time. Its news is on the way."""
        slot.due = now + self._policy.start_timeout

    def note_up(self, slot: Slot, now: float) -> None:
        """Note that the connection of a worker is open."""
        slot.state = SlotState.UP
        slot.up_since = now
        slot.lane.last_start_failed = False
        slot.lane.opened = True

    def note_recovery(self, lane: LaneSlots, now: float) -> None:
        """Note that a lane can open the database again: no slot waits for its backoff any more."""
        for slot in self.slots if lane is self.first else lane.slots:
            if slot.state is SlotState.WAITING:
                slot.due = min(slot.due, self._deaths.free_at(now))

    def note_end(
        self, slot: Slot, cause: BaseException | None, now: float, *, was_up: bool, was_idle: bool = False
    ) -> None:
        """Note that a worker has left its slot, and when the next one may be started.

        Args:
            slot: the slot, which is empty by now.
            cause: why the worker ended; `None` if it was asked to stop.
            now: the time.
            was_up: whether its connection was open.
            was_idle: whether its connection was good, and ended between two jobs: a server may end
                idle connections. No job waits for a backoff then; the limit of restarts holds.
        """
        if was_idle or (was_up and now - slot.up_since >= self._policy.quiet_period):
            slot.failures = 0
        if cause is None:
            slot.due = now
            return
        lane = slot.lane
        lane.last_cause = cause
        if was_up:
            self._deaths.record(now)
        else:
            lane.last_start_failed = True
            slot.failures = max(slot.failures, 1)
        wait = self._policy.backoff(slot.failures, _chance(now))
        slot.failures += 1
        slot.due = max(now + wait, self._deaths.free_at(now))
        if not was_up:
            # The other workers could not open the database either: one at a time tries.
            for other in lane.waiting:
                other.due = max(other.due, slot.due)

    def forgive(self, slot: Slot, now: float) -> None:
        """Let the next worker start without a backoff: a statement is to blame."""
        slot.failures = 0
        slot.due = self._deaths.free_at(now)


def _chance(now: float) -> float:
    """Return a number from 0 to 1 for the jitter: the last digits of the clock.

    `random` takes 1 ms to import. It cannot be imported later, when the process may have no file
    descriptors left.
    """
    return now * 1e6 % 997 / 997
