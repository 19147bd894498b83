"""World: a crew, its clients, and a seed that decides all."""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from random import Random
from types import FrameType
from typing import Any

import pykka

from actors.system import exit_and_fork as process
from supervisor import ChildProcess, RestartPolicy, Subscribe, SupervisorRef
from tests.worlds import checks, children
from tests.worlds.clients import Client
from tests.worlds.crew import NumberedReference, WorldDispatcher, WorldReply, WorldSupervisor, WorldWorker
from tests.worlds.database import File, WorldConnection, WorldDatabase
from tests.worlds.fault_plan import FaultPlan, Killed
from tests.worlds.history import History
from tests.worlds.listener import Listener
from tests.worlds.stage import Stage, Task
from tests.worlds.steps import place, stepping
from tests.worlds.system import on_stage, waits_for_mail

# The supervisor looks at deadlines every 10 ms, and at interrupted jobs every 20 ms.
_SLACK = 0.05  # seconds


_PATCHES = [("actors.ref", "Reply", WorldReply), ("actors.dispatch.deadlocks", "ReferenceType", NumberedReference)]


class World:
    """One world: everything in it follows from its seed.

    After the last turn of the clients no more faults happen. The crew has to come to rest at full
    size. Then it is stopped, and nothing may be left.
    """

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        self.seed = seed
        self.random = random = Random(seed)
        self.chance = random.random
        self.plan = FaultPlan(random)
        self.stage = Stage(random, self.plan.steps_between)
        self.history = History()
        self.file = File()
        self.connections: list[WorldConnection] = []
        self.calm = False
        """No more faults."""
        self.kills = 0
        """How many threads and children were killed."""
        self._trace = trace
        self.policy = RestartPolicy(
            max_restarts=random.choice((0, 1, 3, 30)),
            within=random.choice((0.5, 10.0)),
            backoff_max=random.choice((0.1, 2.0)),
            quiet_period=random.choice((0.0, 5.0)),
            start_timeout=1.0,
            grace=random.choice((0.05, 0.5)),
            poison_after=random.choice((0, 1, 3)),
        )
        self.size = random.choice((1, 1, 2, 2, 3))
        self.has_writer = random.random() < 0.75
        self.in_children = random.random() < 0.35
        self.max_queue = random.choice((None, None, None, 0, 3))
        self.shed_after = random.choice((None, None, None, 0.1))
        self.clients = [Client(self, number, random.randrange(1, 11)) for number in range(1, random.choice((2, 3, 4)))]
        self._acting = len(self.clients)
        self.history.is_in_order = len(self.clients) == 1 and not self.plan.finalizer_runs
        self.history.is_alone = self.size == 1
        self.listener = Listener("the listener")
        """Hears everything, from the beginning."""
        self.fickle = Listener("the fickle listener")
        """Subscribes and unsubscribes, and ends by chance."""
        self.ref: SupervisorRef

    # --- its life -------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Run the world; return its errors."""
        with self.on_stage():
            self._start()
            self.stage.on_pause, self.stage.on_time = self._on_pause, self._on_time
            self.stage.on_still = lambda: checks.check_still(self)
            for client in self.clients:
                self.stage.spawn(client.name, client.run)
            self._rest()
            checks.check_rest(self)
            self.say("the end")
            self.history.asked_to_stop.append(self.ref.stop(block=False))
            self._rest()
            checks.check_end(self)
        return self.history.wrong

    def _start(self) -> None:
        database: Any = WorldDatabase()
        self.ref = WorldSupervisor.start(
            ChildProcess(database) if self.in_children else database,
            size=self.size,
            max_queue=self.max_queue,
            restart=self.policy,
            name="world",
            timeout=self.random.choice((None, None, None, None, 0.5)),
            shed_after=self.shed_after,
        )
        self.history.asked_to_stop.append(self.ref.ask(Subscribe(self.listener), block=False))

    def _rest(self) -> None:
        self.stage.run()
        if self.stage.is_stuck:
            self.blame("it never comes to rest")

    def client_is_done(self) -> None:
        """Take note that a client is through."""
        self._acting -= 1
        if not self._acting:
            self.say("no more faults")
            self.calm = True

    @contextmanager
    def on_stage(self) -> Iterator[None]:
        """Let this be the world that everything here belongs to."""
        WorldDatabase.world = WorldReply.world = WorldDispatcher.world = self
        NumberedReference.numbers = count(1)
        children.Child.numbers, children.Child.capacity = count(1), lambda: self.random.choice((400, 1 << 16, 1 << 16))
        children.Child.on_recall = self.history.order_is_lost
        # The collector runs at unknown moments, and the finalizers that it calls would be steps of
        # this world.
        collecting, hook = gc.isenabled(), sys.unraisablehook
        gc.disable()
        sys.unraisablehook = _ignore
        try:
            with on_stage(self.stage, [*children.PATCHES, *_PATCHES]), stepping():
                self.stage.begin()
                try:
                    yield
                finally:
                    self.stage.clear()
        finally:
            sys.unraisablehook = hook
            if collecting:
                gc.enable()
            _forget_all()

    # --- called from everywhere -----------------------------------------------------------

    def say(self, what: str) -> None:
        """Write a line of the trace."""
        if self._trace is not None:
            task = self.stage.current
            self._trace(f"{self.stage.now:10.4f} {task.name if task else 'world':14} {what}")

    def blame(self, what: str) -> None:
        """Take note of something that must not be."""
        self.say(f"WRONG: {what}")
        self.history.wrong.append(what)

    def happens(self, likely: float) -> bool:
        """Say whether a fault that is so likely happens now."""
        return likely > 0 and not self.calm and self.chance() < likely

    def spend(self, seconds: float) -> None:
        """Let time pass in the current task."""
        self.stage.wait(lambda: False, seconds)

    @contextmanager
    def naming(self, entry: Any) -> Iterator[None]:
        """Let the next reply that this task makes be that of an entry."""
        task = self.stage.current
        if task is None:
            yield
            return
        task.entry = entry
        try:
            yield
        finally:
            task.entry = None

    def asking(self) -> Any:
        """Return the entry whose reply is made now, once."""
        task = self.stage.current
        if task is None:
            return None
        entry, task.entry = task.entry, None
        return entry

    # --- faults ---------------------------------------------------------------------------

    def _on_time(self, before: float, now: float) -> None:
        supervisor = next((task for task in self.stage.tasks if task.kind == "supervisor"), None)
        # A slow other task is no error. Nor is a lock that another task holds, and for which a
        # finalizer in the supervisor's thread waits. But a supervisor that waits for mail must have
        # set the time of its waking.
        if supervisor is not None and waits_for_mail(supervisor.ready) and not supervisor.ready():
            until = now if supervisor.wake_at is None else min(now, supervisor.wake_at)
            if until > before:
                self.history.note_time(before, until, self.policy.grace + _SLACK)

    def _on_pause(self) -> None:
        if self.calm:
            return
        plan, chance = self.plan, self.chance()
        if chance < plan.time_passes:
            self.stage.advance(self.stage.now + self.chance() * plan.time)
        elif chance > 1 - plan.killed:
            if self.kills < plan.kills and self.stage.current is not None:
                self._kill(self.stage.current)
        elif chance > 1 - plan.killed - plan.finalizer_runs:
            self._finalize()

    def _kill(self, task: Task) -> None:
        """Hit the current task like an asynchronous exception, or its process like a signal."""
        if task.process is not None:
            self.kills += 1
            self.say(f"its process is killed at {_where()}")
            task.process.die(-9)  # type: ignore[attr-defined]
            self.stage.leave()
        if task.kind == "client":
            client = next(each for each in self.clients if each.name == task.name)
            if client.cut_off:
                return
            client.cut_off = True
        elif task.kind not in ("worker", "supervisor") or task.kills > 1 or task.is_defenceless or _has_just_opened():
            return
        self.kills += 1
        task.kills += 1
        task.is_defenceless = _is_ending()
        self.say(f"is killed at {_where()}")
        raise KeyboardInterrupt if task.kind == "client" else Killed

    def kill_a_child(self) -> None:
        """Kill one of the children that there are."""
        processes = {id(task.process): task.process for task in self.stage.tasks if task.process is not None}
        if processes and not self.calm:
            self.kills += 1
            self.say("kills a child")
            self.random.choice(list(processes.values())).die(-9)  # type: ignore[attr-defined]

    def _finalize(self) -> None:
        """Run a finalizer, as for an object that the garbage collector has just found."""
        task, client = self.stage.current, self.clients[0]
        if task is None or task.process is not None or task.kind not in ("worker", "supervisor", "client"):
            return
        self.say(f"a finalizer runs at {_where()}")
        task.undisturbed += 1
        entry, task.entry = task.entry, None
        try:
            self.random.choice((client.ask, client.tell, client.look, client.cancel, client.stop))()
        except pykka.ActorDeadError:
            pass
        except BaseException as error:
            self.blame(f"a finalizer got {error!r}")
        finally:
            task.undisturbed -= 1
            task.entry = entry


def _where() -> str:
    frame = place()
    return f"{frame.f_code.co_qualname}, line {frame.f_lineno}"


def _has_just_opened() -> bool:
    """Say whether `connect` has just returned in this task.

    A kill would leave the connection without owner.
    """
    return place().f_code.co_qualname in ("Worker.on_start", "ChildConnection.__init__", "ChildConnection._open")


def _is_ending() -> bool:
    """Say whether the current task is in the last part of an actor's life."""
    frame: FrameType | None = place()
    while frame is not None and frame.f_code.co_qualname != "CrewActor._end":
        frame = frame.f_back
    return frame is not None


def _ignore(_: object) -> None:
    """Ignore the exceptions of finalizers."""


def _forget_all() -> None:
    """Leave nothing of a world that went wrong to the next one."""
    for crew in list(process.crews):
        if isinstance(crew, WorldSupervisor):
            process.crews.discard(crew)
    pykka.ActorRegistry._actor_refs[:] = [
        ref
        for ref in pykka.ActorRegistry._actor_refs
        if not issubclass(ref.actor_class, (WorldWorker, WorldSupervisor))
    ]
