"""The dispatcher alone: waiting jobs, idle workers and running jobs."""

import pytest

from actors.dispatch.worker_handle import WorkerHandle, WorkerState
from actors.values.errors import DatabaseUnavailable, QueryCancelled, QueueFull, SupervisorStopped
from tests.unit.dispatch.harness import QUICK, Harness, answer, errors

# --- jobs and workers ---------------------------------------------------------------------


def test_jobs_are_taken_first_in_first_out():
    crew = Harness()
    jobs = crew.submitted(3)
    workers = [crew.worker() for _ in range(3)]
    assert [crew.taken(worker) for worker in workers] == [[job] for job in jobs]
    assert [worker.batch.begin() for worker in workers] == jobs
    assert [worker.running for worker in workers] == [[job] for job in jobs]


def test_a_worker_that_is_done_takes_the_next_job_and_is_idle_without_one():
    crew = Harness()
    jobs = crew.submitted(2)
    worker = crew.worker()
    assert crew.work(worker) == jobs
    assert worker.state is WorkerState.IDLE
    assert crew.lane.idle == [worker]


def test_idle_workers_are_woken_last_in_first_out_one_for_each_job():
    crew = Harness()
    first, second, third = crew.idle_workers(3)
    crew.submit()
    assert crew.woken == [third]
    crew.submit()
    assert crew.woken == [third, second]
    assert crew.lane.idle == [first]


def test_no_worker_is_woken_while_all_work():
    crew = Harness()
    crew.submit()
    worker = crew.worker()
    crew.begin(worker)
    crew.submit()
    assert crew.woken == []
    assert crew.dispatcher.queued == 1


def test_a_spurious_wake_is_harmless():
    crew = Harness()
    (worker,) = crew.idle_workers(1)
    for _ in range(3):
        crew.lane.idle.remove(worker)  # as a thread does that wakes the worker
        assert crew.take(worker) is None
    assert crew.lane.idle == [worker]
    crew.submitted(2)
    assert crew.woken == [worker]


def test_a_worker_that_another_thread_woke_takes_a_job_too():
    crew = Harness()
    early, late = crew.idle_workers(2)
    crew.submit()
    assert len(crew.taken(early)) == 1
    assert crew.woken == [late]
    crew.submit()
    crew.settle_all()


def test_the_outcome_of_a_job_is_counted_and_timed():
    crew = Harness()
    worker = crew.worker()
    for outcome in ("one", "two", ValueError("no")):
        crew.submit()
        crew.clock.now += 2
        batch = crew.take(worker)
        job = batch.begin()
        crew.clock.now += 5
        if isinstance(outcome, ValueError):
            batch.fail(job, outcome)
        else:
            batch.answer(job, outcome)
    status = crew.status()
    assert (status.answered, status.failed, status.running, status.queued) == (2, 1, 0, 0)
    assert (status.wait.count, status.wait.max) == (3, 2)
    assert (status.run.count, status.run.max) == (3, 5)


# --- the queue's limit --------------------------------------------------------------------


def test_a_full_queue_refuses_and_names_the_remedies():
    crew = Harness(max_queue=2)
    crew.submitted(2)
    refusal = crew.refused()
    assert type(refusal) is QueueFull
    assert str(refusal) == (
        "crew 'app' has 2 jobs queued, and max_queue is 2; send the request later, "
        "send fewer requests at once, or raise max_queue or the number of workers (size is 2)"
    )
    assert crew.status().rejected == 1


def test_a_job_that_leaves_the_queue_makes_room():
    crew = Harness(max_queue=1)
    job = crew.submit()
    crew.refused()
    assert crew.dispatcher.cancel(job)
    crew.submit()
    crew.refused()
    crew.begin(crew.worker())
    crew.submit()
    crew.refused()
    assert crew.status().rejected == 3


def test_jobs_in_a_batch_that_have_not_begun_take_room():
    crew = Harness(max_queue=2)
    crew.knows()
    worker = crew.worker()
    crew.submitted(3, QUICK)
    assert len(crew.taken(worker)) == 3
    worker.batch.begin()
    crew.refused()
    answer(worker)
    worker.batch.begin()
    crew.submit()
    crew.refused()


def test_without_a_queue_a_job_is_accepted_only_for_a_free_worker():
    crew = Harness(max_queue=0)
    crew.starting()  # this worker is not free
    crew.refused()
    (worker,) = crew.idle_workers(1)
    crew.submit()  # for the worker that the job wakes
    crew.refused()
    batch = crew.take(worker)
    crew.refused()
    crew.run_batch(batch)
    assert crew.take(worker) is None
    crew.submit()
    assert crew.status().rejected == 3


