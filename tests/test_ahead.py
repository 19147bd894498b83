"""Jobs that were sent ahead: who is given how many, who takes them back, and what becomes of them.

Without threads and without processes: the child of each worker does what the test says.
"""

from collections import deque

import pytest

from actors.databases.base import token_of
from actors.errors import PoisonQuery, QueryCancelled, QueryTimeout, QueueFull, SupervisorStopped, WorkerDied
from actors.job import QUEUED, SENT, STARTED, WITHDRAWN
from actors.result import Result
from tests.desk import Desk
from tests.pipelined_desk import PipelinedDesk, child_of, is_idle

# --- giving -------------------------------------------------------------------------------


def test_a_worker_alone_is_given_as_many_jobs_as_its_connection_takes():
    desk = PipelinedDesk(size=1)
    worker, jobs = desk.piped(depth=4), desk.submit_many(10)
    assert desk.turn(worker) == jobs[:4]
    assert [job.state for job in jobs] == [STARTED, SENT, SENT, SENT, *[QUEUED] * 6]
    assert [job.ticket for job in jobs[:4]] == [1, 2, 3, 4]


def test_a_worker_is_given_its_fair_share_of_what_waits():
    desk = PipelinedDesk(size=4)
    workers, jobs = [desk.piped(depth=8) for _ in range(4)], desk.submit_many(9)
    assert desk.turn(workers[0]) == jobs[:3]  # one to run, and a fourth of the eight that are left


def test_the_share_is_rounded_up_when_nobody_else_is_about_to_take_the_rest():
    desk = PipelinedDesk(size=2)
    busy, worker = desk.piped(), desk.piped()
    first = desk.submit()
    assert desk.turn(busy) == [first]
    jobs = desk.submit_many(2)
    assert desk.turn(worker) == jobs


def test_what_a_free_worker_is_about_to_take_is_left_to_it():
    desk = PipelinedDesk(size=2)
    free, worker = desk.piped(), desk.piped()
    jobs = desk.submit_many(2)
    assert desk.turn(worker) == jobs[:1]
    assert desk.turn(free) == jobs[1:]


def test_a_worker_is_given_more_only_when_half_of_it_is_done():
    desk = PipelinedDesk(size=1)
    worker, jobs = desk.piped(depth=4), desk.submit_many(10)
    desk.turn(worker)
    desk.run(worker)
    assert desk.turn(worker) == []
    desk.run(worker)
    assert desk.turn(worker) == jobs[4:6]


def test_a_worker_that_has_mail_to_read_is_given_nothing_and_reads_when_all_is_answered():
    desk = PipelinedDesk(size=1)
    worker, _ = desk.piped(depth=2), desk.submit_many(5)
    desk.turn(worker)
    desk.run(worker)
    assert desk.turn(worker, more=False) == []
    assert worker.state.value == "busy"
    desk.run(worker)
    assert desk.turn(worker, more=False) == []
    assert (worker.state.value, worker.job, desk.dispatcher.queued) == ("awake", None, 3)


def test_jobs_are_begun_first_in_first_out():
    desk = PipelinedDesk(size=1)
    worker, jobs = desk.piped(depth=4), desk.submit_many(20)
    begun = []
    while desk.turn(worker) or worker.job is not None:
        begun.append(desk.run(worker))
    assert begun == jobs
    assert is_idle(worker)
    assert desk.status().answered == 20


def test_answers_that_come_together_land_together():
    desk = PipelinedDesk(size=1)
    worker, jobs = desk.piped(depth=4), desk.submit_many(4)
    desk.turn(worker)
    desk.run(worker)
    desk.run(worker, ValueError("no such table"))
    desk.begin(worker)
    desk.turn(worker)
    assert jobs[0].reply.get(timeout=0) == Result()
    assert isinstance(jobs[1].reply.exception(0), ValueError)
    assert (worker.job, list(worker.ahead)) == (jobs[2], [jobs[3]])
    status = desk.status()
    assert (status.answered, status.failed, status.running, status.queued) == (1, 1, 1, 1)


