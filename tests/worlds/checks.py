"""The checks of a whole world; `answers.py` has the checks of single answers."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import pykka

from actors.dispatch.dispatcher import Mode
from actors.dispatch.worker_handle import WorkerState
from actors.staffing import SlotState
from actors.system import exit_and_fork as process
from actors.values.errors import Overloaded, QueryCancelled, QuerycrewError, QueryTimeout, WorkerDied
from tests.worlds.answers import check_answers
from tests.worlds.crew import WorldSupervisor, WorldWorker

if TYPE_CHECKING:
    from tests.worlds.world import World

_ENDS = ("answered", "failed", "died", "rejected", "cancelled", "timed_out", "shed")
_MOMENT = 0.015  # seconds


def check_still(world: "World") -> None:
    """Check a moment at which all tasks wait.

    No job may wait while an idle worker could run it. A suspended crew may hold no job.
    """
    dispatcher = world.ref._dispatcher
    for lane in dispatcher.lanes:
        idle = [handle for handle in lane.handles if handle.state is WorkerState.IDLE]
        if idle:
            _check_idle(world, lane, idle[0].id)
    if dispatcher.mode is Mode.SUSPENDED and _supervisor(world) is not None:
        crew = _crew(world)
        if any(slot.state is SlotState.UP for slot in crew._staffing.first.slots):
            world.blame("it is suspended though a worker is up")
        if any(lane.waiting() for lane in dispatcher.lanes if not lane.handles):
            world.blame("it is suspended and holds jobs")


def _check_idle(world: "World", lane: Any, idle: int) -> None:
    """Check a lane with an idle worker.

    No job may wait, except for a moment behind a quick job in the batch of another worker.
    """
    for job in lane.jobs:
        if not job.claims:
            world.blame(f"{job.request} waits, and worker {idle} of the {lane.role or 'only'} lane is idle")
    if _is_about_to_look(world):
        return
    for handle in lane.handles:
        batch = handle.batch
        if batch is None or world.stage.now - batch.now <= _MOMENT:
            continue
        if batch.waiting() or _lie_in_child(handle):
            world.blame(f"jobs wait behind a slow one, and worker {idle} is idle")


def _is_about_to_look(world: "World") -> bool:
    """Say whether the supervisor was slow itself, and looks after stalled batches in a moment."""
    supervisor = next((task for task in world.stage.tasks if task.kind == "supervisor"), None)
    wake_at = None if supervisor is None else supervisor.wake_at
    return wake_at is not None and wake_at - world.stage.now <= _MOMENT


def _lie_in_child(handle: Any) -> bool:
    """Say whether a child has jobs that it has not begun: nobody has drawn their tokens."""
    child = getattr(handle.connection, "_child", None)
    return child is not None and bool(child.process.tokens.data)


def check_rest(world: "World") -> None:
    """Check a world at rest, without further faults.

    Everything is answered and every slot is taken.
    """
    for task in world.stage.tasks:
        if task.kind == "client":
            world.blame(f"{task.name} waits for ever: {_where(task)}")
    for what in check_answers(world):
        world.blame(what)
    _check_counters(world)
    for what in world.listener.check():
        world.blame(f"to a listener: {what}")
    if _supervisor(world) is None:
        _check_gone(world)
    elif world.ref._dispatcher.mode in (Mode.UP, Mode.SUSPENDED):
        _check_crew(world)


def _check_counters(world: "World") -> None:
    if world.kills:
        return  # a thread that is killed as it counts may miscount
    entries = [entry for entry in world.history.entries if entry.job is not None]
    if any(entry.own_answer for entry in entries):
        return  # a reply that its caller settled is not counted
    status = world.ref._dispatcher.status()
    parts = {name: getattr(status, name) for name in ("queued", "running", *_ENDS)}
    if status.submitted != world.history.submitted or min(parts.values()) < 0:
        world.blame(f"{world.history.submitted} submitted, but {status.submitted}: {parts}")
    if len(entries) < world.history.submitted:
        return  # the history knows the answers of requests alone
    ends = Counter(_end_of(entry) for entry in entries)
    told = {name: ends[name] for name in ("queued", "running", *_ENDS)}
    if told != parts:
        world.blame(f"told {told}, but counted {parts}")


def _end_of(entry: Any) -> str:
    """Return the counter of a request, by the answer to its caller."""
    if not entry.reply.done():
        return "running" if entry.starts else "queued"
    match entry.reply.exception(0):
        case None:
            return "answered"
        case QueryTimeout():
            return "timed_out"
        case QueryCancelled():
            return "cancelled"
        case Overloaded():
            return "shed"
        case WorkerDied():
            return "died"
        case QuerycrewError():
            return "rejected"
    return "failed"


def _check_crew(world: "World") -> None:
    crew, dispatcher = _crew(world), world.ref._dispatcher
    if dispatcher.mode is not Mode.UP:
        world.blame("it stays suspended")
    alive = [task for task in world.stage.tasks if task.kind == "worker"]
    for slot in crew._staffing.first.slots:
        if slot.state is not SlotState.UP or slot.worker is None:
            world.blame(f"a slot stays empty: {slot.state}, {slot.worker and slot.worker.thread_name}")
    seated = [slot for slot in crew._staffing.slots if slot.worker is not None]
    if len(alive) != len(seated):
        world.blame(f"{len(alive)} workers for {len(seated)} slots: {[task.name for task in alive]}")
    if world.listener.up() != {slot.worker.handle.id for slot in seated}:
        world.blame(f"a listener believes that these workers are up: {world.listener.up()}")
    if dispatcher.stuck:
        world.blame("a thread counts as stuck, and all have come back")
    if dispatcher.timers.interrupted or any(dispatcher.timers._slots.values()):
        world.blame("a deadline or an interrupt outlives its job")
    if dispatcher.queued or dispatcher.running():
        world.blame(f"at rest {dispatcher.queued} jobs wait, and {len(dispatcher.running())} run")
    if sorted(handle.id for handle in dispatcher.handles()) != sorted(slot.worker.handle.id for slot in seated):
        world.blame("the dispatcher does not know the workers that there are")
    if any(not handle.batch.is_done for handle in dispatcher.handles() if handle.batch is not None):
        world.blame("a worker at rest holds jobs")


def check_end(world: "World") -> None:
    """The crew was stopped: nothing is left."""
    for what in world.history.check_stops():
        world.blame(what)
    _check_gone(world)
    for connection in world.connections:
        if not connection.closed and (connection.process is None or connection.process.code is None):
            world.blame("a connection was left open")


def _check_gone(world: "World") -> None:
    tasks = [task.name for task in world.stage.tasks if task.kind != "client"]
    if tasks:
        world.blame(f"threads that never end: {tasks}")
    dispatcher = world.ref._dispatcher
    if dispatcher.mode is not Mode.STOPPED or not world.ref._ended.is_set():
        world.blame(f"it has ended, and says that it is {dispatcher.mode.value}")
    left = [ref for ref in pykka.ActorRegistry.get_all() if issubclass(ref.actor_class, (WorldSupervisor, WorldWorker))]
    if left:
        world.blame(f"{len(left)} actors are still registered")
    if any(isinstance(crew, WorldSupervisor) for crew in process.crews):
        world.blame("the process still knows the crew")


def _where(task: Any) -> str:
    """Return where a task waits, the innermost call first."""
    frame, calls = task.greenlet.gr_frame, []
    while frame is not None:
        calls.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(calls[3:9])


def _supervisor(world: "World") -> Any:
    return next((task for task in world.stage.tasks if task.kind == "supervisor"), None)


def _crew(world: "World") -> Any:
    return world.ref._actor_weakref()
