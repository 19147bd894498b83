"""The dispatcher alone: who waits, who is idle, who runs what."""

import pytest

from actors.errors import DatabaseUnavailable, QueueFull, SupervisorStopped
from actors.member import Member, MemberState
from tests.desk import Desk

# --- jobs and workers ---------------------------------------------------------------------


def test_jobs_are_taken_first_in_first_out():
    desk = Desk()
    jobs = [desk.submit() for _ in range(3)]
    workers = [desk.worker() for _ in range(3)]
    assert [desk.dispatcher.take(worker) for worker in workers] == jobs
    assert [worker.job for worker in workers] == jobs


def test_a_worker_that_finishes_gets_the_next_job():
    desk = Desk()
    jobs = [desk.submit() for _ in range(2)]
    worker = desk.worker()
    assert desk.dispatcher.take(worker) is jobs[0]
    assert desk.dispatcher.finish(worker, ok=True, more=True) is jobs[1]
    assert desk.dispatcher.finish(worker, ok=True, more=True) is None
    assert worker.state is MemberState.IDLE


def test_idle_workers_are_woken_last_in_first_out_one_for_each_job():
    desk = Desk()
    first, second, third = desk.idle_workers(3)
    desk.submit()
    assert desk.woken == [third]
    desk.submit()
    assert desk.woken == [third, second]
    assert (first.state, second.state) == (MemberState.IDLE, MemberState.AWAKE)


def test_nobody_is_woken_while_everybody_works():
    desk = Desk()
    desk.submit()
    worker = desk.worker()
    desk.dispatcher.take(worker)
    desk.submit()
    assert desk.woken == []
    assert desk.dispatcher.queued == 1


def test_a_spurious_wake_is_harmless():
    desk = Desk()
    (worker,) = desk.idle_workers(1)
    for _ in range(3):
        assert desk.dispatcher.take(worker) is None
    desk.submit()
    desk.submit()
    assert desk.woken == [worker]


def test_a_worker_that_is_woken_by_a_stranger_takes_a_job_too():
    desk = Desk()
    early, late = desk.idle_workers(2)
    desk.submit()
    assert desk.dispatcher.take(early) is not None
    assert desk.woken == [late]
    desk.submit()
    assert desk.dispatcher.take(late) is not None
    assert desk.woken == [late]


def test_a_worker_that_has_mail_to_read_gets_no_next_job():
    desk = Desk()
    desk.submit()
    desk.submit()
    worker = desk.worker()
    desk.dispatcher.take(worker)
    assert desk.dispatcher.finish(worker, ok=True, more=False) is None
    assert worker.state is MemberState.AWAKE
    assert desk.dispatcher.queued == 1


def test_what_came_of_a_job_is_counted_and_timed():
    desk = Desk()
    worker = desk.worker()
    for ok in (True, True, False):
        desk.submit()
        desk.clock.now += 2
        desk.dispatcher.take(worker)
        desk.clock.now += 5
        desk.dispatcher.finish(worker, ok=ok, more=False)
    status = desk.status()
    assert (status.answered, status.failed, status.running, status.queued) == (2, 1, 0, 0)
    assert (status.wait.count, status.wait.max) == (3, 2)
    assert (status.run.count, status.run.max) == (3, 5)


def test_finishing_without_a_job_counts_nothing():
    desk = Desk()
    worker = desk.worker()
    assert desk.dispatcher.finish(worker, ok=True, more=True) is None
    assert desk.status().answered == 0


# --- the queue's limit --------------------------------------------------------------------


def test_a_full_queue_refuses_and_says_what_to_change():
    desk = Desk(max_queue=2)
    desk.submit()
    desk.submit()
    refusal = desk.refused()
    assert type(refusal) is QueueFull
    assert str(refusal) == (
        "crew 'app' has 2 jobs queued, and max_queue is 2; ask later, ask less at once, "
        "or start the crew with more workers (size is 2) or a larger max_queue"
    )
    assert desk.status().rejected == 1