def test_a_worker_without_a_job_is_idle_and_is_woken_for_the_next():
    desk = PipelinedDesk(size=1)
    worker = desk.piped()
    assert desk.turn(worker) == []
    assert is_idle(worker)
    job = desk.submit()
    assert desk.woken == [worker]
    assert desk.turn(worker) == [job]


def test_what_is_answered_after_the_burial_counts_nothing():
    desk = PipelinedDesk(size=1)
    worker, _ = desk.piped(), desk.submit_many(1)
    desk.turn(worker)
    desk.run(worker)
    desk.dispatcher.bury(worker)
    assert desk.turn(worker) == []
    assert desk.status().answered == 0


# --- taking back --------------------------------------------------------------------------


@pytest.fixture
def rich():
    """One worker that runs the first of five jobs, another that looks for one."""
    desk = PipelinedDesk(size=2)
    worker, jobs = desk.piped(), desk.submit_many(5)
    assert desk.turn(worker) == jobs
    assert desk.begin(worker) is jobs[0]
    return desk, worker, jobs


def test_a_worker_that_finds_the_queue_empty_takes_back_the_older_half_of_what_another_has_ahead(rich):
    desk, worker, jobs = rich
    other = desk.piped()
    assert desk.turn(other) == jobs[1:3]
    assert worker.job is jobs[0]
    assert list(worker.ahead) == jobs[3:]
    assert desk.run(other) is jobs[1]
    desk.turn(other)
    assert jobs[1].reply.done()


def test_a_worker_whose_connection_takes_nothing_ahead_takes_back_as_well(rich):
    desk, worker, jobs = rich
    plain = desk.worker()
    assert desk.dispatcher.take(plain) is jobs[1]
    assert list(worker.ahead) == jobs[3:]
    assert desk.waiting() == [jobs[2]]


def test_the_richest_is_taken_from():
    desk = PipelinedDesk(size=2)
    rich, jobs = desk.piped(), desk.submit_many(6)
    desk.turn(rich)
    poor, others = desk.piped(), desk.submit_many(2)
    assert desk.turn(poor) == others
    desk.begin(rich)
    desk.begin(poor)
    assert desk.turn(desk.piped())[0] is jobs[1]
    assert list(poor.ahead) == others[1:]


def test_a_job_that_the_child_has_begun_is_never_taken_back(rich):
    desk, worker, jobs = rich
    desk.run(worker)
    desk.run(worker)
    assert desk.begin(worker) is jobs[2]  # its thread has read no answer yet
    other = desk.piped()
    assert desk.turn(other)[0] is jobs[3]
    desk.turn(worker)
    assert [job.reply.done() for job in jobs] == [True, True, False, False, False]
    assert worker.job is jobs[2]


def test_a_job_that_was_taken_back_is_skipped_by_the_child(rich):
    desk, worker, jobs = rich
    desk.turn(desk.piped())
    desk.run(worker)
    assert desk.run(worker) is jobs[3]


def test_a_worker_always_keeps_a_job_in_hand():
    desk = PipelinedDesk(size=3)
    worker, jobs = desk.piped(), desk.submit_many(3)
    desk.turn(worker)  # and its child has begun nothing
    others = [desk.piped() for _ in range(3)]
    assert [desk.turn(other) for other in others] == [[jobs[0]], [jobs[1]], []]
    assert (worker.job, list(worker.ahead)) == (jobs[2], [])
    assert is_idle(others[2])
    assert desk.run(worker) is jobs[2]


def test_a_worker_that_is_the_only_one_takes_nothing_from_itself(rich):
    desk, worker, jobs = rich
    assert desk.turn(worker) == []
    assert list(worker.ahead) == jobs[1:]


def test_a_worker_that_finds_nothing_to_take_from_the_richest_takes_from_another():
    desk = PipelinedDesk(size=2)
    swift, quick_jobs = desk.piped(), desk.submit_many(6)
    desk.turn(swift)
    slow, slow_jobs = desk.piped(), desk.submit_many(2)
    assert desk.turn(slow) == slow_jobs
    desk.begin(slow)
    assert [desk.run(swift) for _ in quick_jobs] == quick_jobs  # its thread has read no answer yet
    assert desk.turn(desk.piped()) == slow_jobs[1:]


