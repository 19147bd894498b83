"""Steps of the dispatcher that are cut off in the middle, as a signal or a killed thread may do it.

Whatever step it was: every job is handed to somebody exactly once, and whoever is dead gets none.
"""

from collections import OrderedDict
from contextlib import suppress

import pytest

from actors.job import NEW, STARTED
from actors.member import MemberState
from actors.restart import RestartPolicy
from supervisor import Query, Supervisor
from tests.desk import Desk
from tests.fakes import FakeDatabase


def cut_off_once(function, *, before=False):
    """Return `function` that raises once, after its work is done or `before` it."""
    left = [KeyboardInterrupt]

    def run(*arguments):
        if before and left:
            raise left.pop()
        result = function(*arguments)
        if left:
            raise left.pop()
        return result

    return run


class CutQueue(OrderedDict):
    """A queue one of whose methods is cut off once."""

    def __init__(self, jobs, method, *, before=False):
        self.cut = {}
        super().__init__(jobs)
        self.cut = {method: cut_off_once(getattr(super(), method), before=before)}

    def __setitem__(self, job, nothing):
        return self.cut.get("__setitem__", super().__setitem__)(job, nothing)

    def pop(self, *arguments):
        return self.cut.get("pop", super().pop)(*arguments)


def cut(desk, method, **how):
    desk.dispatcher._lane.jobs = CutQueue(desk.dispatcher._lane.jobs, method, **how)


# --- waking -------------------------------------------------------------------------------


def test_a_wake_that_was_cut_off_is_made_good_when_the_caller_withdraws_another_job():
    desk = Desk()
    another, busy = desk.submit(), desk.worker()
    assert desk.dispatcher.take(busy) is another
    (worker,) = desk.idle_workers(1)
    worker.wake = cut_off_once(worker.wake, before=True)
    with pytest.raises(KeyboardInterrupt):
        desk.submit()
    assert desk.dispatcher.queued == 1
    assert desk.woken == []
    assert desk.dispatcher.withdraw(another) is False
    assert desk.woken == [worker]


def test_a_job_whose_wake_was_cut_off_can_be_withdrawn():
    desk = Desk()
    (worker,) = desk.idle_workers(1)
    worker.wake = cut_off_once(worker.wake, before=True)
    job = desk.job()
    with pytest.raises(KeyboardInterrupt):
        desk.dispatcher.submit(job)
    assert desk.dispatcher.withdraw(job) is True
    assert desk.dispatcher.take(worker) is None
    assert desk.status().cancelled == 1


def test_a_worker_that_was_woken_before_the_cut_is_not_idle_twice():
    desk = Desk()
    (worker,) = desk.idle_workers(1)
    worker.wake = cut_off_once(worker.wake)
    job = desk.job()
    with pytest.raises(KeyboardInterrupt):
        desk.dispatcher.submit(job)
    assert desk.woken == [worker]
    assert desk.dispatcher.take(worker) is job
    assert desk.dispatcher._lane.idle == []
    assert desk.dispatcher.finish(worker, ok=True, more=True) is None
    assert desk.dispatcher._lane.idle == [worker]


def test_stopping_that_was_cut_off_wakes_the_others_when_it_is_repeated():
    desk = Desk()
    workers = desk.idle_workers(2)
    workers[1].wake = cut_off_once(workers[1].wake, before=True)
    with pytest.raises(KeyboardInterrupt):
        desk.dispatcher.stop_accepting()
    desk.dispatcher.stop_accepting()
    assert desk.woken == [workers[1], workers[0]]


def test_a_finalizer_may_wake_everybody_in_the_middle_of_a_wake():
    desk = Desk()
    early, late = desk.idle_workers(2)
    wake = late.wake
    late.wake = lambda: (wake(), setattr(late, "wake", wake), desk.dispatcher.stop_accepting())
    job = desk.submit()
    assert desk.dispatcher._lane.idle == []
    assert set(desk.woken) == {early, late}
    assert desk.dispatcher.take(early) is job


# --- submitting ---------------------------------------------------------------------------


def test_a_job_that_was_cut_off_on_its_way_into_the_queue_is_run():
    desk = Desk()
    worker = desk.worker()
    cut(desk, "__setitem__")
    job = desk.job()
    with pytest.raises(KeyboardInterrupt):
        desk.dispatcher.submit(job)
    assert job.state is NEW
    assert desk.dispatcher.take(worker) is job


def test_a_job_that_was_cut_off_on_its_way_into_the_queue_is_handed_back():
    desk = Desk()
    cut(desk, "__setitem__")
    job = desk.job()
    with pytest.raises(KeyboardInterrupt):
        desk.dispatcher.submit(job)
    assert desk.dispatcher.cancel_pending() == [job]
    desk.status()


def test_a_job_that_was_cut_off_on_its_way_into_the_queue_can_be_withdrawn():
    desk = Desk()
    cut(desk, "__setitem__")
    job = desk.job()
    with pytest.raises(KeyboardInterrupt):
        desk.dispatcher.submit(job)
    assert desk.dispatcher.withdraw(job) is True
    assert desk.dispatcher.take(desk.worker()) is None
    desk.status()


