"""Dispatcher: who waits, who is idle, who runs what. One lock, no I/O, no threads of its own.

Every method may be called from any thread and returns at once.

The lock is re-entrant and every step inside it is ordered so that it can be cut off anywhere:

1. A signal handler, or an asynchronous exception, may raise in the middle of a method. A job is
   therefore written down in its new place before it leaves the old one, and whoever meets it in
   both places can tell from `Job.state`.
2. A finalizer that the garbage collector runs in the middle of a method may call another one, in
   the same thread. With a plain lock it would wait for itself.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum
from functools import partial
from itertools import islice, takewhile

from actors import refusals
from actors.admission import Admission
from actors.agenda import INTERRUPT_AGAIN, Agenda
from actors.ahead import Ahead
from actors.databases.base import token_of
from actors.errors import (
    DatabaseUnavailable,
    QueryCancelled,
    QuerycrewError,
    QueryTimeout,
    QueueFull,
    SupervisorStopped,
)
from actors.job import NEW, QUEUED, SENT, STARTED, WITHDRAWN, Abort, Job
from actors.lane import Lane
from actors.member import Member, MemberState, in_words, statuses_of
from actors.quarantine import Quarantine
from actors.status import CrewStatus
from actors.tally import Ending, Tally

__all__ = ["Dispatcher", "Mode"]


class Mode(Enum):
    """What the crew does with jobs.

    `UP` ⇄ `SUSPENDED`; both → `STOPPING` → `STOPPED`.
    """

    UP = "up"
    """Accepts jobs and runs them."""
    SUSPENDED = "suspended"
    """No worker is up and none is about to be: refuses jobs with `DatabaseUnavailable`."""
    STOPPING = "stopping"
    """Refuses jobs; those accepted before are still run."""
    STOPPED = "stopped"
    """Refuses jobs and runs none."""


# A global is found in a third of the time that a member of an enum takes.
_UP = Mode.UP
_PORTION = 1000  # jobs that are taken out of the queue at once

_AWAKE = MemberState.AWAKE
_BUSY = MemberState.BUSY
_GONE = MemberState.GONE


class Dispatcher:
    """The one table of truth: a job is queued, or runs on one worker, or is settled."""

    def __init__(
        self,
        name: str,
        database: str,
        size: int,
        max_queue: int | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        grace: float = 0.5,
        shed_after: float | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        self.name = name
        self.database = database
        self.size = size
        self.max_queue = max_queue
        self.clock = clock
        self.grace = grace
        """Seconds that an interrupted statement has to end before its worker is given up."""
        self._lock = threading.RLock()
        self._mode = Mode.UP
        # Why it is suspended or stopped, for the errors of the jobs that are refused.
        self._cause: BaseException | None = None
        self._lane = Lane()
        # Those that left the queue to be rejected, and may not have been yet.
        self._dropped: list[Job] = []
        # Every worker that is starting or up, by its id.
        self._members: dict[int, Member] = {}
        self._ahead = Ahead(self._lane, self._members, self._begin, self._put_back)
        self.agenda = Agenda()
        """When the supervisor has to look again, and how it is told to."""
        self._admission = Admission(name, size, quarantine, shed_after, self.timed_out)
        # The parts of it that every job passes by.
        self._quarantine, self._shedding = self._admission.quarantine, self._admission.shedding
        self._tally = Tally()
        self.stuck = 0
        """Threads of workers that were given up and have not come back."""
        self.restarts = 0
        self.failed_starts = 0

    # --- jobs -----------------------------------------------------------------------------

    def submit(self, job: Job) -> QuerycrewError | None:
        """Accept `job` and wake a worker for it, or return why it is refused."""
        with self._lock:
            self._tally.submitted += 1
            if self._mode is not _UP or self.max_queue is not None or self._quarantine.deaths:
                refusal = self._refusal(job)
                if refusal is not None:
                    self._tally.rejected += 1
                    return refusal
            self._lane.jobs[job] = None
            job.state = QUEUED
            if job.deadline is not None and job.deadline < self.agenda.unseen:
                self.agenda.note(job.deadline)
            if self._shedding is not None:
                self.agenda.arm(job.submitted_at + 2 * self._shedding.target)
            if self._lane.idle:
                self._lane.wake_one()
            return None

    def withdraw(self, job: Job) -> bool:
        """Take back a job that nobody has started; say whether that was so."""
        with self._lock:
            # Its caller may have been interrupted in the middle of `submit`: make good the waking.
            self._take_back_from_worker(job)
            self._lane.match()
            if job.state is not QUEUED and not (job.state is NEW and job in self._lane.jobs):
                return False
            if not self._take_back(job):
                return False
            self._tally.cancelled += 1
            return True

    def take(self, member: Member) -> Job | None:
        """Give `member` its next job; without one it is idle, or retired."""
        with self._lock:
            return self._assign(member, self.clock())

    def finish(self, member: Member, ok: bool, more: bool) -> Job | None:
        """Note that the job of `member` is done; give it the next one if it wants `more`."""
        with self._lock:
            if member.state is _GONE:
                return None
            now = self.clock()
            job = member.job
            if job is not None:
                self._note_end(member, job, ok, now - job.started_at)
            if more:
                return self._assign(member, now)
            member.state = _AWAKE
            member.since = now
            return None

    def exchange(self, member: Member, done: Iterable[tuple[Job, bool, float]], more: bool) -> list[tuple[int, Job]]:
        """As `finish`, for a member whose connection takes jobs ahead.

        Args:
            member: whose.
            done: jobs that were answered, in that order, each with whether by a result, and the seconds that it ran.
            more: whether it is to be given jobs.

        Returns:
            The jobs to be sent now, each with its ticket, in that order. One may have been taken back by then.
        """
        with self._lock:
            if member.state is _GONE:
                return []
            now = self.clock()
            self._ahead.recall(member, 0)
            for job, ok, seconds in done:
                if self._ahead.land(member, job):
                    self._note_end(member, job, ok, seconds)
                    self._ahead.advance(member)
            given: list[tuple[int, Job]] = []
            if more:
                given = self._give(member, now)
            elif member.job is None:
                self._lane.strike(member)
                member.state = _AWAKE
                member.since = now
            self._lane.match()
            return given

    def cancel_running(self, job: Job) -> bool:
        """Interrupt `job` because nobody wants its answer; say whether it ran."""
        abort = Abort("cancelled", lambda executed: self.cancelled(job, executed), self.clock() + self.grace, wins=True)
        return self.interrupt(job, abort)

    def interrupt(self, job: Job, abort: Abort) -> bool:
        """Interrupt `job` if it runs, and surely no other; say whether it did.

        An interrupt that comes before the statement's first step is lost in SQLite: it is repeated
        (`follow_up`) until the job is done or its worker is given up.
        """
        with self._lock:
            member = job.member
            if member is None or not member.has(job) or member.state is _GONE:
                return False
            if job.abort is None or abort.wins:
                if job.abort is not None:
                    abort.give_up_at = min(abort.give_up_at, job.abort.give_up_at)
                job.abort = self.agenda.aborted[job] = abort
            member.end_job(job)
            self.agenda.arm(self.clock() + INTERRUPT_AGAIN)
            return True

    # --- what is due ----------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Return when the supervisor has to call `expire` and `follow_up` again; it is rung if that changes."""
        with self._lock:
            oldest = None if self._shedding is None else self._lane.first()
            shed_at = None if oldest is None else self._stands_too_long_at(oldest)
            return self.agenda.next(self.clock(), shed_at)

    def expire(self, now: float) -> list[tuple[Job, Callable[[], BaseException]]]:
        """Interrupt the running jobs whose deadline has passed; return the queued ones, for the caller to reject.

        With shedding, also those that stand at the head of a queue from which nobody takes. The errors are to be
        made by the caller, and of very many jobs only some are returned: nobody is to wait for the lock so long.
        """
        with self._lock:
            expired: list[tuple[Job, Callable[[], BaseException]]] = []
            if self.agenda.unseen <= now:
                self.agenda.see(self.running(), self._lane.jobs)
            for job, abort in list(self.agenda.aborted.items()):
                if job.state is QUEUED:  # it was taken back from its worker meanwhile
                    self._dropped.append(job)
                    if self._take_back(job):
                        self._count_aborted(job, abort.kind)
                        expired.append((job, partial(abort.error, False)))
            for job in self.agenda.deadlines.due(now, _PORTION):
                self._take_back_from_worker(job)
                if job.state is QUEUED:
                    self._dropped.append(job)
                    if self._take_back(job):
                        self._tally.timed_out += 1
                        expired.append((job, partial(self.timed_out, job, False)))
                else:
                    self.interrupt(job, Abort("timed_out", partial(self.timed_out, job), now + self.grace))
            if self._shedding is not None:
                self._shed_head(now, expired)
            if self._ahead.members:
                self._lane.match()
            return expired

    def follow_up(self, now: float) -> list[Member]:
        """Interrupt again what was interrupted and still runs; return the workers to be given up."""
        with self._lock:
            given_up: list[Member] = []
            for job, abort in list(self.agenda.aborted.items()):  # a finalizer may cancel another one meanwhile
                member = job.member
                if job.state is QUEUED:
                    continue  # `expire` takes it out
                if member is None or not member.has(job):
                    del self.agenda.aborted[job]  # its worker was killed in the middle of `finish`
                elif now >= abort.give_up_at:
                    self.bury(member)  # here: in the next moment it might be done, and run another job
                    given_up.append(member)
                else:
                    member.end_job(job)
            return given_up

    # --- workers --------------------------------------------------------------------------

    def enlist(self, member: Member) -> None:
        """Take note of a worker that is about to start."""
        with self._lock:
            member.since = self.clock()
            self._members[member.id] = member

    def report(self, member: Member) -> bool:
        """Let a worker whose connection is open take jobs; False where nobody wants it any more."""
        with self._lock:
            if member.state is not MemberState.STARTING or self._mode is Mode.STOPPED:
                return False
            member.state = _AWAKE
            member.since = self.clock()
            if member.pipeline is not None:
                self._ahead.members.append(member)
            return True

    def bury(self, member: Member) -> list[Job]:
        """Strike a worker off and return its orphans, one at most as a rule; may be called again.

        Jobs that it was sent ahead and had not begun wait again.
        """
        with self._lock:
            # Each step may be repeated: whoever cuts this off, the next one who buries makes it good.
            if member.state is not _GONE:
                self._lane.strike(member)
                had = member.in_hand()
                self._ahead.recall(member, all_of_them=True)
                orphans = member.in_hand()
                if had and not orphans:
                    # It died of nothing that it ran: the next one may be what it died of, as it was sent.
                    self._quarantine.record(had[0].request, self.clock())
                member.state = _GONE
                for orphan in orphans:
                    if orphan.abort is None:
                        self._tally.died += 1
                        if orphan is orphans[0]:  # no other can have killed it
                            self._quarantine.record(orphan.request, self.clock())
                    else:
                        self._count_aborted(orphan, orphan.abort.kind)
                    self.agenda.forget(orphan)
            with suppress(ValueError):
                self._ahead.members.remove(member)
            if self._mode is Mode.STOPPED and not self._members.keys() - {member.id}:
                for job in self._lane.waiting():  # what it has put back, nobody will take any more
                    abort = job.abort
                    member.dropped.append((job, self.stopped() if abort is None else abort.error(False)))
                    if self._take_back(job):
                        self._count_aborted(job, "rejected" if abort is None else abort.kind)
            for job, _ in member.dropped:
                if job.state is QUEUED:
                    self._lane.withdraw(job)
            self._lane.first()  # a job that is written down at its worker leaves the lane at last
            self._members.pop(member.id, None)
            self._lane.match()
            return member.in_hand()

    def dismiss(self, member: Member) -> bool:
        """Strike off a worker that is still starting; say whether it was."""
        with self._lock:
            if member.state is not MemberState.STARTING:
                return False
            self.bury(member)
            return True

    # --- the crew -------------------------------------------------------------------------

    def suspend(self, cause: BaseException | None) -> list[Job]:
        """Refuse jobs until `resume`; return those that were queued, for the caller to reject."""
        with self._lock:
            self._cause = cause
            if self._mode is Mode.UP:
                self._mode = Mode.SUSPENDED
            return self._drop_queue()

    def resume(self) -> None:
        """Accept jobs again after `suspend`."""
        with self._lock:
            if self._mode is Mode.SUSPENDED:
                self._mode = Mode.UP
                self._cause = None

    def stop_accepting(self) -> None:
        """Refuse new jobs; workers retire when the queue is empty."""
        with self._lock:
            if self._mode in (Mode.UP, Mode.SUSPENDED):
                self._mode = Mode.STOPPING
            self._lane.wake_all()

    def cancel_pending(self) -> list[Job]:
        """Empty the queue; return what was in it, for the caller to reject."""
        with self._lock:
            self._ahead.recall_everything()
            return self._drop_queue()

    def running(self) -> list[Job]:
        """Return the jobs that run now, or may."""
        with self._lock:
            return [job for member in self._members.values() for job in member.in_hand()]

    def forget_dropped(self) -> None:
        """For whoever has rejected all the jobs that it was given: let go of them."""
        self._dropped = []

    def close(self, cause: BaseException | None = None) -> list[Job]:
        """Refuse all from now on; return what was queued, for the caller to reject."""
        with self._lock:
            self._mode = Mode.STOPPED
            self._cause = cause or self._cause
            self._lane.wake_all()
            self._ahead.recall_everything()
            return self._drop_queue()

    def forget_the_parent(self) -> list[Job]:
        """In the child of a fork: close, and return every job that nobody here will ever run.

        The lock may have been held by a thread that does not exist here.
        """
        self._lock = threading.RLock()
        running = self.running()
        self._tally.died += len(running)
        self._members.clear()
        self._ahead.members.clear()
        self._lane.idle.clear()
        queued = self.close(RuntimeError("this process was forked from the one that runs the crew"))
        return running + queued

    # --- errors ---------------------------------------------------------------------------

    def unavailable(self) -> DatabaseUnavailable:
        """Return the error of a job that the suspended crew refuses."""
        return refusals.unavailable(self.name, self.database, self._cause)

    def stopped(self) -> SupervisorStopped:
        """Return the error of a job that the stopping or stopped crew refuses."""
        return refusals.stopped(self.name, self._mode.value, self._cause)

    def cancelled(self, job: Job, executed: bool | None) -> QueryCancelled:
        """Return the error of a job that was cancelled."""
        return refusals.cancelled(self.name, job, executed)

    def timed_out(self, job: Job, executed: bool | None) -> QueryTimeout:
        """Return the error of a job whose deadline has passed."""
        return refusals.timed_out(self.name, job, executed, queued=self.queued, size=self.size)

    # --- looking --------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """What the crew does with jobs now."""
        return self._mode

    @property
    def queued(self) -> int:
        """How many jobs wait, those included that a worker was sent ahead."""
        return len(self._lane) + len(self._ahead) if self._ahead.members else len(self._lane)

    def is_mine(self) -> bool:
        """Say whether this thread is inside one of these methods: code that interrupted it must not wait."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]

    def status(self) -> CrewStatus:
        """Return a snapshot of everything."""
        with self._lock:
            return CrewStatus(
                name=self.name,
                database=self.database,
                state=self._mode.value,
                cause=None if self._cause is None else refusals.why(self._cause),
                size=self.size,
                workers=statuses_of(self._members.values(), self.clock()),
                queued=self.queued,
                running=sum(member.is_running for member in self._members.values()),
                **self._tally.counts(),
                stuck=self.stuck,
                restarts=self.restarts,
                failed_starts=self.failed_starts,
                wait=self._tally.wait_times.summary(),
                run=self._tally.run_times.summary(),
            )

    def __repr__(self) -> str:
        with self._lock:
            counts = in_words(self._members.values(), self.size)
            return f"{self.name!r} {self._mode.value}: {counts}, {self.queued} queued, {self._tally.answered} answered"

    # --- inside the lock ------------------------------------------------------------------

    def _refusal(self, job: Job) -> QuerycrewError | None:
        match self._mode:
            case Mode.UP:
                full = self._queue_full() if self.max_queue is not None else None
                return full or self._admission.poison(job, job.submitted_at)
            case Mode.SUSPENDED:
                return self.unavailable()
            case _:
                return self.stopped()

    def _queue_full(self) -> QueueFull | None:
        if self.max_queue is None or self.queued < self.max_queue:
            return None
        # A job that a free worker is about to take does not count: max_queue=0 means "now or never".
        free = sum(member.state in (MemberState.AWAKE, MemberState.IDLE) for member in self._members.values())
        if self.queued < self.max_queue + free:
            return None
        return refusals.queue_full(self.name, self.queued, self.max_queue, self.size)

    def _assign(self, member: Member, now: float) -> Job | None:
        if member.state is not _BUSY:
            if member.state is _GONE:
                return None
            self._lane.strike(member)  # it was woken by hand, or the waking was cut off half-way
        lane = self._lane
        while (job := lane.first()) is not None:
            if (
                job.deadline is not None or self._shedding or self._quarantine.deaths or job.abort
            ) and self._is_to_be_dropped(member, job, now):
                continue
            if job.state is WITHDRAWN:  # by a finalizer, in this very moment
                continue
            # As `_begin`, without the call: every job passes here.
            if not job.started_at:
                self._tally.wait_times.record(now - job.submitted_at)
            job.state = STARTED
            job.started_at = member.since = now
            job.member = member
            member.job = job
            lane.jobs.pop(job, None)
            member.state = _BUSY
            return job
        if self._ahead.members and self._ahead.steal():
            return self._assign(member, now)
        member.since = now
        if self._mode in (Mode.STOPPING, Mode.STOPPED):
            member.state = MemberState.RETIRED
        else:
            member.state = MemberState.IDLE
            self._lane.idle.append(member)
        return None

    def _begin(self, member: Member, job: Job, now: float | None = None) -> None:
        """Note that `member` runs `job`."""
        if now is None:
            now = self.clock()
        if not job.started_at:  # else it was taken back before it was begun
            self._tally.wait_times.record(now - job.submitted_at)
        job.state = STARTED
        job.started_at = member.since = now
        job.member = member
        member.job = job

    def _give(self, member: Member, now: float) -> list[tuple[int, Job]]:
        """Give `member` a job, if it has none, and others ahead; return them with their tickets."""
        assert member.pipeline is not None
        given: list[Job] = []
        if member.job is None:
            if (first := self._assign(member, now)) is None:
                return []
            given.append(first)
        for _ in range(self._ahead.room(member)):
            job = self._lane.first()
            while job is not None and self._is_to_be_dropped(member, job, now):
                job = self._lane.first()
            if job is None:
                break
            self._ahead.give(member, job)
            given.append(job)
        if not given:
            return []
        for job in given:
            member.tickets += 1
            job.ticket = member.tickets
            member.given[token_of(job.ticket)] = job
        # Here, under the lock: from now on any of them may be taken back, whatever becomes of the thread that sends it.
        member.pipeline.offer(bytes([token_of(job.ticket) for job in given]))
        return [(job.ticket, job) for job in given]

    def _is_to_be_dropped(self, member: Member, job: Job, now: float) -> bool:
        """Say whether the first of the queue is not to be run, and let the member reject it in that case."""
        overdue = job.deadline is not None and job.deadline <= now
        if overdue or self._shedding or self._quarantine.deaths or job.abort:
            objection = self._admission.objection(job, now)
            if objection is not None:
                error, ending = objection
                member.dropped.append((job, error))
                if self._take_back(job):
                    self._count_aborted(job, ending)
        return job.state is WITHDRAWN  # here, or by a finalizer meanwhile

    def _put_back(self, job: Job) -> None:
        """Let a job that a worker was given and has not begun wait again, before all others."""
        self._lane.put_back(job)
        job.member = None  # behind that: whoever cuts this off, the next one who deals with it can tell whose it was
        self.agenda.see_one(job)  # `see` looks at the end of the queue only

    def _take_back_from_worker(self, job: Job) -> None:
        """If `job` was sent ahead and is not begun, let it wait in the queue again."""
        if job.state is SENT and job.member is not None and job in job.member.ahead:
            self._ahead.recall(job.member)

    def _note_end(self, member: Member, job: Job, ok: bool, seconds: float) -> None:
        """Note that the job of `member` is done."""
        member.job = None  # here: no call, at which this could be cut off, stands before it is counted
        if job.seen:
            self.agenda.forget(job)
        if ok and self._quarantine.deaths:
            self._quarantine.clear(job.request)
        if job.abort is not None:
            # A result that came in time is given after all, unless nobody wants it.
            self._count_aborted(job, "answered" if ok and not job.abort.wins else job.abort.kind)
        elif ok:
            self._tally.answered += 1
        else:
            self._tally.failed += 1
        self._tally.run_times.record(seconds)

    def _take_back(self, job: Job) -> bool:
        taken = self._lane.withdraw(job)
        self.agenda.forget(job)
        return taken

    def _stands_too_long_at(self, oldest: Job) -> float | None:
        """Return when the oldest job, if nobody has taken it, is to be shed."""
        return None if self._shedding is None else oldest.submitted_at + 2 * self._shedding.target

    def _shed_head(self, now: float, shed: list[tuple[Job, Callable[[], BaseException]]]) -> None:
        """If nobody has taken the oldest job for twice the target, take out all that waited longer than it."""
        oldest = self._lane.first()
        at = None if oldest is None else self._stands_too_long_at(oldest)
        if at is None or now < at or self._shedding is None:
            return
        target = self._shedding.target
        waited = takewhile(lambda job: now - job.submitted_at > target, self._lane.waiting())
        for job in islice(waited, _PORTION):
            self._dropped.append(job)
            if self._take_back(job):
                self._tally.shed += 1
                shed.append((job, partial(self._admission.overloaded, now - job.submitted_at)))

    def _count_aborted(self, job: Job, ending: Ending) -> None:
        self.agenda.aborted.pop(job, None)
        self._tally.count(ending)

    def _drop_queue(self) -> list[Job]:
        dropped = self._lane.waiting()
        # Remembered until `forget_dropped`: whoever has to reject them may be killed before it is done.
        self._dropped = self._dropped + dropped
        self._lane.jobs = OrderedDict()
        for job in dropped:
            if self._take_back(job):  # unless a finalizer has cancelled it meanwhile
                self._count_aborted(job, "rejected" if job.abort is None else job.abort.kind)
        return list(self._dropped)