def test_jobs_that_are_given_while_another_looks_in_vain_do_not_wait_behind_a_slow_one():
    desk = PipelinedDesk(size=2)
    slow, swift = desk.piped(), desk.piped()
    jobs = desk.submit_many(3)
    given = desk.dispatcher.exchange(slow, (), more=True)
    assert [job for _, job in given] == jobs[:2]
    assert desk.turn(swift) == jobs[2:]
    desk.run(swift)
    desk.turn(swift)  # the other's thread has not sent its jobs yet
    desk.send(slow, given)
    desk.begin(slow)
    assert not slow.ahead or not is_idle(swift)


# --- cancelling ---------------------------------------------------------------------------


def test_cancelling_a_job_that_is_not_begun_is_at_once(rich):
    desk, worker, jobs = rich
    assert jobs[2].reply.cancel() is True
    error = jobs[2].reply.exception(0)
    assert isinstance(error, QueryCancelled)
    assert error.executed is False
    assert child_of(worker).interrupted == []
    status = desk.status()
    assert (status.cancelled, status.queued, status.running) == (1, 3, 1)


def test_the_others_keep_their_order_when_one_is_cancelled(rich):
    desk, worker, jobs = rich
    jobs[2].reply.cancel()
    later = desk.submit()
    done = []
    while worker.job is not None:
        done.append(desk.run(worker))
        desk.turn(worker)
    assert done == [jobs[0], jobs[1], jobs[3], jobs[4], later]


def test_cancelling_one_that_is_begun_interrupts_it_and_no_other(rich):
    desk, worker, jobs = rich
    assert jobs[0].reply.cancel() is True
    assert child_of(worker).interrupted == [1]
    desk.run(worker, InterruptedError())
    desk.turn(worker)
    error = jobs[0].reply.exception(0)
    assert isinstance(error, QueryCancelled)
    assert error.executed is False
    assert child_of(worker).interrupted == [1]
    assert desk.status().cancelled == 1


def test_cancelling_one_that_is_begun_behind_an_answer_that_nobody_has_read_interrupts_it(rich):
    desk, worker, jobs = rich
    desk.run(worker)
    assert desk.begin(worker) is jobs[1]
    assert jobs[1].reply.cancel() is True
    assert child_of(worker).interrupted == [2]
    desk.turn(worker)
    assert jobs[0].reply.get(timeout=0) == Result()
    desk.run(worker)
    desk.turn(worker)
    error = jobs[1].reply.exception(0)
    assert isinstance(error, QueryCancelled)
    assert error.executed is True


def test_an_interrupt_is_repeated_for_the_same_ticket(rich):
    desk, worker, jobs = rich
    jobs[0].reply.cancel()
    desk.clock.now += 0.1
    assert desk.look() == ([], [])
    assert child_of(worker).interrupted == [1, 1]
    assert jobs[0] in desk.dispatcher.running()


def test_a_statement_that_ignores_its_interrupt_costs_the_worker_and_no_job_that_is_not_begun(rich):
    desk, worker, jobs = rich
    jobs[0].reply.cancel()
    desk.clock.now += 0.6
    assert desk.look() == ([], [worker])
    error = jobs[0].reply.exception(0)
    assert isinstance(error, QueryCancelled)
    assert error.executed is None
    assert desk.waiting() == jobs[1:]
    assert not child_of(worker).alive
    desk.status()


def test_a_job_that_goes_back_into_the_queue_while_it_is_being_cancelled_is_cancelled():
    desk = PipelinedDesk(size=2)
    worker, job = desk.piped(), desk.submit()
    desk.turn(worker)
    cancel_running = desk.dispatcher.cancel_running
    # Its worker dies between the caller's two looks: it was in the worker's hands, and now waits.
    desk.dispatcher.cancel_running = lambda job: (desk.die(worker), cancel_running(job))[1]
    assert job.reply.cancel() is True
    desk.clock.now += 0.1
    desk.look()
    other = desk.piped()
    assert desk.turn(other) == []
    desk.look()
    assert isinstance(job.reply.exception(0), QueryCancelled)


