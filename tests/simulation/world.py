"""World: a crew and its clients, and a scheduler that decides with a seed what happens next."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from actors.actor import CrewActor
from actors.dispatcher import Dispatcher
from supervisor import RestartPolicy, Subscribe, SupervisorRef
from tests.simulation.checks import check_death, check_end, check_rest, check_suspension
from tests.simulation.clients import Client
from tests.simulation.crew import SimReply, SimSupervisor, on_stage
from tests.simulation.database import SimDatabase
from tests.simulation.ledger import Ledger
from tests.simulation.life import Life, Phase
from tests.simulation.listener import Listener
from tests.simulation.locks import release_left_locks
from tests.simulation.luck import Killed, Luck, Strike

_DEPTH = 5  # actors and clients that are in the middle of something, at most
_SLACK = 0.05  # seconds: deadlines are looked at by the 10 ms, and what was interrupted every 20 ms
_TURNS = 2000  # a world that takes more never comes to rest


class World:
    """One world: everything in it follows from its seed.

    Actors and clients take turns. A turn may pause inside the crew's code, and others take theirs there, on the
    same stack: whoever is on the stack already has to wait. Once the clients are through, no more faults
    happen, and the crew has to come to rest at full size; then it is stopped, and nothing may be left.
    """

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.chance = self.random.random
        self.now = 1000.0
        self.luck = Luck(self.random)
        self.ledger = Ledger()
        self.lives: list[Life] = []
        self.stack: list[Life | Client] = []
        self.calm = False
        """No more faults."""
        self.killed = False
        self._just_killed = False
        self._trace = trace
        # A finalizer runs: it is in the middle of anything, and nobody else may run there.
        self._in_finalizer = False
        # Who is in the middle of a cancel, with whether that was cut off already.
        self._cancelling: dict[Life | Client, bool] = {}
        self.miscounted = False
        """A kill hit inside the dispatcher, where it counts."""
        self.turns = 0
        self._strike: Strike | None = None
        self._prepare_strike()
        self.policy = RestartPolicy(
            max_restarts=self.random.choice((0, 1, 3, 30)),
            within=self.random.choice((0.5, 10.0)),
            backoff_max=self.random.choice((0.1, 2.0)),
            quiet_period=self.random.choice((0.0, 5.0)),
            start_timeout=1.0,
            grace=self.random.choice((0.05, 0.5)),
        )
        self.size = self.random.choice((1, 1, 2, 2, 3))
        self._clients = [
            Client(self, f"client {number}", self.random.randrange(1, 11))
            for number in range(1, self.random.choice((2, 3, 4)))
        ]
        self.listener = Listener("the listener")
        """Is told everything, from the beginning."""
        self.fickle = Listener("the fickle listener")
        """Comes and goes, and ends when luck wants."""
        self.ref: SupervisorRef

    def run(self) -> list[str]:
        """Let it happen; return what went wrong."""
        with on_stage(self):
            self.ref = SimSupervisor.start(
                SimDatabase(self),
                size=self.size,
                max_queue=self.random.choice((None, None, None, 0, 3)),
                restart=self.policy,
                name="sim",
                timeout=self.random.choice((None, None, None, 0.5)),
                shed_after=self.random.choice((None, None, None, 0.1)),
            )
            self.ledger.asked_to_stop.append(self.ref.ask(Subscribe(self.listener), block=False))
            self._run()
        return self.ledger.wrong

    @property
    def dispatcher(self) -> Dispatcher:
        return self.ref._dispatcher

    def say(self, what: str, who: "Life | Client | None" = None) -> None:
        """Write a line of the trace."""
        if self._trace is not None:
            one = who or (self.stack[-1] if self.stack else None)
            self._trace(f"{self.now:9.3f} {'    ' * len(self.stack)}{one.name if one else 'world'}: {what}")

    def blame(self, what: str) -> None:
        """Take note of something that must not be."""
        self.say(f"WRONG: {what}")
        self.ledger.wrong.append(what)

    def _run(self) -> None:
        while any(client.is_ready(self.now) for client in self._clients) and self._step():
            check_suspension(self)
        self.say("no more faults")
        self.calm = True
        self._rest()
        check_rest(self)
        self.say("the end")
        self.ledger.asked_to_stop.append(self.ref.stop(block=False))
        self._rest()
        check_end(self)

    # --- scheduling -----------------------------------------------------------------------

    def adopt(self, actor: CrewActor, name: str) -> None:
        """Take note of an actor whose thread starts."""
        self.lives.append(Life(actor, name, self.check_locks))

    def _step(self) -> bool:
        """Let somebody take a turn, or time pass; say whether anything happened."""
        now = self.now
        ready: list[Life | Client] = [life for life in self.lives if life.is_ready(now)]
        if not self.calm:
            ready += [client for client in self._clients if client.is_ready(now)]
        if not ready:
            return self._pass_time(until_alarm=True)
        if not self.calm and self.chance() < self.luck.time_passes:
            self._pass_time(until_alarm=self.chance() < 0.1)
        self._turn(ready[int(self.chance() * len(ready))])
        return True

    def _pass_time(self, *, until_alarm: bool) -> bool:
        """Let time pass, a little, or until somebody's alarm goes off; say whether there is one."""
        alarms = [life.alarm for life in self.lives if life.alarm is not None and not life.on_stack]
        if not alarms:
            return False
        self._advance(max(self.now, min(alarms)) if until_alarm else self.now + 0.2 * self.chance())
        return True

    def _advance(self, now: float) -> None:
        before, self.now = self.now, now
        supervisor = self.lives[0] if self.lives else None
        # That others are slow is nobody's fault, but a supervisor that sleeps must have said when to wake it.
        if supervisor is not None and supervisor.sleeps(before) and supervisor.kind == "supervisor":
            slept_until = now if supervisor.alarm is None else min(now, supervisor.alarm)
            self.ledger.note_time(before, slept_until, self.policy.grace + _SLACK)

    def _turn(self, one: Life | Client) -> None:
        self.turns += 1
        if self._trace is not None:
            self.say("takes a turn", one)
        self.stack.append(one)
        one.on_stack = True
        if self._strike is not None:
            self._strike.aim(one, begins=True)
        try:
            one.turn()
        finally:
            one.on_stack = False
            self.stack.pop()
            if self._strike is not None:
                self._strike.aim(self.stack[-1] if self.stack else None)
            if self._just_killed:
                self.check_locks(one)
        if isinstance(one, Life) and one.phase is Phase.ENDED:
            self._bury(one)

    def _bury(self, life: Life) -> None:
        self.lives.remove(life)
        self.say(f"ended: {life.cause!r}", life)
        check_death(self, life)

    def _rest(self) -> None:
        """Go on until nothing is left to do but to wait for messages."""
        limit = self.turns + _TURNS
        while self._step():
            check_suspension(self)
            if self.turns > limit:
                self.blame("it never comes to rest")
                return

    # --- called in the middle of somebody's turn ------------------------------------------

    def check_locks(self, victim: "Life | Client") -> None:
        """After a kill: nothing may be left locked."""
        self._just_killed = False
        release_left_locks(self, victim)

    def pause(self, where: str) -> None:
        """Let others run here, or kill who is running."""
        if self._in_finalizer or not self.stack or self.dispatcher.is_mine():
            return
        chance = self.chance()
        if chance < self.luck.others_run:
            if len(self.stack) < _DEPTH:
                self._step()
        elif chance > 1 - self.luck.killed_in_pause:
            self.kill(where)

    def hang(self, until: Callable[[], bool], turns: int, seconds: float) -> None:
        """Stay here while others take so many turns and time passes."""
        for _ in range(turns):
            if until() or len(self.stack) >= _DEPTH or not self._step():
                break
        if not self.calm:
            self._advance(self.now + seconds)
        if len(self.stack) < _DEPTH:
            self._step()

    def wait_for(self, reply: SimReply) -> None:
        """Stay here until the reply is settled, or as long as others can do anything about it."""
        for _ in range(30):
            if reply.done() or len(self.stack) >= _DEPTH or not self._step():
                return

    def happens(self, likely: float) -> bool:
        """Say whether a fault that is so likely happens now."""
        return not self.calm and self.chance() < likely

    # --- kills and finalizers -------------------------------------------------------------

    def kill(self, where: str) -> None:
        """Raise what an asynchronous exception would raise, in whoever is running."""
        one = self.stack[-1]
        if self.calm:
            return
        if isinstance(one, Client):
            if one.cut_off:
                return
            one.cut_off = True
        elif one.defenceless:
            return
        if self._cancelling.get(one, False):
            return
        if one in self._cancelling:
            self._cancelling[one] = True
        self.killed = self._just_killed = True
        self.miscounted |= self.dispatcher.is_mine()
        self.say(f"killed at {where}")
        raise KeyboardInterrupt if isinstance(one, Client) else Killed(where)

    @contextmanager
    def cutting_off_once(self) -> Iterator[None]:
        """While somebody cancels, kill him once at most: to be hit again while clearing up is not promised."""
        one = self.stack[-1] if self.stack else None
        if one is None or one in self._cancelling:
            yield
            return
        self._cancelling[one] = False
        try:
            yield
        finally:
            del self._cancelling[one]

    def _prepare_strike(self) -> None:
        self._strike = None
        if self.luck.strikes > 0:
            self.luck.strikes -= 1
            self._strike = Strike(self.random, self._strikes)

    def _strikes(self, where: str) -> None:
        """Do in the middle of a method what luck wants; called from there."""
        victim = self.stack[-1]
        self._prepare_strike()
        if self._strike is not None and self.chance() < 0.5:
            self._strike.victim = victim  # its end is hit too
        if self.chance() < 0.3:
            self._finalize(where)
        else:
            self.kill(where)

    def _finalize(self, where: str) -> None:
        """Do what the finalizer of an object does that the garbage collector has just found."""
        self.say(f"a finalizer runs at {where}")
        self._in_finalizer = True
        self.ledger.in_order = False
        try:
            self._clients[0].finalize()
        finally:
            self._in_finalizer = False
