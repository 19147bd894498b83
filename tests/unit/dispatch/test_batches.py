"""Batches: the jobs that a worker takes, that others take from it, and that wait again in order."""

import pytest

from actors.dispatch import aborts, stealing
from actors.dispatch import lane as lanes
from actors.dispatch.worker_handle import WorkerState
from actors.values.errors import DatabaseUnavailable, QueryCancelled, QueryTimeout, SupervisorStopped, WouldDeadlock
from actors.values.requests import Call, Query, Script, Transaction
from tests.unit.dispatch.harness import DONE, QUICK, WRITE, Harness, answer, errors
from tests.unit.dispatch.strikes import in_the_middle

SLOW = Query("SELECT slow")
MANY = Query(QUICK.sql, many=[(1,)])


@pytest.fixture
def crew():
    crew = Harness()
    crew.knows()
    return crew


@pytest.fixture
def both():
    """A crew with a lane of readers and a lane of one writer."""
    return Harness(size=2, has_writer=True)


# --- the share of a worker ----------------------------------------------------------------


@pytest.mark.parametrize(("workers", "waiting", "shares"), [(1, 10, [10]), (2, 10, [5, 3, 1, 1]), (4, 2, [1, 1, 0, 0])])
def test_a_worker_takes_its_fair_share_of_quick_jobs(crew, workers, waiting, shares):
    handles = [crew.worker() for _ in range(workers)]
    jobs = crew.submitted(waiting, QUICK)
    found = [crew.taken(handle) for handle in handles]
    assert [len(share) for share in found] == shares[:workers]
    assert [job for share in found for job in share] == jobs[: sum(shares[:workers])]


def test_a_batch_has_a_largest_size(crew):
    worker = crew.worker()
    jobs = crew.submitted(lanes._TOGETHER + 5, QUICK)
    assert crew.taken(worker) == jobs[: lanes._TOGETHER]
    assert list(crew.lane.jobs) == jobs[lanes._TOGETHER :]


def test_jobs_that_take_next_to_no_time_are_all_taken_by_one_worker(crew):
    crew.lane.quick[QUICK.sql] = 0.000_001
    worker, _ = crew.worker(), crew.worker()
    jobs = crew.submitted(20, QUICK)
    assert crew.taken(worker) == jobs


@pytest.mark.parametrize("other", [SLOW, MANY, Script(QUICK.sql), Call(len), Transaction([QUICK])], ids=str)
def test_a_job_that_is_not_known_as_quick_is_taken_alone(crew, other):
    worker = crew.worker()
    jobs = [crew.submit(request) for request in (other, QUICK, QUICK, other, QUICK)]
    found = []
    while (batch := crew.take(worker)) is not None:
        found.append(list(batch.jobs))
        assert list(crew.lane.jobs) == jobs[sum(map(len, found)) :], "the jobs that were put back keep their order"
        while (job := batch.begin()) is not None:
            crew.clock.now += 0.5 if job.request is other else 0.0005
            batch.answer(job, DONE)
    assert found == [jobs[:1], jobs[1:3], jobs[3:4], jobs[4:]]


def test_a_text_becomes_quick_by_taking_little_time_and_stays_so_until_it_takes_long(crew):
    worker = crew.worker()
    for seconds, number in ((0.0005, 1), (0.5, 2), (0.0005, 1), (0.0005, 2)):
        crew.submitted(2, SLOW)
        batch = crew.take(worker)
        assert len(batch) == number
        for _ in range(number):
            job = batch.begin()
            crew.clock.now += seconds
            batch.answer(job, DONE)
        crew.dispatcher.cancel_pending()
    assert SLOW.sql in crew.lane.quick


def test_a_statement_that_killed_a_worker_is_not_taken_with_others_again(crew):
    worker = crew.worker()
    crew.submitted(2, QUICK)
    crew.begin(worker)
    crew.die(worker)
    jobs = [crew.dispatcher.lanes[0].jobs[0], crew.submit(QUICK)]
    assert crew.taken(crew.worker()) == jobs[:1]


