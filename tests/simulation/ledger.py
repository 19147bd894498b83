"""Ledger: what was asked, what ran, what was answered; and the invariants that they must keep."""

from collections.abc import Iterator
from typing import Any

import pykka

from actors.errors import QueryCancelled, QuerycrewError, QueryTimeout, WorkerDied
from actors.job import QUEUED, STARTED, Job
from actors.member import MemberState
from actors.messages import Query, Request
from actors.result import Result
from tests.simulation.crew import SimReply


class Entry:
    """One request, from the asking to the answer."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.reply: SimReply | None = None
        self.job: Job | None = None
        self.order: int | None = None
        """Its place among the jobs that were accepted."""
        self.runs = 0
        self.undone = False
        """It was interrupted, and has left nothing."""
        self.error: Exception | None = None
        """With which its statement failed."""
        self.own_answer = False
        """Its client settled the reply itself."""
        self.told = False
        self.timeout: float | None = None
        self.seconds_late = 0.0
        """Since its deadline, while nothing kept the supervisor from looking."""
        self.cancelling = False
        """Somebody has begun to cancel it."""
        self.cancelled = False
        """Somebody was told that cancelling takes effect."""
        self.cut_off = False
        """Its client was killed as it asked: nobody waits for the reply."""
        self.calls = [0, 0]
        """Callbacks given, and called."""
        self.wakers = [0, 0]
        """Waiters given, and woken at least once."""

    def is_in_hand(self) -> bool:
        """Say whether it waits in the queue, or runs: nobody is about to answer it."""
        job = self.job
        if job is None or job.reply.done():
            return False
        member = job.member
        runs = job.state is STARTED and member is not None and member.job is job
        return job.state is QUEUED or (runs and member.state is not MemberState.GONE)  # type: ignore[union-attr]


class Ledger:
    """What happened in a world. Wrong things that show at once are in `wrong`; `check` finds the others."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.wrong: list[str] = []
        self.asked_to_stop: list[pykka.Future[Any]] = []
        """What stopping, or asking an actor directly, has returned: must be answered too."""
        self.hurried: list[Entry] = []
        """Those with a deadline, until they are done."""
        self.forced = False
        """A shutdown has a time limit: what runs may be interrupted."""
        self.in_order = True
        """Whether jobs are accepted one after the other: a finalizer may ask in the middle of an ask."""
        self._accepted = 0
        self._last_started = -1

    def new(self) -> Entry:
        entry = Entry(len(self.entries))
        self.entries.append(entry)
        return entry

    def request(self, entry: Entry) -> Query:
        return Query(f"SELECT {entry.number}", timeout=entry.timeout)

    def entry_of(self, request: Request) -> Entry:
        return self.entries[int(request.sql[7:])]

    # --- as it happens --------------------------------------------------------------------

    def note(self, method: str, args: tuple[Any, ...], answer: object, now: float) -> None:
        """Take note of what the dispatcher has just decided."""
        if method == "submit":
            entry = self.entry_of(args[0].request)
            entry.job, entry.reply = args[0], args[0].reply
            if entry.job.deadline is not None:
                self.hurried.append(entry)
            if answer is None:
                entry.order = self._accepted
                self._accepted += 1
        elif isinstance(answer, Job) and method in ("take", "finish"):
            self._note_start(self.entry_of(answer.request))
            if answer.deadline is not None and answer.deadline <= now:
                self.wrong.append(f"{answer.request} was started after its deadline")

    def _note_start(self, entry: Entry) -> None:
        if entry.order is None or not self.in_order:
            return
        if entry.order <= self._last_started:
            self.wrong.append(f"job {entry.number} was started after a younger one")
        self._last_started = entry.order

    def note_interrupt(self, job: Job | None, now: float) -> None:
        """Take note that a worker that runs `job` is interrupted."""
        if job is None:
            self.wrong.append("a worker that runs nothing was interrupted")
        elif not (self.forced or self.entry_of(job.request).cancelling or _is_due(job, now)):
            self.wrong.append(f"{job.request} was interrupted for no reason")

    def note_timeout(self, job: Job, now: float) -> None:
        """Take note that a reply was rejected with `QueryTimeout`."""
        if not _is_due(job, now):
            self.wrong.append(f"{job.request} timed out before its deadline")

    def note_cancel(self, entry: Entry, said: bool) -> None:
        """Take note of what cancelling has said."""
        entry.cancelled |= said
        if not said and entry.is_in_hand():
            self.wrong.append(f"request {entry.number} was to be cancelled, and goes on")

    def note_time(self, before: float, now: float, limit: float) -> None:
        """Take note that time has passed, in which the supervisor slept and nothing kept it from waking up."""
        for entry in self.hurried:
            assert entry.job is not None
            assert entry.job.deadline is not None
            entry.seconds_late += max(0.0, now - max(before, entry.job.deadline))
            if entry.seconds_late > limit and entry.is_in_hand():
                self.wrong.append(f"request {entry.number} goes on {entry.seconds_late:.3f} s after its deadline")
        self.hurried = [entry for entry in self.hurried if entry.is_in_hand()]

    def started(self, request: Request) -> Entry:
        """Take note that a statement starts."""
        entry = self.entry_of(request)
        entry.runs += 1
        if entry.runs > 1:
            self.wrong.append(f"request {entry.number} ran {entry.runs} times")
        return entry

    # --- at the end -----------------------------------------------------------------------

    def check_answers(self, killed: bool) -> Iterator[str]:
        """Say what is wrong with the answers; `killed`: somebody was killed in this world."""
        for entry in self.entries:
            for what in _check(entry, killed):
                yield f"request {entry.number} {what}"

    def check_stops(self) -> Iterator[str]:
        """Say whether anybody still waits for the end."""
        for future in self.asked_to_stop:
            try:
                future.get(timeout=0)
            except pykka.Timeout:
                yield "a message to an actor was never answered"
            except pykka.ActorDeadError:
                pass


