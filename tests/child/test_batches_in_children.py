"""Batches in child processes: who begins a job, who takes it back, and how the job ends.

The tests run without threads and processes; see `hands`.
"""

import threading
from functools import partial

import pytest

from actors.databases.child import connection as child_connection
from actors.dispatch.job import Abort
from actors.dispatch.worker_handle import WorkerState
from actors.values.errors import PoisonQuery, QueryCancelled, QueryTimeout, QueueFull, WorkerDied
from supervisor import Query
from tests.support.hands import Crew, errors

OTHER = Query("SELECT other")
BOOM = Query("SELECT boom()")


@pytest.fixture
def make(monkeypatch):
    return lambda **options: Crew(monkeypatch, **options)


@pytest.fixture
def five(make):
    """A worker that is about to take five jobs, and another one."""
    crew = make(size=1)
    return crew, crew.hand(), crew.submit_many(5)


class Late:
    """A worker that comes up while another worker waits for its child, and takes jobs from it."""

    def __init__(self, crew):
        self.crew, self.hand, self.batch = crew, crew.hand(), None
        crew.lane.handles.remove(self.hand.handle)

    def __call__(self):
        self.crew.lane.handles.append(self.hand.handle)
        self.batch = self.hand.take()

    @property
    def jobs(self):
        return [] if self.batch is None else list(self.batch.jobs)

    def run(self):
        if self.batch is not None:
            self.hand.go(batch=self.batch)
        while not self.hand.is_idle:
            self.hand.go()


# --- taking -------------------------------------------------------------------------------


def test_jobs_begin_first_in_first_out(make):
    crew = make(size=1)
    hand, jobs = crew.hand(), crew.submit_many(100)
    while not hand.is_idle:
        hand.go()
    assert hand.begun == jobs
    assert crew.settled == jobs
    assert crew.status().answered == 100


def test_a_worker_takes_its_fair_share(make):
    crew = make(size=4)
    hands, jobs = [crew.hand() for _ in range(4)], crew.submit_many(9)
    assert hands[0].take().jobs == jobs[:3]


def test_answers_that_come_together_are_settled_together(five):
    crew, hand, jobs = five
    seen = []
    hand.go(
        lambda: (hand.begin(), hand.child.answer(), hand.begin(), hand.child.fail(ValueError("no")), hand.begin()),
        hand.child.flush,
        lambda: seen.append((errors(jobs[:2]), crew.status())),
        hand.answer,
    )
    [(kinds, status)] = seen
    assert kinds == [None, "ValueError"]
    assert (status.answered, status.failed, status.running, status.queued) == (1, 1, 1, 2)
    assert crew.status().answered == 4


def test_jobs_that_lie_in_a_child_count_as_queued_and_one_as_running(five):
    crew, hand, jobs = five
    seen = []
    hand.go(hand.begin, lambda: seen.append((crew.status(), repr(crew.dispatcher))), hand.answer)
    [(status, text)] = seen
    assert (status.running, status.queued) == (1, 4)
    assert status.workers[0].job == str(jobs[0].request)
    assert "4 queued" in text


def test_jobs_that_lie_in_a_child_count_against_the_limit(make):
    crew = make(size=1, max_queue=3)
    hand, jobs = crew.hand(), crew.submit_many(4)
    seen = []
    hand.go(hand.begin, lambda: seen.append(crew.submit()), hand.answer, lambda: seen.append(crew.submit()))
    assert isinstance(seen[0].reply.exception(0), QueueFull)
    assert "3 jobs queued" in str(seen[0].reply.exception(0))
    assert not seen[1].reply.done()
    hand.go()
    assert errors([*jobs, seen[1]]) == [None] * 5


# --- another worker takes jobs that have not begun ----------------------------------------


def test_an_idle_worker_takes_the_older_half_of_the_jobs_that_a_child_has_not_begun(five):
    crew, hand, jobs = five
    late = Late(crew)
    hand.go(hand.begin, late, hand.answer)
    assert late.jobs == jobs[1:4]
    assert hand.begun == [jobs[0], jobs[4]]
    late.run()
    assert late.hand.begun == jobs[1:4]
    assert errors(jobs) == [None] * 5
    assert len(crew.settled) == 5