def test_a_job_whose_cancelling_was_promised_is_not_rejected_for_another_reason():
    desk = PipelinedDesk(size=2)
    worker, (first, job) = desk.piped(), desk.submit_many(2)
    desk.turn(worker)
    assert job.reply.cancel() is True  # the one that the worker keeps: the first was taken back instead
    assert not job.reply.done()
    later = desk.submit()
    desk.turn(worker)
    assert worker.job is job
    desk.reject_queue(desk.dispatcher.cancel_pending())
    desk.look()
    if not job.reply.done():
        desk.run(worker, InterruptedError())
        desk.turn(worker)
    assert isinstance(job.reply.exception(0), QueryCancelled)
    assert first.reply.done() or first in worker.in_hand()
    assert later.reply.done() or later in worker.in_hand()
    desk.status()


def test_a_job_whose_cancelling_was_promised_and_whose_worker_dies_as_the_last_of_a_closed_crew_is_cancelled():
    desk = PipelinedDesk(size=1)
    worker, job = desk.piped(), desk.submit()
    desk.turn(worker)
    assert job.reply.cancel() is True
    desk.dispatcher.close()
    assert desk.die(worker) == []
    assert isinstance(job.reply.exception(0), QueryCancelled)
    assert desk.status().cancelled == 1


# --- deadlines ----------------------------------------------------------------------------


def test_the_deadline_of_a_job_that_is_not_begun_rejects_it_as_unstarted():
    desk = PipelinedDesk(size=1)
    worker, first, late, last = desk.piped(), desk.submit(), desk.submit(timeout=1), desk.submit()
    desk.turn(worker)
    desk.begin(worker)
    desk.clock.now += 1.1
    assert desk.look() == ([late], [])
    error = late.reply.exception(0)
    assert isinstance(error, QueryTimeout)
    assert error.executed is False
    assert child_of(worker).interrupted == []
    assert desk.run(worker) is first
    assert desk.turn(worker) == [last]
    assert desk.status().timed_out == 1


def test_the_deadline_of_a_job_that_is_begun_interrupts_it():
    desk = PipelinedDesk(size=1)
    worker, late, other = desk.piped(), desk.submit(timeout=1), desk.submit()
    desk.turn(worker)
    desk.begin(worker)
    desk.clock.now += 1.1
    assert desk.look() == ([], [])
    assert set(child_of(worker).interrupted) == {late.ticket}
    desk.run(worker, InterruptedError())
    desk.turn(worker)
    error = late.reply.exception(0)
    assert isinstance(error, QueryTimeout)
    assert error.executed is False
    assert desk.run(worker) is other


def test_a_deadline_that_was_noted_while_its_job_was_ahead_is_kept_when_that_is_taken_back():
    desk = PipelinedDesk(size=2)
    worker, _, late, soon = desk.piped(), desk.submit(), desk.submit(timeout=5), desk.submit(timeout=1)
    desk.turn(worker)
    desk.begin(worker)
    desk.clock.now += 1.1
    assert desk.look() == ([soon], [])
    desk.die(worker)
    assert desk.waiting() == [late]
    desk.clock.now += 4
    assert desk.dispatcher.next_due() <= desk.clock.now
    assert desk.look() == ([late], [])


def test_a_deadline_that_nobody_has_looked_at_is_kept_when_its_job_is_taken_back_behind_one_that_was_seen():
    desk = PipelinedDesk(size=2)
    worker, first, late = desk.piped(), desk.submit(), desk.submit(timeout=5)
    desk.turn(worker)
    desk.begin(worker)
    seen = desk.submit(timeout=1)
    desk.die(worker)
    desk.clock.now += 1.1
    assert desk.look() == ([seen], [])
    assert desk.waiting() == [late]
    assert first.reply.done()
    desk.clock.now += 4
    assert desk.dispatcher.next_due() <= desk.clock.now
    assert desk.look() == ([late], [])


def test_a_job_whose_deadline_passes_while_it_is_taken_back_is_not_given_to_the_next(rich):
    desk, worker, jobs = rich
    late = desk.submit(timeout=1)
    desk.run(worker)
    desk.turn(worker)
    desk.begin(worker)
    desk.clock.now += 2
    other = desk.piped()
    given = desk.turn(other)
    assert late not in given
    assert given
    desk.look()
    assert isinstance(late.reply.exception(0), QueryTimeout)
    assert all(not job.reply.done() for job in jobs[1:])