def test_a_writer_takes_all_waiting_jobs_together(both):
    writer = both.worker(1)
    jobs = [both.submit(request) for request in (WRITE, Script("DELETE"), Call(len), Query("INSERT", many=[(1,)]))]
    assert both.taken(writer) == jobs


def test_a_writer_takes_a_checkout_alone_and_a_statement_that_killed_a_writer_alone(both):
    writer = both.worker(1)
    first, talking, last = both.submit(WRITE), both.job(WRITE), both.job(WRITE)
    talking.checkout = object()
    for job in (talking, last):
        both.dispatcher.submit(job)
    assert both.taken(writer) == [first]
    both.run_batch(writer.batch)
    assert both.taken(writer) == [talking]
    both.run_batch(writer.batch)
    assert both.taken(writer) == [last]
    both.run_batch(writer.batch)
    killer = both.submit(WRITE)
    both.begin(writer)
    assert both.die(writer) == [killer]
    jobs = [both.submit(request) for request in (Query("DELETE"), WRITE, Query("UPDATE"), Query("UPDATE"))]
    writer = both.worker(1)
    assert [both.taken(writer), both.run_batch(writer.batch)][0] == jobs[:1]
    assert [both.taken(writer), both.run_batch(writer.batch)][0] == jobs[1:2]
    assert both.taken(writer) == jobs[2:]


def test_a_worker_keeps_the_jobs_that_it_took_before_others_emptied_the_queue(crew):
    worker = crew.worker()
    jobs = crew.submitted(3, QUICK)

    class Shrinking(type(crew.lane.jobs)):
        def __len__(self):
            return 5  # the length before others took two jobs

    crew.lane.jobs = Shrinking(crew.lane.jobs)
    assert crew.taken(worker) == jobs


# --- waking, and becoming idle ------------------------------------------------------------


def test_a_worker_that_leaves_jobs_wakes_the_next_worker(crew):
    first, second, third = crew.idle_workers(3)
    for job in crew.submitted(3, SLOW):
        assert job.is_waiting
    crew.woken.clear()
    crew.lane.idle[:] = [first, second]
    crew.take(third)
    assert crew.woken == [second]


def test_no_wake_is_lost_when_a_job_comes_as_a_worker_becomes_idle():
    def prepare():
        crew = Harness(size=1)
        worker = crew.worker()
        return crew, lambda: crew.work(worker), [crew.submit]

    for crew, where in in_the_middle(prepare):
        while crew.woken:
            crew.work(crew.woken[-1])
        assert crew.jobs[0].reply.done(), where
        assert crew.lane.idle == crew.workers, where


def test_no_wake_is_lost_when_a_worker_becomes_idle_as_a_job_comes():
    def prepare():
        crew = Harness(size=1)
        worker = crew.worker()
        job = crew.job()
        return crew, lambda: crew.dispatcher.submit(job), [lambda: crew.work(worker)]

    for crew, where in in_the_middle(prepare):
        while crew.woken:
            crew.work(crew.woken[-1])
        assert crew.jobs[0].reply.done(), where
        assert crew.lane.idle == crew.workers, where


def test_two_workers_that_become_idle_as_jobs_come_do_them_all():
    def prepare():
        crew = Harness()
        first, second = crew.worker(), crew.worker()
        return crew, lambda: crew.work(first), [lambda: (crew.submitted(2), crew.work(second))]

    for crew, where in in_the_middle(prepare):
        while crew.woken:
            crew.work(crew.woken[-1])
        assert errors(crew.jobs) == [None] * 2, where


# --- taking from others -------------------------------------------------------------------


def test_an_idle_worker_takes_jobs_that_another_worker_has_not_begun(crew):
    busy = crew.worker()
    jobs = crew.submitted(5, QUICK)
    assert crew.begin(busy) is jobs[0]
    other = crew.worker()
    batch = crew.take(other)
    assert batch.jobs == jobs[1:]
    assert crew.run_batch(batch) == jobs[1:]
    answer(busy)
    assert crew.run_batch(busy.batch) == []
    crew.check()