def test_a_job_that_a_child_has_begun_is_never_taken(five):
    crew, hand, jobs = five
    late = Late(crew)
    begun = [hand.begin, hand.child.answer] * 4
    hand.go(lambda: [step() for step in [*begun, hand.begin]], late, hand.answer)
    assert late.jobs == []
    assert hand.begun == jobs
    assert errors(jobs) == [None] * 5


def steal_all(crew, hand):
    """Let other workers take as many jobs as they can, and run them."""
    for _ in range(10):
        other = crew.hand()
        other.go()
        crew.dispatcher.remove_worker(other.handle)


@pytest.mark.parametrize("moment", range(6))
def test_jobs_that_other_workers_take_at_any_moment_run_once(five, moment):
    crew, hand, jobs = five
    crew.lane.handles[:] = [hand.handle]
    script = [hand.begin, hand.answer] * 3
    script.insert(moment, lambda: steal_all(crew, hand))
    hand.go(*script)
    while not hand.is_idle:
        hand.go()
    assert errors(jobs) == [None] * 5
    assert len(crew.settled) == len(set(crew.settled)) == 5
    assert crew.status().answered == 5


def test_a_quick_job_does_not_wait_behind_a_slow_one_while_a_worker_is_idle(five):
    crew, hand, jobs = five
    late, done = Late(crew), []

    def look():
        crew.look(0.005)
        late.run()

    hand.go(hand.begin, late, late.run, look, lambda: done.extend(job.reply.done() for job in jobs), hand.answer)
    assert done == [False, True, True, True, True]
    assert hand.begun == jobs[:1]


def test_the_rest_of_a_very_quick_batch_stays_with_its_worker(five):
    """Another worker would need more time to take the jobs. The test above has a stalled batch."""
    crew, hand, jobs = five
    crew.lane.quick[jobs[0].request.sql] = 1e-5
    late = Late(crew)
    hand.go(hand.begin, late, hand.answer)
    assert late.jobs == []
    assert hand.begun == jobs


# --- cancelling ---------------------------------------------------------------------------


def test_a_job_that_has_not_begun_is_cancelled_at_once_without_an_interrupt(five):
    crew, hand, jobs = five
    seen = []

    def cancel():
        assert jobs[2].reply.cancel() is True
        seen.append((jobs[2].reply.exception(0), crew.status()))

    hand.go(hand.begin, cancel, hand.answer)
    [(error, status)] = seen
    assert isinstance(error, QueryCancelled)
    assert error.executed is False
    assert (status.cancelled, status.queued, status.running) == (1, 3, 1)
    assert hand.interrupted == []
    later = crew.submit()
    while not hand.is_idle:
        hand.go()
    assert hand.begun == [jobs[0], jobs[1], jobs[3], jobs[4], later], "the other jobs keep their order"


@pytest.mark.parametrize("behind", [0, 1, 2])
def test_only_the_job_that_has_begun_is_interrupted(five, behind):
    """Also if the job began after answers that the parent has not read yet."""
    crew, hand, jobs = five
    before = [step for _ in range(behind) for step in (hand.begin, hand.child.answer)]

    def cancel():
        assert jobs[behind].reply.cancel() is True
        assert set(hand.interrupted) == {behind + 1}
        hand.fail(InterruptedError())

    hand.go(lambda: [step() for step in [*before, hand.begin, cancel]])
    while not hand.is_idle:
        hand.go()
    error = jobs[behind].reply.exception(0)
    assert isinstance(error, QueryCancelled)
    assert error.executed is False
    assert [kind for kind in errors(jobs) if kind] == ["QueryCancelled"]
    assert crew.status().cancelled == 1