# --- deaths -------------------------------------------------------------------------------


def test_the_job_that_a_dead_worker_has_begun_is_its_one_orphan(rich):
    desk, worker, jobs = rich
    assert desk.die(worker) == [jobs[0]]
    assert isinstance(jobs[0].reply.exception(0), WorkerDied)
    status = desk.status()
    assert (status.died, status.queued, status.running) == (1, 4, 0)


def test_what_it_has_not_begun_waits_again_before_all_others_and_is_run_by_another(rich):
    desk, worker, jobs = rich
    later = desk.submit()
    desk.die(worker)
    assert desk.waiting() == [*jobs[1:], later]
    other = desk.piped()
    assert desk.turn(other) == [*jobs[1:], later]
    assert [desk.run(other) for _ in range(5)] == [*jobs[1:], later]


def test_an_idle_worker_is_woken_for_what_a_dead_one_has_not_begun():
    desk = PipelinedDesk(size=2)
    worker, job = desk.piped(), desk.submit()
    desk.turn(worker)
    idle = desk.piped()
    desk.turn(idle)
    assert is_idle(idle)
    assert desk.die(worker) == []
    assert desk.woken == [idle]
    assert desk.turn(idle) == [job]


def test_a_worker_that_has_ended_while_it_was_idle_is_never_woken():
    desk = PipelinedDesk(size=2)
    early, late = desk.piped(), desk.piped()
    desk.turn(early)
    desk.turn(late)
    assert desk.die(late) == []
    job = desk.submit()
    assert desk.woken == [early]
    assert late.state.value == "gone"
    assert desk.turn(early) == [job]


def test_what_a_dead_worker_had_answered_is_answered(rich):
    desk, worker, jobs = rich
    desk.run(worker)
    desk.run(worker)
    desk.begin(worker)
    assert desk.die(worker) == [jobs[2]]
    assert [job.reply.exception(0) for job in jobs[:2]] == [None, None]
    assert desk.waiting() == jobs[3:]
    status = desk.status()
    assert (status.answered, status.died) == (2, 1)


def test_a_worker_that_died_between_two_jobs_leaves_no_orphan(rich):
    desk, worker, jobs = rich
    desk.run(worker)
    assert desk.die(worker) == []
    assert desk.waiting() == jobs[1:]


def test_a_burial_may_be_repeated(rich):
    desk, worker, jobs = rich
    assert desk.die(worker) == [jobs[0]]
    assert desk.dispatcher.bury(worker) == [jobs[0]]
    assert desk.waiting() == jobs[1:]
    assert desk.status().died == 1


def test_an_interrupted_job_that_is_taken_back_by_death_is_never_run():
    desk = PipelinedDesk(size=2)
    worker, job = desk.piped(), desk.submit()
    desk.turn(worker)
    assert job.reply.cancel() is True  # the only one: it could not be taken back
    assert child_of(worker).interrupted == [1]
    assert desk.die(worker) == []
    other = desk.piped()
    assert desk.turn(other) == []
    error = job.reply.exception(0)
    assert isinstance(error, QueryCancelled)
    assert error.executed is False
    assert job.state is WITHDRAWN
    assert desk.status().cancelled == 1


def test_an_interrupted_job_that_is_taken_back_by_death_is_rejected_even_if_nobody_takes_jobs():
    desk = PipelinedDesk(size=1)
    worker, job = desk.piped(), desk.submit()
    desk.turn(worker)
    job.reply.cancel()
    desk.die(worker)
    assert desk.dispatcher.next_due() <= desk.clock.now + 0.021
    assert desk.look() == ([job], [])
    error = job.reply.exception(0)
    assert isinstance(error, QueryCancelled)
    assert error.executed is False
    assert desk.dispatcher.next_due() is None
    desk.status()


def test_jobs_that_were_given_and_not_sent_when_the_thread_was_killed_wait_again():
    desk = PipelinedDesk(size=1)
    worker, jobs = desk.piped(), desk.submit_many(3)
    assert [job for _, job in desk.dispatcher.exchange(worker, (), more=True)] == jobs
    assert desk.die(worker) == []
    assert desk.waiting() == jobs
    assert desk.status().died == 0


