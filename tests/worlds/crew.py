"""The real crew of a world.

Its clock is the clock of the stage. The history hears of each job that is submitted, settled or
cancelled.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import ReferenceType

from actors.dispatch.dispatcher import Dispatcher
from actors.dispatch.job import Job
from actors.inbox import Inbox
from actors.replies.reply import Reply
from actors.worker import Worker
from supervisor import Supervisor
from tests.worlds.system import now

if TYPE_CHECKING:
    from tests.worlds.world import World


class WorldReply(Reply[Any]):
    """A reply that counts the answers that it accepts."""

    __slots__ = ("accepted", "entry", "first_outcome")

    world: ClassVar["World"]

    def __init__(self, crew: object = None) -> None:
        super().__init__(crew)
        self.accepted = 0
        self.entry = self.world.asking()
        self.first_outcome: Any = None

    def settle(self, outcome: Any) -> bool:
        first = super().settle(outcome)
        self.accepted += first
        if first:
            self.first_outcome = outcome
        elif self.accepted and self._outcome is not self.first_outcome:
            self.world.blame("a reply was answered twice")
        return first

    def cancel(self) -> bool:
        entry = self.entry
        if entry is None:
            return super().cancel()
        entry.cancelling = True
        was_done = self.done()
        said = super().cancel()
        if said and was_done:
            self.world.blame("cancelling a reply that is done has said True")
        self.world.history.note_cancel(entry, said)
        return said


class NumberedReference(ReferenceType):  # type: ignore[type-arg]
    """A weak reference whose hash is a number: a set of them has the same order in each run."""

    __slots__ = ("number",)

    numbers: ClassVar[Iterator[int]]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.number = next(self.numbers)

    def __hash__(self) -> int:
        return self.number


class WorldDispatcher(Dispatcher):
    """A dispatcher whose jobs are written down."""

    world: ClassVar["World"]

    def submit(self, job: Job) -> None:
        entry = job.reply.entry if isinstance(job.reply, WorldReply) else None
        self.world.history.note_submit(entry, job)
        super().submit(job)
        if entry is not None:
            entry.lane = job.lane
            self.world.history.note_asked(entry, job)


class WorldWorker(Worker):
    @staticmethod
    def _create_actor_inbox() -> Inbox:
        return Inbox(now)


class WorldSupervisor(Supervisor):
    worker_class = WorldWorker
    dispatcher_class = WorldDispatcher
    clock = staticmethod(now)

    @staticmethod
    def _create_actor_inbox() -> Inbox:
        return Inbox(now)
