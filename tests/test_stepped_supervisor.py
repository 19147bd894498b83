"""A supervisor without threads, step by step: news that comes at the wrong moment."""

import pytest

from actors.restart import RestartPolicy
from actors.result import Result
from actors.seat import SeatState
from supervisor import Query, Status
from tests.stepped import CLOCK, SteppedSupervisor

POLICY = RestartPolicy(start_timeout=30, jitter=0)


@pytest.fixture
def crew():
    crew = SteppedSupervisor(2, None, POLICY)
    crew.launch()
    crew.run(crew.on_start)
    yield crew
    for actor in (crew, *crew.database.workers):
        actor.retire()


def read_all(crew, *, at_most=20):
    """Let the supervisor read until it would sleep; one that never does fails the test."""
    for _ in range(at_most):
        if not crew.has_mail:
            return
        crew.run(lambda: crew.step(crew.actor_inbox.get()), may_spin=True)
    pytest.fail("the supervisor never sleeps")


def counters(crew):
    status = crew.actor_ref.ask(Status())
    return {name: getattr(status, name) for name in ("queued", "running", "answered", "died")}


def test_the_first_worker_is_started_alone_and_the_others_once_it_is_up(crew):
    (first,) = crew.database.workers
    first.open()
    assert len(crew.database.workers) == 1
    read_all(crew)
    assert len(crew.database.workers) == 2


def test_a_worker_whose_news_is_read_late_has_come_up_in_time(crew):
    (worker,) = crew.database.workers
    worker.open()
    CLOCK.now += 31  # the supervisor was held up; the news and the alarm are both there
    read_all(crew)
    assert not worker.actor_stopped.is_set()
    assert crew._seat_of(worker.member.id).state is SeatState.UP


def test_a_running_job_is_not_counted_as_lost_because_news_is_read_late(crew):
    reply = crew.actor_ref.ask(Query("SELECT 1"), block=False)
    (worker,) = crew.database.workers
    worker.open()
    CLOCK.now += 31
    read_all(crew)
    assert counters(crew) == {"queued": 0, "running": 1, "answered": 0, "died": 0}
    worker.end_job(Result())
    assert reply.get(timeout=0) == Result()
    assert counters(crew) == {"queued": 0, "running": 0, "answered": 1, "died": 0}


def test_a_supervisor_that_dies_before_it_hears_of_a_worker_leaves_it_to_finish_its_job(crew):
    reply = crew.actor_ref.ask(Query("SELECT 1"), block=False)
    (worker,) = crew.database.workers
    worker.open()
    crew.end(SystemExit())
    assert counters(crew) == {"queued": 0, "running": 1, "answered": 0, "died": 0}
    worker.end_job(Result())
    assert reply.get(timeout=0) == Result()
    assert worker.ended


def test_stopping_reads_its_mail_though_a_worker_takes_long_to_open(crew):
    reply = crew.actor_ref.ask(Query("SELECT 1"), block=False)
    first = crew.database.workers[0]
    first.open()
    read_all(crew)
    second = crew.database.workers[1]  # and it hangs
    stopped = crew.actor_ref.stop(block=False)
    CLOCK.now += 5
    read_all(crew)
    first.end_job(Result())
    CLOCK.now += 5
    read_all(crew)
    assert reply.get(timeout=0) == Result()
    assert crew.ended
    assert stopped.get(timeout=0) is True
    second.open()
    assert second.ended


def test_stopping_reads_its_mail_though_a_worker_has_come_up_late(crew):
    (worker,) = crew.database.workers
    stopped = crew.actor_ref.stop(block=False)
    read_all(crew)
    worker.open()
    CLOCK.now += 5
    read_all(crew)
    assert crew.ended
    assert stopped.get(timeout=0) is True
    assert worker.ended