def test_jobs_that_are_sent_to_a_child_that_is_dead_wait_again():
    desk = PipelinedDesk(size=1)
    worker, jobs = desk.piped(), desk.submit_many(3)
    child_of(worker).die()
    with pytest.raises(Exception, match="child"):
        desk.turn(worker)
    assert desk.die(worker) == []
    assert desk.waiting() == jobs
    assert desk.status().died == 0


# --- tokens that nobody has ---------------------------------------------------------------


def lose_token(worker):
    """As a thread does that is killed when it has drawn a token, before it has put the job back; return its job."""
    tokens = child_of(worker).recall(1)
    return next(job for job in worker.in_hand() if token_of(job.ticket) in tokens)


def test_a_token_drawn_by_one_who_was_cut_off_is_made_good_by_the_workers_next_turn(rich):
    desk, worker, jobs = rich
    assert lose_token(worker) is jobs[1]
    desk.run(worker)
    desk.turn(worker)
    while worker.job is not None:
        desk.run(worker)
        desk.turn(worker)
    assert desk.status().answered == 5


def test_a_token_drawn_by_one_who_was_cut_off_is_made_good_by_death(rich):
    desk, worker, jobs = rich
    lose_token(worker)
    assert desk.die(worker) == jobs[:1]
    assert set(desk.waiting()) == set(jobs[1:])
    assert desk.status().died == 1


def test_a_token_drawn_by_one_who_was_cut_off_is_made_good_by_the_next_who_takes_back(rich):
    desk, worker, jobs = rich
    lose_token(worker)
    others = [desk.piped() for _ in range(3)]  # they take the rest
    for other in others:
        desk.turn(other)
    assert jobs[1] not in worker.in_hand()
    for busy in (worker, *others):
        while busy.job is not None:
            assert child_of(busy).has_anything_to_answer, "the worker's thread waits for ever"
            desk.run(busy)
            desk.turn(busy)
    assert desk.status().answered == 5


def test_a_recall_that_is_cut_off_is_made_good_by_the_next_answer(rich):
    desk, worker, jobs = rich
    child = child_of(worker)
    recall = child.recall

    def cut_off(most):
        recall(1)
        child.recall = recall
        raise KeyboardInterrupt

    child.recall = cut_off
    with pytest.raises(KeyboardInterrupt):
        jobs[4].reply.cancel()
    desk.run(worker)
    desk.run(worker)
    desk.turn(worker)
    while worker.job is not None:
        desk.run(worker)
        desk.turn(worker)
    assert [job.reply.exception(0) for job in jobs] == [None] * 5
    assert desk.status().answered == 5


@pytest.mark.parametrize("cut", ["put_back", "remove"])
def test_a_job_that_was_put_back_by_one_who_was_cut_off_is_run_by_one_worker_alone(rich, monkeypatch, cut):
    desk, worker, jobs = rich
    ahead = desk.dispatcher._lane.ahead
    real = ahead._put_back

    def cut_off(job):
        if cut == "remove":
            monkeypatch.setattr(worker, "ahead", Cut(worker.ahead))
        real(job)
        if cut == "put_back":
            raise KeyboardInterrupt

    monkeypatch.setattr(ahead, "_put_back", cut_off)
    with pytest.raises(KeyboardInterrupt):
        jobs[3].reply.cancel()
    monkeypatch.setattr(ahead, "_put_back", real)
    worker.ahead = deque(worker.ahead)
    other = desk.piped()
    desk.turn(other)  # whatever waits is another's now, with a ticket of that one's
    ran = []
    for _ in range(20):
        for busy in (other, worker):
            if busy.job is not None:
                assert child_of(busy).has_anything_to_answer, "the worker's thread waits for ever"
                ran.append(desk.run(busy))
                desk.turn(busy)
    assert len(ran) == len(set(ran)), "a job was run twice"
    assert all(job.reply.done() for job in jobs)
    desk.status()


class Cut(deque):
    """A deque from which nothing can be taken without being interrupted."""

    def remove(self, job):
        raise KeyboardInterrupt


