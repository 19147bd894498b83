"""Steps that a signal or a killed thread cuts off: no job is lost, and none is settled twice.

A caller that was cut off cancels its job, or never uses its reply. A worker that was cut off ends.
A supervisor that was cut off closes the crew."""

from contextlib import suppress

import pytest

from actors.dispatch import aborts
from actors.dispatch.worker_handle import WorkerState
from actors.values.errors import ConnectionLost
from actors.values.restart import RestartPolicy
from supervisor import Query, Supervisor
from tests.support.fakes import FakeDatabase
from tests.unit.dispatch.harness import DONE, QUICK, WRITE, Harness, errors
from tests.unit.dispatch.strikes import cut_off


def crew_with(workers=2, jobs=0, request=QUICK, **options):
    """Return a crew with waiting jobs, and with workers that have not looked for jobs yet."""
    crew = Harness(size=workers, **options)
    crew.knows()
    for _ in range(workers):
        crew.worker()
    crew.submitted(jobs, request)
    return crew


def given(crew, handle):
    """Let a worker pass its jobs to another process, which has begun the first job."""
    batch = crew.take(handle)
    while (job := batch.hand_over()) is not None:
        crew.begun[job] += job is batch.jobs[0]
    handle.connection.unbegun = batch.jobs[1:]
    return batch


# --- in a caller's thread -----------------------------------------------------------------


def idle_crew(**options):
    crew = crew_with(**options)
    for handle in crew.workers:
        crew.take(handle)
    return crew


def asked(crew):
    job = crew.job(deadline=crew.clock.now + 100)
    return crew, lambda: crew.dispatcher.submit(job)


def in_batch(begun=0):
    crew = crew_with(jobs=4)
    batch = crew.take(crew.workers[0])
    for _ in range(begun):
        crew.begun[batch.begin()] += 1
    return crew


def in_process():
    crew = crew_with(jobs=5)
    given(crew, crew.workers[0])
    return crew


def of_lane(crew, name):
    return crew, getattr(crew.lane, name)


def cancelling(crew, number):
    return crew, lambda: crew.dispatcher.cancel(crew.jobs[number])


def refusing(crew):
    def step():
        with suppress(Exception):
            crew.jobs[0].reply.refuse_deadlock(endless=True)
        crew.dispatcher.refuse_wait(crew.jobs[1], None)

    return crew, step


def purging():
    crew = crew_with(jobs=6)
    for job in crew.jobs[::2]:
        assert job.claim(aborts.cancelled(crew.dispatcher.admission))
    return crew, crew.lane.purge


CALLERS = {
    "submit": lambda: asked(idle_crew()),
    "submit to a busy crew": lambda: asked(crew_with(jobs=3)),
    "submit with max_queue": lambda: asked(idle_crew(max_queue=1)),
    "submit to a full queue": lambda: asked(crew_with(jobs=2, max_queue=2)),
    "submit with shed_after": lambda: asked(idle_crew(shed_after=1.0)),
    "cancel in the queue": lambda: cancelling(crew_with(jobs=5), 2),
    "cancel in a batch": lambda: cancelling(in_batch(), 2),
    "cancel a running job": lambda: cancelling(in_batch(begun=1), 0),
    "cancel in another process": lambda: cancelling(in_process(), 1),
    "cancel a running job in another process": lambda: cancelling(in_process(), 0),
    "refuse a wait": lambda: refusing(crew_with(jobs=2)),
    "purge": purging,
    "recall": lambda: of_lane(in_process(), "recall"),
    "recover": lambda: of_lane(crew_with(jobs=2), "recover"),
}


@pytest.mark.parametrize("prepare", CALLERS.values(), ids=list(CALLERS))
@pytest.mark.parametrize("cleans_up", [True, False])
def test_a_caller_that_is_cut_off_loses_no_job_and_settles_none_twice(prepare, cleans_up):
    for crew, _ in cut_off(prepare):
        last = crew.jobs[-1]
        if last.lane is None or cleans_up:  # the job may be refused, and then its caller gets the error
            last.reply.cancel()
            crew.dispatcher.recover()
        elif not last.reply.done() and last.is_waiting and last not in crew.dispatcher.lanes[0].waiting():
            crew.jobs.remove(last)  # the job is not in the queue, and its caller gets the error
        crew.settle_all()


# --- in a worker's thread -----------------------------------------------------------------


def taking_from(crew):
    return crew, lambda: crew.take(crew.workers[0])


def taking():
    return taking_from(crew_with(jobs=5))


