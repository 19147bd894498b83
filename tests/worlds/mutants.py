"""Bugs that are planted in the crew's code, one at a time; the worlds have to find each."""

from contextlib import suppress
from typing import Any

from actors.actor import CrewActor
from actors.databases.child.claims import Claims
from actors.databases.child.connection import ChildConnection
from actors.databases.executor import Batch
from actors.databases.steps import Commit
from actors.dispatch.admission import Admission
from actors.dispatch.batch import JobBatch
from actors.dispatch.dispatcher import Dispatcher
from actors.dispatch.job import Job
from actors.dispatch.lane import Lane
from actors.dispatch.roster import Roster
from actors.dispatch.stealing import Stealing
from actors.dispatch.timers import Timers
from actors.dispatch.worker_handle import WorkerState
from actors.inbox import Inbox
from actors.replies.checkout import Checkout
from actors.replies.reply import Reply
from actors.values.events import WorkerLost
from actors.values.result import Result
from actors.worker import Worker
from supervisor import Supervisor

_REAL = {
    (owner, name): getattr(owner, name)
    for owner, name in (
        *((Lane, "take"), (Lane, "requeue"), (JobBatch, "begin"), (Roster, "_orphans_of"), (Worker, "_perform")),
        *((Reply, "settle"), (Reply, "cancel"), (Inbox, "close"), (Supervisor, "_publish"), (Job, "finish")),
        *((Dispatcher, "_claim"), (Claims, "draw"), (ChildConnection, "_unbegun")),
    )
}


def _claims_without_looking_who_is_first(self: Job, by: object) -> bool:
    self.claims.append(by)
    return len(self.claims) == 1 or type(self.claims[0]) is JobBatch


def _begins_what_another_has_claimed(self: JobBatch) -> Job | None:
    for job in self.jobs:
        if job not in self.running and not job.reply.done():
            job.claims[:] = [self]
            job.started_at = self.now
            self.running.append(job)
            return job
    return None


def _waits_again_behind_all_others(self: Lane, jobs: Any) -> None:
    for job in jobs:
        self.jobs.append(job)
    self.wake_all()


def _is_idle_after_its_last_look(self: Lane, handle: Any) -> JobBatch | None:
    if handle.state is WorkerState.IDLE or not self.handles or self.is_over or handle.state is WorkerState.GONE:
        with suppress(ValueError):
            self.idle.remove(handle)
        return _REAL[Lane, "take"](self, handle)  # type: ignore[no-any-return]
    batch = handle.batch = JobBatch(handle, self)
    batch.now = handle.since = self.clock()
    self._take_share(batch)
    if batch.jobs:
        return batch
    handle.state = WorkerState.IDLE
    self.idle.append(handle)
    return None


def _stays_idle_when_something_else_wakes_it(self: Lane, handle: Any) -> JobBatch | None:
    if handle.state is WorkerState.IDLE:
        handle.state = WorkerState.AWAKE
    return _REAL[Lane, "take"](self, handle)  # type: ignore[no-any-return]


def _steals_what_runs(self: Stealing, other: JobBatch, batch: JobBatch) -> bool:
    jobs = [job for job in other.jobs if not job.reply.done()]
    for job in jobs:
        job.claims.clear()
    batch.jobs.extend(jobs)
    return bool(jobs)


def _nobody_is_woken(self: Lane) -> None:
    if self.idle:
        self.idle.pop()
    elif not self.handles:
        self._ask_for_worker()


def _is_lost_on_its_way_to_the_writer(self: Lane, job: Job, batch: JobBatch) -> None:
    job.lane = self.writers
    job.unclaim(batch)


def _is_recalled_though_it_was_begun(self: ChildConnection, most: int | None = None) -> list[Any]:
    return [task for batch, task in list(self._tasks.values())[-1:] if batch.let_go(task)]


def _begins_what_was_recalled(self: Claims, first: int, count: int) -> int | None:
    number: int | None = _REAL[Claims, "draw"](self, first, count)
    if number is None and count > 1 and getattr(self, "planted", 0) != first:
        self.planted = first  # type: ignore[attr-defined]
        return count - 1
    return number


def _is_begun_again_after_the_death_of_a_child(self: ChildConnection, *, has_begun: bool) -> list[Any]:
    self.reads_only = True
    return _REAL[ChildConnection, "_unbegun"](self, has_begun=False)  # type: ignore[no-any-return]


def _is_run_again_after_a_death(self: Roster, handle: Any, lane: Lane) -> list[Job]:
    orphans = _REAL[Roster, "_orphans_of"](self, handle, lane)
    for job in orphans[:1]:
        job.unclaim(handle.batch)
        lane.requeue([job])
    return orphans[1:]  # type: ignore[no-any-return]


def _orphans_are_forgotten(self: Roster, handle: Any, lane: Lane) -> list[Job]:
    _REAL[Roster, "_orphans_of"](self, handle, lane)
    return []


def _what_a_dead_worker_had_taken_is_lost(self: Lane, jobs: Any) -> None:
    if any(handle.state is WorkerState.BUSY for handle in self.handles):
        _REAL[Lane, "requeue"](self, jobs)


def _another_job_is_interrupted(self: Batch, task: Any) -> None:
    for other in tuple(self.running)[:1]:
        self.connection.cancel(other)