# --- limits and counters ------------------------------------------------------------------


def test_jobs_that_were_sent_ahead_count_as_queued():
    desk = PipelinedDesk(size=1, max_queue=3)
    worker, first = desk.piped(), desk.submit()
    desk.turn(worker)
    desk.submit_many(3)
    assert isinstance(desk.refused(), QueueFull)
    desk.run(worker)
    desk.turn(worker)
    assert first.reply.done()
    assert (desk.dispatcher.queued, len(worker.ahead)) == (2, 2)
    desk.submit()
    assert "3 jobs queued" in str(desk.refused())
    assert "3 queued" in repr(desk.dispatcher)


def test_a_status_counts_one_running_job_a_worker(rich):
    desk, worker, jobs = rich
    status = desk.status()
    assert (status.running, status.queued) == (1, 4)
    assert status.workers[0].job == str(jobs[0].request)
    assert desk.dispatcher.running() == jobs
    assert worker.job is jobs[0]


# --- the end ------------------------------------------------------------------------------


def test_shutting_down_takes_back_and_hands_over_what_is_not_begun(rich):
    desk, worker, jobs = rich
    later = desk.submit()
    desk.dispatcher.stop_accepting()
    assert desk.rejected(desk.dispatcher.cancel_pending()) == [*jobs[1:], later]
    status = desk.status()
    assert (status.rejected, status.queued, status.running) == (5, 0, 1)
    desk.run(worker)
    desk.turn(worker)
    assert jobs[0].reply.get(timeout=0) == Result()
    assert worker.state.value == "retired"
    assert desk.begin(worker) is None


def test_what_was_sent_ahead_is_run_when_the_crew_only_accepts_no_more(rich):
    desk, worker, jobs = rich
    desk.dispatcher.stop_accepting()
    for _ in jobs:
        desk.run(worker)
        desk.turn(worker)
    assert desk.status().answered == 5
    assert worker.state.value == "retired"


def test_closing_takes_back_and_hands_over_what_is_not_begun(rich):
    desk, worker, jobs = rich
    assert desk.rejected(desk.dispatcher.close()) == jobs[1:]
    assert worker.in_hand() == [jobs[0]]


def test_suspending_leaves_what_a_worker_has_in_hand(rich):
    desk, worker, jobs = rich
    later = desk.submit_many(2)
    assert desk.rejected(desk.dispatcher.suspend(None)) == later
    assert worker.in_hand() == jobs


def test_the_last_worker_of_a_closed_crew_hands_over_what_it_has_not_begun():
    desk = PipelinedDesk(size=1)
    worker, job = desk.piped(), desk.submit()
    desk.turn(worker)
    assert desk.dispatcher.close() == []  # the worker keeps one
    assert desk.dispatcher.bury(worker) == []
    assert [dropped for dropped, _ in worker.dropped] == [job]
    assert desk.reject_dropped(worker) == [job]
    assert isinstance(job.reply.exception(0), SupervisorStopped)
    assert desk.waiting() == []
    assert desk.dispatcher.bury(worker) == []
    assert worker.dropped == []
    assert desk.status().rejected == 1


def test_a_worker_of_a_closed_crew_that_is_not_the_last_leaves_its_jobs_to_the_others():
    desk = PipelinedDesk(size=2)
    workers, jobs = [desk.piped(), desk.piped()], desk.submit_many(2)
    for worker in workers:
        desk.turn(worker)
    desk.begin(workers[1])
    desk.dispatcher.close()
    assert desk.die(workers[0]) == []
    assert desk.waiting() == [jobs[0]]
    assert desk.die(workers[1]) == [jobs[1]]
    assert isinstance(jobs[0].reply.exception(0), SupervisorStopped)
    assert desk.status().rejected == 1


# --- quarantine ---------------------------------------------------------------------------


def kill_with(desk, sql, times):
    for _ in range(times):
        worker, job = desk.piped(), desk.submit(sql)
        desk.turn(worker)
        desk.begin(worker)
        assert desk.die(worker) == [job]


