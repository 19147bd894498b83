"""Programs that use a crew, one act at a turn."""

from typing import TYPE_CHECKING, Any

import pykka

from actors.system.waiting import this_thread
from actors.values.errors import QuerycrewError, WouldDeadlock
from actors.values.requests import Query, Status
from tests.worlds import checkouts, trouble
from tests.worlds.fault_plan import Interrupted, Scripted
from tests.worlds.history import Entry
from tests.worlds.requests import some_request

if TYPE_CHECKING:
    from tests.worlds.world import World

EXPECTED = (QuerycrewError, pykka.Timeout, Scripted, MemoryError, Interrupted, InterruptedError, TypeError)
_TIMEOUTS = (0, 0.01, 0.1, 0.1, 0.5, 2.0)


class Client:
    """A thread of a program.

    A request from a callback runs in the thread that calls the callback.
    """

    def __init__(self, world: "World", number: int, turns: int) -> None:
        self.world = world
        self.name = f"client {number}"
        self.cut_off = False
        """Its call was killed: once a turn is enough."""
        self.mine: list[Entry] = []
        self.asking: Entry | None = None
        """The request that this client is submitting."""
        self._turns = turns
        self._write = world.random.choice((0.0, 0.3, 0.3, 0.9))

    def run(self) -> None:
        """Do one thing after the other."""
        for _ in range(self._turns):
            self.cut_off = False
            try:
                self._act()
            except KeyboardInterrupt:
                self.world.say("gave up")
            except pykka.ActorDeadError:
                self.world.say("met a dead actor")
            except Exception as error:
                self.world.blame(f"{self.name} got {error!r}")
            if self.world.chance() < 0.3:
                self.world.spend(self.world.chance() * 0.02)
        self.world.client_is_done()

    def _act(self) -> None:
        world, plan, chance = self.world, self.world.plan, self.world.chance()
        if chance < plan.end:
            trouble.end(world)
        elif chance < plan.end + plan.trouble:
            world.random.choice(trouble.KINDS)(self)
        elif chance < plan.end + plan.trouble + plan.second_thoughts:
            self.cancel()
        elif world.chance() < plan.checkouts:
            world.random.choice(checkouts.KINDS)(self)
        else:
            world.random.choice(_ASKING)(self)

    # --- asking ---------------------------------------------------------------------------

    def new_entry(self, verb: str) -> Entry:
        world = self.world
        entry = world.history.new(world.file.total())
        timeout = world.random.choice(_TIMEOUTS) if world.chance() < world.plan.hurry else None
        entry.request = some_request(world.random, entry.number, timeout, self._write)
        world.say(f"{verb} {entry.number}: {entry.request}")
        return entry

    def ask(self) -> Entry:
        entry = self.new_entry("asks")
        with self.world.naming(entry):
            try:
                entry.reply = self.world.ref.ask(entry.request, block=False)
            except BaseException:
                entry.cut_off = True
                raise
        self.mine.append(entry)
        return entry

    def ask_many(self) -> None:
        for _ in range(self.world.random.randrange(2, 16)):
            self.ask()

    def ask_many_and_wait(self) -> None:
        first = len(self.mine)
        self.ask_many()
        for entry in self.mine[first:]:
            self._wait_for(entry)

    def _wait_for(self, entry: Entry) -> None:
        try:
            entry.reply.get()
        except EXPECTED:
            return

    def ask_with_callback(self) -> None:
        entry = self.ask()
        self._add_callback(entry)
        if self.world.chance() < 0.5:
            self._await(entry)

    def ask_and_wait(self) -> None:
        entry = self.new_entry("asks and waits")
        timeout = self.world.random.choice((None, None, 0, 1.0))
        with self.world.naming(entry):
            try:
                self.world.ref.ask(entry.request, timeout=timeout)
            except KeyboardInterrupt:
                entry.cut_off = True
                raise
            except EXPECTED as error:
                # A timeout cancels the job, which may still run. Any other end is the answer, and
                # settles the reply.
                if entry.reply is not None and type(error) is not pykka.Timeout and not entry.reply.done():
                    self.world.blame(f"ask raised {error!r} with an open reply")

    def tell(self) -> None:
        entry = self.new_entry("tells")
        entry.told = True
        with self.world.naming(entry):
            try:
                if self.world.chance() < 0.3:  # as an actor would that knows of no `SupervisorRef`
                    pykka.ActorRef.tell(self.world.ref, entry.request)
                else:
                    self.world.ref.tell(entry.request)
            except KeyboardInterrupt:
                entry.cut_off = True
                raise

    def look(self) -> None:
        self.world.ref.ask(Status())
        repr(self.world.ref)

    # --- after the answer -----------------------------------------------------------------

    def _await(self, entry: Entry) -> None:
        """Act as `await` on an event loop: leave a waker."""
        woken: list[None] = []

        def wake() -> None:
            if not woken:
                woken.append(None)
                entry.wakers[1] += 1

        source = entry.reply.map(lambda value: value) if self.world.chance() < 0.3 else entry.reply
        if source._add_waker(wake):
            entry.wakers[0] += 1

    def _add_callback(self, entry: Entry) -> None:
        act = self.world.random.choice(_CALLBACKS)

        def callback(reply: Any) -> None:
            entry.calls[1] += 1
            if reply is not entry.reply or not entry.reply.done():
                self.world.blame(f"request {entry.number} called back too early, or with another's reply")
            if not self.world.calm:
                act(self)

        entry.calls[0] += 1
        entry.reply.add_done_callback(callback)

    def do_nothing(self) -> None:
        pass

    def fail(self) -> None:
        message = "scripted callback"
        raise Scripted(message)

    def wait_for_itself(self) -> None:
        if this_thread.crew is None:
            return
        try:
            self.world.ref.ask(Query("SELECT a", (0,)))
        except WouldDeadlock:
            return
        self.world.blame("a crew's own thread was not told that it would wait for itself")

    def cancel(self) -> None:
        if not self.mine:
            return
        entry = self.world.random.choice([entry for entry in self.mine if entry.is_in_hand()] or self.mine)
        self.world.say(f"cancels {entry.number}")
        one = entry.reply if self.world.chance() < 0.8 else entry.reply.map(lambda value: value)
        one.cancel()

    def stop(self) -> None:
        trouble.end(self.world)


_ASKING = (
    *(Client.ask, Client.ask_many, Client.ask_many, Client.ask_many_and_wait, Client.ask_with_callback),
    *(Client.ask_and_wait, Client.ask_and_wait, Client.tell, Client.look),
)
_CALLBACKS = (
    *(Client.do_nothing, Client.do_nothing, Client.fail, Client.fail, Client.cancel),
    *(Client.ask, Client.ask, Client.wait_for_itself, Client.wait_for_itself, Client.stop),
)