def test_a_job_that_lies_in_two_batches_is_begun_once(crew):
    first = crew.worker()
    jobs = crew.submitted(4, QUICK)
    batch = crew.take(first)
    second = crew.worker()
    stolen = crew.take(second)
    assert stolen.jobs == jobs
    begun = [stolen.begin(), batch.begin(), stolen.begin(), batch.begin(), stolen.begin(), batch.begin()]
    assert begun == [*jobs, None, None]


def test_the_rest_of_a_stalled_batch_comes_before_newer_jobs(crew):
    busy = crew.worker()
    jobs = crew.submitted(3, QUICK)
    crew.begin(busy)
    other = crew.worker()
    newer = crew.submitted(2, QUICK)
    crew.clock.now += 2 * stealing._STALLED
    found = crew.work(other)
    assert found == [newer[0], *jobs[1:], newer[1]], "each time, the worker looks at one worker, and first at itself"


def test_a_batch_that_makes_progress_stays_with_its_worker_while_newer_jobs_wait(crew):
    busy = crew.worker()
    crew.submitted(3, QUICK)
    crew.begin(busy)
    other = crew.worker()
    newer = crew.submitted(2, SLOW)
    assert crew.taken(other) == newer[:1]


def test_the_supervisor_wakes_an_idle_worker_for_the_rest_of_a_stalled_batch(crew):
    crew.lane.quick[QUICK.sql] = 0.000_001
    (idle,) = crew.idle_workers(1)
    busy = crew.worker()
    jobs = crew.submitted(5, QUICK)
    assert crew.woken == [idle]
    crew.woken.clear()
    crew.lane.idle[:] = [idle]
    assert crew.begin(busy) is jobs[0]
    assert crew.woken == []
    due = crew.dispatcher.next_due()
    assert due == crew.clock.now + stealing._STALLED
    crew.tick(stealing._STALLED)
    assert crew.woken == [idle]
    assert crew.work(idle) == jobs[1:]


@pytest.mark.parametrize("all_busy", [False, True])
def test_an_early_look_of_the_supervisor_keeps_the_watch_for_a_stalled_batch(crew, all_busy):
    crew.lane.quick[QUICK.sql] = 0.000_001
    (idle,) = crew.idle_workers(1)
    busy = crew.worker()
    jobs = crew.submitted(5, QUICK)
    crew.lane.idle[:] = [idle]
    crew.dispatcher.timers.look_at(crew.clock.now + stealing._STALLED / 2)  # for another reason
    crew.dispatcher.next_due()
    assert crew.begin(busy) is jobs[0]
    crew.woken.clear()
    if all_busy:
        crew.lane.idle.clear()
    crew.tick(stealing._STALLED / 2)
    if all_busy:
        assert crew.take(idle) is None
    assert crew.woken == []
    assert crew.dispatcher.next_due() <= crew.clock.now + stealing._STALLED
    crew.tick(stealing._STALLED)
    assert crew.woken == [idle]
    assert crew.work(idle) == jobs[1:]


def test_an_idle_worker_takes_half_of_the_jobs_that_another_connection_has_not_begun(crew):
    busy = crew.worker()
    jobs = crew.submitted(5, QUICK)
    batch = crew.take(busy)
    assert [batch.hand_over() for _ in jobs] == jobs
    assert [bool(job.started_at) for job in jobs] == [True, False, False, False, False]
    busy.connection.unbegun = jobs[1:]
    other = crew.worker()
    assert crew.taken(other) == jobs[1:4]
    assert busy.running == [jobs[0], jobs[4]]
    assert crew.run_batch(other.batch) == jobs[1:4]


# --- waiting again ------------------------------------------------------------------------


def test_jobs_that_wait_again_come_first_in_their_own_lane_and_keep_their_order(both):
    reader, writer = both.worker(), both.worker(1)
    reads, writes = both.submitted(3, QUICK), both.submitted(3, WRITE)
    for lane in both.dispatcher.lanes:
        lane.jobs.clear()
    newer = [both.submit(QUICK), both.submit(WRITE)]
    mixed = [job for pair in zip(reads, writes, strict=True) for job in pair]
    both.lane.requeue(mixed)
    assert list(both.lane.jobs) == [*reads, newer[0]]
    assert list(both.writers.jobs) == [*writes, newer[1]]
    assert both.work(reader) == [*reads, newer[0]]
    assert both.work(writer) == [*writes, newer[1]]


