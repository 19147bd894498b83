"""The history of a world: all requests, starts and answers, and the checks of them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pykka

from actors.dispatch.batch import JobBatch
from actors.dispatch.job import Job
from actors.values.errors import DatabaseUnavailable, QuerycrewError
from actors.values.requests import Request
from tests.worlds.requests import writes

if TYPE_CHECKING:
    from tests.worlds.world import World


class Entry:
    """One request, from its submission to its answer."""

    def __init__(self, number: int, version: int) -> None:
        self.number = number
        self.version = version
        """Of the file, as it was asked."""
        self.request: Request | None = None
        self.reply: Any = None
        self.job: Job | None = None
        self.lane: Any = None
        """In which it waited first."""
        self.starts: list[Any] = []
        """The connections that have begun it, each as often as it has."""
        self.was_begun = False
        self.interrupted = False
        self.failed = False
        self.in_checkout = False
        """It is a request of a transaction, a stream or a backup."""
        self.told = False
        self.own_answer = False
        """Its client settled the reply itself."""
        self.cancelling = False
        """A thread has begun to cancel it."""
        self.cancelled = False
        """A caller has heard that the cancel takes effect."""
        self.cut_off = False
        """Its client was killed as it asked: nobody waits for the reply."""
        self.seconds_late = 0.0
        """Since its deadline, while the supervisor slept."""
        self.calls = [0, 0]
        """Callbacks given, and called."""
        self.wakers = [0, 0]
        """Waiters given, and woken at least once."""

    @property
    def writes(self) -> bool:
        return self.request is not None and not self.in_checkout and writes(self.request)

    def is_in_hand(self) -> bool:
        """Say whether it waits, or runs: nobody is about to answer it."""
        job = self.job
        if job is None or job.reply.done():
            return False
        owner = job.owner
        if owner is None:
            return job.lane is not None and (
                job in job.lane.jobs or any(job in _jobs(each) for each in job.lane.handles)
            )
        return isinstance(owner, JobBatch) and not owner.is_over and any(job is each for each in owner.running)


def _jobs(handle: Any) -> list[Job]:
    return [] if handle.batch is None else handle.batch.jobs


class ClientTransaction:
    """One transaction of a client's."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        """The numbers that it has written, as far as the writes were answered."""
        self.is_committed: bool | None = False
        """As its client knows; `None` if nobody can know."""


class History:
    """The events of a world.

    `wrong` has the errors that show at once; `checks` finds the others.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.checkouts: list[ClientTransaction] = []
        self.wrong: list[str] = []
        self.asked_to_stop: list[pykka.Future[Any]] = []
        """The futures of stops and of messages to an actor. Each must be answered, too."""
        self.hurried: list[Entry] = []
        """Those with a deadline, until they are done."""
        self.submitted = 0
        self.is_in_order = False
        """Whether the order of the requests is known.

        It is known if there is one client, and no request is submitted in the middle of another.
        """
        self.is_alone = False
        """Whether each lane has one worker."""
        self.forced = False
        """A shutdown has a time limit: running jobs may be interrupted."""

    def new(self, version: int) -> Entry:
        entry = Entry(len(self.entries), version)
        self.entries.append(entry)
        return entry

    def order_is_lost(self) -> None:
        """Take note that jobs were taken back.

        If several threads take jobs back at once, the last thread puts its jobs first.
        """
        self.is_in_order = False

    # --- as it happens --------------------------------------------------------------------

    def note_submit(self, entry: Entry | None, job: Job) -> None:
        """Take note of a job that is about to be submitted."""
        self.submitted += 1
        if entry is not None:
            entry.job, entry.reply = job, job.reply

    def note_asked(self, entry: Entry, job: Job) -> None:
        """Take note that a job was submitted, and its deadline noted."""
        if job.deadline is not None:
            self.hurried.append(entry)

    def started(self, number: int, connection: Any) -> Entry:
        """Take note that a statement starts."""
        entry = self.entries[number]
        before = entry.starts.copy()
        entry.starts.append(connection)
        is_first, entry.was_begun = not entry.was_begun, True
        others = [each for each in before if each is not connection]
        if entry.writes and others:
            self.wrong.append(f"{entry.request} was begun on two connections")
        if not entry.writes and any(each.process is None for each in others):
            self.wrong.append(f"{entry.request} reads, and was begun twice")
        if connection in before and type(connection).__name__ != "Writer":
            self.wrong.append(f"{entry.request} was begun twice on one connection")
        if not entry.in_checkout:
            self._check_start(entry, connection, is_first=is_first)
            self._check_order(entry)
        return entry

    def _check_order(self, entry: Entry) -> None:
        """Where one asks and one serves: no job starts while an older one waits."""
        lane = entry.lane
        if not self.is_in_order or lane is None or len(lane.handles) != 1 or not (lane.on_demand or self.is_alone):
            return
        older = [each for each in self.entries[: entry.number] if each.lane is lane and each.job in lane.jobs]
        for each in older:
            if not each.job.claims and not each.reply.done() and not each.request.sql.startswith("WITH"):
                self.wrong.append(f"{entry.request} starts, and an older one waits: {each.request}")

    def undone(self, numbers: list[int], connection: Any) -> None:
        """Take note that no effect is left of the requests that a connection has begun."""
        for number in numbers:
            entry = self.entries[number]
            entry.starts = [each for each in entry.starts if each is not connection]

    def _check_start(self, entry: Entry, connection: Any, *, is_first: bool) -> None:
        job, reply = entry.job, entry.reply
        if job is None or entry.own_answer:
            return
        error = reply.exception(0) if reply.done() else None
        if isinstance(error, QuerycrewError) and error.executed is False:
            self.wrong.append(f"{entry.request} starts, and was rejected before: {error!r}")
        owner = job.owner
        if connection.process is None and isinstance(owner, JobBatch) and is_first:
            if job.deadline is not None and job.deadline <= owner.now:
                self.wrong.append(f"{entry.request} was started after its deadline")
            if owner.is_over and owner.handle.connection is not connection:
                self.wrong.append(f"{entry.request} starts on a connection that does not own it")

    def saw(self, number: int, version: int, world: "World") -> None:
        """Take note that a reader looks at a state of the file."""
        if version < self.entries[number].version:
            world.blame(f"request {number} sees a state of the file from before it was asked")

    def note_cancel(self, entry: Entry, said: bool) -> None:
        """Take note of the result of a cancel."""
        entry.cancelled |= said
        if not said and entry.is_in_hand():
            self.wrong.append(f"{entry.request} was cancelled, and goes on")

    def note_time(self, before: float, now: float, limit: float) -> None:
        """Take note of time that passed while the supervisor slept and could have woken up."""
        for entry in self.hurried:
            job = entry.job
            if job is None or job.deadline is None:
                continue
            entry.seconds_late += max(0.0, now - max(before, job.deadline))
            if entry.seconds_late > limit and entry.is_in_hand():
                self.wrong.append(f"{entry.request} goes on {entry.seconds_late:.3f} s after its deadline")
        self.hurried = [entry for entry in self.hurried if entry.is_in_hand() or not entry.reply.done()]

    # --- at the end -----------------------------------------------------------------------

    def check_stops(self) -> Iterator[str]:
        """Say whether a caller still waits for the end."""
        for future in self.asked_to_stop:
            try:
                future.get(timeout=0)
            except pykka.Timeout:
                yield "a message to an actor was never answered"
            except (pykka.ActorDeadError, DatabaseUnavailable):
                pass