def test_a_cancelled_job_that_is_done_before_its_interrupt_says_so(five):
    _, hand, jobs = five
    hand.go(hand.begin, jobs[0].reply.cancel, hand.answer)
    error = jobs[0].reply.exception(0)
    assert isinstance(error, QueryCancelled)
    assert error.executed is True


def test_an_interrupt_is_repeated_for_the_same_job(five):
    crew, hand, jobs = five
    hand.go(hand.begin, jobs[0].reply.cancel, lambda: crew.look(0.1), lambda: crew.look(0.1), hand.answer)
    assert hand.interrupted == [1, 1, 1]
    assert crew.status().cancelled == 1


def test_a_statement_that_ignores_its_interrupt_costs_its_worker_and_no_other_job(five):
    crew, hand, jobs = five

    def give_up():
        assert crew.look(0.6) == [hand.handle]
        hand.child.die()

    hand.go(hand.begin, jobs[0].reply.cancel, give_up)
    error = jobs[0].reply.exception(0)
    assert isinstance(error, QueryCancelled)
    assert error.executed is None
    assert crew.lane.waiting() == jobs[1:]
    crew.status()


def test_the_deadline_of_a_job_that_has_not_begun_rejects_it_unstarted(make):
    crew = make(size=1)
    hand, first, late, last = crew.hand(), crew.submit(), crew.submit(timeout=1), crew.submit()
    seen = []
    hand.go(hand.begin, lambda: (crew.look(1.1), seen.append(late.reply.exception(0))), hand.answer)
    [error] = seen
    assert isinstance(error, QueryTimeout)
    assert error.executed is False
    assert hand.interrupted == []
    hand.go()
    assert hand.begun == [first, last]
    assert crew.status().timed_out == 1


def test_the_deadline_of_a_job_that_has_begun_interrupts_it(make):
    crew = make(size=1)
    hand, late, other = crew.hand(), crew.submit(timeout=1), crew.submit()
    hand.go(hand.begin, lambda: crew.look(1.1), lambda: hand.fail(InterruptedError()))
    assert set(hand.interrupted) == {1}
    hand.go()
    error = late.reply.exception(0)
    assert isinstance(error, QueryTimeout)
    assert error.executed is False
    assert errors([other]) == [None]


@pytest.mark.parametrize("seen_first", [True, False], ids=["noted", "not noted"])
def test_a_job_that_a_death_gives_back_keeps_its_deadline(make, seen_first):
    crew = make(size=2)
    hand, _, late, soon = crew.hand(), crew.submit(), crew.submit(timeout=5), crew.submit(timeout=1)
    script = [hand.begin, *[lambda: crew.look(1.1)] * seen_first, hand.child.die]
    hand.go(*script)
    if not seen_first:
        crew.look(1.1)
    assert isinstance(soon.reply.exception(0), QueryTimeout)
    assert not late.reply.done()
    assert crew.dispatcher.next_due() <= crew.clock() + 4
    crew.look(4)
    assert isinstance(late.reply.exception(0), QueryTimeout)
    assert late.reply.exception(0).executed is False


# --- deaths -------------------------------------------------------------------------------


def test_a_death_costs_the_running_job_and_its_other_jobs_wait_at_the_head_of_the_queue(five):
    crew, hand, jobs = five
    later = []
    hand.go(hand.begin, lambda: later.append(crew.submit()), hand.child.die)
    assert hand.orphans == jobs[:1]
    assert isinstance(jobs[0].reply.exception(0), WorkerDied)
    status = crew.status()
    assert (status.died, status.queued, status.running) == (1, 5, 0)
    other = crew.hand()
    while not other.is_idle:
        other.go()
    assert other.begun == [*jobs[1:], *later]
    assert crew.status().answered == 5


def test_reads_whose_answers_never_left_the_child_begin_again_in_their_order(five):
    crew, hand, jobs = five
    hand.go(
        lambda: [hand.begin(), hand.child.answer(), hand.begin(), hand.child.answer(), hand.begin()], hand.child.die
    )
    assert hand.orphans == [jobs[2]]
    other = crew.hand()
    while not other.is_idle:
        other.go()
    assert other.begun == [jobs[0], jobs[1], jobs[3], jobs[4]]
    assert errors(jobs) == [None, None, "WorkerDied", None, None]
    assert len(crew.settled) == 5