def test_jobs_that_are_given_back_wait_before_all_others_in_their_order(crew):
    worker = crew.worker()
    jobs = crew.submitted(4, QUICK)
    batch = crew.take(worker)
    first, *rest = [batch.begin() for _ in jobs]
    newer = crew.submit(QUICK)
    batch.give_back(*rest)
    assert [job.started_at for job in rest] == [0.0] * 3
    batch.answer(first, DONE)
    batch.close()
    assert list(crew.lane.jobs) == [*rest, newer]
    crew.settle_all()


def test_jobs_that_wait_again_wake_idle_workers(crew):
    (idle,) = crew.idle_workers(1)
    worker = crew.worker()
    crew.submit(QUICK)
    crew.woken.clear()
    job = crew.begin(worker)
    assert crew.take(idle) is None
    worker.batch.give_back(job)
    crew.begun[job] -= 1
    assert idle in crew.woken
    crew.settle_all()


@pytest.mark.parametrize("end", ["give back", "reroute", "take back", "worker is gone"])
@pytest.mark.parametrize("way", ["cancel", "deadline"])
def test_a_job_that_was_interrupted_and_waits_again_ends_at_once_and_never_runs(both, way, end):
    reader = both.worker()
    job = both.submit(deadline=both.clock.now + 1)
    batch = both.take(reader)
    assert batch.hand_over() is job
    if way == "cancel":
        assert both.dispatcher.cancel(job)
    else:
        both.tick(1.02)
    assert not job.reply.done()
    assert reader.connection.interrupted[0] is job
    if end == "give back":
        batch.give_back(job)
    elif end == "reroute":
        batch.reroute(job)
    else:
        reader.connection.unbegun = [job]
        if end == "take back":
            both.lane.requeue(batch.take_back())
        else:
            both.die(reader)
    assert type(job.reply.exception(0)) is {"cancel": QueryCancelled, "deadline": QueryTimeout}[way]
    assert job.reply.exception(0).executed is False
    assert both.tick(10) == []
    both.worker(1)
    both.settle_all()
    assert (both.status().cancelled, both.status().timed_out) == ((1, 0) if way == "cancel" else (0, 1))


@pytest.mark.parametrize("end", ["give_back", "reroute"])
@pytest.mark.parametrize("way", ["cancel", "interrupt"])
def test_a_job_that_is_interrupted_as_it_comes_to_wait_again_is_settled_once(way, end):
    def prepare():
        crew = Harness(size=1, has_writer=True)
        reader, _ = crew.worker(), crew.worker(1)
        job = crew.submit()
        batch = crew.take(reader)
        batch.begin()
        if way == "cancel":
            return crew, lambda: crew.dispatcher.cancel(job), [lambda: getattr(batch, end)(job)]
        abort = aborts.timed_out(crew.dispatcher.admission, crew.clock() + 1)
        job.deadline = crew.clock() + 1
        return crew, lambda: crew.dispatcher.interrupt(job, abort), [lambda: getattr(batch, end)(job)]

    for crew, where in in_the_middle(prepare):
        crew.settle_all()
        assert type(crew.jobs[0].reply.exception(0)) in (QueryCancelled, QueryTimeout), where


# --- readers' jobs that write -------------------------------------------------------------


def test_a_readers_job_that_writes_is_begun_by_the_writer_and_its_text_is_remembered(both):
    reader, writer = both.worker(), both.worker(1)
    hides = Query("WITH … INSERT")
    job = both.submit(hides)
    both.begin(reader)
    both.begun.clear()
    reader.batch.reroute(job)
    assert (job.lane, job.started_at) == (both.writers, 0.0)
    assert both.work(reader) == []
    assert both.work(writer) == [job]
    assert both.submit(hides).lane is both.writers


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (lambda crew: crew.suspend(OSError("away"), 1), DatabaseUnavailable),
        (lambda crew: crew.close(), SupervisorStopped),
    ],
    ids=["suspended", "stopped"],
)
def test_a_job_that_is_rerouted_as_the_writers_lane_closes_is_rejected_once(step, kind):
    def prepare():
        crew = Harness(size=1, has_writer=True)
        reader = crew.worker()
        job = crew.submit()
        batch = crew.take(reader)
        batch.begin()
        return (crew, job), lambda: batch.reroute(job), [lambda: step(crew.dispatcher)]

    for (crew, job), where in in_the_middle(prepare):
        crew.work(crew.workers[0])
        crew.die(crew.workers[0])  # the worker retires, or stops with the crew
        assert isinstance(job.reply.exception(0), kind), where
        crew.check()


