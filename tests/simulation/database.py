"""The scripted database of a world: every opening and every statement does what luck wants."""

from asyncio import CancelledError
from typing import TYPE_CHECKING, Any

from actors.errors import ConnectionLost
from actors.messages import Request
from actors.result import Result
from tests.simulation.luck import Killed, Scripted

if TYPE_CHECKING:
    from tests.simulation.world import World

_ENDINGS = (SystemExit, KeyboardInterrupt, GeneratorExit, CancelledError, Killed)
_LONG = 40  # turns of others after which a statement that hangs ends by itself: the stack has to unwind


class OpeningFailed(OSError):
    """The database cannot be reached."""


class Interrupted(Exception):
    """A statement was interrupted, and nothing of it is left."""


class SimDatabase:
    name = "sim"
    max_size = None

    def __init__(self, world: "World") -> None:
        self._world = world

    def __str__(self) -> str:
        return "SimDatabase"

    def connect(self) -> "SimConnection":
        world, luck = self._world, self._world.luck
        world.pause("connect")
        if world.happens(luck.opening_hangs):
            world.say("opening hangs")
            world.hang(lambda: False, turns=world.random.randrange(_LONG), seconds=world.policy.start_timeout)
        if world.happens(luck.opening_fails):
            if world.chance() < 0.2:
                raise world.random.choice(_ENDINGS)("scripted opening")
            message = "scripted opening"
            raise OpeningFailed(message)
        return SimConnection(world)


class SimConnection:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._busy = False
        self._interrupted = False
        self.closed = False

    def execute(self, request: Request) -> Any:
        world = self._world
        entry = world.ledger.started(request)
        if self._busy or self.closed:
            world.blame(f"{request} runs on a connection that is {'closed' if self.closed else 'busy'}")
        self._busy, self._interrupted = True, False
        try:
            world.pause("execute")
            return self._outcome(request, entry)
        finally:
            self._busy = False

    def _outcome(self, request: Request, entry: Any) -> Any:
        world, luck = self._world, self._world.luck
        deaf = world.happens(luck.statement_is_deaf)
        if world.happens(luck.statement_hangs):
            world.say(f"{request} hangs{', and is deaf' if deaf else ''}")
            world.hang(lambda: self._interrupted and not deaf, turns=world.random.randrange(_LONG), seconds=0.3)
        if self._interrupted and not deaf:
            entry.undone = True
            raise Interrupted
        if world.happens(luck.connection_lost):
            raise ConnectionLost from OpeningFailed("scripted loss")
        if world.happens(luck.statement_fails):
            entry.error = world.random.choice((Scripted("statement"), MemoryError("statement"), TypeError("statement")))
            if world.chance() < 0.1:
                raise world.random.choice(_ENDINGS)("scripted statement")
            raise entry.error
        world.pause("executed")
        return Result(("number",), [(entry.number,)], 1)

    def interrupt(self) -> None:
        self._interrupted = True

    def close(self) -> None:
        self._world.pause("close")
        self.closed = True