def test_writes_whose_answers_never_left_the_child_are_lost_and_never_begin_again(make):
    crew = make(size=1, has_writer=True)
    hand, jobs = crew.hand(1), crew.submit_many(5, Query("INSERT INTO kept VALUES (1)"))
    hand.go(lambda: [hand.begin(), hand.child.answer(), hand.begin()], hand.child.die)
    assert hand.orphans == jobs[:2]
    other = crew.hand(1)
    while not other.is_idle:
        other.go()
    assert other.begun == jobs[2:]
    assert errors(jobs) == ["WorkerDied"] * 2 + [None] * 3
    assert all(job.reply.exception(0).executed is None for job in jobs[:2])


def test_an_idle_worker_wakes_for_the_jobs_that_a_dead_worker_has_not_begun(five):
    crew, hand, _ = five
    idle = crew.hand()
    crew.lane.handles.remove(idle.handle)
    hand.go(
        lambda: (crew.lane.handles.append(idle.handle), setattr(idle.handle, "state", WorkerState.IDLE)), hand.child.die
    )
    assert idle in crew.woken


def test_an_idle_worker_wakes_for_the_jobs_that_a_cancel_takes_back(five):
    crew, hand, jobs = five
    idle = crew.hand()
    crew.lane.handles.remove(idle.handle)
    asleep = [lambda: crew.lane.handles.append(idle.handle), lambda: setattr(idle.handle, "state", WorkerState.IDLE)]
    seen = []
    hand.go(hand.begin, *asleep, jobs[2].reply.cancel, lambda: seen.extend(crew.woken), hand.answer)
    assert idle in seen


def test_an_answer_that_left_a_child_before_its_death_settles_its_job(five):
    crew, hand, jobs = five
    hand.go(hand.begin, hand.answer, hand.begin, hand.answer, hand.child.die)
    assert errors(jobs[:2]) == [None, None]
    assert hand.orphans == []
    assert crew.lane.waiting() == jobs[2:]
    status = crew.status()
    assert (status.answered, status.died) == (2, 0)


def test_jobs_that_are_sent_to_a_dead_child_wait_again(five):
    crew, hand, jobs = five
    hand.child.die()
    assert hand.go() == []
    assert crew.lane.waiting() == jobs
    assert crew.status().died == 0


def test_a_worker_may_be_removed_twice(five):
    crew, hand, jobs = five
    hand.go(hand.begin, hand.child.die)
    assert crew.dispatcher.remove_worker(hand.handle) == []
    assert crew.lane.waiting() == jobs[1:]
    assert crew.status().died == 1


def test_a_cancelled_job_that_a_death_gives_back_never_begins(five):
    """The child had answered the job, and the answer never left the child."""
    crew, hand, jobs = five
    seen = []
    hand.go(
        lambda: [hand.begin(), hand.child.answer(), hand.begin()],
        lambda: seen.append(jobs[0].reply.cancel()),
        hand.child.die,
    )
    assert seen == [True]
    other = crew.hand()
    crew.look()
    while not other.is_idle:
        other.go()
    assert jobs[0] not in other.begun
    assert isinstance(jobs[0].reply.exception(0), QueryCancelled)
    assert len(crew.settled) == 5


# --- threads that are killed while they take jobs back ------------------------------------


@pytest.fixture
def cut_off(five, monkeypatch):
    """Kills a thread that takes a job back, just after the thread has drawn the token."""
    _, hand, _ = five
    real = hand.connection.recall

    def recall(most=None):
        monkeypatch.setattr(hand.connection, "recall", real)
        real(1)
        raise KeyboardInterrupt

    def act():
        monkeypatch.setattr(hand.connection, "recall", recall)
        with pytest.raises(KeyboardInterrupt):
            hand.handle.batch.take_back()

    return act


