"""The scene `actors`: Pykka actors ask the crew, and the answers come to them as messages.

demo ── Look ──► scholar ── ask(block=False) ──► crew ── pipe_to ──► scholar: Found
demo ── Ping ──► scholar: answers at once, while its queries run
crew ── WorkerLost, WorkerUp ──► observer
"""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pykka

from actors.console.demo_crew import DemoCrew, worker_rows
from actors.console.searches import SEARCHES, SLICES, Search
from actors.console.stage import Row
from actors.console.visible import visible
from supervisor import Outcome, Query, Subscribe, SupervisorRef, WorkerLost, WorkerUp

__all__ = ["play"]

_NAMES: Final = ("Ada", "Grace", "Mary")
_SEARCHES: Final = SEARCHES[4:7]
"""One search for each scholar."""
_PATIENCE: Final = 20.0  # seconds in which the observer hears of a death

_CODE: Final = 'db.ask(Query("SELECT …"), block=False).pipe_to(self.actor_ref)'


@dataclass(frozen=True, slots=True)
class Look:
    """Asks a scholar to look something up."""

    search: Search


@dataclass(frozen=True, slots=True)
class Found:
    """The message that brings a scholar the answer of the crew."""

    search: Search
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks a scholar how many pings it has answered until now, and for its findings."""


class Scholar(pykka.ThreadingActor):
    """Asks the crew, and never waits for it."""

    def __init__(self, db: SupervisorRef) -> None:
        super().__init__()
        self._db = db
        self._pings = 0
        self._found: list[Found] = []

    def on_receive(self, message: Any) -> tuple[int, tuple[Found, ...]] | None:
        """Handle a message, in the thread of this actor."""
        match message:
            case Look(search):
                reply = self._db.ask(Query(search.sql), block=False)
                reply.pipe_to(self.actor_ref, wrap=partial(Found, search))
            case Found():
                self._found.append(message)
            case Ping():
                self._pings += 1
                return self._pings, tuple(self._found)
        return None


class Observer(pykka.ThreadingActor):
    """Hears the events of the crew."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[WorkerLost | WorkerUp] = []

    def on_receive(self, message: Any) -> tuple[WorkerLost | WorkerUp, ...] | None:
        """Keep an event. Any other message asks for all events until now."""
        if isinstance(message, (WorkerLost, WorkerUp)):
            self._events.append(message)
            return None
        return tuple(self._events)


def play(crew: DemoCrew) -> None:
    """Show three actors that ask, and one actor that hears of a death."""
    crew.stage.scene("Pykka actors ask, and the answers are messages", _CODE)
    scholars: list[pykka.ActorRef[Any]] = [Scholar.start(crew.db) for _ in _NAMES]
    observer: pykka.ActorRef[Any] = Observer.start()
    try:
        crew.db.ask(Subscribe(observer))
        pings, answers = _watch(crew, scholars)
        _death(crew, observer)
    finally:
        for actor in (*scholars, observer):
            actor.stop(block=True)
    crew.count(answers, f"answers by message, {pings:,} pings", "reply.pipe_to(actor_ref)")
    crew.rest(0.8)


def _watch(crew: DemoCrew, scholars: "list[pykka.ActorRef[Any]]") -> tuple[int, int]:
    """Show the scholars until each of them has its answer; return all pings and answers."""
    for scholar, search in zip(scholars, _SEARCHES, strict=True):
        crew.name(search.sql, search.title)
        crew.db.ask(Query("SELECT gauge(?, 0)", (search.slot,)))
        scholar.tell(Look(search))
    while True:
        states: list[Any] = [scholar.ask(Ping()) for scholar in scholars]
        rows = [_row(crew, *each) for each in zip(_NAMES, _SEARCHES, states, strict=True)]
        answers = sum(len(found) for _, found in states)
        if answers == len(scholars):
            crew.stage.keep(rows)
            for row in rows:
                crew.stage.note(f"{row.label}: {row.text}")
            return sum(pings for pings, _ in states), answers
        crew.stage.draw([*rows, *worker_rows(crew, crew.status())])
        crew.tick(0.02)


def _row(crew: DemoCrew, name: str, search: Search, state: tuple[int, tuple[Found, ...]]) -> Row:
    pings, found = state
    if found:
        outcome = found[0].outcome
        answer = visible(str(outcome.get().scalar() or "nothing"))
        return Row(name, f"Found {answer}", 1.0, "good")
    part = max(0, crew.gauges.read(search.slot) - 1) / SLICES
    return Row(name, f"{search.title}; {pings} pings answered", part)


def _death(crew: DemoCrew, observer: "pykka.ActorRef[Any]") -> None:
    """Kill an idle worker, and show the events that the observer gets."""
    victim = next((worker for worker in crew.status().workers if worker.state == "idle"), None)
    if victim is None:
        return
    crew.kill(victim)
    began = time.monotonic()
    while time.monotonic() - began < _PATIENCE:
        events: Any = observer.ask("all events")
        lost = [at for at, event in enumerate(events) if isinstance(event, WorkerLost)]
        new = [event for event in events[lost[0] :] if isinstance(event, WorkerUp)] if lost else []
        if new:
            how = "kill -9" if crew.in_children else "A death"
            heard = f"WorkerLost({victim.id}), then WorkerUp({new[0].worker_id})"
            crew.stage.say(f"{how}: an actor hears {heard}.", "good")
            return
        crew.stage.draw(worker_rows(crew, crew.status()))
        crew.tick(0.02)
