"""The dispatcher's modes and its status: up, suspended, stopping, stopped, forked."""

import threading

import pytest

from actors.dispatch.dispatcher import Mode
from actors.dispatch.worker_handle import WorkerState
from actors.values.errors import DatabaseUnavailable, SupervisorStopped
from tests.unit.dispatch.harness import QUICK, WRITE, Harness, answer, errors, once
from tests.unit.dispatch.strikes import in_the_middle


def crew_in(mode):
    """Return a harness whose dispatcher is in `mode`."""
    crew = Harness()
    match mode:
        case Mode.SUSPENDED:
            crew.dispatcher.suspend(OSError("no"))
        case Mode.STOPPING:
            crew.dispatcher.stop_accepting()
        case Mode.STOPPED:
            crew.dispatcher.close()
    assert crew.dispatcher.mode is mode
    return crew


@pytest.mark.parametrize(
    ("before", "step", "after"),
    [
        (Mode.UP, "suspend", Mode.SUSPENDED),
        (Mode.UP, "resume", Mode.UP),
        (Mode.UP, "stop_accepting", Mode.STOPPING),
        (Mode.UP, "close", Mode.STOPPED),
        (Mode.SUSPENDED, "suspend", Mode.SUSPENDED),
        (Mode.SUSPENDED, "resume", Mode.UP),
        (Mode.SUSPENDED, "stop_accepting", Mode.STOPPING),
        (Mode.SUSPENDED, "close", Mode.STOPPED),
        (Mode.STOPPING, "suspend", Mode.STOPPING),
        (Mode.STOPPING, "resume", Mode.STOPPING),
        (Mode.STOPPING, "stop_accepting", Mode.STOPPING),
        (Mode.STOPPING, "close", Mode.STOPPED),
        (Mode.STOPPED, "suspend", Mode.STOPPED),
        (Mode.STOPPED, "resume", Mode.STOPPED),
        (Mode.STOPPED, "stop_accepting", Mode.STOPPED),
        (Mode.STOPPED, "close", Mode.STOPPED),
    ],
)
def test_every_step_leads_from_every_mode_to_the_mode_of_the_table(before, step, after):
    crew = crew_in(before)
    for _ in range(2):  # each step may be repeated
        getattr(crew.dispatcher, step)(*([OSError("why")] if step == "suspend" else []))
        assert crew.dispatcher.mode is after


# --- suspended ----------------------------------------------------------------------------


@pytest.mark.parametrize("lane", [0, 1], ids=["the crew", "the writer"])
def test_jobs_that_wait_again_just_after_they_were_rejected_are_rejected_too(lane):
    """The worker of the jobs ends as the crew, or the writer's lane, is suspended."""
    crew = Harness(has_writer=True)
    worker = crew.worker(1)
    jobs = [crew.submit(WRITE) for _ in range(3)]
    assert crew.begin(worker) is jobs[0]
    worker.batch.jobs.extend(crew.lane.writers.jobs)
    crew.lane.writers.jobs.clear()
    worker.lane.handles.remove(worker)  # no other thread sees the worker's jobs
    crew.dispatcher.suspend(OSError("no"), lane)
    crew.die(worker)
    assert errors(jobs) == ["RuntimeError", "DatabaseUnavailable", "DatabaseUnavailable"]


def test_suspending_rejects_the_queue_in_its_order_and_leaves_running_jobs():
    crew = Harness()
    running, *queued = crew.submitted(3)
    crew.begin(crew.worker())
    cancelled = crew.submit()
    assert crew.dispatcher.cancel(cancelled)
    for _ in range(2):
        crew.dispatcher.suspend(OSError("no"))
        assert errors(queued) == ["DatabaseUnavailable"] * 2
        assert list(crew.settled) == [cancelled, *queued]
        assert crew.dispatcher.running() == [running]
    assert crew.dispatcher.cancel(queued[0]) is False
    status = crew.status()
    assert (status.queued, status.running, status.rejected, status.cancelled) == (0, 1, 2, 1)


def test_a_suspended_crew_refuses_with_its_latest_cause():
    crew = Harness()
    first, last = OSError("first"), OSError("last")
    crew.dispatcher.suspend(first)
    crew.dispatcher.suspend(last)
    refusal = crew.refused()
    assert type(refusal) is DatabaseUnavailable
    assert refusal.__cause__ is last


