"""The dispatcher's modes, and what it shows: up, suspended, stopping, stopped, forked."""

import threading

import pytest

from actors.dispatcher import Mode
from actors.errors import DatabaseUnavailable, SupervisorStopped
from actors.job import NEW, QUEUED, SENT, STARTED, WITHDRAWN, JobState
from actors.member import MemberState
from tests.desk import Desk


def desk_in(mode):
    """Return a desk whose dispatcher is in `mode`."""
    desk = Desk()
    match mode:
        case Mode.SUSPENDED:
            desk.dispatcher.suspend(OSError("no"))
        case Mode.STOPPING:
            desk.dispatcher.stop_accepting()
        case Mode.STOPPED:
            desk.dispatcher.close()
    assert desk.dispatcher.mode is mode
    return desk


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
def test_every_step_leads_from_every_mode_where_the_table_says(before, step, after):
    desk = desk_in(before)
    for _ in range(2):  # each step may be repeated
        getattr(desk.dispatcher, step)(*([OSError("why")] if step == "suspend" else []))
        assert desk.dispatcher.mode is after


# --- suspended ----------------------------------------------------------------------------


def test_suspending_hands_back_the_queue_in_its_order_and_leaves_what_runs():
    desk = Desk()
    running, *queued = [desk.submit() for _ in range(3)]
    worker = desk.worker()
    desk.dispatcher.take(worker)
    withdrawn = desk.submit()
    desk.dispatcher.withdraw(withdrawn)
    assert desk.rejected(desk.dispatcher.suspend(OSError("no"))) == queued
    assert desk.rejected(desk.dispatcher.suspend(OSError("no"))) == []
    assert desk.dispatcher.running() == [running]
    assert desk.dispatcher.withdraw(queued[0]) is False
    status = desk.status()
    assert (status.queued, status.running, status.rejected, status.cancelled) == (0, 1, 2, 1)


def test_a_suspended_crew_refuses_with_its_latest_cause():
    desk = Desk()
    first, last = OSError("first"), OSError("last")
    desk.dispatcher.suspend(first)
    desk.dispatcher.suspend(last)
    refusal = desk.refused()
    assert type(refusal) is DatabaseUnavailable
    assert refusal.__cause__ is last


def test_a_resumed_crew_takes_jobs_and_has_forgotten_the_cause():
    desk = Desk()
    desk.dispatcher.suspend(OSError("no"))
    desk.dispatcher.resume()
    job = desk.submit()
    assert desk.dispatcher.take(desk.worker()) is job
    assert desk.status().cause is None


def test_a_stopping_crew_that_has_nobody_left_says_why():
    desk = Desk()
    jobs = [desk.submit()]
    desk.dispatcher.stop_accepting()
    assert desk.rejected(desk.dispatcher.suspend(OSError("no disk"))) == jobs
    refusal = desk.refused()
    assert type(refusal) is SupervisorStopped
    assert str(refusal) == "crew 'app' is stopping (OSError: no disk), and takes no more jobs"


# --- stopping -----------------------------------------------------------------------------


def test_a_stopping_crew_wakes_everybody_and_serves_what_was_accepted():
    desk = Desk()
    workers = desk.idle_workers(2)
    job = desk.submit()
    desk.dispatcher.stop_accepting()
    assert sorted(desk.woken, key=id) == sorted(workers, key=id)
    assert type(desk.refused()) is SupervisorStopped
    assert desk.dispatcher.take(workers[0]) is job
    assert desk.dispatcher.take(workers[1]) is None
    assert desk.dispatcher.finish(workers[0], ok=True, more=True) is None
    assert [worker.state for worker in workers] == [MemberState.RETIRED] * 2


def test_a_stopping_crew_wakes_each_worker_once():
    desk = Desk()
    desk.idle_workers(2)
    for _ in range(3):
        desk.dispatcher.stop_accepting()
    assert len(desk.woken) == 2


def test_pending_jobs_can_be_cancelled_at_any_time():
    desk = Desk()
    jobs = [desk.submit() for _ in range(3)]
    assert desk.rejected(desk.dispatcher.cancel_pending()) == jobs
    assert desk.rejected(desk.dispatcher.cancel_pending()) == []
    assert desk.dispatcher.mode is Mode.UP
    assert [job.state for job in jobs] == [WITHDRAWN] * 3
    assert desk.status().rejected == 3