def _check(entry: Entry, killed: bool) -> Iterator[str]:
    reply = entry.reply
    if reply is None or entry.cut_off:
        return
    if not reply.done():
        if entry.told and entry.order is None and killed:
            return  # whoever was about to say that it is refused was killed; nobody waits
        yield f"was never answered (it ran {entry.runs} times)"
        return
    if reply.accepted > 1:
        yield f"was answered {reply.accepted} times"
    if not entry.own_answer:
        yield from _check_outcome(entry, reply.exception(0), killed)
    given, called = entry.calls
    # A kill may hit where a callback was taken from the list, or at its own first step: it is never called twice.
    if called > given or (called < given and not killed):
        yield f"has {given} callbacks, of which {called} were called"
    given, woken = entry.wakers
    if woken < given:
        yield f"was answered, and left {given - woken} of {given} waiters asleep"


def _is_due(job: Job, now: float) -> bool:
    return job.deadline is not None and job.deadline <= now


def _check_outcome(entry: Entry, error: BaseException | None, killed: bool) -> Iterator[str]:
    if isinstance(error, QueryCancelled) and not entry.cancelling:
        yield "was cancelled by nobody"
    if entry.cancelled and not isinstance(error, QueryCancelled) and not killed:
        yield f"was cancelled, and ended with {error!r}"
    if isinstance(error, QueryTimeout) and entry.job is not None and entry.job.deadline is None:
        yield "timed out without a deadline"
    if error is None:
        assert entry.reply is not None
        result = entry.reply.get()
        if not isinstance(result, Result) or result.scalar() != entry.number:
            yield f"got the answer of another: {result!r}"
        if entry.runs != 1:
            yield "was answered and never ran"
    elif isinstance(error, QuerycrewError):
        if error.executed is False and entry.runs and not entry.undone and entry.error is None:
            yield f"ran, and was rejected as never executed: {error!r}"
        if isinstance(error, WorkerDied) and not entry.runs and not killed:
            yield f"never ran, and nobody was killed, but: {error!r}"
    elif error is not entry.error and not entry.undone:
        yield f"was rejected with what is nobody's error: {error!r}"
