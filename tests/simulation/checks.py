"""The invariants of a whole world; those of single requests are in `ledger.py`."""

from collections import Counter
from typing import TYPE_CHECKING

import pykka

from actors import process
from actors.dispatcher import Mode
from actors.errors import (
    ConnectionLost,
    Overloaded,
    QueryCancelled,
    QuerycrewError,
    QueryTimeout,
    WorkerDied,
)
from actors.seat import SeatState
from actors.worker import Worker
from tests.simulation.crew import SimSupervisor, SimWorker
from tests.simulation.database import OpeningFailed
from tests.simulation.ledger import Entry
from tests.simulation.life import Life, Phase
from tests.simulation.luck import Killed

if TYPE_CHECKING:
    from tests.simulation.world import World

_FATES = ("answered", "failed", "died", "rejected", "cancelled", "timed_out", "shed")


def check_suspension(world: "World") -> None:
    """Between two turns: a crew is suspended only while nobody is up, and then holds no jobs."""
    if world.dispatcher.mode is not Mode.SUSPENDED:
        return
    life = _supervisor(world)
    if life is None or life.phase is not Phase.WAITING:
        return
    if any(seat.state is SeatState.UP for seat in life.actor._seats):
        world.blame("it is suspended though a worker is up")
    if world.dispatcher.queued:
        world.blame("it is suspended and holds jobs")


def check_death(world: "World", life: Life) -> None:
    """An actor has ended: of what it was meant to, and without leaving anything open."""
    allowed = (ConnectionLost, OpeningFailed) if life.kind == "worker" else ()
    if isinstance(life.cause, Exception) and not isinstance(life.cause, allowed):
        world.blame(f"{life.name} died of {life.cause!r}")
    for error in life.failed_to_end:
        if not isinstance(error, Killed):
            world.blame(f"the end of {life.name} raised {error!r}")
    if isinstance(life.actor, Worker):
        connection = life.actor._connection
        if connection is not None and not connection.closed:
            world.blame(f"{life.name} has left its connection open")


def check_rest(world: "World") -> None:
    """Nothing goes wrong any more, and all has come to rest: everything is answered, every seat taken."""
    for what in world.ledger.check_answers(world.killed):
        world.blame(what)
    if not world.miscounted:
        _check_counters(world)
    for what in world.listener.check():
        world.blame(f"to a listener: {what}")
    life = _supervisor(world)
    if life is None:
        _check_gone(world)
    elif world.dispatcher.mode in (Mode.UP, Mode.SUSPENDED):
        _check_crew(world, life)


def _check_counters(world: "World") -> None:
    status = world.dispatcher.status()
    parts = {name: getattr(status, name) for name in ("queued", "running", *_FATES)}
    if status.submitted != sum(parts.values()) or min(parts.values()) < 0:
        world.blame(f"{status.submitted} submitted, but {parts}")
    if world.killed or any(entry.own_answer for entry in world.ledger.entries):
        return  # what a caller was told need not be what the crew has counted
    fates = Counter(_fate(entry) for entry in world.ledger.entries if entry.job is not None)
    told = {name: fates[name] for name in ("queued", "running", *_FATES)}
    if told != parts:
        world.blame(f"told {told}, but counted {parts}")


def _fate(entry: Entry) -> str:
    """Return the counter in which a request belongs, by what its caller was told."""
    assert entry.reply is not None
    if not entry.reply.done():
        return "running" if entry.runs else "queued"
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


def _check_crew(world: "World", life: Life) -> None:
    if world.dispatcher.mode is not Mode.UP:
        world.blame("it stays suspended")
    alive = {other.actor for other in world.lives}
    for seat in life.actor._seats:
        if seat.state is not SeatState.UP or seat.worker not in alive:
            world.blame(f"a seat stays empty: {seat.state}, {seat.worker and seat.worker.thread_name}")
    if len(world.lives) != world.size + 1:
        world.blame(f"{len(world.lives) - 1} workers, not {world.size}: {[life.name for life in world.lives]}")
    if world.listener.up() != {seat.worker.member.id for seat in life.actor._seats if seat.worker is not None}:
        world.blame(f"a listener believes that these workers are up: {world.listener.up()}")
    if world.dispatcher.status().stuck:
        world.blame("a thread counts as stuck, and all have come back")
    if world.dispatcher.agenda.aborted or any(world.dispatcher.agenda.deadlines._slots.values()):
        world.blame("a deadline or an interrupt outlives its job")
    if len(world.dispatcher._members) != world.size:
        world.blame(f"the dispatcher knows of {len(world.dispatcher._members)} workers, not of {world.size}")


def check_end(world: "World") -> None:
    """The crew was stopped: nothing is left."""
    for what in world.ledger.check_stops():
        world.blame(what)
    _check_gone(world)


def _check_gone(world: "World") -> None:
    if world.lives:
        world.blame(f"threads that never end: {[life.name for life in world.lives]}")
    if world.dispatcher.mode is not Mode.STOPPED or not world.ref.wait_until_ended(0):
        world.blame(f"it has ended, and says that it is {world.dispatcher.mode.value}")
    left = [ref for ref in pykka.ActorRegistry.get_all() if issubclass(ref.actor_class, (SimWorker, SimSupervisor))]
    if left:
        world.blame(f"{len(left)} actors are still registered")
    if any(isinstance(crew, SimSupervisor) for crew in process.crews):
        world.blame("the process still knows the crew")


def _supervisor(world: "World") -> Life | None:
    return next((life for life in world.lives if life.kind == "supervisor"), None)
