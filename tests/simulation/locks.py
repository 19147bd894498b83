"""Locks that a kill has left held: in a real crew, everybody who needs one of them then waits for ever."""

import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pykka

from actors.actor import CrewActor

if TYPE_CHECKING:
    from tests.simulation.world import World


def release_left_locks(world: "World", victim: Any) -> None:
    """Blame what is held though nobody runs, and release it, so that the world can go on."""
    actors = [life.actor for life in world.lives]
    if hasattr(victim, "actor") and victim.actor not in actors:
        actors.append(victim.actor)
    for name, lock in [*_common_locks(world), *(lock for actor in actors for lock in _locks(actor))]:
        if lock._is_owned() if hasattr(lock, "_is_owned") else lock.locked():
            lock.release()
            world.blame(f"a kill left the lock of {name} held")


def _common_locks(world: "World") -> Iterator[tuple[str, Any]]:
    yield "the dispatcher", world.dispatcher._lock
    yield "Pykka's registry", pykka.ActorRegistry._actor_refs_lock
    yield "logging", logging._lock  # type: ignore[attr-defined]
    yield from _event_lock("the end of the crew", world.ref._ended)
    for entry in world.ledger.entries:
        if entry.reply is not None:
            yield "a reply", entry.reply._lock


def _locks(actor: CrewActor) -> Iterator[tuple[str, Any]]:
    yield "a mailbox", actor.actor_inbox._lock
    yield from _event_lock("actor_stopped", actor.actor_stopped)
    for envelope in actor.actor_inbox._unanswered:
        condition = getattr(envelope.reply_to, "_condition", None)
        if condition is not None:
            yield "one of Pykka's futures", condition._lock


def _event_lock(name: str, event: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(event, threading.Event):
        yield name, event._cond._lock  # type: ignore[attr-defined]
