"""News that the supervisor reads at the wrong moment.

The test says which task of a world goes on.
"""

import pytest

from actors.staffing import SlotState
from supervisor import Query, RestartPolicy, Status, Subscribe
from tests.worlds.crew import WorldSupervisor
from tests.worlds.database import WorldDatabase
from tests.worlds.fault_plan import Killed
from tests.worlds.run import silent
from tests.worlds.world import World


class Crew:
    """Two workers, and a supervisor; each goes on until it waits when the test says so."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stage = world.stage
        self.ref = WorldSupervisor.start(
            WorldDatabase(), size=2, restart=RestartPolicy(start_timeout=30, jitter=0), name="world"
        )
        self.supervisor = self.ref._actor_weakref()

    def task(self, name):
        return next(task for task in self.stage.tasks if task.name == name)

    def names(self):
        return [task.name for task in self.stage.tasks]

    def go_on(self, name):
        self.stage.run_one(self.task(name))
        assert not self.stage.is_stuck, f"{name} never sleeps"

    def counters(self):
        status = self.ref.ask(Status())
        return {name: getattr(status, name) for name in ("queued", "running", "answered", "died")}


@pytest.fixture
def crew():
    world = World(1)
    world.has_writer, world.calm = False, True
    with silent(), world.on_stage():
        crew = Crew(world)
        crew.go_on("supervisor")
        yield crew


def test_the_first_worker_is_started_alone_and_the_others_once_it_is_up(crew):
    crew.go_on("worker 1")
    assert "worker 2" not in crew.names()
    crew.go_on("supervisor")
    assert "worker 2" in crew.names()


def test_a_worker_whose_news_is_read_late_has_come_up_in_time(crew):
    crew.go_on("worker 1")
    crew.stage.now += 31  # the supervisor was held up; the news and the alarm are both there
    crew.go_on("supervisor")
    assert crew.supervisor._staffing.slot_of(1).state is SlotState.UP
    crew.go_on("worker 1")
    assert "worker 1" in crew.names()


def test_a_running_job_is_not_counted_as_lost_because_news_is_read_late(crew):
    reply = crew.ref.ask(crew_query(crew), block=False)
    crew.go_on("worker 1")
    crew.stage.now += 31
    crew.go_on("supervisor")
    assert crew.counters() == {"queued": 0, "running": 1, "answered": 0, "died": 0}
    crew.go_on("worker 1")
    assert reply.get(timeout=0).scalar() == 0
    assert crew.counters() == {"queued": 0, "running": 0, "answered": 1, "died": 0}


def test_a_supervisor_that_dies_before_it_hears_of_a_worker_leaves_it_to_finish_its_job(crew):
    reply = crew.ref.ask(crew_query(crew), block=False)
    crew.go_on("worker 1")
    crew.stage.throw(crew.task("supervisor"), Killed())
    crew.go_on("supervisor")
    assert "supervisor" not in crew.names()
    assert crew.counters() == {"queued": 0, "running": 1, "answered": 0, "died": 0}
    crew.stage.now += 1
    crew.go_on("worker 1")
    assert reply.get(timeout=0).scalar() == 0
    assert "worker 1" not in crew.names()


def test_stopping_reads_its_mail_though_a_worker_takes_long_to_open(crew):
    reply = crew.ref.ask(crew_query(crew), block=False)
    crew.go_on("worker 1")
    crew.go_on("supervisor")
    second = crew.task("worker 2")  # and it hangs
    stopped = crew.ref.stop(block=False)
    crew.stage.now += 5
    crew.go_on("supervisor")
    crew.go_on("worker 1")
    crew.stage.now += 5
    crew.go_on("supervisor")
    assert reply.get(timeout=0).scalar() == 0
    assert stopped.get(timeout=0) is True
    assert "supervisor" not in crew.names()
    crew.stage.run_one(second)
    assert crew.names() == []


def test_stopping_reads_its_mail_though_a_worker_has_come_up_late(crew):
    stopped = crew.ref.stop(block=False)
    crew.go_on("supervisor")
    if "worker 1" in crew.names():
        crew.go_on("worker 1")
    crew.stage.now += 5
    crew.go_on("supervisor")
    assert stopped.get(timeout=0) is True
    assert crew.names() == []


def test_a_subscriber_hears_at_once_which_workers_are_up(crew):
    crew.go_on("worker 1")
    crew.go_on("supervisor")
    heard = crew.ref.ask(Subscribe(crew.world.listener), block=False)
    crew.go_on("supervisor")
    assert heard.get(timeout=0) is None
    assert crew.world.listener.up() == {1}


def crew_query(crew):
    entry = crew.world.history.new(0)
    entry.request = Query("SELECT a", (entry.number,))
    return entry.request
