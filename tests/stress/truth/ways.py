"""Ways to interrupt a write at a moment.

Deadlines, cancels, tasks of an event loop, the end of the crew.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import pykka

from supervisor import QueryCancelled, QueryTimeout, SupervisorRef, SupervisorStopped
from tests.stress.truth.asking import Pending, Waiter, ask, ask_and_wait
from tests.stress.truth.law import Told
from tests.stress.truth.moments import SLOT, spin_until, wait_for_slot
from tests.stress.truth.write import Asked, Order, Session

__all__ = ["BESIDE", "BY_CREW", "BY_MEMORY", "BY_SHUTDOWN", "UNHURT", "WAYS", "Victim", "Way"]


@dataclass
class Victim:
    """The write that is interrupted, and its circumstances."""

    db: SupervisorRef
    make: Callable[[Order], Asked]
    order: Order
    delay: float
    """Seconds from the ask to the interrupt."""
    ask_others: Callable[[], object]
    """Asks for the neighbours that come behind it."""
    chance: Random
    runner: asyncio.Runner
    crew_timeout: float = 0.0

    def asked(self, timeout: float | None = None) -> Asked:
        return self.make(replace(self.order, timeout=timeout))


@dataclass(frozen=True)
class Way:
    """A way to interrupt a write."""

    name: str
    interrupt: Callable[[Victim], Told]
    """Asks for the write, interrupts it, and returns the outcome."""
    errors: tuple[type[BaseException], ...]
    """The errors that its caller may get."""
    spares_others: bool = True
    """Whether the neighbours are answered."""
    is_swept: bool = True
    """Whether it has a moment, which depends on the length of the write."""
    waits: bool = False
    """Whether the caller's thread waits, so that all neighbours must be submitted first."""


# --- deadlines ----------------------------------------------------------------------------


def _short_timeout(victim: Victim) -> float:
    """Return a timeout that ends before the interrupt, and in its slot."""
    return max(victim.delay * victim.chance.uniform(0.2, 0.95), victim.delay - 0.95 * SLOT)


def _ask_in_time(victim: Victim, asked: Asked, delay: float, timeout: float | None = None) -> Pending:
    """Ask for the write at the moment that makes its deadline end after `delay`.

    Ask for its neighbours.
    """
    wait_for_slot(delay)
    pending = ask(victim.db, asked, timeout)
    victim.ask_others()
    return pending


def _by_timeout(victim: Victim) -> Told:
    return _ask_in_time(victim, victim.asked(_short_timeout(victim)), victim.delay).told()


def _by_deadline_of_ask(victim: Victim) -> Told:
    asked = victim.asked()
    if isinstance(asked, Session):
        return _by_timeout(victim)
    return _ask_in_time(victim, asked, victim.delay, _short_timeout(victim)).told()


def _by_crew(victim: Victim) -> Told:
    limit = victim.crew_timeout
    return _ask_in_time(victim, victim.asked(), min(max(victim.delay, 1.05 * limit), limit + 0.95 * SLOT)).told()


def _by_ask(victim: Victim) -> Told:
    victim.ask_others()
    asked = victim.asked()
    if isinstance(asked, Session):
        return _by_timeout(victim)
    return ask_and_wait(victim.db, asked, victim.delay)


# --- cancels ------------------------------------------------------------------------------


def _begun(victim: Victim) -> tuple[Pending, float]:
    """Ask for the write and its neighbours; return it with the moment of the interrupt."""
    asked = victim.asked()
    at = time.perf_counter() + victim.delay
    pending = ask(victim.db, asked)
    victim.ask_others()
    return pending, at


def _by_cancel(victim: Victim) -> Told:
    pending, at = _begun(victim)
    spin_until(at)
    pending.cancel()
    return pending.told()


def _by_timeout_and_cancel(victim: Victim) -> Told:
    pending = _ask_in_time(victim, victim.asked(_short_timeout(victim)), victim.delay)
    spin_until(time.perf_counter() + victim.delay + victim.chance.gauss(0, 2e-4))
    pending.cancel()
    return pending.told()