def test_a_resumed_crew_takes_jobs_and_has_forgotten_the_cause():
    crew = Harness()
    crew.dispatcher.suspend(OSError("no"))
    crew.dispatcher.resume()
    job = crew.submit()
    assert crew.work(crew.worker()) == [job]
    assert crew.status().cause is None


def test_a_stopping_crew_without_workers_says_why():
    crew = Harness()
    job = crew.submit()
    crew.dispatcher.stop_accepting()
    crew.dispatcher.suspend(OSError("no disk"))
    assert errors([job]) == ["DatabaseUnavailable"]
    refusal = crew.refused()
    assert type(refusal) is SupervisorStopped
    assert str(refusal) == "crew 'app' is stopping (OSError: no disk), and takes no more jobs"


# --- stopping -----------------------------------------------------------------------------


def test_a_stopping_crew_wakes_all_workers_and_runs_accepted_jobs():
    crew = Harness()
    workers = crew.idle_workers(2)
    job = crew.submit()
    crew.dispatcher.stop_accepting()
    assert {*crew.woken} == {*workers}
    assert type(crew.refused()) is SupervisorStopped
    assert crew.work(workers[0]) == [job]
    assert crew.work(workers[1]) == []
    assert [worker.state for worker in workers] == [WorkerState.RETIRED] * 2


def test_pending_jobs_can_be_cancelled_at_any_time():
    crew = Harness()
    jobs = crew.submitted(3)
    for _ in range(2):
        crew.dispatcher.cancel_pending()
        assert crew.dispatcher.mode is Mode.UP
        assert list(crew.settled) == jobs
        assert crew.status().rejected == 3
    assert errors(jobs) == ["SupervisorStopped"] * 3


def test_cancelling_pending_jobs_reaches_jobs_that_a_worker_has_not_begun():
    crew = Harness()
    crew.knows()
    worker = crew.worker()
    first, *others = crew.submitted(4, QUICK)
    assert crew.begin(worker) is first
    crew.dispatcher.cancel_pending()
    assert errors(others) == ["SupervisorStopped"] * 3
    crew.settle_all()
    assert errors([first]) == [None]


def test_closing_rejects_the_queue_wakes_all_workers_and_keeps_the_first_cause():
    crew = Harness()
    (worker,) = crew.idle_workers(1)
    busy = crew.worker()
    crew.submit()
    crew.begin(busy)
    crew.woken.clear()
    queued = crew.submitted(2)
    cause = OSError("the supervisor died")
    for each in (cause, None):
        crew.dispatcher.close(each)
        assert list(crew.settled) == queued
        assert crew.dispatcher.stopped().__cause__ is cause
    assert worker in crew.woken
    answer(busy)
    assert crew.work(busy) == []
    assert busy.state is WorkerState.RETIRED


@pytest.mark.parametrize(
    ("step", "ends"),
    [
        ("stop_accepting", {None, "SupervisorStopped"}),
        ("close", {"SupervisorStopped"}),
        ("suspend", {"DatabaseUnavailable"}),
    ],
)
def test_a_job_that_comes_as_the_crew_stops_or_is_suspended_is_run_or_refused_and_never_forgotten(step, ends):
    def prepare():
        crew = Harness()
        (worker,) = crew.idle_workers(1)
        arguments = [OSError("no")] if step == "suspend" else []
        job = crew.job()
        change = [lambda: (getattr(crew.dispatcher, step)(*arguments), crew.work(worker))]
        return crew, lambda: crew.dispatcher.submit(job), change

    found = set()
    for crew, where in in_the_middle(prepare):
        while crew.woken:
            crew.work(crew.woken[-1])
        assert crew.jobs[0].reply.done(), where
        found.update(errors(crew.jobs))
        crew.check()
    assert found - {None} == ends - {None}
    assert found >= ends


# --- forked -------------------------------------------------------------------------------


def test_the_child_of_a_fork_rejects_every_job_though_another_thread_holds_the_lock():
    crew = Harness(max_queue=10)
    crew.knows()
    busy = crew.worker()
    jobs = crew.submitted(3, QUICK)
    crew.begin(busy)
    holding, let_go = threading.Event(), threading.Event()

    def hold():
        with crew.dispatcher.admission._lock:
            holding.set()
            let_go.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert holding.wait(10)
    try:
        crew.dispatcher.forget_the_parent()
        assert errors(jobs) == ["SupervisorStopped"] * 3
        assert crew.dispatcher.mode is Mode.STOPPED
        refusal = crew.refused()
    finally:
        let_go.set()
        holder.join(10)
    assert type(refusal) is SupervisorStopped
    assert "this process was forked from the process that runs the crew" in str(refusal)