def test_a_statement_that_has_killed_so_many_workers_is_refused():
    desk = PipelinedDesk(size=1)
    kill_with(desk, "SELECT boom()", 3)
    refusal = desk.dispatcher.submit(desk.job("SELECT boom()"))
    assert isinstance(refusal, PoisonQuery)
    assert refusal.executed is False
    assert "has killed 3 workers" in str(refusal)
    desk.submit("SELECT 1")
    assert desk.status().rejected == 1


def test_one_death_less_refuses_nothing():
    desk = PipelinedDesk(size=1)
    kill_with(desk, "SELECT boom()", 2)
    assert desk.dispatcher.submit(desk.job("SELECT boom()")) is None


def test_a_statement_that_waits_while_it_becomes_poison_is_not_run():
    desk = PipelinedDesk(size=2)
    waiting = [desk.submit("SELECT boom()") for _ in range(6)]
    for _ in range(3):
        worker = desk.piped(depth=2)
        assert len(desk.turn(worker)) == 2
        desk.begin(worker)
        desk.die(worker)
    worker, harmless = desk.piped(), desk.submit()
    assert desk.turn(worker) == [harmless]
    outcomes = [type(job.reply.exception(0)) for job in waiting]
    assert outcomes == [WorkerDied] * 3 + [PoisonQuery] * 3
    status = desk.status()
    assert (status.died, status.rejected, status.running) == (3, 3, 1)


def test_jobs_that_were_not_begun_are_not_suspected():
    desk = PipelinedDesk(size=1)
    for _ in range(3):
        worker = desk.piped()
        killer, innocent = desk.submit("SELECT boom()"), desk.submit("SELECT 1")
        desk.turn(worker)
        desk.begin(worker)
        assert desk.die(worker) == [killer]
        assert desk.dispatcher.withdraw(innocent)
    assert desk.dispatcher.submit(desk.job("SELECT 1")) is None


def test_workers_that_were_given_up_on_purpose_are_not_counted_as_deaths():
    desk = PipelinedDesk(size=1)
    for _ in range(3):
        worker, job = desk.piped(), desk.submit("SELECT slow()")
        desk.turn(worker)
        desk.begin(worker)
        job.reply.cancel()
        desk.clock.now += 1
        desk.look()
    assert desk.dispatcher.submit(desk.job("SELECT slow()")) is None


def test_a_statement_that_succeeds_is_suspected_no_more():
    desk = PipelinedDesk(size=1)
    kill_with(desk, "SELECT boom()", 2)
    worker = desk.piped()
    desk.submit("SELECT boom()")
    desk.turn(worker)
    desk.run(worker)
    desk.turn(worker)
    kill_with(desk, "SELECT boom()", 1)
    assert desk.dispatcher.submit(desk.job("SELECT boom()")) is None


def test_a_statement_that_fails_is_suspected_still():
    desk = PipelinedDesk(size=1)
    kill_with(desk, "SELECT boom()", 2)
    worker = desk.piped()
    desk.submit("SELECT boom()")
    desk.turn(worker)
    desk.run(worker, ValueError("no"))
    desk.turn(worker)
    assert is_idle(worker)
    desk.dispatcher.bury(worker)
    kill_with(desk, "SELECT boom()", 1)
    assert isinstance(desk.dispatcher.submit(desk.job("SELECT boom()")), PoisonQuery)


def test_a_statement_is_run_again_after_the_window():
    desk = PipelinedDesk(size=1)
    kill_with(desk, "SELECT boom()", 3)
    desk.clock.now += 9.9
    assert isinstance(desk.dispatcher.submit(desk.job("SELECT boom()")), PoisonQuery)
    desk.clock.now += 0.2
    assert desk.dispatcher.submit(desk.job("SELECT boom()")) is None


def test_a_worker_that_takes_nothing_ahead_is_counted_as_well():
    desk = Desk(size=1)
    for _ in range(3):
        worker, job = desk.worker(), desk.job()
        job.request = desk_request = type(job.request)("SELECT boom()")
        assert desk.dispatcher.submit(job) is None
        assert desk.dispatcher.take(worker) is job
        assert desk.dispatcher.bury(worker) == [job]
    refused = desk.job()
    refused.request = desk_request
    assert isinstance(desk.dispatcher.submit(refused), PoisonQuery)
    assert desk.status().died == 3