def test_a_job_that_leaves_the_queue_makes_room():
    desk = Desk(max_queue=1)
    job = desk.submit()
    desk.refused()
    desk.dispatcher.withdraw(job)
    desk.submit()
    desk.refused()
    desk.dispatcher.take(desk.worker())
    desk.submit()
    desk.refused()
    assert desk.status().rejected == 3


def test_without_a_queue_a_job_is_accepted_only_for_a_free_worker():
    desk = Desk(max_queue=0)
    desk.enlisted()  # still starting: not free
    desk.refused()
    (worker,) = desk.idle_workers(1)
    desk.submit()  # for the worker that it wakes
    desk.refused()
    desk.dispatcher.take(worker)
    desk.refused()
    desk.dispatcher.finish(worker, ok=True, more=True)
    desk.submit()
    assert desk.status().rejected == 3


def test_free_workers_come_on_top_of_the_queues_limit():
    desk = Desk(max_queue=1)
    desk.idle_workers(2)
    for _ in range(3):
        desk.submit()
    desk.refused()
    assert desk.status().rejected == 1


# --- withdrawing --------------------------------------------------------------------------


def test_a_job_that_nobody_has_started_can_be_taken_back_once():
    desk = Desk()
    first, second = desk.submit(), desk.submit()
    assert desk.dispatcher.withdraw(first) is True
    assert desk.dispatcher.withdraw(first) is False
    assert desk.dispatcher.queued == 1
    assert desk.dispatcher.take(desk.worker()) is second
    assert desk.status().cancelled == 1


def test_a_job_that_runs_or_was_never_accepted_cannot_be_taken_back():
    desk = Desk()
    job = desk.submit()
    worker = desk.worker()
    desk.dispatcher.take(worker)
    assert desk.dispatcher.withdraw(job) is False
    desk.dispatcher.finish(worker, ok=True, more=True)
    assert desk.dispatcher.withdraw(job) is False
    assert desk.dispatcher.withdraw(desk.job()) is False
    assert desk.status().cancelled == 0


def test_the_memory_of_withdrawn_jobs_is_given_back_and_the_others_keep_their_order():
    desk = Desk()
    jobs = [desk.submit() for _ in range(1_000)]
    kept = jobs[::100]
    for job in jobs:
        if job not in kept:
            assert desk.dispatcher.withdraw(job)
    assert desk.dispatcher.queued == len(kept)
    assert len(desk.dispatcher._lane.jobs) < 5 * len(kept)
    worker = desk.worker()
    taken = [desk.dispatcher.take(worker)]
    while (job := desk.dispatcher.finish(worker, ok=True, more=True)) is not None:
        taken.append(job)
    assert taken == kept
    assert desk.status().cancelled == 990


def test_a_queue_of_withdrawn_jobs_is_empty():
    desk = Desk()
    for job in [desk.submit() for _ in range(5)]:
        desk.dispatcher.withdraw(job)
    assert desk.dispatcher.queued == 0
    assert desk.dispatcher.take(desk.worker()) is None
    assert desk.dispatcher.queued == 0
    assert desk.dispatcher.cancel_pending() == []


# --- interrupting -------------------------------------------------------------------------


def test_an_interrupt_reaches_the_worker_of_the_job_and_no_other():
    desk = Desk()
    jobs = [desk.submit() for _ in range(3)]
    workers = [desk.worker() for _ in range(2)]
    for worker in workers:
        desk.dispatcher.take(worker)
    assert desk.dispatcher.running() == jobs[:2]
    assert desk.dispatcher.cancel_running(jobs[1]) is True
    assert desk.dispatcher.cancel_running(jobs[2]) is False
    desk.dispatcher.finish(workers[0], ok=True, more=False)
    assert desk.dispatcher.cancel_running(jobs[0]) is False
    assert desk.interrupted == [workers[1]]


# --- starting and burying workers ---------------------------------------------------------


def test_a_worker_reports_once():
    desk = Desk()
    worker = desk.enlisted()
    assert worker.state is MemberState.STARTING
    assert desk.dispatcher.report(worker) is True
    assert worker.state is MemberState.AWAKE
    assert desk.dispatcher.report(worker) is False


