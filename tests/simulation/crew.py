"""The real crew, put on the stage of a world: no threads, virtual time, and pauses at which others run."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pykka

import actors.ref
from actors import process
from actors.dispatcher import Dispatcher
from actors.errors import QueryTimeout
from actors.inbox import Inbox
from actors.rejection import Rejection
from actors.reply import Reply
from actors.waiting import here
from actors.worker import Worker
from supervisor import Supervisor

if TYPE_CHECKING:
    from tests.simulation.world import World


class _Stage:
    """Where the world stands whose turn it is: one at a time."""

    world: "World"


stage = _Stage()


def virtual_time() -> float:
    return stage.world.now


class SimReply(Reply[Any]):
    """A reply that pauses around its settling and counts the answers that it accepted."""

    __slots__ = ("accepted", "first_outcome")

    def __init__(self, crew: object = None) -> None:
        super().__init__(crew)
        self.accepted = 0
        self.first_outcome: Any = None

    def settle(self, outcome: Any) -> bool:
        world = stage.world
        world.pause("settle")
        job = self.job
        first = super().settle(outcome)
        if first and type(outcome) is Rejection and isinstance(outcome.error, QueryTimeout):
            world.ledger.note_timeout(job, world.now)
        self.accepted += first
        if self.first_outcome is None:
            self.first_outcome = self._outcome
        elif self.first_outcome is not self._outcome:
            world.blame("a reply was answered twice")
        world.pause("settled")
        return first

    def cancel(self) -> bool:
        job, ledger = self.job, stage.world.ledger
        if job is None:
            if super().cancel():
                stage.world.blame("cancelling a reply that is done has said True")
            return False
        entry = ledger.entry_of(job.request)
        entry.cancelling = True
        with stage.world.cutting_off_once():
            said = super().cancel()
        ledger.note_cancel(entry, said)
        return said

    def _wait(self, timeout: float | None) -> bool:
        """Let others run meanwhile. A waiter that they cannot release gives up, as with Ctrl-C."""
        if not self.done() and here.crew is None:
            stage.world.wait_for(self)
            if not self.done():
                if timeout is None:
                    raise KeyboardInterrupt
                timeout = 0
        return super()._wait(timeout)


class SimDispatcher(Dispatcher):
    """The dispatcher, with a pause before and after each method."""


def _with_pauses(name: str) -> Any:
    def method(self: Dispatcher, *args: Any, **options: Any) -> Any:
        world = stage.world
        world.pause(name)
        # Looked up now: a test may have planted a bug there.
        answer = getattr(Dispatcher, name)(self, *args, **options)
        world.ledger.note(name, args, answer, world.now)
        world.pause(name + " done")
        return answer

    return method


# Not these: they decide nothing, and some are called where the lock is held.
_QUIET = {"unavailable", "stopped", "cancelled", "timed_out", "is_mine", "forget_the_parent"}
for _name, _method in vars(Dispatcher).items():
    if callable(_method) and not _name.startswith("_") and _name not in _QUIET:
        setattr(SimDispatcher, _name, _with_pauses(_name))


class SimWorker(Worker):
    @staticmethod
    def _create_actor_inbox() -> Inbox:
        return Inbox(virtual_time)

    def _start_actor_loop(self) -> None:
        stage.world.adopt(self, f"worker {self.member.id}")

    def _interrupt(self) -> None:
        stage.world.ledger.note_interrupt(self.member.job, stage.world.now)
        super()._interrupt()


class SimSupervisor(Supervisor):
    worker_class = SimWorker
    dispatcher_class = SimDispatcher
    clock = staticmethod(virtual_time)

    @staticmethod
    def _create_actor_inbox() -> Inbox:
        return Inbox(virtual_time)

    def _start_actor_loop(self) -> None:
        stage.world.adopt(self, "supervisor")


@contextmanager
def on_stage(world: "World") -> Iterator[None]:
    """Let `world` be the one that everything here belongs to."""
    stage.world = world
    actors.ref.Reply = SimReply  # type: ignore[misc]
    # Nobody knows when the collector runs, and what it calls would be counted as steps of this world. A profiler
    # that raises in the middle of that has also crashed CPython 3.11. What finalizers do, worlds do on purpose.
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        actors.ref.Reply = Reply  # type: ignore[misc]
        # A world that went wrong leaves nothing to the next one.
        for crew in list(process.crews):
            if isinstance(crew, SimSupervisor):
                process.crews.discard(crew)
        pykka.ActorRegistry._actor_refs[:] = [
            ref
            for ref in pykka.ActorRegistry._actor_refs
            if not issubclass(ref.actor_class, (SimWorker, SimSupervisor))
        ]
