"""The checks of each answer, once nothing moves any more."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from actors.values.errors import (
    Overloaded,
    QueryCancelled,
    QuerycrewError,
    QueryTimeout,
    QueueFull,
    ResultLost,
    WorkerDied,
)
from tests.worlds.fault_plan import Interrupted
from tests.worlds.history import ClientTransaction, Entry

if TYPE_CHECKING:
    from tests.worlds.world import World


def check_answers(world: "World") -> Iterator[str]:
    """Yield a sentence for each wrong answer."""
    for entry in world.history.entries:
        for what in _check(entry, world):
            yield f"request {entry.number} ({entry.request}) {what}"
    for checkout in world.history.checkouts:
        yield from _check_transaction(checkout, world)


def _check(entry: Entry, world: "World") -> Iterator[str]:
    if world.file[entry.number] > 1:
        yield f"took effect {world.file[entry.number]} times"
    reply = entry.reply
    if reply is None or entry.cut_off or entry.in_checkout:
        return
    if not reply.done():
        if not (entry.told and world.kills):  # the thread that was about to refuse it was killed; no caller waits
            yield f"was never answered (it was begun {len(entry.starts)} times)"
        return
    if getattr(reply, "accepted", 1) > 1:
        yield f"was answered {reply.accepted} times"
    if not entry.own_answer:
        yield from _check_outcome(entry, reply.exception(0), world)
    given, called = entry.calls
    # A kill may hit as a callback is taken from the list, or at the first step of the callback. A
    # callback is never called twice.
    if called > given or (called < given and not world.kills):
        yield f"has {given} callbacks, of which {called} were called"
    given, woken = entry.wakers
    if woken < given:
        yield f"was answered, and left {given - woken} of {given} waiters asleep"


def _check_outcome(entry: Entry, error: Any, world: "World") -> Iterator[str]:
    yield from _check_reason(entry, error, world)
    effects = world.file[entry.number]
    if error is None:
        value = entry.reply.get()
        if isinstance(value, list):
            (value,) = value
        if value.scalar() != entry.number:
            yield f"got the answer of another: {value!r}"
        if not entry.was_begun:
            yield "was answered and never ran"
        if entry.writes and not effects:
            yield "was answered and is not in the file"
        return
    executed = getattr(error, "executed", False)
    if executed is False and effects:
        yield f"took effect, and its error says that it did not: {error!r}"
    if executed and entry.writes and not effects:
        yield f"took no effect, and its error says that it did: {error!r}"
    if isinstance(error, WorkerDied) and not entry.was_begun and not world.kills:
        yield f"never ran, and nobody was killed, but: {error!r}"


def _check_reason(entry: Entry, error: Any, world: "World") -> Iterator[str]:
    """Say whether it ended as it did for a reason."""
    has_deadline = entry.job is not None and entry.job.deadline is not None
    if isinstance(error, QueryCancelled) and not entry.cancelling:
        yield "was cancelled by nobody"
    if entry.cancelled and not isinstance(error, QueryCancelled) and not world.kills:
        yield f"was cancelled, and ended with {error!r}"
    if isinstance(error, QueryTimeout) and not has_deadline:
        yield "timed out without a deadline"
    if isinstance(error, QueryTimeout) and has_deadline and entry.job.deadline > world.stage.now:  # type: ignore[union-attr,operator]
        yield "timed out before its deadline"
    if isinstance(error, (Interrupted, InterruptedError)) and not (
        entry.cancelling or has_deadline or world.history.forced
    ):
        yield "was interrupted for no reason"
    if type(error) is QueueFull and world.max_queue is None:
        yield "was refused, since the queue is full, which has no limit"
    if isinstance(error, Overloaded) and world.shed_after is None:
        yield "was shed, where nothing is shed"
    if isinstance(error, ResultLost):
        yield f"lost its result: {error!r}"
    if not isinstance(error, (QuerycrewError, Interrupted, InterruptedError, type(None))) and not entry.failed:
        yield f"ended with an error of no part of the world: {error!r}"


def _check_transaction(checkout: ClientTransaction, world: "World") -> Iterator[str]:
    effects = {number: world.file[number] for number in checkout.numbers}
    if checkout.is_committed and not all(effects.values()):
        yield f"a transaction was committed, and is not in the file: {effects}"
    if checkout.is_committed is False and any(effects.values()):
        yield f"a transaction was not committed, and is in the file: {effects}"
    if len(set(effects.values())) > 1:
        yield f"a transaction took effect in part: {effects}"