def stealing():
    crew = crew_with(jobs=1)
    crew.lane.handles.reverse()
    other = crew.workers[1]
    crew.submitted(4, QUICK)
    batch = crew.take(other)
    crew.begun[batch.begin()] += 1
    crew.lane.jobs.clear()
    crew.jobs[:] = batch.jobs
    return crew, lambda: crew.take(crew.workers[0])


def stealing_from_a_process():
    crew = crew_with(jobs=5)
    given(crew, crew.workers[1])
    crew.lane.handles.reverse()
    crew.lane.jobs.clear()
    crew.jobs[:] = crew.workers[1].batch.jobs
    return crew, lambda: crew.take(crew.workers[0])


def with_batch(step, *, lanes=1):
    crew = crew_with(jobs=4, has_writer=lanes > 1)
    if lanes > 1:
        crew.worker(1)
    batch = crew.take(crew.workers[0])
    return crew, lambda: step(crew, batch)


def doing(crew, batch):
    crew.run_batch(batch)


def failing(crew, batch):
    crew.run_batch(batch, ValueError("no"))


def giving_back(crew, batch):
    batch.give_back(*filter(None, (batch.begin(), batch.begin())))


def rerouting(crew, batch):
    batch.reroute(batch.begin())


def handing_over(crew, batch):
    jobs = []
    while (job := batch.hand_over()) is not None:
        jobs.append(job)
    for job in jobs:
        crew.begun[job] += 1
        batch.answer(job, DONE, 0.001)


def closing(crew, batch):
    given_up = batch.jobs[1:]
    crew.begun[batch.hand_over()] += 1
    for _ in given_up:
        batch.hand_over()
    crew.workers[0].connection.unbegun = given_up
    batch.answer(batch.jobs[0], DONE)
    batch.take_back()
    batch.close()


WORKERS = {
    "take": taking,
    "take an unknown statement": lambda: taking_from(crew_with(jobs=3, request=Query("SELECT unknown"))),
    "steal": stealing,
    "steal from a process": stealing_from_a_process,
    "become idle": lambda: taking_from(crew_with()),
    "do a batch": lambda: with_batch(doing),
    "fail a batch": lambda: with_batch(failing),
    "give back": lambda: with_batch(giving_back),
    "reroute": lambda: with_batch(rerouting, lanes=2),
    "hand over": lambda: with_batch(handing_over),
    "close": lambda: with_batch(closing),
}


@pytest.mark.parametrize("prepare", WORKERS.values(), ids=list(WORKERS))
def test_a_worker_that_is_cut_off_loses_only_jobs_that_it_had_begun(prepare):
    for crew, where in cut_off(prepare):
        handle = crew.workers[0]
        begun = {job for job in crew.jobs if handle.batch is not None and job.owner is handle.batch}
        orphans = crew.die(handle)
        assert {*orphans} <= begun, where
        if "hand" not in where:
            assert len(orphans) <= 2, where  # the jobs that `giving_back` has begun
        crew.settle_all()


@pytest.mark.parametrize("prepare", WORKERS.values(), ids=list(WORKERS))
def test_the_end_of_a_worker_may_be_cut_off_as_well_and_is_repeated(prepare):
    """The supervisor repeats it: it removes a worker whose end was cut off."""

    def ending():
        crew, step = prepare()
        step()
        handle = crew.workers[0]
        return crew, lambda: crew.dispatcher.remove_worker(handle)

    for crew, _ in cut_off(ending):
        handle = crew.workers[0]
        crew.die(handle)
        assert handle.state is WorkerState.GONE
        assert handle not in crew.lane.handles
        assert handle not in crew.lane.idle
        crew.settle_all()
        assert handle not in crew.woken


def test_the_rejection_of_an_orphan_may_be_cut_off_and_is_repeated():
    for cancelled in (False, True):

        def rejecting(cancelled=cancelled):
            crew = in_batch(begun=1)
            job = crew.jobs[0]
            if cancelled:
                assert crew.dispatcher.cancel(job)
            [orphan] = crew.dispatcher.remove_worker(crew.workers[0])
            assert orphan is job
            return crew, lambda: crew.dispatcher.reject_orphan(job, RuntimeError("died"))

        for crew, _ in cut_off(rejecting):
            crew.dispatcher.remove_worker(crew.workers[0])
            crew.dispatcher.reject_orphan(crew.jobs[0], RuntimeError("died"))
            crew.workers.pop(0)
            crew.settle_all()
            assert errors(crew.jobs[:1]) == ["QueryCancelled" if cancelled else "RuntimeError"]