def test_a_rerouted_job_is_run_though_the_crew_is_stopping(both):
    reader = both.worker()
    job = both.submit()
    both.begin(reader)
    both.begun.clear()
    both.dispatcher.stop_accepting()
    reader.batch.reroute(job)
    assert both.dispatcher.wants_worker(1)
    assert both.work(both.worker(1)) == [job]


class Talk:
    """A checkout of one owner that holds its worker."""

    waits_for_caller = True

    def __init__(self, end, owner):
        self.end = end
        self.owner = owner

    def is_held_by(self, owner):
        return owner == self.owner

    def interrupt(self):
        pass


def test_a_wait_for_a_rerouted_job_is_refused_if_its_owner_holds_the_writer():
    def prepare():
        crew = Harness(size=1, has_writer=True)
        reader, writer = crew.worker(), crew.worker(1)
        session = crew.job(WRITE)
        session.checkout = Talk(session.reply, "me")
        crew.dispatcher.submit(session)
        crew.begin(writer)
        job = crew.submit()
        batch = crew.take(reader)
        batch.begin()
        said = []
        return (
            (crew, job, said),
            lambda: said.append(crew.dispatcher.refuse_wait(job, "me")),
            [lambda: batch.reroute(job)],
        )

    for (crew, job, said), where in in_the_middle(prepare):
        error = job.reply.exception(0) if job.reply.done() else None
        assert isinstance(error, WouldDeadlock), where
        assert error.executed is False
        assert said in ([None], [error]), where
        assert crew.status().rejected == 1


def test_a_wait_of_another_owner_for_a_rerouted_job_continues(both):
    reader, writer = both.worker(), both.worker(1)
    session = both.job(WRITE)
    session.checkout = Talk(session.reply, "me")
    both.dispatcher.submit(session)
    both.begin(writer)
    job = both.submit()
    both.begin(reader)
    both.begun.clear()
    assert both.dispatcher.refuse_wait(job, "you") is None
    reader.batch.reroute(job)
    assert not job.reply.done()
    both.settle_all()


# --- jobs in a connection -----------------------------------------------------------------


def given(crew, number=3):
    """Let a worker pass jobs to another process, which has begun the first job."""
    worker = crew.worker()
    jobs = crew.submitted(number, QUICK)
    batch = crew.take(worker)
    for _ in jobs:
        crew.begun[batch.hand_over()] += 1
    worker.connection.unbegun = jobs[1:]
    for job in jobs[1:]:
        crew.begun[job] -= 1
    return worker, batch, jobs


def test_a_cancel_takes_a_job_back_from_the_connection_and_the_others_wait_again(crew):
    worker, batch, jobs = given(crew)
    assert crew.dispatcher.cancel(jobs[1])
    assert jobs[1].reply.done()
    assert worker.running == jobs[:1]
    assert list(crew.lane.jobs) == jobs[2:]
    batch.answer(jobs[0], DONE)
    batch.close()
    crew.settle_all()


def test_a_cancel_that_comes_late_does_not_lose_the_jobs_of_the_next_batch(crew):
    """The cancel finds the job in one batch, and the connection in the next batch."""
    worker, batch, (job,) = given(crew, 1)
    batch.answer(job, DONE)
    batch.close()
    later = crew.submitted(2, QUICK)
    following = crew.take(worker)
    for _ in later:
        following.hand_over()
    worker.connection.unbegun = later[1:]
    crew.lane.requeue(batch.take_back())
    following.answer(later[0], DONE)
    following.close()
    assert not later[1].claims
    crew.settle_all()


