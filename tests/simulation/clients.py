"""What programs do with a crew, one thing at a turn."""

from typing import TYPE_CHECKING

import pykka

from actors.errors import QuerycrewError, WouldDeadlock
from actors.messages import Status, Subscribe, Unsubscribe
from actors.waiting import here
from tests.simulation.database import Interrupted
from tests.simulation.ledger import Entry
from tests.simulation.luck import Scripted

if TYPE_CHECKING:
    from tests.simulation.world import World

_EXPECTED = (QuerycrewError, pykka.Timeout, Scripted, MemoryError, Interrupted, TypeError)


class Client:
    """A thread of a program. What it asks again from a callback runs wherever that is called."""

    kind = "client"

    def __init__(self, world: "World", name: str, turns: int) -> None:
        self.name = name
        self.on_stack = False
        self.cut_off = False
        """Its call was killed: once a turn is enough."""
        self.alarm = None
        self._world = world
        self._turns_left = turns
        self._mine: list[Entry] = []

    def is_ready(self, now: float) -> bool:
        return self._turns_left > 0 and not self.on_stack

    def turn(self) -> None:
        self._turns_left -= 1
        self.cut_off = False
        crew, here.crew = here.crew, None
        try:
            self._act()
        except KeyboardInterrupt:
            self._world.say("gave up")
        except pykka.ActorDeadError:
            self._world.say("met a dead actor")
        except Exception as error:
            self._world.blame(f"{self.name} got {error!r}")
        finally:
            here.crew = crew

    def _act(self) -> None:
        luck, chance = self._world.luck, self._world.chance()
        if chance < luck.end:
            self.end()
        elif chance < luck.end + luck.trouble:
            self._world.random.choice((self._trouble_a_worker, self._answer_myself, self._subscribe))()
        elif chance < luck.end + luck.trouble + luck.second_thoughts:
            self._cancel()
        else:
            self._world.random.choice(_ASKING)(self)

    # --- asking ---------------------------------------------------------------------------

    def ask(self) -> None:
        entry = self.new_entry("asks")
        try:
            entry.reply = self._world.ref.ask(self._world.ledger.request(entry), block=False)
        except BaseException:
            entry.cut_off = True
            raise
        self._mine.append(entry)

    def _ask_with_callback(self) -> None:
        self.ask()
        entry = self._mine[-1]
        self._add_callback(entry)
        if self._world.chance() < 0.5:
            self._await(entry)

    def _ask_and_wait(self) -> None:
        entry = self.new_entry("asks and waits")
        timeout = self._world.random.choice((None, 0, 1.0))
        try:
            self._world.ref.ask(self._world.ledger.request(entry), timeout=timeout)
        except KeyboardInterrupt:
            entry.cut_off = True
            raise
        except _EXPECTED as error:
            # A timeout cancels the job, which may still run; all else is the answer, and the reply is done.
            if entry.reply is not None and type(error) is not pykka.Timeout and not entry.reply.done():
                self._world.blame(f"ask raised {error!r} with an open reply")

    def _tell(self) -> None:
        entry = self.new_entry("tells")
        entry.told = True
        try:
            if self._world.chance() < 0.3:  # as an actor would that knows of no `SupervisorRef`
                pykka.ActorRef.tell(self._world.ref, self._world.ledger.request(entry))
            else:
                self._world.ref.tell(self._world.ledger.request(entry))
        except KeyboardInterrupt:
            entry.cut_off = True
            raise

    def _look(self) -> None:
        self._world.ref.ask(Status())
        repr(self._world.ref)

    def new_entry(self, verb: str) -> Entry:
        entry = self._world.ledger.new()
        if self._world.chance() < self._world.luck.hurry:
            entry.timeout = self._world.random.choice(_TIMEOUTS)
        self._world.say(f"{verb} {entry.number}")
        return entry

    # --- what happens when it is answered -------------------------------------------------

    def _await(self, entry: Entry) -> None:
        """Do what `await` does on an event loop: leave a waker."""
        assert entry.reply is not None
        woken: list[None] = []

        def wake() -> None:
            if not woken:
                woken.append(None)
                entry.wakers[1] += 1

        source = entry.reply.map(lambda value: value) if self._world.chance() < 0.3 else entry.reply
        if source._add_waker(wake):
            entry.wakers[0] += 1

    def _add_callback(self, entry: Entry) -> None:
        act = self._world.random.choice(_CALLBACKS)

        def callback(reply: object) -> None:
            entry.calls[1] += 1
            if reply is not entry.reply or not entry.reply.done():
                self._world.blame(f"request {entry.number} called back too early, or with another's reply")
            if not self._world.calm:
                act(self)

        assert entry.reply is not None
        entry.calls[0] += 1
        entry.reply.add_done_callback(callback)

    def _do_nothing(self) -> None:
        pass

    def _raise(self) -> None:
        message = "scripted callback"
        raise Scripted(message)

    def _wait_for_itself(self) -> None:
        if here.crew is None:
            return
        entry = self.new_entry("waits for itself")
        try:
            self._world.ref.ask(self._world.ledger.request(entry))
        except WouldDeadlock:
            return
        self._world.blame("a crew's own thread was not told that it would wait for itself")

    # --- trouble --------------------------------------------------------------------------

    def _trouble_a_worker(self) -> None:
        workers = [life for life in self._world.lives if life.kind == "worker"]
        if not workers:
            return
        life = self._world.random.choice(workers)
        self._world.say(f"troubles {life.name}")
        ref, futures = life.actor.actor_ref, self._world.ledger.asked_to_stop
        match self._world.random.randrange(3):
            case 0:
                futures.append(ref.stop(block=False))
            case 1:
                futures.append(ref.ask("what are you doing?", block=False))
            case 2:
                ref.tell("never mind")

    def _answer_myself(self) -> None:
        if not self._mine:
            return
        entry = self._world.random.choice(self._mine)
        assert entry.reply is not None
        self._world.say(f"answers {entry.number} itself")
        try:
            if entry.reply.settle("my own"):
                entry.own_answer = True
        except KeyboardInterrupt:
            entry.own_answer = True  # or not; who knows
            raise

    def _cancel(self) -> None:
        if not self._mine:
            return
        entry = self._world.random.choice([entry for entry in self._mine if entry.is_in_hand()] or self._mine)
        self._world.say(f"cancels {entry.number}")
        assert entry.reply is not None
        one = entry.reply if self._world.chance() < 0.8 else entry.reply.map(lambda value: value)
        one.cancel()

    def _subscribe(self) -> None:
        world = self._world
        message = world.random.choice((Subscribe, Subscribe, Unsubscribe))(world.fickle)
        world.fickle.ended |= world.chance() < 0.2
        world.say(f"sends {message}")
        world.ledger.asked_to_stop.append(world.ref.ask(message, block=False))

    def finalize(self) -> None:
        """Do what code may do that the garbage collector runs in the middle of anything."""
        try:
            self._world.random.choice((self.ask, self._tell, self._look, self._cancel, self.end))()
        except pykka.ActorDeadError:
            pass
        except BaseException as error:
            self._world.blame(f"a finalizer got {error!r}")

    def end(self) -> None:
        """Stop the crew, one way or other."""
        world = self._world
        match world.random.randrange(4):
            case 0 | 1:
                world.say("stops the crew")
                world.ledger.asked_to_stop.append(world.ref.stop(block=False))
            case 2:
                cancel, timeout = world.chance() < 0.5, world.random.choice((None, 0, 0.05, 1.0))
                world.say(f"shuts the crew down, {cancel=}, {timeout=}")
                world.ledger.forced |= timeout is not None
                world.ref.shutdown(wait=False, cancel_pending=cancel, timeout=timeout)
            case 3:
                world.say("stops all actors")
                for life in reversed(list(world.lives)):
                    world.ledger.asked_to_stop.append(life.actor.actor_ref.stop(block=False))


_ASKING = (Client.ask, Client.ask, Client._ask_with_callback, Client._ask_and_wait, Client._tell, Client._look)
_TIMEOUTS = (0, 0.01, 0.1, 0.1, 0.5, 2.0)
_CALLBACKS = (
    *(Client._do_nothing, Client._do_nothing, Client._raise, Client._raise, Client._cancel),
    *(Client.ask, Client.ask, Client._wait_for_itself, Client._wait_for_itself, Client.end),
)
