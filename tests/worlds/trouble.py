"""The trouble that clients make: for workers, for their own replies, and for the crew."""

from typing import TYPE_CHECKING

import pykka

from actors.values.requests import Subscribe, Unsubscribe
from tests.worlds.crew import WorldWorker

if TYPE_CHECKING:
    from tests.worlds.clients import Client
    from tests.worlds.world import World


def _trouble_a_worker(client: "Client") -> None:
    world = client.world
    workers = [ref for ref in pykka.ActorRegistry.get_all() if issubclass(ref.actor_class, WorldWorker)]
    if not workers:
        return
    ref = world.random.choice(workers)
    world.say("troubles a worker")
    match world.random.randrange(3):
        case 0:
            world.history.asked_to_stop.append(ref.stop(block=False))
        case 1:
            world.history.asked_to_stop.append(ref.ask("no request of a crew", block=False))
        case 2:
            ref.tell("never mind")


def _answer_myself(client: "Client") -> None:
    if not client.mine:
        return
    entry = client.world.random.choice(client.mine)
    client.world.say(f"answers {entry.number} itself")
    try:
        if entry.reply.settle("my own"):
            entry.own_answer = True
    except KeyboardInterrupt:
        entry.own_answer = True  # or not; who knows
        raise


def _subscribe(client: "Client") -> None:
    world = client.world
    message = world.random.choice((Subscribe, Subscribe, Unsubscribe))(world.fickle)
    world.fickle.ended |= world.chance() < 0.2
    world.say(f"sends {message}")
    world.history.asked_to_stop.append(world.ref.ask(message, block=False))


def _wait_until_up(client: "Client") -> None:
    client.world.history.asked_to_stop.append(client.world.ref.wait(block=False))


def _kill_a_child(client: "Client") -> None:
    client.world.kill_a_child()


def end(world: "World") -> None:
    """Stop the crew, one way or other."""
    match world.random.randrange(4):
        case 0 | 1:
            world.say("stops the crew")
            world.history.asked_to_stop.append(world.ref.stop(block=False))
        case 2:
            cancel, timeout = world.chance() < 0.5, world.random.choice((None, 0, 0.05, 1.0))
            world.say(f"shuts the crew down, {cancel=}, {timeout=}")
            world.history.forced |= timeout is not None
            world.ref.shutdown(wait=False, cancel_pending=cancel, timeout=timeout)
        case 3:
            world.say("stops all actors")
            for ref in reversed(pykka.ActorRegistry.get_all()):
                if ref.actor_class.__name__.startswith("World"):
                    world.history.asked_to_stop.append(ref.stop(block=False))


KINDS = (_trouble_a_worker, _trouble_a_worker, _answer_myself, _subscribe, _wait_until_up, _kill_a_child)
"""Trouble of a client, but for the end of the crew."""