def test_the_child_of_a_fork_leaves_the_parents_workers_alone():
    crew = Harness()
    crew.idle_workers(2)
    crew.dispatcher.forget_the_parent()
    assert crew.woken == []
    assert crew.status().workers == ()


def test_the_counters_of_a_forked_child_add_up():
    crew = Harness()
    crew.submitted(2)
    crew.begin(crew.worker())
    crew.dispatcher.forget_the_parent()
    status = crew.status()
    assert (status.submitted, status.rejected + status.died) == (2, 2)


# --- looking ------------------------------------------------------------------------------


def test_a_snapshot_shows_every_worker_in_the_order_of_their_ids():
    crew = Harness(size=3)
    job = crew.submit()
    starting, busy = crew.starting(), crew.worker()
    crew.begin(busy)
    (idle,) = crew.idle_workers(1)
    crew.clock.now += 1.5
    status = crew.status()
    assert [(worker.id, worker.state, worker.job, worker.seconds) for worker in status.workers] == [
        (starting.id, "starting", None, 1.5),
        (busy.id, "busy", str(job.request), 1.5),
        (idle.id, "idle", None, 1.5),
    ]
    assert (status.name, status.database, status.state, status.size, status.cause) == (
        "app",
        "Database()",
        "up",
        3,
        None,
    )


def test_a_snapshot_shows_the_cause_with_its_notes():
    crew = Harness()
    cause = OSError("no")
    cause.add_note("look at the path")
    crew.dispatcher.suspend(cause)
    assert crew.status().cause == "OSError: no; look at the path"
    assert crew.status().state == "suspended"


def test_a_dispatcher_prints_its_state():
    crew = Harness(size=4)
    assert repr(crew.dispatcher) == "'app' up: 0 of 4 workers (0 busy, 0 idle), 0 queued, 0 answered"
    crew.starting()
    worker = crew.worker()
    crew.submitted(3)
    crew.run_batch(crew.take(worker))
    crew.begin(worker)
    assert repr(crew.dispatcher) == "'app' up: 1 of 4 workers (1 busy, 0 idle), 1 queued, 1 answered"
    crew.dispatcher.stop_accepting()
    assert "'app' stopping:" in repr(crew.dispatcher)


def test_the_error_of_a_late_answer_names_the_place_of_the_job():
    crew = Harness()
    crew.knows()
    worker = crew.worker()
    jobs = crew.submitted(3, QUICK)
    late = crew.dispatcher.late
    assert f"within 2 seconds: it is queued behind 2 others; {crew.dispatcher!r}".split(";")[0] in late(jobs[2], 2)
    batch = crew.take(worker)
    assert batch.hand_over() is jobs[0]
    assert batch.hand_over() is jobs[1]
    crew.clock.now += 1.5
    assert f"it has run for 1.500 seconds on worker {worker.id}" in late(jobs[0], 2)
    assert f"it is queued at worker {worker.id}, behind the job that runs there" in late(jobs[1], 2)
    assert "it is queued behind 0 others" in late(jobs[2], 2)
    batch.running.remove(jobs[0])
    assert "its answer is on the way" in late(jobs[0], 2)


def test_a_thread_knows_whether_it_holds_the_lock_of_max_queue():
    crew = Harness(max_queue=10)
    seen = []
    dispatcher = crew.dispatcher
    dispatcher.admission.refusal_of = once(dispatcher.admission.refusal_of, lambda: seen.append(dispatcher.is_mine()))
    crew.submit()
    assert seen == [True]
    assert not dispatcher.is_mine()
    with dispatcher.admission._lock:
        other = threading.Thread(target=lambda: seen.append(dispatcher.is_mine()))
        other.start()
        other.join(10)
    assert seen == [True, False]


def test_a_snapshot_names_the_writer():
    crew = Harness(size=1, has_writer=True)
    reader, writer = crew.worker(), crew.worker(1)
    crew.submit()
    crew.begin(reader)
    assert crew.status().writing is None
    job = crew.submit(WRITE)
    crew.begin(writer)
    assert crew.status().writing == str(job.request)
    assert [each.role for each in crew.status().workers] == ["reader", "writer"]