def test_a_worker_that_is_killed_as_it_becomes_ready_is_removed_or_up():
    def reporting():
        crew = Harness()
        handle = crew.starting()
        return (crew, handle), lambda: crew.dispatcher.worker_ready(handle)

    for (crew, handle), where in cut_off(reporting):
        crew.submit()
        crew.die(handle)
        assert crew.dispatcher.handles() == [], where
        crew.settle_all()


# --- in the supervisor's thread -----------------------------------------------------------


def overdue():
    crew = crew_with(jobs=3)
    crew.submitted(2)
    for job in crew.jobs[1:]:
        job.deadline = crew.clock.now + 1
        crew.dispatcher.timers.reschedule(job)
    crew.begin(crew.workers[0])
    crew.tick()
    crew.clock.now += 2
    return crew


SUPERVISORS = {
    "suspend": lambda crew: crew.dispatcher.suspend(OSError("away")),
    "stop": lambda crew: crew.dispatcher.stop_accepting(),
    "cancel what waits": lambda crew: crew.dispatcher.cancel_pending(),
    "close": lambda crew: crew.dispatcher.close(),
    "expire": lambda crew: crew.dispatcher.expire(crew.clock()),
    "follow up": lambda crew: (crew.dispatcher.expire(crew.clock()), crew.dispatcher.follow_up(crew.clock())),
    "look": lambda crew: crew.dispatcher.next_due(),
}


@pytest.mark.parametrize("step", SUPERVISORS.values(), ids=list(SUPERVISORS))
@pytest.mark.parametrize(
    "start",
    [lambda: crew_with(jobs=4), in_batch, in_process, overdue],
    ids=["waiting", "in batch", "in process", "overdue"],
)
def test_a_supervisor_that_is_cut_off_closes_the_crew_and_leaves_no_job(step, start):
    def prepare():
        crew = start()
        return crew, lambda: step(crew)

    for crew, where in cut_off(prepare):
        crew.dispatcher.close(KeyboardInterrupt())
        for handle in tuple(crew.workers):
            crew.finish(handle)
        for handle in tuple(crew.workers):
            assert handle.state is WorkerState.RETIRED, where
            crew.die(handle)
        crew.check()


@pytest.mark.parametrize("step", ["stop_accepting", "cancel_pending"])
def test_a_repeated_step_of_the_supervisor_repairs_a_step_that_was_cut_off(step):
    def prepare():
        crew = idle_crew()
        crew.submitted(2)
        crew.woken.clear()
        crew.lane.idle[:] = crew.workers
        return crew, getattr(crew.dispatcher, step)

    for crew, where in cut_off(prepare):
        getattr(crew.dispatcher, step)()
        if step == "stop_accepting":
            assert {*crew.woken} == {*crew.workers}, where
        crew.settle_all()


@pytest.mark.parametrize(
    "step",
    [
        lambda crew: crew._suspend(crew._staffing.first),
        lambda crew: crew.on_end(None),
        lambda crew: crew._on_shutdown(True, None),
    ],
    ids=["suspend", "end", "shutdown"],
)
def test_a_supervisor_that_is_killed_while_it_rejects_the_queue_has_rejected_all_of_it_at_its_end(step):
    def prepare():
        crew = Supervisor(FakeDatabase(), 1, None, RestartPolicy(), "app")  # an object, never started as an actor
        replies = [crew.actor_ref.ask(Query("SELECT 1"), block=False) for _ in range(3)]
        return (crew, replies), lambda: step(crew)

    for (crew, replies), where in cut_off(prepare):
        crew._end(KeyboardInterrupt())
        assert [reply.done() for reply in replies] == [True, True, True], where


# --- events in the middle of a step -------------------------------------------------------


def test_a_finalizer_may_stop_the_crew_in_the_middle_of_a_wake():
    crew = Harness()
    early, late = crew.idle_workers(2)
    wake = late.wake
    late.wake = lambda: (wake(), setattr(late, "wake", wake), crew.dispatcher.stop_accepting())
    job = crew.submit()
    assert set(crew.woken) == {early, late}
    assert crew.work(early) == [job]
    assert crew.work(late) == []


@pytest.mark.parametrize("begun", [False, True])
def test_jobs_that_a_lost_connection_had_not_begun_wait_again(begun):
    crew = Harness(size=1, has_writer=True)
    writer = crew.worker(1)
    job = crew.submit(WRITE)
    batch = crew.take(writer)
    task = batch.begin()
    lost = ConnectionLost("gone", begun=begun)
    if not lost.begun:
        batch.give_back(task)
    assert crew.die(writer) == ([job] if begun else [])
    crew.begun.clear()
    assert crew.work(crew.worker(1)) == ([] if begun else [job])