def test_free_workers_come_on_top_of_the_queues_limit():
    crew = Harness(max_queue=1)
    crew.idle_workers(2)
    crew.submitted(3)
    crew.refused()
    assert crew.status().rejected == 1


# --- cancelling waiting jobs, and interrupting running jobs -------------------------------


def test_a_job_that_no_worker_has_begun_is_cancelled_once_and_never_begins():
    crew = Harness()
    first, second = crew.submitted(2)
    assert crew.dispatcher.cancel(first) is True
    assert crew.dispatcher.cancel(first) is False
    assert crew.dispatcher.queued == 1
    assert crew.work(crew.worker()) == [second]
    assert errors([first]) == ["QueryCancelled"]
    assert crew.status().cancelled == 1


def test_a_job_in_a_batch_that_has_not_begun_is_cancelled_and_never_begins():
    crew = Harness()
    crew.knows()
    worker = crew.worker()
    jobs = crew.submitted(3, QUICK)
    batch = crew.take(worker)
    assert crew.dispatcher.cancel(jobs[1])
    assert jobs[1].reply.done()
    assert crew.run_batch(batch) == [jobs[0], jobs[2]]
    crew.check()


def test_an_interrupt_reaches_the_worker_of_the_job_and_no_other():
    crew = Harness()
    jobs = crew.submitted(3)
    workers = [crew.worker() for _ in range(2)]
    for worker in workers:
        crew.begin(worker)
    assert crew.dispatcher.running() == jobs[:2]
    assert crew.dispatcher.cancel(jobs[1]) is True
    assert not jobs[1].reply.done()
    assert workers[1].connection.interrupted == [jobs[1]]
    answer(workers[0])
    assert crew.dispatcher.cancel(jobs[0]) is False
    assert workers[0].connection.interrupted == []
    answer(workers[1])
    assert isinstance(jobs[1].reply.exception(0), QueryCancelled)
    assert jobs[1].reply.exception(0).executed is True


def test_the_memory_of_cancelled_jobs_is_given_back_and_the_others_keep_their_order():
    crew = Harness()
    jobs = crew.submitted(1_000)
    kept = jobs[::100]
    for job in jobs:
        if job not in kept:
            assert crew.dispatcher.cancel(job)
    assert crew.dispatcher.queued == len(kept)
    assert len(crew.lane.jobs) < 5 * len(kept)
    assert crew.work(crew.worker()) == kept
    assert crew.status().cancelled == 990


def test_a_queue_of_cancelled_jobs_is_empty():
    crew = Harness()
    for job in crew.submitted(5):
        assert crew.dispatcher.cancel(job)
    assert crew.dispatcher.queued == 0
    assert not crew.lane.jobs
    assert crew.work(crew.worker()) == []
    crew.dispatcher.cancel_pending()
    assert crew.status().rejected == 0


# --- starting and removing workers --------------------------------------------------------


def test_a_worker_is_ready_once():
    crew = Harness()
    worker = crew.starting()
    assert worker.state is WorkerState.STARTING
    assert crew.dispatcher.worker_ready(worker) is True
    assert worker.state is WorkerState.AWAKE
    assert crew.dispatcher.worker_ready(worker) is False
    assert crew.dispatcher.handles() == [worker]


def test_a_worker_that_was_removed_or_whose_crew_has_stopped_is_not_wanted():
    crew = Harness()
    removed, late = crew.starting(), crew.starting()
    assert crew.dispatcher.abandon_start(removed) is True
    assert crew.dispatcher.worker_ready(removed) is False
    crew.dispatcher.close()
    assert crew.dispatcher.worker_ready(late) is False


def test_a_worker_that_is_up_is_no_start_that_could_be_abandoned():
    crew = Harness()
    worker = crew.worker()
    assert crew.dispatcher.abandon_start(worker) is False
    assert crew.dispatcher.handles() == [worker]


def test_a_stopping_crew_still_wants_a_worker_for_its_queue():
    crew = Harness()
    job = crew.submit()
    crew.dispatcher.stop_accepting()
    assert crew.work(crew.worker()) == [job]


def test_a_dead_workers_job_is_its_orphan_and_the_queue_stays():
    crew = Harness()
    orphan, waiting = crew.submitted(2)
    worker = crew.worker()
    crew.begin(worker)
    assert crew.die(worker) == [orphan]
    assert worker.state is WorkerState.GONE
    assert crew.dispatcher.queued == 1
    assert crew.work(crew.worker()) == [waiting]
    assert crew.status().died == 1


