"""Bugs to plant into the real classes: the simulation is only worth what it finds."""

from typing import Any

from actors.actor import CrewActor
from actors.admission import Admission
from actors.agenda import Agenda
from actors.dispatcher import Dispatcher, Mode
from actors.events import Event, WorkerLost
from actors.inbox import Inbox
from actors.job import Abort, Job
from actors.member import Member
from actors.reply import Reply
from actors.worker import Worker
from supervisor import Supervisor

_bury, _finish, _submit, _take = Dispatcher.bury, Dispatcher.finish, Dispatcher.submit, Dispatcher.take
_interrupt = Dispatcher.interrupt
_on_end, _close, _settle, _cancel, _publish = (
    *(Worker.on_end, Inbox.close, Reply.settle, Reply.cancel, Supervisor._publish),
)


def _orphans_are_forgotten(self: Dispatcher, member: Member) -> list[Job]:
    _bury(self, member)
    return []


def _nobody_is_woken(self: Dispatcher, job: Job) -> Any:
    idle, self._lane.idle = self._lane.idle, []
    try:
        return _submit(self, job)
    finally:
        self._lane.idle = idle


def _the_same_job_again(self: Dispatcher, member: Member, ok: bool, more: bool) -> Job | None:
    done = member.job
    following = _finish(self, member, ok, more)
    if following is None and more and done is not None and not hasattr(self, "planted"):
        self.planted = True  # type: ignore[attr-defined]  # once: a worker that never ends would stop the world
        return done
    return following


def _the_youngest_first(self: Dispatcher, member: Member) -> Job | None:
    jobs = self._lane.jobs
    if jobs:
        jobs.move_to_end(next(reversed(jobs)), last=False)
    return _take(self, member)


def _the_answer_in_hand_is_lost(self: Worker, cause: BaseException | None) -> None:
    self._unsettled = None
    _on_end(self, cause)


def _the_queue_is_kept(self: Dispatcher, cause: BaseException | None, lane: int = 0) -> list[Job]:
    self._cause = cause
    self._lanes[lane].down = True
    if self._mode is Mode.UP:
        self._mode = Mode.SUSPENDED
    return []


def _the_idle_sleep_on(self: Dispatcher) -> None:
    if self._mode in (Mode.UP, Mode.SUSPENDED):
        self._mode = Mode.STOPPING


def _stays_suspended(self: Dispatcher, lane: int = 0) -> None:
    pass


def _withdrawn_jobs_run(self: Dispatcher, job: Job) -> bool:
    return job in self._lane.jobs


def _the_dead_are_not_missed(self: Supervisor, worker_id: int, cause: BaseException | None) -> None:
    pass


def _the_last_answer_counts(self: Reply[Any], outcome: Any) -> bool:
    first = _settle(self, outcome)
    self._outcome = outcome
    return first


def _the_last_messages_are_lost(self: Inbox) -> None:
    self._unanswered.clear()
    _close(self)


def _stays_registered(self: CrewActor) -> None:
    self.actor_stopped.set()
    self.actor_inbox.close()


def _cancelling_is_refused(self: Dispatcher, job: Job) -> bool:
    return False


def _deadlines_wake_nobody(self: Agenda, at: float) -> None:
    self._armed = at


def _too_late_and_run_all_the_same(self: Admission, job: Job, now: float) -> None:
    return None


def _whoever_runs_there_is_hit(self: Dispatcher, job: Job, abort: Abort) -> bool:
    if job.member is None:
        return False
    job.member.interrupt()
    return _interrupt(self, job, abort)


def _the_next_one_is_hit_too(self: Dispatcher, member: Member, ok: bool, more: bool) -> Job | None:
    aborted = member.job is not None and member.job.abort is not None
    following = _finish(self, member, ok, more)
    if aborted and following is not None:
        member.interrupt()
    return following


def _what_is_stuck_is_left_alone(self: Dispatcher, now: float) -> list[Member]:
    for job in self.agenda.aborted:
        assert job.member is not None
        job.member.interrupt()
    return []


def _nobody_hears_of_losses(self: Supervisor, event: Event) -> None:
    if not isinstance(event, WorkerLost):
        _publish(self, event)


def _what_came_too_late_is_not_told(self: Worker) -> None:
    self.member.dropped.clear()


def _cancelling_always_works(self: Reply[Any]) -> bool:
    _cancel(self)
    return True


PLANTS = [
    (Dispatcher, "bury", _orphans_are_forgotten),
    (Dispatcher, "submit", _nobody_is_woken),
    (Dispatcher, "finish", _the_same_job_again),
    (Dispatcher, "take", _the_youngest_first),
    (Dispatcher, "suspend", _the_queue_is_kept),
    (Dispatcher, "stop_accepting", _the_idle_sleep_on),
    (Dispatcher, "resume", _stays_suspended),
    (Dispatcher, "withdraw", _withdrawn_jobs_run),
    (Dispatcher, "cancel_running", _cancelling_is_refused),
    (Agenda, "arm", _deadlines_wake_nobody),
    (Admission, "objection", _too_late_and_run_all_the_same),
    (Dispatcher, "interrupt", _whoever_runs_there_is_hit),
    (Dispatcher, "finish", _the_next_one_is_hit_too),
    (Dispatcher, "follow_up", _what_is_stuck_is_left_alone),
    (Supervisor, "_publish", _nobody_hears_of_losses),
    (Worker, "_reject_dropped", _what_came_too_late_is_not_told),
    (Reply, "cancel", _cancelling_always_works),
    (Worker, "on_end", _the_answer_in_hand_is_lost),
    (Supervisor, "_on_worker_down", _the_dead_are_not_missed),
    (Reply, "settle", _the_last_answer_counts),
    (Inbox, "close", _the_last_messages_are_lost),
    (CrewActor, "retire", _stays_registered),
]
"""Class, method, and what is planted in its place."""