def test_jobs_that_a_killed_thread_took_back_wait_again_once_the_batch_is_done(crew):
    worker, batch, jobs = given(crew)
    worker.was_recalled = True
    worker.connection.recall()  # the thread is killed here
    batch.answer(jobs[0], DONE)
    batch.close()
    assert list(crew.lane.jobs) == jobs[1:]
    crew.settle_all()


def test_a_connection_that_does_not_report_the_end_of_a_job_is_lost(crew):
    worker = crew.worker()
    job = crew.submit()
    crew.begin(worker)
    with pytest.raises(RuntimeError, match=r"run\(\) of ScriptedConnection has left 1 jobs without an answer"):
        worker.batch.close()
    assert crew.die(worker) == [job]


def test_jobs_that_a_connection_has_not_begun_are_no_orphans_of_its_worker(crew):
    worker, _, jobs = given(crew)
    assert crew.die(worker) == jobs[:1]
    assert list(crew.lane.jobs) == jobs[1:]
    crew.settle_all()


def test_cancelling_all_waiting_jobs_takes_them_back_from_the_connection_as_well(crew):
    _, batch, jobs = given(crew)
    crew.dispatcher.cancel_pending()
    assert errors(jobs[1:]) == ["SupervisorStopped"] * 2
    batch.answer(jobs[0], DONE)
    batch.close()
    crew.settle_all()


# --- claimed jobs in the queue ------------------------------------------------------------


def test_a_purge_keeps_the_order_of_the_others_and_settles_jobs_that_killed_threads_claimed(crew):
    jobs = crew.submitted(10)
    for job in jobs[::3]:
        assert job.claim(aborts.cancelled(crew.dispatcher.admission))
    crew.lane.purge()
    kept = [job for number, job in enumerate(jobs) if number % 3]
    assert list(crew.lane.jobs) == kept
    assert errors(jobs[::3]) == ["QueryCancelled"] * 4
    assert crew.work(crew.worker()) == kept


def test_a_purge_keeps_the_order_though_a_job_comes_meanwhile():
    def prepare():
        crew = Harness()
        jobs = crew.submitted(4)
        assert jobs[1].claim(aborts.cancelled(crew.dispatcher.admission))
        return crew, crew.lane.purge, [crew.submit]

    for crew, _ in in_the_middle(prepare, ["purge"]):
        assert [job for job in crew.lane.jobs if not job.claims] == [crew.jobs[0], *crew.jobs[2:]]
        crew.settle_all()


@pytest.mark.parametrize("act", ["submit", "take", "cancel", "purge", "requeue"])
def test_a_purge_loses_nothing_while_others_take_and_put(act):
    def prepare():
        crew = Harness()
        crew.knows()
        worker = crew.worker()
        jobs = crew.submitted(5, QUICK)
        for job in jobs[::2]:
            assert job.claim(aborts.cancelled(crew.dispatcher.admission))
        acts = {
            "submit": crew.submit,
            "take": lambda: crew.take(worker),
            "cancel": lambda: crew.dispatcher.cancel(jobs[1]),
            "purge": crew.lane.purge,
            "requeue": lambda: crew.lane.requeue([jobs[3]]),
        }
        return crew, crew.lane.purge, [acts[act]]

    for crew, _ in in_the_middle(prepare):
        if crew.workers[0].state is WorkerState.BUSY:
            crew.run_batch(crew.workers[0].batch)
        crew.settle_all()


def test_jobs_of_a_lost_connection_wait_again_in_their_order(crew):
    """The worker gives back a job that it began. The jobs that it has not begun are younger."""
    worker, other = crew.worker(), crew.worker()
    jobs = crew.submitted(4, QUICK)
    batch = crew.take(worker)
    batch.jobs.extend(crew.lane.jobs)
    crew.lane.jobs.clear()
    assert [batch.begin(), batch.begin()] == jobs[:2]
    crew.begun[jobs[0]] += 1
    batch.give_back(jobs[1])
    crew.die(worker)
    assert [job for job in dict.fromkeys(crew.lane.jobs) if not job.claims] == jobs[1:]
    assert crew.status().queued == 3
    crew.work(other)
    crew.settle_all()
