"""A hypothesis state machine over the dispatcher and workers whose connections take jobs ahead.

Every worker's thread is a generator that does what `Worker._work_ahead` does, with a pause wherever the others may
come in between; every child is the fake of `pipelined_desk`. After each rule `everything_holds`.
"""

import sys
from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.ahead import Ahead
from actors.databases.base import token_of
from actors.dispatcher import Dispatcher, Mode
from actors.errors import ConnectionLost, QueryCancelled, QuerycrewError, QueryTimeout, WorkerDied
from actors.job import QUEUED, SENT, Job
from actors.member import Member, MemberState
from actors.rejection import Rejection
from actors.reply import Reply
from actors.result import Result
from actors.worker import _endings
from tests.pipelined_desk import Child, PipelinedDesk, child_of

T = TypeVar("T")

pick = st.integers(0, 5)
"""Which one of several: taken modulo their number."""

_LATE = 0.0101  # seconds that a deadline may be looked at too late
_AGAIN = 0.0201  # seconds between two looks at a statement that was interrupted

RUNS, WAITS, SLEEPS = "runs", "waits", "sleeps"
"""Where a thread is: before its next step; waiting for an answer; waiting for mail."""


class Asked:
    """A job that was submitted, and all that came of it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.begun = 0
        self.done = False
        """Whether its statement was run to its end."""
        self.refused = False
        self.cancelled = False
        self.disowned = False
        """Its worker was given up for another job's sake: it counts as died, whatever its answer."""
        self.calls = 0
        self.outcome: object = None

    @property
    def reply(self) -> Reply[Any]:
        return self.job.reply

    def note(self, reply: Reply[Any]) -> None:
        self.calls += 1

    def fate(self) -> str:
        """Return the counter in which it belongs, once it is settled."""
        error = self.reply.exception(0)
        if self.disowned or isinstance(error, WorkerDied):
            return "died"
        if error is None:
            return "answered"
        if isinstance(error, QueryCancelled):
            return "cancelled"
        if isinstance(error, QueryTimeout):
            return "timed_out"
        return "rejected" if isinstance(error, QuerycrewError) else "failed"


class Hand:
    """A worker: its thread, which does one step at a time, and what makes that go on."""

    def __init__(self, desk: PipelinedDesk, member: Member) -> None:
        self.desk = desk
        self.member = member
        self.at = RUNS
        self.unsent = False
        """It was given jobs, and has not sent them yet."""
        self.mail = False
        self.ended = False
        self.thread = self.work() if member.pipeline is None else self.work_ahead()
        member.wake = self.wake

    def wake(self) -> None:
        self.mail = True

    @property
    def child(self) -> Child:
        return child_of(self.member)

    @property
    def can_go_on(self) -> bool:
        if self.ended:
            return False
        if self.at == WAITS:
            return self.member.pipeline is not None and bool(self.child.answers or not self.child.alive)
        return self.at == RUNS or self.mail

    @property
    def limbo(self) -> list[Job]:
        """Jobs that the dispatcher has done with, and this thread is about to settle."""
        if self.ended:
            return []
        landed = [] if self.member.pipeline is None else self.desk._pipelines[self.member.id].landed
        orphans = self.member.in_hand() if self.member.state is MemberState.GONE else []
        return [*(job for job, _ in landed), *(job for job, _ in self.member.dropped), *orphans]

    def go_on(self) -> None:
        if self.at == SLEEPS:
            self.mail = False
        try:
            self.at = next(self.thread)
        except (StopIteration, ConnectionLost):
            self.end()

    def work_ahead(self) -> Iterator[str]:
        """As `Worker._work_ahead`, and what calls that."""
        desk, member = self.desk, self.member
        pipeline = desk._pipelines[member.id]
        while member.state not in (MemberState.RETIRED, MemberState.GONE):
            jobs = self.exchange((), more=True)
            while True:
                desk.reject_dropped(member)
                yield RUNS
                desk.send(member, jobs)
                self.unsent = False
                if member.job is None or member.state is MemberState.GONE:
                    pipeline.forget()
                    break
                yield WAITS
                pipeline.receive()
                yield RUNS
                quick = all(job.reply.callbacks is None for job, _ in pipeline.landed)
                jobs = self.exchange(_endings(pipeline), more=quick and not self.mail)
                yield RUNS
                desk.settle(member)
                if not quick and not self.mail:
                    yield RUNS
                    jobs = self.exchange((), more=True)
            if member.state not in (MemberState.RETIRED, MemberState.GONE):
                yield SLEEPS

    def exchange(self, done: Any, *, more: bool) -> list[Job]:
        jobs = self.desk.dispatcher.exchange(self.member, done, more=more)
        self.unsent = bool(jobs)
        return jobs

    def work(self) -> Iterator[str]:
        """As `Worker._work_one_by_one`."""
        desk, member = self.desk, self.member
        while member.state not in (MemberState.RETIRED, MemberState.GONE):
            job = desk.dispatcher.take(member)
            desk.reject_dropped(member)
            while job is not None:
                yield WAITS
                done, job = job, desk.dispatcher.finish(member, ok=True, more=not self.mail)
                done.reply.settle(Result() if done.abort is None else self.aborted(done))
                desk.reject_dropped(member)
            if member.state not in (MemberState.RETIRED, MemberState.GONE):
                yield SLEEPS

    @staticmethod
    def aborted(job: Job) -> Any:
        assert job.abort is not None
        return Rejection(job.abort.error(True)) if job.abort.wins else Result()

    def end(self) -> None:
        """As `Worker.on_end`."""
        self.thread.close()
        if self.member.pipeline is not None:
            self.desk.die(self.member)
        else:
            for orphan in self.desk.dispatcher.bury(self.member):
                orphan.reply.reject(WorkerDied("died") if orphan.abort is None else orphan.abort.error(None))
            self.desk.reject_dropped(self.member)
        self.member.job = None
        self.member.ahead.clear()
        self.ended = True


