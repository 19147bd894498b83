"""Staffing decides which slot gets a worker and when. It needs no threads and no clock."""

from types import SimpleNamespace

import pytest

from actors.staffing import SlotState, Staffing
from actors.values.restart import RestartPolicy

POLICY = RestartPolicy(
    backoff_initial=1.0, backoff_max=8.0, jitter=0.0, quiet_period=5.0, start_timeout=30.0, max_restarts=3, within=10.0
)
NEVER = float("inf")


class Crew:
    """A `Staffing` whose workers are only ids."""

    def __init__(self, *, size=2, has_writer=False, policy=POLICY):
        self.staffing = Staffing(["readers", "writer"][: 1 + has_writer], size, policy)
        self.jobs = set()
        self.ids = iter(range(1, 1000))

    def has_jobs(self, lane):
        return lane.number in self.jobs

    def start(self, now, lane=0, *, fails=False):
        """Start the workers that are due, and return their slots."""
        started = []
        for slot in self.staffing.due(self.staffing.lanes[lane], now):
            self.staffing.note_start(slot, now)
            slot.worker = SimpleNamespace(handle=SimpleNamespace(id=next(self.ids)))
            started.append(slot)
            if fails:
                self.end(slot, now, OSError("no"))
        return started

    def end(self, slot, now, cause=None, *, was_idle=False):
        was_up, slot.worker, slot.state = slot.state is SlotState.UP, None, SlotState.WAITING
        self.staffing.note_end(slot, cause, now, was_up=was_up, was_idle=was_idle)

    def next_time(self, now, *, is_stopping=False):
        return self.staffing.next_time(now, self.has_jobs, is_stopping=is_stopping, starts_end_at=NEVER)


@pytest.fixture
def crew():
    return Crew()


@pytest.fixture
def up(crew):
    """A crew of two workers that are up."""
    for _ in range(2):
        for slot in crew.start(0.0):
            crew.staffing.note_up(slot, 0.0)
    return crew


def test_one_worker_opens_the_database_and_then_the_others_start(crew):
    first = crew.start(0.0)
    assert first == crew.staffing.slots[:1]
    assert crew.next_time(0.0) == 30.0, "the result is the time at which the start failed"
    crew.staffing.note_up(first[0], 0.5)
    assert crew.start(0.5) == crew.staffing.slots[1:]


def test_a_worker_that_dies_is_replaced_at_once_and_after_that_with_a_growing_wait(up):
    slot = up.staffing.slots[0]
    waits = []
    for now in (1.0, 3.0, 6.0):
        up.end(slot, now, OSError("no"))
        waits.append(slot.due - now)
        up.staffing.note_start(slot, slot.due)
        up.staffing.note_up(slot, now)
    assert waits == [0.0, 1.0, 2.0]


def test_a_quiet_period_ends_the_series_of_failures(up):
    slot = up.staffing.slots[0]
    slot.failures = 4
    up.end(slot, 5.0, OSError("no"))
    assert slot.due == 5.0


def test_an_idle_worker_whose_connection_ends_is_replaced_at_once_within_the_limit(up):
    slot = up.staffing.slots[0]
    waits = []
    for now in (1.0, 2.0, 3.0, 4.0):
        up.end(slot, now, OSError("no"), was_idle=True)
        waits.append(slot.due - now)
        up.staffing.note_start(slot, slot.due)
        up.staffing.note_up(slot, now)
    assert waits == [0.0, 0.0, 0.0, 7.0]


def test_a_worker_that_was_asked_to_stop_is_replaced_at_once(up):
    slot = up.staffing.slots[0]
    slot.failures, slot.up_since = 4, 1.0
    up.end(slot, 2.0)
    assert slot.due == 2.0
    assert up.staffing.first.last_cause is None


def test_more_deaths_than_allowed_make_the_next_start_wait_for_the_window(up):
    for now in (1.0, 2.0, 3.0, 4.0):
        slot = up.staffing.slots[0]
        up.staffing.note_up(slot, -10.0)
        up.end(slot, now, OSError("no"))
    assert slot.due == 11.0
    up.staffing.forgive(slot, 5.0)
    assert slot.due == 11.0, "forgiving a statement that ignores its interrupt keeps the wait"


def test_a_failed_start_makes_the_other_slots_wait_too(crew):
    [slot] = crew.start(0.0, fails=True)
    assert [each.due for each in crew.staffing.slots] == [slot.due, slot.due] == [1.0, 1.0]
    assert crew.staffing.is_hopeless(crew.staffing.first, 0.0)
    assert crew.next_time(0.0) == 1.0


def test_a_recovery_shortens_the_waits(crew):
    crew.start(0.0, fails=True)
    slot = crew.staffing.slots[0]
    crew.staffing.note_start(slot, 1.0)
    crew.staffing.note_up(slot, 1.5)
    crew.staffing.slots[1].due = 100.0
    crew.staffing.note_recovery(crew.staffing.first, 1.5)
    assert crew.staffing.slots[1].due == 1.5


def test_the_writer_starts_once_a_job_needs_it_and_a_reader_has_opened_the_database():
    crew = Crew(has_writer=True)
    writer = crew.staffing.lanes[1]
    crew.jobs.add(1)
    assert not crew.staffing.needs_workers(writer, crew.has_jobs)
    assert crew.staffing.has_work(crew.staffing.first, crew.has_jobs), "a reader must open the database first"
    for slot in crew.start(0.0):
        crew.staffing.note_up(slot, 0.0)
    assert crew.staffing.needs_workers(writer, crew.has_jobs)
    crew.jobs.clear()
    assert not crew.staffing.needs_workers(writer, crew.has_jobs)
    crew.start(0.0, lane=1)
    assert crew.staffing.needs_workers(writer, crew.has_jobs), "a slot that was needed once stays staffed"


def test_jobs_wait_for_the_next_writer_if_it_starts_soon():
    crew = Crew(has_writer=True)
    writer = crew.staffing.lanes[1]
    for lane in (0, 1):
        for slot in crew.start(0.0, lane):
            crew.staffing.note_up(slot, 0.0)
    [slot] = writer.slots
    crew.end(slot, 1.0, OSError("killed"))
    assert not crew.staffing.is_hopeless(writer, 1.0)
    slot.due = 4.0
    assert crew.staffing.is_hopeless(writer, 1.0)
    slot.due = 1.0
    crew.start(1.0, lane=1, fails=True)
    assert crew.staffing.is_hopeless(writer, 1.0), "the database cannot be opened"


def test_a_crew_that_stops_starts_a_worker_only_for_jobs_that_are_left(crew):
    crew.start(0.0, fails=True)
    assert crew.next_time(0.0, is_stopping=True) is None
    crew.jobs.add(0)
    assert crew.next_time(0.0, is_stopping=True) == 1.0


def test_a_worker_that_has_left_its_slot_is_not_found(up):
    slot = up.staffing.slots[0]
    number = slot.worker.handle.id
    assert up.staffing.slot_of(number) is slot
    up.end(slot, 1.0)
    assert up.staffing.slot_of(number) is None