def test_closing_hands_back_the_queue_wakes_everybody_and_keeps_the_first_cause():
    desk = Desk()
    (worker,) = desk.idle_workers(1)
    busy = desk.worker()
    desk.submit()
    desk.dispatcher.take(busy)
    desk.woken.clear()
    queued = [desk.submit(), desk.submit()]
    cause = OSError("the supervisor died")
    assert desk.rejected(desk.dispatcher.close(cause)) == queued
    assert desk.rejected(desk.dispatcher.close()) == []
    assert desk.dispatcher.stopped().__cause__ is cause
    assert worker in desk.woken or worker.state is MemberState.AWAKE
    assert desk.dispatcher.finish(busy, ok=True, more=True) is None
    assert busy.state is MemberState.RETIRED


# --- forked -------------------------------------------------------------------------------


def test_the_child_of_a_fork_gets_back_every_job_whoever_held_the_lock():
    desk = Desk()
    busy = desk.worker()
    jobs = [desk.submit() for _ in range(3)]
    desk.dispatcher.take(busy)
    holding, let_go = threading.Event(), threading.Event()

    def hold():
        with desk.dispatcher._lock:
            holding.set()
            let_go.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert holding.wait(10)
    try:
        assert desk.rejected(desk.dispatcher.forget_the_parent()) == jobs
        assert desk.dispatcher.mode is Mode.STOPPED
        refusal = desk.refused()
    finally:
        let_go.set()
        holder.join(10)
    assert type(refusal) is SupervisorStopped
    assert "this process was forked from the one that runs the crew" in str(refusal)


def test_the_child_of_a_fork_leaves_the_parents_workers_alone():
    desk = Desk()
    desk.idle_workers(2)
    desk.dispatcher.forget_the_parent()
    assert desk.woken == []
    assert desk.status().workers == ()


def test_the_counters_of_a_forked_child_add_up():
    desk = Desk()
    desk.submit()
    desk.submit()
    desk.dispatcher.take(desk.worker())
    desk.dispatcher.forget_the_parent()
    assert desk.status().submitted == 2


# --- looking ------------------------------------------------------------------------------


def test_a_snapshot_shows_every_worker_in_the_order_of_their_ids():
    desk = Desk(size=3)
    job = desk.submit()
    starting, busy = desk.enlisted(), desk.worker()
    desk.dispatcher.take(busy)
    (idle,) = desk.idle_workers(1)
    desk.clock.now += 1.5
    status = desk.status()
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
    desk = Desk()
    cause = OSError("no")
    cause.add_note("look at the path")
    desk.dispatcher.suspend(cause)
    assert desk.status().cause == "OSError: no; look at the path"
    assert desk.status().state == "suspended"


def test_a_dispatcher_prints_its_state():
    desk = Desk(size=4)
    assert repr(desk.dispatcher) == "'app' up: 0 of 4 workers (0 busy, 0 idle), 0 queued, 0 answered"
    desk.enlisted()
    worker = desk.worker()
    for _ in range(3):
        desk.submit()
    desk.dispatcher.take(worker)
    desk.dispatcher.finish(worker, ok=True, more=True)
    assert repr(desk.dispatcher) == "'app' up: 1 of 4 workers (1 busy, 0 idle), 1 queued, 1 answered"
    desk.dispatcher.stop_accepting()
    assert "'app' stopping:" in repr(desk.dispatcher)


def test_a_job_shows_where_it_is():
    desk = Desk()
    job = desk.job()
    assert (job.state, job.started_at, job.submitted_at, job.abort) == (NEW, 0.0, desk.clock.now, None)
    desk.dispatcher.submit(job)
    assert job.state is QUEUED
    desk.clock.now += 1
    desk.dispatcher.take(desk.worker())
    assert (job.state, job.started_at) == (STARTED, desk.clock.now)
    assert list(JobState) == [NEW, QUEUED, SENT, STARTED, WITHDRAWN]


def test_the_thread_inside_the_dispatcher_knows_that_it_is():
    desk = Desk()
    seen = []
    (worker,) = desk.idle_workers(1)
    worker.wake = lambda: seen.append(desk.dispatcher.is_mine())
    desk.submit()
    assert seen == [True]
    assert not desk.dispatcher.is_mine()
    with desk.dispatcher._lock:
        other = threading.Thread(target=lambda: seen.append(desk.dispatcher.is_mine()))
        other.start()
        other.join(10)
    assert seen == [True, False]
