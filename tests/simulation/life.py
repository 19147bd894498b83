"""Life: what an actor's thread would do, one turn at a time."""

from collections.abc import Callable
from enum import Enum
from typing import Any

from actors.actor import CrewActor
from actors.waiting import here


class Phase(Enum):
    """Where the thread is in `CrewActor._actor_loop`.

    NEW → WAITING (for a message) → ENDING (`_end` is next) → ENDED; NEW → ENDING.
    """

    NEW = "new"
    WAITING = "waiting"
    ENDING = "ending"
    ENDED = "ended"


class Life:
    """The life of one actor.

    `CrewActor._actor_loop` in slices: everything that it calls is the real code, and what it
    catches is caught here in the same places.
    """

    kind: str

    def __init__(self, actor: CrewActor, name: str, check_locks: Callable[["Life"], object]) -> None:
        self.actor = actor
        self.name = name
        self.kind = name.partition(" ")[0]
        self.phase = Phase.NEW
        self.cause: BaseException | None = None
        self.on_stack = False
        self.defenceless = False
        """The second `_end` runs: what hits that one is not promised to be survived."""
        self.failed_to_end: list[BaseException] = []
        self._check_locks = check_locks
        # What `actors.waiting.here.crew` is in this actor's thread.
        self.crew: object = None
        # The queue that it waits on. A thread that blocks in `get` does not see that
        # `close` has put another one in its place.
        self._queue: Any = None

    @property
    def alarm(self) -> float | None:
        """When it would go on without a message."""
        return self.actor.actor_inbox.alarm if self.phase is Phase.WAITING else None

    def is_ready(self, now: float) -> bool:
        if self.on_stack or self.phase is Phase.ENDED:
            return False
        if self.phase is not Phase.WAITING or not self._queue.empty():
            return True
        alarm = self.actor.actor_inbox.alarm
        return alarm is not None and alarm <= now

    def sleeps(self, now: float) -> bool:
        """Say whether it waits, and has nothing to do."""
        return self.phase is Phase.WAITING and not self.on_stack and not self.is_ready(now)

    def turn(self) -> None:
        crew, here.crew = here.crew, self.crew
        try:
            if self.phase is Phase.ENDING:
                self._end()
            else:
                self._live()
        finally:
            self.crew, here.crew = here.crew, crew

    def _live(self) -> None:
        actor = self.actor
        try:
            if self.phase is Phase.NEW:
                actor._actor_loop_setup()
            else:
                actor.step(self._next_message())
            if actor.actor_stopped.is_set():
                self.phase = Phase.ENDING
            else:
                self.phase = Phase.WAITING
                self._queue = actor.actor_inbox._queue
        except BaseException as error:
            self.cause = error
            self.phase = Phase.ENDING

    def _next_message(self) -> Any:
        inbox = self.actor.actor_inbox
        return inbox.get() if inbox._queue is self._queue else self._queue.get_nowait()

    def _end(self) -> None:
        try:
            self.actor._end(self.cause)
        except BaseException as error:
            self.failed_to_end.append(error)
            self.cause = self.cause or error
            self._end_again()
        self.phase = Phase.ENDED

    def _end_again(self) -> None:
        self.defenceless = True
        self._check_locks(self)
        try:
            self.actor._end(self.cause)
        except BaseException as error:
            self.failed_to_end.append(error)