# --- taking -------------------------------------------------------------------------------


@pytest.fixture
def half_taken():
    """A job that its worker has taken, and that is still the first of the queue."""
    desk = Desk()
    job, waiting, worker = desk.submit(), desk.submit(), desk.worker()
    cut(desk, "pop", before=True)
    with pytest.raises(KeyboardInterrupt):
        desk.dispatcher.take(worker)
    assert (job.state, worker.job, next(iter(desk.dispatcher._lane.jobs))) == (STARTED, job, job)
    return desk, job, waiting, worker


def test_a_half_taken_job_is_the_orphan_of_its_worker_and_leaves_the_queue(half_taken):
    desk, job, waiting, worker = half_taken
    assert desk.dispatcher.bury(worker) == [job]
    assert list(desk.dispatcher._lane.jobs) == [waiting]
    assert desk.status().died == 1


def test_a_half_taken_job_is_given_to_nobody_else(half_taken):
    desk, job, waiting, worker = half_taken
    assert desk.dispatcher.take(desk.worker()) is waiting
    assert desk.dispatcher.bury(worker) == [job]
    assert desk.dispatcher.queued == 0


def test_a_half_taken_job_is_not_handed_back_with_the_queue(half_taken):
    desk, job, waiting, worker = half_taken
    assert desk.dispatcher.cancel_pending() == [waiting]
    assert desk.dispatcher.bury(worker) == [job]
    desk.status()


def test_a_half_taken_job_cannot_be_withdrawn(half_taken):
    desk, job, _, worker = half_taken
    assert desk.dispatcher.withdraw(job) is False
    assert desk.dispatcher.bury(worker) == [job]


def test_a_job_that_was_cut_off_just_after_it_left_the_queue_is_the_orphan_of_its_worker():
    desk = Desk()
    job, worker = desk.submit(), desk.worker()
    cut(desk, "pop")
    with pytest.raises(KeyboardInterrupt):
        desk.dispatcher.take(worker)
    assert desk.dispatcher.queued == 0
    assert desk.dispatcher.bury(worker) == [job]
    assert desk.status().died == 1


# --- burying ------------------------------------------------------------------------------


class CutMembers(dict):
    """A table of workers from which the first removal is cut off when it is done."""

    def __init__(self, members):
        super().__init__(members)
        self.pop = cut_off_once(super().pop)


def test_a_worker_whose_burial_was_cut_off_is_never_woken():
    desk = Desk()
    early, late = desk.idle_workers(2)
    desk.dispatcher._members = CutMembers(desk.dispatcher._members)
    with suppress(KeyboardInterrupt):
        desk.dispatcher.bury(late)
    desk.dispatcher.bury(late)
    desk.submit()
    assert desk.woken == [early]
    assert late.state is MemberState.GONE


def test_the_orphan_of_a_worker_whose_burial_was_cut_off_is_counted_once():
    desk = Desk()
    job, worker = desk.submit(), desk.worker()
    desk.dispatcher.take(worker)
    desk.dispatcher._members = CutMembers(desk.dispatcher._members)
    with suppress(KeyboardInterrupt):
        desk.dispatcher.bury(worker)
    assert desk.dispatcher.bury(worker) == [job]
    assert desk.status().died == 1


def test_a_burial_that_was_cut_off_wakes_another_when_it_is_repeated():
    desk = Desk()
    early, late = desk.idle_workers(2)
    desk.submit()
    early.wake = cut_off_once(early.wake, before=True)
    with pytest.raises(KeyboardInterrupt):
        desk.dispatcher.bury(late)
    desk.dispatcher.bury(late)
    assert desk.woken == [late, early]


# --- handing back the queue ---------------------------------------------------------------


@pytest.mark.parametrize(("step", "arguments"), [("close", ()), ("cancel_pending", ()), ("suspend", (None,))])
def test_a_queue_is_handed_back_again_until_somebody_has_rejected_it(step, arguments):
    desk = Desk()
    jobs = [desk.submit(), desk.submit()]
    assert getattr(desk.dispatcher, step)(*arguments) == jobs
    assert desk.rejected(getattr(desk.dispatcher, step)(*arguments)) == jobs
    assert desk.status().rejected == 2


@pytest.mark.parametrize(
    "step",
    [
        lambda crew: crew._suspend(crew._teams[0]),
        lambda crew: crew.on_end(None),
        lambda crew: crew._on_shutdown(True, None),
    ],
    ids=["suspend", "end", "shutdown"],
)
def test_a_supervisor_that_is_killed_while_it_rejects_the_queue_has_rejected_all_of_it_at_its_end(step):
    crew = Supervisor(FakeDatabase(), 1, None, RestartPolicy(), "app")  # never started: a plain object
    replies = [crew.actor_ref.ask(Query("SELECT 1"), block=False) for _ in range(3)]
    replies[0]._add_waker(cut_off_once(lambda: None, before=True))
    with suppress(KeyboardInterrupt):
        step(crew)
    crew._end(KeyboardInterrupt())
    assert [reply.done() for reply in replies] == [True, True, True]
