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
from typing import TYPE_CHECKING
from weakref import WeakSet

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
    WouldDeadlock,
)
from actors.job import NEW, QUEUED, SENT, STARTED, WITHDRAWN, Abort, Job
from actors.lane import Lane
from actors.member import Member, MemberState, in_words, statuses_of
from actors.quarantine import Quarantine
from actors.routes import Routes
from actors.status import CrewStatus
from actors.tally import Ending, Tally

if TYPE_CHECKING:
    from actors.conversation import Conversation

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
_FREE = (MemberState.AWAKE, MemberState.IDLE)


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
        has_writer: bool = False,
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
        roles = ("reader", "writer") if has_writer else (None,)
        self._lanes = tuple(Lane(role, shed_after) for role in roles)
        # The one in which every worker serves, or every worker but the writer.
        self._lane = self._lanes[0]
        # Which jobs are the writer's, if there is one.
        self._routes = Routes() if has_writer else None
        # Jobs for which a caller waits without a time limit. That caller may hold workers, or hold some later.
        self._awaited: WeakSet[Job] = WeakSet()
        # Those that left the queue to be rejected, and may not have been yet.
        self._dropped: list[Job] = []
        # Every worker that is starting or up, by its id.
        self._members: dict[int, Member] = {}
        for lane in self._lanes:
            lane.ahead = Ahead(lane, self._members, self._begin, self._put_back)
        self.agenda = Agenda()
        """When the supervisor has to look again, and how it is told to."""
        self._admission = Admission(name, size, quarantine, self.timed_out)
        self._quarantine = self._admission.quarantine  # which every job passes by
        self._sheds = shed_after is not None
        self.has_talks = False
        """Whether there was ever a conversation."""
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
            lane = self._lane if self._routes is None else self._lanes[self._routes.writes(job.request)]
            job.lane = lane
            if self._mode is not _UP or self.max_queue is not None or self._quarantine.deaths or lane.down:
                refusal = self._refusal(job)
                if refusal is not None:
                    self._tally.rejected += 1
                    return refusal
            if job.talk is not None:
                self.has_talks = True
            lane.jobs[job] = None
            job.state = QUEUED
            if job.deadline is not None and job.deadline < self.agenda.unseen:
                self.agenda.note(job.deadline)
            if lane.shedding is not None:
                self.agenda.arm(job.submitted_at + 2 * lane.shedding.target)
            if lane.idle:
                lane.wake_one()
            elif lane.on_demand and not lane.members:
                self.agenda.ring()
            return None

    def withdraw(self, job: Job) -> bool:
        """Take back a job that nobody has started; say whether that was so."""
        with self._lock:
            if not self._withdraw(job):
                return False
            self._tally.cancelled += 1
            return True

    def refuse_wait(self, job: Job | None, owner: tuple[object, ...] | None) -> WouldDeadlock | None:
        """Decide whether a wait would deadlock; if so, withdraw the job in the same step.

        A refused job never runs. A job that has begun goes on: a caller that holds workers may wait
        for it, and a thread of the crew gets an error that says so.

        Args:
            job: the job to wait for; `None` for an answer of the supervisor.
            owner: the caller that is about to wait without a time limit; `None` for a thread of the
                crew, which must not wait at all.

        Returns:
            The error for the caller to raise, and to reject a withdrawn job with; `None` if it may wait.
        """
        with self._lock:
            if owner is None:
                if job is not None and self._withdraw(job):
                    self._tally.rejected += 1
                return refusals.own_thread(self.name, job)
            if job is None:
                return None
            job.waiter = owner
            if not self._is_held_by(owner, job) or not self._withdraw(job):
                self._awaited.add(job)
                return None
            self._tally.rejected += 1
            return refusals.held_by_caller(self.name, job)

    def rest(self, member: Member) -> None:
        """Note that `member` waits for its caller's next turn, and refuse the waits that now deadlock.

        A wait may begin before its owner holds the last worker: `refuse_wait` cannot refuse it then.
        The jobs are in `member.dropped` afterwards, for the worker to reject.
        """
        with self._lock:
            for job in list(self._awaited):
                if job.waiter is not None and self._is_held_by(job.waiter, job):
                    self._drop(member, job, partial(refusals.held_by_caller, self.name, job))

    def take(self, member: Member) -> Job | None:
        """Give `member` its next job; without one it is idle, or retired."""
        with self._lock:
            return self._assign(member, self.clock())

    def finish(self, member: Member, ok: bool | None, more: bool) -> Job | None:
        """Note that the job of `member` is done; give it the next one if it wants `more`.

        Args:
            member: whose.
            ok: whether by a result; `None` if it did not run, since it is one for the writer.
            more: whether it is to be given a job.
        """
        with self._lock:
            if member.state is _GONE:
                return None
            now = self.clock()
            job = member.job
            if job is not None:
                if ok is None:
                    self._hand_on(member, job)
                else:
                    self._note_end(member, job, ok, now - job.started_at)
            if more:
                return self._assign(member, now)
            member.state = _AWAKE
            member.since = now
            return None

    def exchange(
        self, member: Member, done: Iterable[tuple[Job, bool | None, float]], more: bool
    ) -> list[tuple[int, Job]]:
        """As `finish`, for a member whose connection takes jobs ahead.

        Args:
            member: whose.
            done: jobs that were answered, in that order, each with whether by a result (as of `finish`), and the
                seconds that it ran.
            more: whether it is to be given jobs.

        Returns:
            The jobs to be sent now, each with its ticket, in that order. One may have been taken back by then.
        """
        with self._lock:
            if member.state is _GONE:
                return []
            now, lane = self.clock(), self._lane_of(member)
            ahead = lane.ahead
            ahead.recall(member, 0)
            for job, ok, seconds in done:
                if ahead.land(member, job):
                    if ok is None:
                        self._hand_on(member, job)
                    else:
                        self._note_end(member, job, ok, seconds)
                    ahead.advance(member)
            given: list[tuple[int, Job]] = []
            if more:
                given = self._give(member, now)
            elif member.job is None:
                lane.strike(member)
                member.state = _AWAKE
                member.since = now
            lane.match()
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

    def set_deadline(self, job: Job, deadline: float | None) -> None:
        """Let another deadline hold for a job that runs, unless it is being interrupted."""
        with self._lock:
            if job.abort is None:
                self.agenda.forget(job)
                job.seen = False
                job.deadline = deadline
                if deadline is not None and deadline < self.agenda.unseen:
                    self.agenda.note(deadline)

    # --- what is due ----------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Return when the supervisor has to call `expire` and `follow_up` again; it is rung if that changes."""
        with self._lock:
            shed_at = min((at for lane in self._lanes if (at := lane.stands_too_long_at()) is not None), default=None)
            return self.agenda.next(self.clock(), shed_at)

    def expire(self, now: float) -> list[tuple[Job, Callable[[], BaseException]]]:
        """Interrupt the running jobs whose deadline has passed; return the queued ones, for the caller to reject.

        With shedding, also those that stand at the head of a queue from which nobody takes. The errors are to be
        made by the caller, and of very many jobs only some are returned: nobody is to wait for the lock so long.
        """
        with self._lock:
            expired: list[tuple[Job, Callable[[], BaseException]]] = []
            if self.agenda.unseen <= now:
                self.agenda.see(self.running(), [lane.jobs for lane in self._lanes])
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
            for lane in self._lanes:
                if self._sheds:
                    self._shed_head(lane, now, expired)
                if lane.ahead.members:
                    lane.match()
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

    def enlist(self, member: Member, lane: int = 0) -> None:
        """Take note of a worker that is about to start, and in which lane it serves."""
        with self._lock:
            member.since = self.clock()
            member.lane = self._lanes[lane]
            self._members[member.id] = member
            self._count_members(member.lane)

    def report(self, member: Member) -> bool:
        """Let a worker whose connection is open take jobs; False where nobody wants it any more."""
        with self._lock:
            if member.state is not MemberState.STARTING or self._mode is Mode.STOPPED:
                return False
            member.state = _AWAKE
            member.since = self.clock()
            if member.pipeline is not None:
                self._lane_of(member).ahead.members.append(member)
            return True

    def bury(self, member: Member) -> list[Job]:
        """Strike a worker off and return its orphans, one at most as a rule; may be called again.

        Jobs that it was sent ahead and had not begun wait again.
        """
        with self._lock:
            # Each step may be repeated: whoever cuts this off, the next one who buries makes it good.
            lane = self._lane_of(member)
            if member.state is not _GONE:
                lane.strike(member)
                had = member.in_hand()
                lane.ahead.recall(member, all_of_them=True)
                # One that was being handed on, or put back, by a thread that was cut off, waits already.
                orphans = [job for job in member.in_hand() if job.state is not QUEUED]
                if had and not orphans:
                    # It died of nothing that it ran: the next one may be what it died of, as it was sent.
                    self._quarantine.record(had[0].request, self.clock())
                member.state = _GONE
                for orphan in orphans:
                    if orphan.abort is None:
                        self._tally.died += 1  # before any call, at which this could be cut off
                    else:
                        self._count_aborted(orphan, orphan.abort.kind)
                    self.agenda.forget(orphan)
                suspects = {orphan.request.sql: orphan.request for orphan in orphans}
                if any(orphan.abort is not None for orphan in orphans):
                    suspects.clear()  # it was given up
                for request in suspects.values():  # any of them may have killed it
                    self._quarantine.record(request, self.clock(), alone=len(orphans) == 1)
            with suppress(ValueError):
                lane.ahead.members.remove(member)
            if self._mode is Mode.STOPPED and not any(
                other.lane is lane for other in self._members.values() if other is not member
            ):
                for job in lane.waiting():  # what it has put back, nobody will take any more
                    self._drop(member, job, self.stopped)
            for job, _ in member.dropped:
                if job.state is QUEUED:
                    self._take_out(job)
            lane.first()  # a job that is written down at its worker leaves the lane at last
            self._members.pop(member.id, None)
            self._count_members(lane)
            lane.match()
            return [job for job in member.in_hand() if job.state is not QUEUED]

    def dismiss(self, member: Member) -> bool:
        """Strike off a worker that is still starting; say whether it was."""
        with self._lock:
            if member.state is not MemberState.STARTING:
                return False
            self.bury(member)
            return True

    # --- the crew -------------------------------------------------------------------------

    def suspend(self, cause: BaseException | None, lane: int = 0) -> list[Job]:
        """Refuse jobs until `resume`; return those that were queued, for the caller to reject.

        Args:
            cause: why no worker can open the database.
            lane: which workers; without the first ones, the readers, nobody serves.
        """
        with self._lock:
            down = self._lanes[lane]
            down.cause, down.down = cause, True
            if lane:
                return self._drop_queue([down])
            self._cause = cause
            if self._mode is Mode.UP:
                self._mode = Mode.SUSPENDED
            return self._drop_queue()

    def resume(self, lane: int = 0) -> None:
        """Accept jobs again after `suspend`."""
        with self._lock:
            self._lanes[lane].cause, self._lanes[lane].down = None, False
            if self._mode is Mode.SUSPENDED and not lane:
                self._mode = Mode.UP
                self._cause = None

    def is_down(self, lane: int) -> bool:
        """Say whether the jobs of a lane are refused."""
        return self._lanes[lane].down

    def wants_worker(self, lane: int) -> bool:
        """Say whether a lane that has no worker before it needs one needs one."""
        return bool(self._lanes[lane].jobs)

    def stop_accepting(self, cause: BaseException | None = None) -> None:
        """Refuse new jobs, and remember `cause` for their errors; workers retire when the queue is empty."""
        with self._lock:
            if self._mode in (Mode.UP, Mode.SUSPENDED):
                self._mode = Mode.STOPPING
                self._cause = cause or self._cause
            self._wake_all()

    def cancel_pending(self) -> list[Job]:
        """Empty the queue; return what was in it, for the caller to reject."""
        with self._lock:
            self._recall_everything()
            return self._drop_queue()

    def running(self) -> list[Job]:
        """Return the jobs that run now, or may."""
        with self._lock:
            return [job for member in self._members.values() for job in member.in_hand()]

    def oldest(self) -> float | None:
        """Return the monotonic seconds at which the oldest unfinished job was asked; `None` without one."""
        with self._lock:
            firsts = [lane.first() for lane in self._lanes]
            return min((job.submitted_at for job in [*self.running(), *firsts] if job is not None), default=None)

    def talks_of(self, owner: tuple[object, ...], *, endless: bool) -> "list[Conversation]":
        """Return the conversations that this owner began and that are not over: all, or those without a deadline."""
        with self._lock:
            jobs = [*self.running(), *(job for lane in self._lanes for job in lane.waiting())]
            return [
                job.talk
                for job in jobs
                if job.talk is not None and job.talk.is_held_by(owner) and (job.deadline is None or not endless)
            ]

    def forget_dropped(self) -> None:
        """For whoever has rejected all the jobs that it was given: let go of them."""
        self._dropped = []

    def close(self, cause: BaseException | None = None) -> list[Job]:
        """Refuse all from now on; return what was queued, for the caller to reject."""
        with self._lock:
            self._mode = Mode.STOPPED
            self._cause = cause or self._cause
            self._wake_all()
            self._recall_everything()
            return self._drop_queue()

    def forget_the_parent(self) -> list[Job]:
        """In the child of a fork: close, and return every job that nobody here will ever run.

        The lock may have been held by a thread that does not exist here.
        """
        self._lock = threading.RLock()
        running = self.running()
        self._tally.died += len(running)
        self._members.clear()
        for lane in self._lanes:
            lane.ahead.members.clear()
            lane.idle.clear()
        queued = self.close(RuntimeError("this process was forked from the one that runs the crew"))
        return running + queued

    # --- errors ---------------------------------------------------------------------------

    def unavailable(self, lane: int = 0) -> DatabaseUnavailable:
        """Return the error of a job that the suspended crew refuses, or its writer's lane."""
        down = self._lanes[lane]
        return refusals.unavailable(self.name, self.database, down.cause, down.role if lane else None)

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
        return sum(map(self._waiting_in, self._lanes))

    def is_mine(self) -> bool:
        """Say whether this thread is inside one of these methods: code that interrupted it must not wait."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]

    def late(self, job: Job | None, seconds: float) -> str:
        """Return the text of a `pykka.Timeout`: where the job is, or how the crew is without one."""
        with self._lock:
            if job is None:
                return f"crew {self!r}: no answer within {seconds:g} seconds"
            return f"crew {self.name!r}: no answer to {job.request} within {seconds:g} seconds: {self._where(job)}"

    def _where(self, job: Job) -> str:
        lane, member = self._lane_of(job), job.member
        if job.state is QUEUED:
            first = list(islice(lane.jobs, _PORTION))  # counting a long queue would hold the lock too long
            ahead = str(first.index(job)) if job in first else f"more than {len(first)}"
            return f"it is queued behind {ahead} others; {in_words(self._members.values(), self.size)}"
        if member is None or not member.has(job):
            return "its answer is on the way"
        if job.state is SENT:
            return f"it is queued at worker {member.id}, behind the job that runs there"
        lock = ", and waits for a lock of another connection" if member.waits_for_lock() else ""
        return f"it has run for {self.clock() - job.started_at:.3f} seconds on worker {member.id}{lock}"

    def status(self) -> CrewStatus:
        """Return a snapshot of everything."""
        with self._lock:
            return CrewStatus(
                name=self.name,
                database=self.database,
                state=self._mode.value,
                cause=None if (cause := self._cause or self._lanes[-1].cause) is None else refusals.why(cause),
                size=self.size,
                workers=statuses_of(self._members.values(), self.clock()),
                queued=self.queued,
                running=sum(member.is_running for member in self._members.values()),
                writing=self._writing(),
                **self._tally.counts(),
                stuck=self.stuck,
                restarts=self.restarts,
                failed_starts=self.failed_starts,
                warnings=tuple(dict.fromkeys(text for member in self._members.values() for text in member.warnings)),
                wait=self._tally.wait_times.summary(),
                run=self._tally.run_times.summary(),
            )

    def _writing(self) -> str | None:
        for member in self._members.values():
            if member.lane is not None and member.lane.on_demand and member.job is not None and member.is_running:
                return None if member.waits_for_lock() else str(member.job.request)
        return None

    def __repr__(self) -> str:
        with self._lock:
            counts = in_words(self._members.values(), self.size)
            return f"{self.name!r} {self._mode.value}: {counts}, {self.queued} queued, {self._tally.answered} answered"

    # --- inside the lock ------------------------------------------------------------------

    def _withdraw(self, job: Job) -> bool:
        # A signal may have interrupted `submit` before it woke a worker: `match` wakes one.
        self._take_back_from_worker(job)
        lane = job.lane
        if lane is None:
            return False
        lane.match()
        if job.state is not QUEUED and not (job.state is NEW and job in lane.jobs):
            return False
        return self._take_back(job)

    def _is_held_by(self, owner: tuple[object, ...], job: Job) -> bool:
        """Say whether conversations of `owner` hold all workers that could run `job`."""
        lane = self._lane_of(job)
        if job.state is not QUEUED:
            return False  # the job runs, or another thread is about to reject it
        running = [member.job for member in self._members.values() if member.lane is lane]
        held = sum(
            each is not None
            and each.talk is not None
            and each.talk.is_held_by(owner)
            and each.talk.waits_for_caller
            and each.abort is None
            and not each.talk.end.done()
            for each in running
        )
        return held >= (1 if lane.on_demand else self.size)

    def _refusal(self, job: Job) -> QuerycrewError | None:
        match self._mode:
            case Mode.UP:
                lane = self._lane if job.lane is None else job.lane
                if lane.down:
                    return self.unavailable(self._lanes.index(lane))
                full = self._queue_full(lane) if self.max_queue is not None else None
                return full or self._admission.poison(job, job.submitted_at)
            case Mode.SUSPENDED:
                return self.unavailable()
            case _:
                return self.stopped()

    def _queue_full(self, lane: Lane) -> QueueFull | None:
        most = self.max_queue
        if most is None or sum(len(each) + each.ahead.most for each in self._lanes) < most:
            return None
        # A job that a free worker is about to take does not count: max_queue=0 means "now or never".
        left = {each: self._waiting_in(each) - self._free_in(each) for each in self._lanes}
        if left[lane] < 0 or sum(max(0, waiting) for waiting in left.values()) < most:
            return None
        return refusals.queue_full(self.name, self.queued, most, self.size)

    def _waiting_in(self, lane: Lane) -> int:
        return len(lane) + len(lane.ahead) if lane.ahead.members else len(lane)

    def _free_in(self, lane: Lane) -> int:
        if lane.on_demand and not lane.members:
            return 1  # whoever is about to be started for it
        return sum(member.lane is lane and member.state in _FREE for member in self._members.values())

    def _lane_of(self, it: Member | Job) -> Lane:
        return self._lane if it.lane is None else it.lane

    def _count_members(self, lane: Lane) -> None:
        lane.members = sum(member.lane is lane for member in self._members.values())

    def _recall_everything(self) -> None:
        for lane in self._lanes:
            lane.ahead.recall_everything()

    def _wake_all(self) -> None:
        for lane in self._lanes:
            lane.wake_all()

    def _assign(self, member: Member, now: float) -> Job | None:
        lane = self._lane if member.lane is None else member.lane
        if member.state is not _BUSY:
            if member.state is _GONE:
                return None
            lane.strike(member)  # it was woken by hand, or the waking was cut off half-way
        while (job := lane.first()) is not None:
            if (
                job.deadline is not None or self._sheds or self._quarantine.deaths or job.abort
            ) and self._is_to_be_dropped(member, job, now):
                continue
            if job.state is WITHDRAWN:  # by a finalizer, in this very moment
                continue
            # As `_begin`, without the call: every job passes here. A finalizer may come in at the counting, last.
            job.state = STARTED
            waited = None if job.started_at else now - job.submitted_at
            job.started_at = member.since = now
            job.member = member
            member.job = job
            lane.jobs.pop(job, None)
            member.state = _BUSY
            if waited is not None:
                self._tally.wait_times.record(waited)
            return job
        if lane.ahead.members and lane.ahead.steal():
            return self._assign(member, now)
        member.since = now
        if self._mode in (Mode.STOPPING, Mode.STOPPED):
            member.state = MemberState.RETIRED
        else:
            member.state = MemberState.IDLE
            lane.idle.append(member)
        return None

    def _begin(self, member: Member, job: Job, now: float | None = None) -> None:
        """Note that `member` runs `job`."""
        if now is None:
            now = self.clock()
        job.state = STARTED
        waited = None if job.started_at else now - job.submitted_at  # else it was taken back before it was begun
        job.started_at = member.since = now
        job.member = member
        member.job = job
        if waited is not None:
            self._tally.wait_times.record(waited)

    def _give(self, member: Member, now: float) -> list[tuple[int, Job]]:
        """Give `member` a job, if it has none, and others ahead; return them with their tickets."""
        assert member.pipeline is not None
        given: list[Job] = []
        lane = self._lane_of(member)
        if member.job is None:
            if (first := self._assign(member, now)) is None:
                return []
            if first.talk is not None:
                return [(0, first)]  # it has the connection for itself
            given.append(first)
        elif member.job.talk is not None:
            return []
        # What may have killed a worker has no company: if it kills another, it is known.
        groups, quarantine = member.pipeline.groups, self._quarantine
        has_suspect = groups and member.job is not None and quarantine.suspects(member.job.request)
        for _ in range(0 if has_suspect else lane.ahead.room(member)):
            job = lane.first()
            while job is not None and self._is_to_be_dropped(member, job, now):
                job = lane.first()
            if job is None or job.talk is not None or (groups and quarantine.suspects(job.request)):
                break
            lane.ahead.give(member, job)
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
        if overdue or self._sheds or self._quarantine.deaths or job.abort:
            objection = self._admission.objection(job, now)
            if objection is not None:
                error, ending = objection
                member.dropped.append((job, error))
                if self._take_back(job):
                    self._count_aborted(job, ending)
        return job.state is WITHDRAWN  # here, or by a finalizer meanwhile

    def _hand_on(self, member: Member, job: Job) -> None:
        """Let a job that a reader was given, and that turned out to write, wait for the writer: nothing of it ran."""
        writers = self._lanes[-1]
        if self._routes is not None:
            self._routes.note_writing(job.request)
        if self._mode is Mode.STOPPED or writers.down:
            self._drop(member, job, self.stopped if self._mode is Mode.STOPPED else partial(self.unavailable, 1))
        else:
            writers.take_over(job)
            if job.waiter is not None and self._is_held_by(job.waiter, job):
                self._drop(member, job, partial(refusals.held_by_caller, self.name, job))
        # Behind that, as in `_put_back`.
        member.job = job.member = None
        writers.match()
        if not writers.members:
            self.agenda.ring()

    def _drop(self, member: Member, job: Job, error: Callable[[], BaseException]) -> None:
        """Let `member` reject a job that nobody will take any more."""
        member.dropped.append((job, error() if job.abort is None else job.abort.error(False)))
        if self._take_back(job):
            self._count_aborted(job, "rejected" if job.abort is None else job.abort.kind)

    def _put_back(self, job: Job) -> None:
        """Let a job that a worker was given and has not begun wait again, before all others."""
        self._lane_of(job).put_back(job)
        job.member = None  # behind that: whoever cuts this off, the next one who deals with it can tell whose it was
        self.agenda.see_one(job)  # `see` looks at the end of the queue only

    def _take_back_from_worker(self, job: Job) -> None:
        """If `job` was sent ahead and is not begun, let it wait in the queue again."""
        if job.state is SENT and job.member is not None and job in job.member.ahead:
            self._lane_of(job.member).ahead.recall(job.member)

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
        taken = self._take_out(job)
        self.agenda.forget(job)
        return taken

    def _take_out(self, job: Job) -> bool:
        return self._lane_of(job).withdraw(job)

    def _shed_head(self, lane: Lane, now: float, shed: list[tuple[Job, Callable[[], BaseException]]]) -> None:
        """If nobody has taken the oldest job for twice the target, take out all that waited longer than it."""
        at = lane.stands_too_long_at()
        if at is None or now < at or lane.shedding is None:
            return
        target = lane.shedding.target
        waited = takewhile(lambda job: now - job.submitted_at > target, lane.waiting())
        for job in islice(waited, _PORTION):
            self._dropped.append(job)
            if self._take_back(job):
                self._tally.shed += 1
                shed.append((job, partial(self._admission.overloaded, now - job.submitted_at, target)))

    def _count_aborted(self, job: Job, ending: Ending) -> None:
        self.agenda.aborted.pop(job, None)
        self._tally.count(ending)

    def _drop_queue(self, lanes: Iterable[Lane] | None = None) -> list[Job]:
        dropped: list[Job] = []
        for lane in self._lanes if lanes is None else lanes:
            waiting = lane.waiting()
            dropped += waiting
            # Remembered until `forget_dropped`: whoever has to reject them may be killed before it is done.
            self._dropped = self._dropped + waiting
            lane.jobs = OrderedDict()
        for job in dropped:
            if self._take_back(job):  # unless a finalizer has cancelled it meanwhile
                self._count_aborted(job, "rejected" if job.abort is None else job.abort.kind)
        return list(self._dropped)