def _does_not_wait_for_an_interrupt(self: Batch, task: Any) -> None:
    """Let the next job begin while an interrupt is on its way."""


def _says_that_it_is_committed(self: Worker, step: Any) -> Any:
    return Result() if isinstance(step, Commit) else _REAL[Worker, "_perform"](self, step)


def _leaves_a_transaction_open(self: Worker) -> None:
    pass


def _leaves_turns_without_an_answer(self: Checkout) -> None:
    pass


def _is_settled_while_it_runs(self: Dispatcher, job: Job, abort: Any) -> bool:
    if _REAL[Dispatcher, "_claim"](self, job, abort):
        return True
    job.claims.insert(0, abort)
    return True


def _cancelling_is_refused(self: Dispatcher, job: Job) -> bool:
    return False


def _cancelling_always_works(self: Reply[Any]) -> bool:
    _REAL[Reply, "cancel"](self)
    return True


def _deadlines_wake_nobody(self: Timers, deadline: float) -> None:
    pass


def _too_late_and_run_all_the_same(self: Admission, job: Job, now: float) -> None:
    return None


def _what_is_stuck_is_left_alone(self: Dispatcher, now: float) -> list[Any]:
    return []


def _the_queue_is_kept(self: Admission, lane: Lane, why: Any) -> None:
    pass


def _the_idle_sleep_on(self: Dispatcher) -> None:
    self.admission.set_gates()
    for lane in self.lanes:
        lane.is_over = True


def _stays_suspended(self: Dispatcher, lane: int = 0) -> None:
    pass


def _counts_twice(self: Job, outcome: Any, counters: Any) -> None:
    counters.answered += 1
    _REAL[Job, "finish"](self, outcome, counters)


def _the_dead_are_not_missed(self: Supervisor, worker_id: int, cause: BaseException | None, *, was_idle: bool) -> None:
    pass


def _nobody_hears_of_losses(self: Supervisor, event: Any) -> None:
    if not isinstance(event, WorkerLost):
        _REAL[Supervisor, "_publish"](self, event)


def _the_last_answer_counts(self: Reply[Any], outcome: Any) -> bool:
    first: bool = _REAL[Reply, "settle"](self, outcome)
    self._outcome = outcome
    return first


def _the_last_messages_are_lost(self: Inbox) -> None:
    self._unanswered.clear()
    _REAL[Inbox, "close"](self)


def _stays_registered(self: CrewActor) -> None:
    self.actor_stopped.set()
    self.actor_inbox.close()


MUTANTS: list[tuple[type, str, Any, int]] = [
    (Job, "claim", _claims_without_looking_who_is_first, 1),
    (JobBatch, "begin", _begins_what_another_has_claimed, 1),
    (Lane, "requeue", _waits_again_behind_all_others, 1),
    (Lane, "requeue", _what_a_dead_worker_had_taken_is_lost, 1),
    (Lane, "take", _is_idle_after_its_last_look, 1),
    (Lane, "take", _stays_idle_when_something_else_wakes_it, 6000),
    (Stealing, "_take_from", _steals_what_runs, 1),
    (Lane, "wake_one", _nobody_is_woken, 1),
    (Lane, "reroute", _is_lost_on_its_way_to_the_writer, 1),
    (ChildConnection, "recall", _is_recalled_though_it_was_begun, 1),
    (Claims, "draw", _begins_what_was_recalled, 1),
    (ChildConnection, "_unbegun", _is_begun_again_after_the_death_of_a_child, 1),
    (Roster, "_orphans_of", _is_run_again_after_a_death, 1),
    (Roster, "_orphans_of", _orphans_are_forgotten, 1),
    (Batch, "interrupt", _another_job_is_interrupted, 1),
    (Batch, "_wait_for_interrupts", _does_not_wait_for_an_interrupt, 62300),
    (Worker, "_perform", _says_that_it_is_committed, 1),
    (Worker, "_close_steps", _leaves_a_transaction_open, 1),
    (Checkout, "_close", _leaves_turns_without_an_answer, 1),
    (Dispatcher, "_claim", _is_settled_while_it_runs, 1),
    (Dispatcher, "cancel", _cancelling_is_refused, 1),
    (Reply, "cancel", _cancelling_always_works, 1),
    (Timers, "note", _deadlines_wake_nobody, 1),
    (Admission, "objection", _too_late_and_run_all_the_same, 1),
    (Dispatcher, "follow_up", _what_is_stuck_is_left_alone, 1),
    (Admission, "reject_waiting", _the_queue_is_kept, 1),
    (Dispatcher, "_let_workers_retire", _the_idle_sleep_on, 1),
    (Dispatcher, "resume", _stays_suspended, 1),
    (Job, "finish", _counts_twice, 1),
    (Supervisor, "_on_worker_down", _the_dead_are_not_missed, 1),
    (Supervisor, "_publish", _nobody_hears_of_losses, 1),
    (Reply, "settle", _the_last_answer_counts, 1),
    (Inbox, "close", _the_last_messages_are_lost, 1),
    (CrewActor, "retire", _stays_registered, 1),
]
"""Class, method, the bug in its place, and the first of the 2000 seeds of which one shows the
bug.
"""
