"""Listener: another actor, as the crew sees it, that has subscribed."""

from collections.abc import Iterator
from typing import Any

import pykka

from actors.values.events import Event, Resumed, Suspended, WorkerLost, WorkerUp


class Listener(pykka.ActorRef[Any]):
    """Keeps each message. It has no thread, so a message to it costs a world nothing."""

    def __init__(self, name: str) -> None:
        self.actor_urn = name
        self.heard: list[Event] = []
        self.ended = False

    def __repr__(self) -> str:
        return self.actor_urn

    def tell(self, message: Event) -> None:
        if self.ended:
            raise pykka.ActorDeadError(self.actor_urn)
        self.heard.append(message)

    def up(self) -> set[int]:
        """Return the workers that are up, according to the messages."""
        up: set[int] = set()
        for event in self.heard:
            if isinstance(event, WorkerUp):
                up.add(event.worker_id)
            elif isinstance(event, WorkerLost):
                up.discard(event.worker_id)
        return up

    def check(self) -> Iterator[str]:
        """Yield each impossible message, for a listener that heard everything from the start."""
        up: set[int] = set()
        suspended: set[str | None] = set()
        for event in self.heard:
            match event:
                case WorkerUp(_, worker_id):
                    if worker_id in up:
                        yield f"worker {worker_id} came up twice"
                    up.add(worker_id)
                case WorkerLost(_, worker_id, _):
                    if worker_id not in up:
                        yield f"worker {worker_id} was lost, and was not up"
                    up.discard(worker_id)
                case Suspended() | Resumed():
                    if (event.role in suspended) is isinstance(event, Suspended):
                        yield f"twice in a row: {event}"
                    suspended ^= {event.role}