def _by_future(victim: Victim) -> Told:
    if isinstance(asked := victim.asked(), Session):
        return _by_cancel(victim)
    pending = ask(victim.db, asked)
    future, at = pending.reply.as_future(), time.perf_counter() + victim.delay
    victim.ask_others()
    spin_until(at)
    future.cancel()
    return pending.told()


def _by_shutdown(victim: Victim) -> Told:
    pending, _ = _begun(victim)
    victim.db.shutdown(cancel_pending=victim.chance.random() < 0.5, timeout=victim.delay)
    return pending.told()


# --- tasks --------------------------------------------------------------------------------


async def _turn_until(at: float, task: "asyncio.Task[object]") -> None:
    """Let the event loop run on, without a rest, until a moment or the end of a task."""
    while time.perf_counter() < at and not task.done():  # noqa: ASYNC110  # the timer of a loop that rests is late
        await asyncio.sleep(0)


async def _cancelled_task(victim: Victim) -> Told:
    asked = victim.asked()
    at = time.perf_counter() + victim.delay
    waiter = Waiter(victim.db, asked)
    victim.ask_others()
    task = asyncio.ensure_future(waiter.wait())
    await _turn_until(at, task)
    task.cancel()
    return await _outcome(waiter, task)


async def _limited_task(victim: Victim) -> Told:
    asked = victim.asked()
    until = asyncio.get_running_loop().time() + victim.delay
    waiter = Waiter(victim.db, asked)
    victim.ask_others()

    async def wait() -> object:
        async with asyncio.timeout_at(until):
            return await waiter.wait()

    task = asyncio.ensure_future(wait())
    await _turn_until(float("inf"), task)
    return await _outcome(waiter, task)


async def _outcome(waiter: Waiter, task: "asyncio.Task[object]") -> Told:
    [result] = await asyncio.gather(task, return_exceptions=True)
    if isinstance(result, BaseException):
        return waiter.told(None, result)
    return waiter.told(result, None)


_CANCELLED = (QueryCancelled,)
_TASK = (QueryCancelled, asyncio.CancelledError)
_LATE = (QueryTimeout,)

WAYS = [
    Way("timeout of the request", _by_timeout, _LATE),
    Way("ask(block=False, timeout=)", _by_deadline_of_ask, _LATE),
    Way("ask(timeout=)", _by_ask, (*_LATE, pykka.Timeout), waits=True),
    Way("cancel of the reply", _by_cancel, _CANCELLED),
    Way("timeout and cancel", _by_timeout_and_cancel, (*_LATE, *_CANCELLED)),
    Way("cancel of its future", _by_future, _CANCELLED),
    Way("cancel of a task", lambda victim: victim.runner.run(_cancelled_task(victim)), _TASK),
    Way("asyncio.timeout", lambda victim: victim.runner.run(_limited_task(victim)), (*_TASK, TimeoutError)),
]
"""The ways of which a crew bears any number."""
BY_CREW = Way("timeout of the crew", _by_crew, _LATE)
"""For a crew that was started with a `timeout`."""
BY_SHUTDOWN = Way("shutdown(timeout=)", _by_shutdown, (SupervisorStopped,), spares_others=False)
"""The last one of a crew."""


def _not_at_all(victim: Victim) -> Told:
    victim.ask_others()
    return ask_and_wait(victim.db, victim.asked(60.0))


UNHURT = Way("none", _not_at_all, (), is_swept=False, waits=True)
"""No interrupt: for the length of the write, and its answer."""
BESIDE = Way("none, beside an interrupted one", _not_at_all, (), is_swept=False)
"""No interrupt, but that of a neighbour."""
BY_MEMORY = Way("too little memory", _not_at_all, (), is_swept=False, waits=True)
"""No interrupt but the answer's size."""