class AheadMachine(RuleBasedStateMachine):
    """Everything that may happen to jobs that are sent ahead, in any order."""

    dispatcher_class: ClassVar[type[Dispatcher]] = Dispatcher
    ahead_class: ClassVar[type[Ahead]] = Ahead

    @initialize(size=st.integers(1, 3), depth=st.integers(1, 6), plain=st.booleans(), number=st.integers(1, 8))
    def start(self, size: int, depth: int, plain: bool, number: int) -> None:
        self.exception_outside = sys.exc_info()[1]
        self.size, self.depth = size, depth
        self.desk = PipelinedDesk(size=size + plain, dispatcher_class=self.dispatcher_class)
        self.dispatcher = self.desk.dispatcher
        self.dispatcher._lane.ahead.__class__ = self.ahead_class
        self.dispatcher.agenda.ring = self.ring
        self.alarm: float | None = None
        self.asked: dict[Job, Asked] = {}
        self.hands: list[Hand] = []
        """Jobs whose token was drawn by a thread that was killed then."""
        self.steps = 0
        for _ in range(size):
            self.add(self.desk.piped(depth))
        if plain:
            self.add(self.desk.worker())
        self.submit(number, None, watch=False)

    def ring(self) -> None:
        self.alarm = self.desk.clock()

    def add(self, member: Member) -> None:
        self.hands.append(Hand(self.desk, member))

    # --- who there is ---------------------------------------------------------------------

    @staticmethod
    def one_of(several: list[T], pick: int) -> T:
        return several[pick % len(several)]

    def living(self) -> list[Hand]:
        return [hand for hand in self.hands if not hand.ended]

    def piped(self) -> list[Hand]:
        return [hand for hand in self.living() if hand.member.pipeline is not None]

    def busy_plain(self) -> list[Hand]:
        return [hand for hand in self.living() if hand.member.pipeline is None and hand.at == WAITS]

    def ready(self) -> list[Hand]:
        return [hand for hand in self.living() if hand.can_go_on]

    def may_begin(self) -> list[Hand]:
        return [
            hand
            for hand in self.piped()
            if hand.child.alive and hand.child.running is None and hand.child.frames and not hand.unsent
        ]

    def running(self) -> list[Hand]:
        return [hand for hand in self.piped() if hand.child.alive and hand.child.running is not None]

    def pending(self) -> list[Asked]:
        return [asked for asked in self.asked.values() if not asked.reply.done()]

    def in_hand(self) -> list[Asked]:
        """Return the jobs that a worker has in hand and its child has not begun."""
        hands = [hand.member.in_hand() for hand in self.piped() if hand.child.alive]
        return [asked for asked in self.pending() if not asked.begun and any(asked.job in jobs for jobs in hands)]

    def can_lose(self) -> list[Hand]:
        return [hand for hand in self.piped() if hand.child.tokens and len(hand.member.in_hand()) > 1]

    # --- callers --------------------------------------------------------------------------

    @rule(number=st.integers(1, 4), timeout=st.sampled_from([None, None, 0.0, 0.05, 0.3]), watch=st.booleans())
    def submit(self, number: int, timeout: float | None, watch: bool) -> None:
        for _ in range(number):
            job = self.desk.job(timeout=timeout)
            asked = self.asked[job] = Asked(job)
            if watch:
                job.reply.add_done_callback(asked.note)
            refusal = self.dispatcher.submit(job)
            if refusal is not None:
                assert self.dispatcher.mode is not Mode.UP
                asked.refused = True
                job.reply.reject(refusal)

    @precondition(lambda self: self.steps % 3 == 0 and self.pending())
    @rule(pick=pick)
    def cancel(self, pick: int) -> None:
        asked = self.one_of(self.pending(), pick)
        job = asked.job
        ahead = job.state is SENT and self.is_unbegun(job) and self.keeps_another(job)
        was = job.state
        said = job.reply.cancel()
        asked.cancelled |= said
        if was is QUEUED or ahead:
            assert said, "cancel said False of a job that waits"
            assert asked.reply.done(), "a job that waits was not cancelled at once"

    def is_unbegun(self, job: Job) -> bool:
        return (
            job.member is not None and job in job.member.ahead and token_of(job.ticket) in child_of(job.member).tokens
        )

    @staticmethod
    def keeps_another(job: Job) -> bool:
        """Say whether its worker has another in hand that cannot be taken back."""
        assert job.member is not None
        child = child_of(job.member)
        return len(child.tokens) + len(child.drawn) < len(job.member.in_hand())

    # --- workers and children -------------------------------------------------------------

    @precondition(lambda self: self.ready())
    @rule(pick=pick)
    def a_thread_goes_on(self, pick: int) -> None:
        self.one_of(self.ready(), pick).go_on()

    @rule(turns=st.integers(1, 8))
    def all_threads_go_on(self, turns: int) -> None:
        for _ in range(turns):
            for hand in self.ready():
                hand.go_on()

    @precondition(lambda self: self.may_begin())
    @rule(pick=pick)
    def a_child_begins_its_next_job(self, pick: int) -> None:
        self.begin(self.one_of(self.may_begin(), pick))

    def begin(self, hand: Hand) -> None:
        job = self.desk.begin(hand.member)
        if job is None:
            return
        asked = self.asked[job]
        asked.begun += 1
        assert asked.begun == 1, "a job was begun twice"
        assert not asked.reply.done(), "a job was begun that is settled"
        interrupted = hand.child.running in hand.child.interrupted
        assert job.abort is None or interrupted, "a job was begun that nobody wants"
        if interrupted:
            self.answer(hand, fails=False)

    @precondition(lambda self: self.running())
    @rule(pick=pick, fails=st.sampled_from([False, False, True]))
    def a_child_answers(self, pick: int, fails: bool) -> None:
        self.answer(self.one_of(self.running(), pick), fails=fails)

    def answer(self, hand: Hand, *, fails: bool) -> None:
        child = hand.child
        asked = self.asked[self.desk._by_ticket[hand.member.id, child.running]]
        if child.running in child.interrupted:
            assert asked.job.abort is not None, "a job was interrupted that was to go on"
            child.end(InterruptedError())
        elif fails:
            child.end(ValueError("no such table"))
        else:
            asked.done = True
            child.end(Result())

    @precondition(lambda self: self.piped())
    @rule(pick=pick, number=st.integers(1, 6))
    def a_child_races_ahead(self, pick: int, number: int) -> None:
        hand = self.one_of(self.piped(), pick)
        for _ in range(number):
            if hand in self.may_begin():
                self.begin(hand)
            if hand in self.running():
                self.answer(hand, fails=False)

    @precondition(lambda self: self.busy_plain())
    @rule()
    def a_plain_worker_is_done(self) -> None:
        (hand,) = self.busy_plain()
        self.end_plain(hand)

    def end_plain(self, hand: Hand) -> None:
        assert hand.member.job is not None or hand.member.state is MemberState.GONE
        if hand.member.job is not None:
            asked = self.asked[hand.member.job]
            asked.begun += 1
            asked.done = True
            assert asked.begun == 1, "a job was begun twice"
        hand.go_on()

    @precondition(lambda self: self.steps % 3 == 0 and self.piped())
    @rule(pick=pick)
    def a_child_dies(self, pick: int) -> None:
        self.one_of(self.piped(), pick).child.die()

    @precondition(lambda self: self.steps % 4 == 1 and self.in_hand())
    @rule(pick=pick)
    def a_job_is_cancelled_just_before_its_child_dies(self, pick: int) -> None:
        asked = self.one_of(self.in_hand(), pick)
        member = asked.job.member
        assert member is not None
        asked.cancelled |= asked.reply.cancel()
        child_of(member).die()

    @precondition(lambda self: self.steps % 5 == 0 and self.living())
    @rule(pick=pick)
    def a_thread_is_killed(self, pick: int) -> None:
        self.one_of(self.living(), pick).end()

    @precondition(lambda self: len(self.piped()) < self.size)
    @rule()
    def a_new_worker_comes_up(self) -> None:
        if self.dispatcher.mode is Mode.STOPPED:
            member = self.desk.enlisted()
            assert not self.dispatcher.report(member)
            self.dispatcher.bury(member)
            self.desk.reject_dropped(member)
        else:
            self.add(self.desk.piped(self.depth))
            self.dispatcher.resume()

    @precondition(lambda self: self.steps % 4 == 0 and self.can_lose())
    @rule(pick=pick, most=st.integers(1, 3))
    def a_thread_is_killed_in_the_middle_of_taking_back(self, pick: int, most: int) -> None:
        hand = self.one_of(self.can_lose(), pick)
        jobs = hand.member.in_hand()
        hand.child.recall(min(most, len(jobs) - 1))

    @precondition(lambda self: self.steps % 4 == 0 and self.can_lose())
    @rule(pick=pick)
    def a_thread_is_killed_when_it_has_put_a_job_back(self, pick: int) -> None:
        """Before it has struck that off the hands of its worker: another may take it meanwhile."""
        hand = self.one_of(self.can_lose(), pick)
        if not hand.child.drawn:
            (token,) = hand.child.recall(1)
            job = hand.member.given[token]
            self.dispatcher._put_back(job)
            self.dispatcher._lane.match()

    # --- the supervisor -------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.02, 0.06, 0.1, 0.6]))
    def time_passes(self, seconds: float) -> None:
        self.desk.clock.now += seconds
        if self.alarm is not None and self.alarm <= self.desk.clock():
            self.the_supervisor_looks()

    @rule()
    def the_supervisor_looks(self) -> None:
        for job, error in self.dispatcher.expire(self.desk.clock()):
            job.reply.reject(error())
        self.dispatcher.forget_dropped()
        for member in self.dispatcher.follow_up(self.desk.clock()):
            for orphan in member.in_hand():
                self.asked[orphan].disowned = orphan.abort is None
            if member.pipeline is None:
                self.leave_plain(member)
            else:
                self.desk.leave(member)
        self.alarm = self.dispatcher.next_due()

    def leave_plain(self, member: Member) -> None:
        for orphan in self.dispatcher.bury(member):
            assert orphan.abort is not None
            orphan.reply.reject(orphan.abort.error(None))
        self.desk.reject_dropped(member)

    @precondition(lambda self: self.steps % 7 == 0)
    @rule()
    def suspend(self) -> None:
        self.desk.reject_queue(self.dispatcher.suspend(OSError("gone")))

    @rule()
    def resume(self) -> None:
        self.dispatcher.resume()

    @precondition(lambda self: self.steps > 20)
    @rule()
    def stop_accepting(self) -> None:
        self.dispatcher.stop_accepting()

    @precondition(lambda self: self.steps % 7 == 0)
    @rule()
    def cancel_pending(self) -> None:
        self.desk.reject_queue(self.dispatcher.cancel_pending())

    @precondition(lambda self: self.steps > 25)
    @rule()
    def close(self) -> None:
        self.desk.reject_queue(self.dispatcher.close())

    # --- what always holds ----------------------------------------------------------------

    @invariant()
    def everything_holds(self) -> None:
        if not hasattr(self, "desk"):
            return
        self.steps += 1
        self.answers_stay_as_they_are()
        self.every_job_is_in_one_place()
        self.counters_add_up()
        self.no_job_waits_while_a_worker_sleeps()
        self.every_thread_that_waits_will_be_answered()
        self.what_is_due_is_looked_at()

    def answers_stay_as_they_are(self) -> None:
        for asked in self.asked.values():
            assert asked.calls <= asked.reply.done(), "a caller was told twice"
            if not asked.reply.done():
                continue
            outcome = asked.reply._outcome
            assert asked.outcome is None or asked.outcome is outcome, "an answer was changed"
            if asked.outcome is None:
                asked.outcome = outcome
                self.check_error(asked, asked.reply.exception(0))

    def check_error(self, asked: Asked, error: BaseException | None) -> None:
        if error is None:
            assert asked.done, "a job was answered that was not run"
        if asked.cancelled:
            assert isinstance(error, QueryCancelled), f"cancel said True, and its caller got {error!r}"
        if isinstance(error, QueryTimeout):
            assert asked.job.deadline is not None
            assert asked.job.deadline <= self.desk.clock(), "a job timed out before its deadline"
        if isinstance(error, QuerycrewError) and error.executed is False:
            assert not asked.done, f"{error!r} says that it was not executed"
        if isinstance(error, WorkerDied):
            assert asked.begun or self.was_begun_plain(asked.job), "a job died that was not begun"

    def was_begun_plain(self, job: Job) -> bool:
        return job.member is None or job.member.pipeline is None

    def every_job_is_in_one_place(self) -> None:
        lane = self.desk.waiting()
        hands = [job for member in self.dispatcher._members.values() for job in member.in_hand()]
        assert len(hands) == len(set(hands)), "a job is in two hands"
        assert not set(lane) & set(hands), "a job waits and is in somebody's hands"
        assert set(self.dispatcher._lane.jobs) == set(lane), "the queue keeps what does not wait"
        limbo = {job for hand in self.hands for job in hand.limbo}
        for asked in self.asked.values():
            if asked.reply.done():
                assert asked.job not in lane, "a job waits that is settled"
            else:
                assert asked.job in lane or asked.job in hands or asked.job in limbo, "a job is nowhere"
        assert not [job for job in lane if self.asked[job].begun], "a job waits that was begun"

    def counters_add_up(self) -> None:
        try:
            status = self.desk.status()
        except AssertionError as error:
            raise AssertionError("the counters do not add up") from error
        members = list(self.dispatcher._members.values())
        assert status.running == sum(member.is_running for member in members)
        ahead = sum(len(member.in_hand()) - member.is_running for member in members)
        assert status.queued == len(self.desk.waiting()) + ahead
        for hand in self.piped():
            assert len(hand.member.in_hand()) <= max(self.depth, 1), "a connection was given more than it takes"

    def no_job_waits_while_a_worker_sleeps(self) -> None:
        states = [member.state for member in self.dispatcher._members.values()]
        for hand in self.living():
            if hand.member.state is MemberState.AWAKE and hand.at == SLEEPS:
                assert hand.mail, "it was woken, and nothing makes it look for a job"
        if MemberState.IDLE not in states:
            return
        awake = states.count(MemberState.AWAKE)
        assert len(self.desk.waiting()) <= awake, "a job waits while a worker sleeps"
        if not awake and not any(hand.unsent for hand in self.living()):
            ahead = [job for hand in self.piped() for job in hand.member.ahead if self.is_unbegun(job)]
            free = [job for job in ahead if self.keeps_another(job) and job.member.state is not MemberState.GONE]
            assert not free, "a job waits behind another while a worker sleeps"

    def every_thread_that_waits_will_be_answered(self) -> None:
        for hand in self.piped():
            waits = hand.at == WAITS and not hand.can_go_on
            assert not waits or hand.child.has_anything_to_answer, "a thread waits for ever"

    def what_is_due_is_looked_at(self) -> None:
        alarm = float("inf") if self.alarm is None else self.alarm
        hands = [job for member in self.dispatcher._members.values() for job in member.in_hand()]
        for job in [*self.desk.waiting(), *hands]:
            if self.asked[job].reply.done():
                continue
            if job.abort is not None:
                assert alarm <= self.desk.clock() + _AGAIN, "nobody looks at a statement that was interrupted"
            elif job.deadline is not None:
                assert alarm <= job.deadline + _LATE, "nobody looks at a deadline"

    # --- the end --------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "desk") or sys.exc_info()[1] is not self.exception_outside:
            return
        self.dispatcher.stop_accepting()
        for _ in range(1000):
            if not self.pending() and not self.living():
                break
            self.drain()
        assert not self.pending(), "a caller is left waiting"
        assert not self.living(), "a worker never ends"
        assert self.desk.waiting() == []
        status = self.desk.status()
        fates = [asked.fate() for asked in self.asked.values()]
        for name in ("answered", "failed", "died", "rejected", "cancelled", "timed_out"):
            assert getattr(status, name) == fates.count(name), f"the counter {name} is wrong"
        self.answers_stay_as_they_are()

    def drain(self) -> None:
        """Let everybody go on who can; if nobody can, let die whose worker waits in vain, or a new one come."""
        self.the_supervisor_looks()
        went_on = False
        for hand in self.may_begin():
            self.begin(hand)
            went_on = True
        for hand in self.running():
            self.answer(hand, fails=False)
            went_on = True
        for hand in self.busy_plain():
            self.end_plain(hand)
            went_on = True
        for hand in self.ready():
            hand.go_on()
            went_on = True
        if went_on:
            return
        stuck = [hand for hand in self.piped() if hand.at == WAITS]
        for hand in stuck:
            hand.child.die()
        if not stuck:
            self.a_new_worker_comes_up()