@pytest.mark.parametrize("begun", [0, 1, 2])
def test_jobs_that_a_dead_worker_had_not_begun_wait_again_in_order_and_before_all_others(begun):
    crew = Harness()
    crew.knows()
    worker = crew.worker()
    jobs = crew.submitted(5, QUICK)
    batch = crew.take(worker)
    for _ in range(begun):
        batch.begin()
    newer = crew.submit(QUICK)
    assert crew.die(worker) == jobs[:begun]
    assert crew.work(crew.worker()) == [*jobs[begun:], newer]
    crew.settle_all()


def test_a_worker_is_removed_once_and_may_be_removed_again():
    crew = Harness()
    crew.knows()
    jobs = crew.submitted(3, QUICK)
    worker = crew.worker()
    crew.begin(worker)
    assert [crew.dispatcher.remove_worker(worker) for _ in range(3)] == [[jobs[0]]] * 3
    assert len(crew.dispatcher.admission.quarantine.deaths) == 1
    crew.die(worker)
    assert crew.dispatcher.remove_worker(worker) == []
    crew.settle_all()
    assert crew.status().died == 1
    assert crew.dispatcher.remove_worker(WorkerHandle(99, print)) == []


def test_a_dead_worker_takes_nothing_and_its_late_answer_is_dropped_and_not_counted():
    crew = Harness()
    crew.submitted(2)
    worker = crew.worker()
    job, batch = crew.begin(worker), worker.batch
    crew.die(worker)
    batch.answer(job, "late")
    assert batch.begin() is None
    assert crew.take(worker) is None
    status = crew.status()
    assert (status.answered, status.died, status.queued, status.workers) == (0, 1, 1, ())


def test_a_dead_worker_that_was_about_to_begin_a_job_lets_it_wait_again():
    crew = Harness()
    job = crew.submit()
    worker = crew.worker()
    batch = crew.take(worker)
    crew.die(worker)
    assert batch.begin() is None
    assert crew.work(crew.worker()) == [job]


def test_the_job_for_which_a_dead_worker_was_woken_wakes_another():
    crew = Harness()
    early, late = crew.idle_workers(2)
    crew.submit()
    assert crew.woken == [late]
    assert crew.die(late) == []
    assert early in crew.woken
    crew.settle_all()


def test_a_dead_idle_worker_is_not_woken():
    crew = Harness()
    early, late = crew.idle_workers(2)
    crew.die(late)
    crew.submit()
    assert crew.woken == [early]


def test_a_worker_that_is_given_up_as_it_becomes_idle_takes_no_wake_from_the_others():
    """The worker enters the idle list once more, and leaves it for ever at its own end."""
    crew = Harness()
    early, late = crew.worker(), crew.worker()
    assert crew.take(early) is None
    late.lane.clock = lambda: (crew.dispatcher.remove_worker(late), crew.clock())[1]
    assert crew.take(late) is None
    late.lane.clock = crew.clock
    job = crew.submit()
    crew.die(late)  # the worker's thread finds that the worker is retired
    crew.settle_all()
    assert job.reply.done()


# --- refusing -----------------------------------------------------------------------------


@pytest.mark.parametrize("refuse", ["unavailable", "stopped"])
def test_each_caller_gets_an_error_of_its_own(refuse):
    # A raised error stores its traceback in itself.
    make = getattr(Harness().dispatcher, refuse)
    assert make() is not make()


def test_the_text_of_a_refusal_contains_the_cause_and_its_notes():
    crew = Harness()
    cause = OSError("cannot open")
    cause.add_note("there is no directory /data")
    crew.dispatcher.suspend(cause)
    refusal = crew.refused()
    assert type(refusal) is DatabaseUnavailable
    assert refusal.__cause__ is cause
    assert str(refusal) == (
        "crew 'app' is suspended: no worker can open Database() "
        "(OSError: cannot open; there is no directory /data); it goes on trying and resumes by itself"
    )


def test_a_refusal_without_a_cause_says_that_none_is_known():
    crew = Harness()
    crew.dispatcher.suspend(None)
    assert "(no cause is known)" in str(crew.refused())


def test_the_text_of_a_refusal_says_whether_the_crew_is_stopping_or_stopped():
    crew = Harness()
    crew.dispatcher.stop_accepting()
    refusal = crew.refused()
    assert type(refusal) is SupervisorStopped
    assert str(refusal) == "crew 'app' is stopping, and takes no more jobs"
    crew.dispatcher.close(OSError("gone"))
    assert str(crew.refused()) == "crew 'app' is stopped (OSError: gone), and takes no more jobs"