def test_nobody_wants_a_worker_that_was_buried_or_whose_crew_has_stopped():
    desk = Desk()
    buried, late = desk.enlisted(), desk.enlisted()
    desk.dispatcher.bury(buried)
    assert desk.dispatcher.report(buried) is False
    desk.dispatcher.close()
    assert desk.dispatcher.report(late) is False


def test_a_stopping_crew_still_wants_a_worker_for_its_queue():
    desk = Desk()
    job = desk.submit()
    desk.dispatcher.stop_accepting()
    assert desk.dispatcher.take(desk.worker()) is job


def test_a_dead_workers_job_is_handed_back_and_the_queue_stays():
    desk = Desk()
    orphan, waiting = desk.submit(), desk.submit()
    worker = desk.worker()
    desk.dispatcher.take(worker)
    assert desk.dispatcher.bury(worker) == [orphan]
    assert worker.state is MemberState.GONE
    assert desk.dispatcher.queued == 1
    assert desk.dispatcher.take(desk.worker()) is waiting
    assert desk.status().died == 1


def test_a_worker_is_buried_once():
    desk = Desk()
    orphan = desk.submit()
    worker = desk.worker()
    desk.dispatcher.take(worker)
    assert [desk.dispatcher.bury(worker) for _ in range(3)] == [[orphan]] * 3
    assert desk.status().died == 1
    assert desk.dispatcher.bury(Member(99, print, print)) == []


def test_a_dead_worker_takes_and_finishes_nothing():
    desk = Desk()
    desk.submit()
    desk.submit()
    worker = desk.worker()
    desk.dispatcher.take(worker)
    desk.dispatcher.bury(worker)
    assert desk.dispatcher.finish(worker, ok=True, more=True) is None
    assert desk.dispatcher.take(worker) is None
    status = desk.status()
    assert (status.answered, status.died, status.queued, status.workers) == (0, 1, 1, ())


def test_the_job_for_which_a_dead_worker_was_woken_wakes_another():
    desk = Desk()
    early, late = desk.idle_workers(2)
    desk.submit()
    assert desk.woken == [late]
    assert desk.dispatcher.bury(late) == []
    assert desk.woken == [late, early]


def test_a_dead_idle_worker_is_not_woken():
    desk = Desk()
    early, late = desk.idle_workers(2)
    desk.dispatcher.bury(late)
    desk.submit()
    assert desk.woken == [early]


# --- refusing -----------------------------------------------------------------------------


@pytest.mark.parametrize("refuse", ["unavailable", "stopped"])
def test_each_caller_gets_an_error_of_its_own(refuse):
    # Raising one writes its traceback into it.
    make = getattr(Desk().dispatcher, refuse)
    assert make() is not make()


def test_the_text_of_a_refusal_holds_the_cause_and_its_notes():
    desk = Desk()
    cause = OSError("cannot open")
    cause.add_note("there is no directory /data")
    desk.dispatcher.suspend(cause)
    refusal = desk.refused()
    assert type(refusal) is DatabaseUnavailable
    assert refusal.__cause__ is cause
    assert str(refusal) == (
        "crew 'app' is suspended: no worker can open Database() "
        "(OSError: cannot open; there is no directory /data); it goes on trying and resumes by itself"
    )


def test_a_refusal_without_a_cause_says_so():
    desk = Desk()
    desk.dispatcher.suspend(None)
    assert "(no cause is known)" in str(desk.refused())


def test_the_text_of_a_stopped_crew_tells_whether_it_is_over():
    desk = Desk()
    desk.dispatcher.stop_accepting()
    refusal = desk.refused()
    assert type(refusal) is SupervisorStopped
    assert str(refusal) == "crew 'app' is stopping, and takes no more jobs"
    desk.dispatcher.close(OSError("gone"))
    assert str(desk.refused()) == "crew 'app' is stopped (OSError: gone), and takes no more jobs"