def test_a_job_that_a_killed_thread_has_taken_back_still_runs(five, cut_off):
    crew, hand, jobs = five
    hand.go(hand.begin, cut_off, hand.answer)
    while not hand.is_idle:
        hand.go()
    assert errors(jobs) == [None] * 5
    assert len(crew.settled) == 5


def test_a_job_that_a_killed_thread_has_partly_given_back_runs_if_the_child_dies(five):
    crew, hand, jobs = five
    hand.go(hand.begin, lambda: hand.handle.batch.take_back(1), hand.child.die)
    other = crew.hand()
    while not other.is_idle:
        other.go()
    assert errors(jobs) == ["WorkerDied", None, None, None, None]
    assert len(crew.settled) == 5


class SlowCancel:
    """A thread that cancels a job, and is paused in the middle of taking jobs back."""

    def __init__(self, monkeypatch, job, owner, name):
        self.is_there, self.goes_on = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=job.reply.cancel, daemon=True)
        real = getattr(owner, name)

        def slowly(most=None):
            drawn = real(most)
            if threading.current_thread() is self.thread:
                self.is_there.set()
                self.goes_on.wait()
            return drawn

        monkeypatch.setattr(owner, name, slowly)

    def begin(self):
        self.thread.start()
        self.is_there.wait()

    def end(self):
        self.goes_on.set()
        self.thread.join()


@pytest.mark.parametrize("where", ["token drawn", "task removed", "recall returned"])
def test_a_thread_that_takes_jobs_back_very_slowly_takes_none_of_a_later_batch(five, monkeypatch, where):
    """No job begins twice.

    While the thread is paused, the worker takes the jobs again, and the child begins one of them.
    """
    crew, hand, jobs = five
    places = {
        "token drawn": (hand.child, "recall"),
        "task removed": (hand.connection, "_draw_back"),
        "recall returned": (hand.connection, "recall"),
    }
    cancel = SlowCancel(monkeypatch, jobs[1], *places[where])
    monkeypatch.setattr(child_connection, "_LONGEST_RECALL", 0.0)
    hand.go(hand.begin, cancel.begin, hand.answer)
    assert hand.begun == jobs[:1]
    hand.go(hand.begin, cancel.end, hand.answer)
    while not hand.is_idle:
        hand.go()
    assert hand.begun == [jobs[0], jobs[1], *(job for job in hand.begun if job in jobs[2:])]
    assert sorted(map(jobs.index, hand.begun)) == [0, 1, 2, 3, 4]
    assert len(crew.settled) == 5


# --- the end of a crew --------------------------------------------------------------------


def test_jobs_in_a_child_run_after_the_crew_has_stopped_accepting_jobs(five):
    crew, hand, jobs = five
    hand.go(hand.begin, crew.dispatcher.stop_accepting, hand.answer)
    assert hand.go() == []
    assert errors(jobs) == [None] * 5
    assert hand.handle.state.value == "retired"


def test_a_shutdown_rejects_the_jobs_that_a_child_has_not_begun(five):
    crew, hand, jobs = five
    seen = []

    def stop():
        crew.dispatcher.stop_accepting()
        crew.dispatcher.cancel_pending()
        seen.append(crew.status())

    hand.go(hand.begin, stop, hand.answer)
    [status] = seen
    assert (status.rejected, status.queued, status.running) == (4, 0, 1)
    assert errors(jobs) == [None, *["SupervisorStopped"] * 4]
    assert hand.begun == jobs[:1]


def test_closing_rejects_the_jobs_that_a_child_has_not_begun(five):
    crew, hand, jobs = five
    hand.go(hand.begin, crew.dispatcher.close, hand.answer)
    assert errors(jobs) == [None, *["SupervisorStopped"] * 4]
    assert all(job.reply.exception(0).executed is False for job in jobs[1:])


