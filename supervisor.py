"""A supervised crew of database workers: every request gets an answer or an error.

    caller                    dispatcher (no I/O, no lock)          worker (actor, one connection)
    db.ask(Query) ─ submit ─► queue ▸ idle? ─ wake ───────────────► take a batch ─► run it
      Reply ◄────────────────────────────────────────────────────── settle each job
                              queue ◄────────────────────────────── take the next batch, or idle
                                    supervisor (this actor)
          WorkerUp / WorkerDown / alarm ─► restart, suspend, resume, stop

Programs import every public name from here. `docs/architecture.md` has the guarantees.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pykka

try:
    from actors import QUERYCREW  # noqa: F401  # a mark, which another package of that name does not have
except Exception as error:
    from importlib.util import find_spec

    spec = find_spec("actors")
    where = "nothing" if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), "?")
    message = (
        f"`import actors` finds {where}, which is not querycrew's package of that name: rename it, or move it into a "
        "package of your own"
    )
    raise ImportError(message) from error

from actors.actor import CrewActor
from actors.databases.adapter import errors_of, existing, lanes_of, restart_policy
from actors.databases.base import Connection, Database, Executes
from actors.databases.child.database import ChildProcess
from actors.databases.sqlite.database import SQLite
from actors.databases.steps import (
    Begin,
    Close,
    Commit,
    CopyPages,
    Deallocate,
    Declare,
    Execute,
    Fetch,
    KeepCopy,
    OpenBackup,
)
from actors.dispatch import aborts, rejections
from actors.dispatch.dispatcher import Dispatcher, Mode
from actors.dispatch.quarantine import Quarantine
from actors.dispatch.worker_handle import WorkerHandle, WorkerState
from actors.inbox import Alarm
from actors.keeper import Keeper
from actors.options import check_database, check_max_queue, check_shed_after, check_threads, check_type, usable_size
from actors.ref import SupervisorRef
from actors.registered import RegisteredRef
from actors.replies.outcome import Outcome
from actors.replies.reply import Reply
from actors.staffing import LaneSlots, Slot, SlotState, Staffing
from actors.system import exit_and_fork
from actors.system.log import log
from actors.system.pykka_parts import Envelope
from actors.system.waiting import Latch, this_thread
from actors.values.checks import check_bool, check_timeout
from actors.values.errors import (
    ChildProcessEnded,
    ConnectionLost,
    DatabaseUnavailable,
    Overloaded,
    PoisonQuery,
    QueryCancelled,
    QuerycrewError,
    QueryTimeout,
    QueueFull,
    RemoteError,
    ResultLost,
    SessionClosed,
    SupervisorStopped,
    TransactionBroken,
    TransactionLeftOpen,
    WorkerDied,
    WouldDeadlock,
)
from actors.values.events import Event, Resumed, Suspended, WorkerLost, WorkerUp
from actors.values.requests import (
    Backup,
    Call,
    Cancel,
    Query,
    Script,
    Shutdown,
    Status,
    Stream,
    Subscribe,
    Transaction,
    Unsubscribe,
    WaitUntilUp,
    WorkerDown,
)
from actors.values.restart import RestartPolicy
from actors.values.result import Result, Row
from actors.values.status import CrewStatus, Durations, JobStatus, WorkerStatus
from actors.worker import Worker

if TYPE_CHECKING:
    from actors.databases.dbapi.database import DBAPI
    from actors.databases.duckdb.database import DuckDB
    from actors.databases.postgres.database import PostgreSQL
    from actors.databases.ray.database import Ray
    from actors.monitor.monitor import Monitor
    from actors.monitor.offered import OfferedCrew, offered_crews
    from actors.replies.session import Session
    from actors.replies.stream import RowStream

__all__ = [
    "DBAPI",
    "Backup",
    "Begin",
    "Call",
    "Cancel",
    "ChildProcess",
    "ChildProcessEnded",
    "Close",
    "Commit",
    "Connection",
    "ConnectionLost",
    "CopyPages",
    "CrewStatus",
    "Database",
    "DatabaseUnavailable",
    "Deallocate",
    "Declare",
    "DuckDB",
    "Durations",
    "Execute",
    "Executes",
    "Fetch",
    "JobStatus",
    "KeepCopy",
    "OfferedCrew",
    "OpenBackup",
    "Outcome",
    "Overloaded",
    "PoisonQuery",
    "PostgreSQL",
    "Query",
    "QueryCancelled",
    "QueryTimeout",
    "QuerycrewError",
    "QueueFull",
    "Ray",
    "RemoteError",
    "Reply",
    "RestartPolicy",
    "Result",
    "ResultLost",
    "Resumed",
    "Row",
    "RowStream",
    "SQLite",
    "Script",
    "Session",
    "SessionClosed",
    "Status",
    "Stream",
    "Subscribe",
    "Supervisor",
    "SupervisorRef",
    "SupervisorStopped",
    "Suspended",
    "Transaction",
    "TransactionBroken",
    "TransactionLeftOpen",
    "Unsubscribe",
    "WorkerDied",
    "WorkerLost",
    "WorkerStatus",
    "WorkerUp",
    "WouldDeadlock",
    "offered_crews",
]


def __getattr__(name: str) -> Any:
    """Import a name that few programs need, at its first use."""
    if name == "DuckDB":
        from actors.databases.duckdb.database import DuckDB

        return DuckDB
    if name == "DBAPI":
        from actors.databases.dbapi.database import DBAPI

        return DBAPI
    if name == "Session":
        from actors.replies import session

        return session.Session
    if name == "PostgreSQL":
        from actors.databases.postgres import database

        return database.PostgreSQL
    if name == "Ray":
        from actors.databases.ray.database import Ray

        return Ray
    if name == "RowStream":
        from actors.replies import stream

        return stream.RowStream
    if name in ("OfferedCrew", "offered_crews"):
        from actors.monitor import offered

        return getattr(offered, name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return [*(name for name in globals() if name.startswith("__")), *__all__]


_ARGUMENTS = 5  # positional ones, which `Supervisor.start` passes to its class
_GRACE = 0.1  # seconds that an interrupted statement has to end before its worker is given up
_LINGER = 0.5  # seconds that a job may take after the end of the main thread
_OPENING = 0.5  # seconds that a crew which stops waits for workers that still open the database


class Supervisor(CrewActor):
    """Starts workers, replaces lost workers, and runs the timers.

    No job passes through this actor: callers and workers meet in the dispatcher. All methods run in
    the thread of the supervisor, unless they say otherwise. Every piece of news ends in `_staff`,
    which decides which workers start.

    The supervisor does not end while it can still answer an accepted job. If something kills its
    thread, queued jobs are rejected, running jobs finish, and the workers retire.
    """

    worker_class: ClassVar[type[Worker]] = Worker
    dispatcher_class: ClassVar[type[Dispatcher]] = Dispatcher
    clock: ClassVar[Any] = staticmethod(time.monotonic)
    """Monotonic seconds: a function without arguments."""

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        """Refuse a program that calls the class directly.

        Raises:
            TypeError: only `start` starts a crew.
        """
        del options
        if cls is Supervisor and len(arguments) < _ARGUMENTS:
            message = "Supervisor(…) starts no crew: call Supervisor.start(…), with the same arguments"
            raise TypeError(message)
        return super().__new__(cls)

    def __init__(
        self,
        database: Database,
        size: int,
        max_queue: int | None,
        policy: RestartPolicy,
        name: str,
        *,
        timeout: float | None = None,
        shed_after: float | None = None,
    ) -> None:
        lanes = lanes_of(database)
        self._dispatcher = self.dispatcher_class(
            *(name, str(database), size, max_queue, self.clock),
            grace=policy.grace,
            shed_after=shed_after,
            quarantine=Quarantine(policy.poison_after, policy.within),
            has_writer=len(lanes) > 1,
        )
        super().__init__()
        self._database = database
        self._policy = policy
        self._staffing = Staffing(lanes, size, policy)
        # No id is used twice. News of a worker that has left its slot is ignored.
        self._worker_ids = count(1)
        # While the crew stops: when running jobs are interrupted, and when their workers are given
        # up. Monotonic seconds.
        self._force_at: float | None = None
        # While the crew stops: how long it waits for workers that still open the database.
        self._starts_end_at = float("inf")
        self._give_up_at: float | None = None
        # When the supervisor noticed the end of the main thread. Monotonic seconds.
        self._main_thread_ended_at: float | None = None
        # The actors that receive the events of the crew, by actor URN.
        self._subscribers: dict[str, pykka.ActorRef[Any]] = {}
        # The replies of callers that wait until a worker has opened the database.
        self._waiting: list[Reply[None]] = []
        # The ids of workers that were given up and whose threads still run.
        self._stuck: set[int] = set()
        self._monitor: Monitor | None = None
        self._dispatcher.timers.notify = self.actor_inbox.notify
        for lane in self._dispatcher.lanes[1:]:
            lane.wanted = self.actor_inbox.notify
        self.all_closed = Latch()
        """Set at the very end, after everything is closed; `actor_stopped` is set before that."""
        self.own_ref: RegisteredRef = RegisteredRef(
            self, self._dispatcher, self.all_closed, timeout, driver_errors=errors_of(database)
        )

    @classmethod
    def start(
        cls,
        database: Database | str | os.PathLike[str] | None = None,
        *,
        size: int | None = None,
        max_queue: int | None = None,
        restart: RestartPolicy | None = None,
        name: str | None = None,
        timeout: float | None = None,
        shed_after: float | None = None,
        monitor: bool = False,
    ) -> SupervisorRef:
        """Start a crew. Returns at once, while the workers open the database.

        Keep the reference. A crew whose reference is dropped stops by itself, with a
        `ResourceWarning`.

        Args:
            database: the path of a file, or a database such as `SQLite("app.db")`. `None` is a
                private database in memory.
            size: how many workers. `None` is the number of CPUs that this process may use; a
                database in memory has one worker, since workers cannot share it.
            max_queue: how many jobs may wait. Further jobs are refused with `QueueFull`. `None` is
                no limit.
            restart: when lost workers are replaced.
            name: the name in errors, logs and threads. `None` is the name of the database.
            timeout: seconds from `ask` to the answer, for requests without their own `timeout`.
                `None` is no limit.
            shed_after: seconds. While every job waits longer, the oldest jobs are rejected with
                `Overloaded`, so that the other jobs wait about this long. `None` never rejects.
            monitor: whether other processes of the same user may look at the crew, cancel its jobs
                and kill its child processes, as `querycrew top` does.

        Raises:
            TypeError: an argument has the wrong type; the text names it.
            ValueError: an argument is out of its range; the text names it.
            RuntimeError: the system gives no more threads. Or gevent or eventlet has replaced the
                threads; the text says how a crew works there. Or there is no safe place for the
                socket of `monitor`.
        """
        if database is None or isinstance(database, (str, os.PathLike)):
            database = SQLite(":memory:" if database is None else database)
        check_database(database)
        check_type("restart", restart, RestartPolicy)
        check_type("name", name, str)
        check_max_queue(max_queue)
        if timeout is not None:
            check_timeout("Supervisor.start", timeout)
        check_shed_after(shed_after)
        check_bool("Supervisor.start", "monitor", monitor)
        check_threads(in_children=isinstance(database, ChildProcess))
        crew = cls(
            database,
            usable_size(size, database),
            max_queue,
            restart or restart_policy(database),
            name or database.name,
            timeout=timeout,
            shed_after=shed_after,
        )
        if monitor:
            crew._offer()
        exit_and_fork.heed_executors()
        exit_and_fork.crews.add(crew)
        keeper = Keeper(crew._dispatcher, crew.actor_inbox, crew.actor_stopped)
        held = SupervisorRef(
            crew, crew._dispatcher, crew.all_closed, timeout, driver_errors=errors_of(database), keeper=keeper
        )
        try:
            crew.launch()
        except BaseException:
            crew._end_offer()
            raise
        return held

    def _offer(self) -> None:
        """Let other processes of the same user look at the crew."""
        from actors.monitor.monitor import Monitor  # few programs need it

        self._monitor = Monitor(self._dispatcher, self._database)
        self._monitor.start()

    def _end_offer(self) -> None:
        if self._monitor is not None:
            self._monitor.close()

    @property
    def actor_ref(self) -> RegisteredRef:
        """The reference in Pykka's registry."""
        return self.own_ref

    @property
    def thread_name(self) -> str:
        """The name of the supervisor's thread."""
        return f"querycrew-{self._dispatcher.name}-supervisor"

    # --- messages -------------------------------------------------------------------------

    def on_start(self) -> None:
        """Start the first worker."""
        this_thread.crew = self._dispatcher
        self._staff()

    def on_receive(self, message: object) -> None:
        """Handle one piece of news, then decide about the staff. Never raises."""
        match message:
            case WorkerUp(_, worker_id):
                self._on_worker_up(worker_id)
            case WorkerDown(worker_id, cause, was_idle):
                self._on_worker_down(worker_id, cause, was_idle=was_idle)
            case Shutdown(cancel_pending, timeout):
                self._on_shutdown(cancel_pending, timeout)
            case Subscribe(actor_ref):
                self._on_subscribe(actor_ref)
            case Unsubscribe(actor_ref):
                self._subscribers.pop(actor_ref.actor_urn, None)
            case WaitUntilUp(reply):
                self._waiting.append(reply)
            case Alarm():
                pass
            case Query() | Script() | Transaction() | Call() | Backup() | Cancel():
                self.actor_ref.tell(message)
            case _:
                log(__name__, "warning", "message_ignored", crew=self._dispatcher.name, type=type(message).__name__)
        self._staff()

    def on_stop_asked(self) -> None:
        """Begin to stop. The caller gets its answer at the end, when the mailbox closes."""
        self._dispatcher.stop_accepting()
        self._staff()

    def _on_subscribe(self, actor_ref: "pykka.ActorRef[Any]") -> None:
        """Send an actor the present state of the crew, and from now on each change."""
        name = self._dispatcher.name
        now: list[Event] = [
            WorkerUp(name, slot.worker.handle.id)
            for slot in self._staffing.slots
            if slot.state is SlotState.UP and slot.worker is not None
        ]
        now += [
            Suspended(name, lane.last_cause, lane.role)
            for lane in self._staffing.lanes
            if self._dispatcher.is_down(lane.number) and self._dispatcher.mode in (Mode.UP, Mode.SUSPENDED)
        ]
        self._subscribers[actor_ref.actor_urn] = actor_ref
        for event in now:
            self._tell(actor_ref, event)

    def _on_worker_up(self, worker_id: int) -> None:
        slot = self._staffing.slot_of(worker_id)
        if slot is None:
            return
        lane, now = slot.lane, self.clock()
        self._staffing.note_up(slot, now)
        self._publish(WorkerUp(self._dispatcher.name, worker_id))
        if self._dispatcher.is_down(lane.number):
            log(__name__, "info", "resumed", crew=self._dispatcher.name, worker=worker_id)
            self._dispatcher.resume(lane.number)
            if self._dispatcher.mode in (Mode.UP, Mode.SUSPENDED):
                self._publish(Resumed(self._dispatcher.name, lane.role))
            self._staffing.note_recovery(lane, now)

    def _on_worker_down(self, worker_id: int, cause: BaseException | None, *, was_idle: bool) -> None:
        if worker_id in self._stuck:
            self._stuck.discard(worker_id)
            self._dispatcher.stuck = len(self._stuck)
        slot = self._staffing.slot_of(worker_id)
        if slot is not None:
            if cause is not None and slot.state is SlotState.UP:
                cause = rejections.without_text(cause)
            self._vacate(slot, cause, self.clock(), was_idle=was_idle)

    def _on_shutdown(self, cancel_pending: bool, timeout: float | None) -> None:
        self._dispatcher.stop_accepting()
        if cancel_pending:
            self._dispatcher.cancel_pending()
        if timeout is not None:
            at = self.clock() + timeout
            self._force_at = at if self._force_at is None else min(at, self._force_at)

    # --- staff ----------------------------------------------------------------------------

    def _staff(self) -> None:
        """Decide which workers start and whether the crew is over. Called after every change."""
        self._decide()
        if self._waiting:
            self._answer_waiting()

    def _answer_waiting(self) -> None:
        """Answer the callers that wait for the crew, once it is up or cannot be."""
        error: Callable[[], BaseException] | None = None
        if self._dispatcher.mode in (Mode.STOPPING, Mode.STOPPED):
            error = self._dispatcher.stopped
        elif self._dispatcher.is_down(0):
            error = self._dispatcher.unavailable
        elif not self._staffing.first.is_up:
            return
        while self._waiting:
            reply = self._waiting[-1]
            if error is None:
                reply.settle(None)
            else:
                reply.reject(error())
            self._waiting.pop()  # last: a kill before this line loses no caller

    def _decide(self) -> None:
        now = self.clock()
        self._dispatcher.recover()
        self._dispatcher.expire(now)
        for handle in self._dispatcher.follow_up(now):
            self._give_up(handle, now)
        self._give_up_slow_starts(now)
        if exit_and_fork.main_thread_has_ended():
            self._end_with_the_program(now)
        if self._dispatcher.mode is Mode.STOPPING:
            self._starts_end_at = min(self._starts_end_at, now + _OPENING)
            self._force(now)
            if self._is_over(now):
                self.actor_stopped.set()
                return
        for lane in self._staffing.lanes:
            if self._staffing.needs_workers(lane, self._has_jobs):
                self._staff_lane(lane, now)
        self.actor_inbox.alarm = self._next_alarm(now)

    def _staff_lane(self, lane: LaneSlots, now: float) -> None:
        """Start the workers of a lane that are due, and suspend a lane that no worker can serve."""
        staffing, is_stopping = self._staffing, self._dispatcher.mode is Mode.STOPPING
        if lane.is_up:
            if is_stopping:
                return  # the workers that are up finish the work
        elif lane.starting:
            return
        else:
            if lane.last_start_failed:
                self._suspend(lane)
            if self.actor_stopped.is_set() or (is_stopping and not staffing.has_work(lane, self._has_jobs)):
                return
        for slot in staffing.due(lane, now):
            self._start_worker(slot, now)
        if not lane.is_up and not lane.starting and staffing.is_hopeless(lane, now):
            self._suspend(lane)

    def _has_jobs(self, lane: LaneSlots) -> bool:
        return self._dispatcher.wants_worker(lane.number)

    def _suspend(self, lane: LaneSlots) -> None:
        number, cause = lane.number, lane.last_cause
        if self._dispatcher.mode in (Mode.UP, Mode.SUSPENDED) and not self._dispatcher.is_down(number):
            log(__name__, "error", "suspended", crew=self._dispatcher.name, cause=rejections.why(cause))
            self._publish(Suspended(self._dispatcher.name, cause, lane.role))
        self._dispatcher.suspend(cause, number)
        if self._dispatcher.mode is Mode.STOPPING and self._is_over(self.clock()):
            self.actor_stopped.set()  # no worker is up, and no job is queued now

    def _start_worker(self, slot: Slot, now: float) -> None:
        worker_id = next(self._worker_ids)
        if self._staffing.note_start(slot, now):
            self._dispatcher.restarts += 1
        try:
            database = existing(slot.lane.database) if self._staffing.first.opened else slot.lane.database
            worker = self.worker_class(worker_id, database, self._dispatcher, self._hear)
            slot.worker = worker
            self._dispatcher.add_worker(worker.handle, slot.lane.number)
            worker.launch()
        except Exception as error:  # noqa: BLE001  # no thread, no memory: the same as a failed start
            self._vacate(slot, error, now)

    def _give_up_slow_starts(self, now: float) -> None:
        for slot in self._staffing.starting():
            if slot.due <= now:
                if slot.worker is not None and not self._dispatcher.abandon_start(slot.worker.handle):
                    self._staffing.note_slow_start(slot, now)
                    continue
                limit = self._policy.start_timeout
                self._vacate(slot, TimeoutError(f"opening {self._database} took longer than {limit:g} seconds"), now)

    def _give_up(self, handle: WorkerHandle, now: float) -> None:
        """Replace a worker whose statement ignores its interrupt; its thread ends later."""
        slot = self._staffing.slot_of(handle.id)
        if slot is None:
            return
        self._stuck.add(handle.id)
        self._dispatcher.stuck = len(self._stuck)
        job = next((job for job in handle.running if job.is_unwanted), None)
        if job is None or not job.started_at:
            ignored = TimeoutError(f"worker {handle.id} did not begin its job")
        else:
            ran = now - job.started_at
            ignored = TimeoutError(f"{job.request} ran for {ran:.3f} seconds and ignored its interrupt")
        self._vacate(slot, ignored, now)
        self._staffing.forgive(slot, now)

    def _vacate(self, slot: Slot, cause: BaseException | None, now: float, *, was_idle: bool = False) -> None:
        """Remove the worker of a slot, and note when the next one may start."""
        was_up = slot.state is SlotState.UP
        worker = slot.worker
        self._leave(slot, cause)
        if was_up and worker is not None:
            self._publish(WorkerLost(self._dispatcher.name, worker.handle.id, cause))
        self._staffing.note_end(slot, cause, now, was_up=was_up, was_idle=was_idle)
        if cause is None:
            return
        if not was_up:
            self._dispatcher.failed_starts += 1
        log(
            __name__,
            # While the program ends, Python starts no more threads.
            "debug" if self._dispatcher.mode is Mode.STOPPING else "warning",
            "worker_lost" if was_up else "worker_start_failed",
            crew=self._dispatcher.name,
            cause=rejections.why(cause),
            restart_in_seconds=round(slot.due - now, 3),
        )

    # --- stopping -------------------------------------------------------------------------

    def _is_over(self, now: float) -> bool:
        """Say whether every accepted job is settled and every worker that was up has gone.

        The answer comes from the workers, not from the slots: a worker may have come up and taken
        the last job while its news is unread. A worker that still opens the database has no job.
        The crew waits a short time for it, so that it leaves nothing behind; opening may hang.
        """
        if self._dispatcher.queued:
            return False
        workers = [slot.worker for slot in self._staffing.slots if slot.worker is not None]
        if now >= self._starts_end_at:
            workers = [worker for worker in workers if worker.handle.state is not WorkerState.STARTING]
        return not workers

    def _force(self, now: float) -> None:
        """Past the time limit: reject waiting jobs, interrupt running jobs, give up workers."""
        if self._force_at is None or self._force_at > now:
            return
        self._dispatcher.cancel_pending()
        if self._give_up_at is None:
            self._give_up_at = now + _GRACE
            why = aborts.shut_down(self._dispatcher.admission, self._give_up_at)
            for job in self._dispatcher.running():
                self._dispatcher.interrupt(job, why)
        if now >= self._give_up_at:
            for slot in self._staffing.slots:
                self._leave(slot)

    def _end_with_the_program(self, now: float) -> None:
        """After the end of the main thread: stop the crew if a job takes longer than `_LINGER`.

        Python waits for all threads that are not daemons, and such a thread may wait for the job. A
        thread that needs only short jobs can go on.
        """
        if self._main_thread_ended_at is None:
            self._main_thread_ended_at = now
        oldest = self._dispatcher.oldest()
        if self._force_at is None and oldest is not None:
            lasted = now - max(oldest, self._main_thread_ended_at)
            if lasted >= _LINGER:
                message = f"the main thread has ended, and a job was not done {_LINGER:g} seconds later"
                log(__name__, "warning", "ended_with_main_thread", crew=self._dispatcher.name)
                self._dispatcher.stop_accepting(RuntimeError(message))
                self._on_shutdown(cancel_pending=True, timeout=0.0)

    def on_end(self, cause: BaseException | None) -> None:
        """Reject the queued jobs. Workers finish their running jobs and retire."""
        if cause is not None:
            log(__name__, "error", "supervisor_died", crew=self._dispatcher.name, cause=cause)
        self._dispatcher.close(cause)
        self._end_offer()  # before the callers of `stop` go on
        self._answer_waiting()
        for slot in self._staffing.slots:
            # A worker that is up, with its news unread, finishes its job and retires. A worker that
            # is gone was being given up when this end came.
            if slot.worker is not None and (
                self._dispatcher.abandon_start(slot.worker.handle) or slot.worker.handle.state is WorkerState.GONE
            ):
                self._leave(slot)

    def on_gone(self, cause: BaseException | None) -> None:
        """Release the callers that wait for the end."""
        del cause
        exit_and_fork.crews.discard(self)
        self.all_closed.set()
        this_thread.crew = None

    # --- helpers --------------------------------------------------------------------------

    def _hear(self, news: object) -> None:
        """Put news of a worker into the mailbox. In the thread of the worker."""
        with suppress(pykka.ActorDeadError):  # the crew has ended and needs no news
            self.actor_inbox.put(Envelope(news))

    def _publish(self, event: Event) -> None:
        """Send an event to all subscribers. A subscriber that has ended is forgotten."""
        for actor_ref in list(self._subscribers.values()):
            self._tell(actor_ref, event)

    def _tell(self, actor_ref: "pykka.ActorRef[Any]", event: Event) -> None:
        try:
            actor_ref.tell(event)
        except Exception as error:  # noqa: BLE001  # a foreign mailbox may raise any error
            urn = actor_ref.actor_urn
            self._subscribers.pop(urn, None)
            log(__name__, "info", "subscriber_forgotten", crew=self._dispatcher.name, actor=urn, error=error)

    def _leave(self, slot: Slot, cause: BaseException | None = None) -> None:
        """Empty a slot for good. May be called again after a kill.

        A worker that has ended has rejected its orphans. The orphans of a worker that is given up
        are rejected here.
        """
        worker = slot.worker
        if worker is not None:
            name = self._dispatcher.name
            for orphan in self._dispatcher.remove_worker(worker.handle):
                # The worker may still commit it: `executed` is unknown.
                died = rejections.died(name, worker.handle.id, orphan, cause, "was given up")
                self._dispatcher.reject_orphan(orphan, died)
            worker.retire()
            worker.abandon()
        slot.worker = None
        slot.state = SlotState.WAITING

    def _next_alarm(self, now: float) -> float | None:
        """Return when `_staff` has to decide again without any news. Monotonic seconds."""
        is_stopping = self._dispatcher.mode is Mode.STOPPING
        times = [
            self._dispatcher.next_due(),
            self._staffing.next_time(now, self._has_jobs, is_stopping=is_stopping, starts_end_at=self._starts_end_at),
        ]
        if exit_and_fork.main_thread_has_ended() and self._force_at is None:
            times.append(now + _LINGER / 5)  # new jobs do not wake the supervisor
        if is_stopping:
            times.append(self._force_at if self._give_up_at is None else self._give_up_at)
        return min((time for time in times if time is not None), default=None)

    # --- the end of the program, and forks ------------------------------------------------

    def note_end_of_main_thread(self) -> None:
        """Begin to look for jobs that take too long. From any thread; returns at once."""
        self.actor_inbox.notify()

    def shutdown_at_exit(self) -> None:
        """Ask for the end: queued jobs are rejected, running jobs interrupted. Returns at once."""
        self.actor_ref.shutdown(wait=False, cancel_pending=True, timeout=0)

    def wait_until_ended(self, timeout: float) -> bool:
        """Wait until everything is closed; say whether it is."""
        return self.all_closed.wait(timeout)

    def forget_the_parent(self) -> None:
        """In the child of a fork: reject every job; leave the parent's connections alone."""
        for slot in self._staffing.slots:
            if slot.worker is not None:
                slot.worker.forget_the_parent()
        if self._monitor is not None:
            self._monitor.forget_the_parent()
        super().forget_the_parent()
        self._dispatcher.forget_the_parent()
        self._answer_waiting()
        self.all_closed.set()