def test_the_last_worker_of_a_closed_crew_leaves_no_job_waiting(five):
    crew, hand, jobs = five
    hand.go(hand.begin, crew.dispatcher.close, hand.child.die)
    assert errors(jobs) == ["WorkerDied", *["SupervisorStopped"] * 4]
    assert crew.lane.waiting() == []
    assert len(crew.settled) == 5


# --- statements that kill -----------------------------------------------------------------


def kill_with(crew, request, times):
    for _ in range(times):
        hand, job = crew.hand(), crew.submit(request)
        hand.go(hand.begin, hand.child.die)
        assert errors([job]) == ["WorkerDied"]


def test_a_statement_that_has_killed_three_workers_is_refused(make):
    crew = make(size=1)
    kill_with(crew, BOOM, 2)
    assert not crew.submit(BOOM).reply.done()
    hand = crew.hand()
    hand.go(hand.begin, hand.child.die)
    error = crew.submit(BOOM).reply.exception(0)
    assert isinstance(error, PoisonQuery)
    assert error.executed is False
    assert "has killed 3 workers" in str(error)
    assert not crew.submit(OTHER).reply.done()


def test_only_the_statement_that_kills_batch_after_batch_is_refused(make):
    """The statement is quick, so it runs in a batch. The other jobs of the batch are harmless."""
    crew = make(size=1)
    crew.knows(BOOM, OTHER)
    for _ in range(3):
        hand, jobs = crew.hand(), [crew.submit(OTHER), crew.submit(BOOM), crew.submit(OTHER)]
        while crew.lane.handles and not hand.is_idle:
            hand.go(*[partial(dies_of, hand, BOOM)] * 5)
        if crew.lane.handles:
            crew.dispatcher.remove_worker(hand.handle)
        helper = crew.hand()
        while not helper.is_idle:
            helper.go()
        crew.dispatcher.remove_worker(helper.handle)
        assert errors(jobs) == [None, "WorkerDied", None]
    assert isinstance(crew.submit(BOOM).reply.exception(0), PoisonQuery)
    assert not crew.submit(OTHER).reply.done()


def dies_of(hand, request):
    job = hand.begin()
    if job is not None and job.request is request:
        hand.child.die()
    elif job is not None:
        hand.child.answer()


def test_a_statement_that_has_killed_a_worker_runs_alone(make):
    crew = make(size=1)
    crew.knows(BOOM)
    kill_with(crew, BOOM, 1)
    hand, jobs = crew.hand(), crew.submit_many(3, BOOM)
    assert hand.go() == jobs[:1]
    assert hand.go() == jobs[1:], "an answer clears the statement of suspicion"


def test_a_statement_that_may_have_killed_the_writer_runs_alone(make):
    crew = make(size=1, has_writer=True)
    insert = Query("INSERT INTO kept VALUES (1)")
    hand, jobs = crew.hand(1), crew.submit_many(3, insert)
    hand.go(lambda: [hand.begin() for _ in jobs], hand.child.die)
    assert errors(jobs) == ["WorkerDied"] * 3
    heir, jobs = crew.hand(1), crew.submit_many(3, insert)
    assert heir.go() == jobs[:1]
    assert heir.go() == jobs[1:], "an answer clears the statement of suspicion"


def test_a_worker_that_was_given_up_on_purpose_does_not_count_as_killed(make):
    crew = make(size=1)
    for _ in range(3):
        hand, job = crew.hand(), crew.submit(BOOM)
        hand.go(hand.begin, job.reply.cancel, lambda hand=hand: (crew.look(1), hand.child.die()))
        assert errors([job]) == ["QueryCancelled"]
    assert not crew.submit(BOOM).reply.done()


def test_only_the_abort_that_claims_a_job_in_a_child_settles_it(five):
    crew, hand, jobs = five

    def abort():
        assert jobs[1].reply.cancel()
        assert isinstance(jobs[1].owner, Abort)
        assert not crew.dispatcher.cancel(jobs[1])

    hand.go(hand.begin, abort, hand.answer)
    while not hand.is_idle:
        hand.go()
    assert crew.settled.count(jobs[1]) == 1
    assert jobs[1] not in hand.begun
