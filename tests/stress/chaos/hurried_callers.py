"""Callers that do not wait for ever.

With deadlines, with cancels, on an event loop with time limits.
"""

import asyncio
import time
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

from actors.values.errors import QueryCancelled, QueryTimeout

if TYPE_CHECKING:
    from supervisor import Reply, SupervisorRef
    from tests.stress.chaos.callers import Tally

_WINDOW = 16
_TIMEOUTS = (0.0, 0.001, 0.01, 0.03, 5.0)
_LASTING = 0.05  # of the statements, last so long that deadlines and cancels meet them while they run
_DEAF = 0.004  # of the statements, ignore their interrupt


def some_request(tally: "Tally", number: int, chance: Random, timeout: float | None = None) -> Any:
    kind = chance.random()
    if kind < _DEAF:
        return tally.database.deaf(number, timeout)
    if kind < _LASTING:
        return tally.database.lasting(number, timeout)
    return tally.database.request(number, timeout)


def with_deadlines(ref: "SupervisorRef", tally: "Tally") -> None:
    chance = Random(tally.numbers.start)
    for window in tally.windows(ref, _WINDOW):
        replies = []
        for number in window:
            timeout = chance.choice(_TIMEOUTS)
            reply = ref.ask(some_request(tally, number, chance, timeout), block=False)
            _measure(tally, reply, time.monotonic() + timeout)
            replies.append((number, reply))
        for number, reply in replies:
            tally.wait_for(number, reply, QueryTimeout)


def _measure(tally: "Tally", reply: "Reply[Any]", deadline: float) -> None:
    reply.add_done_callback(lambda _: tally.lateness.append(time.monotonic() - deadline))


def with_second_thoughts(ref: "SupervisorRef", tally: "Tally") -> None:
    """Cancel half of all jobs.

    Some before their start, some while they run, some when they are done.
    """
    chance = Random(tally.numbers.start)
    for window in tally.windows(ref, _WINDOW):
        replies = [(number, ref.ask(some_request(tally, number, chance), block=False)) for number in window]
        if chance.random() < 0.5:
            with suppress(Exception):
                replies[0][1].get(timeout=tally.patience)
        for number, reply in replies if chance.random() < 0.5 else reversed(replies):
            if number % 2 and reply.cancel():
                tally.cancelled.add(number)
        for number, reply in replies:
            tally.wait_for(number, reply, *((QueryCancelled,) if number in tally.cancelled else ()))


def on_a_loop_with_time_limits(ref: "SupervisorRef", tally: "Tally") -> None:
    asyncio.run(_on_a_loop_with_time_limits(ref, tally))


async def _on_a_loop_with_time_limits(ref: "SupervisorRef", tally: "Tally") -> None:
    chance = Random(tally.numbers.start)

    async def ask(number: int) -> None:
        reply = ref.ask(some_request(tally, number, chance), block=False)
        try:
            async with asyncio.timeout(chance.choice((0.001, 0.01, 5.0))):
                await reply
        except TimeoutError:
            tally.given_up.append((number, reply))
        except Exception as error:
            tally.note_error(number, error)
        else:
            tally.note_result(number, reply.get())

    for window in tally.windows(ref, _WINDOW):
        await asyncio.gather(*(ask(number) for number in window))
        # A caller that gave up has cancelled the job. The reply is settled in any case.
        while tally.given_up:
            number, reply = tally.given_up.pop()
            try:
                await asyncio.wait_for(asyncio.wrap_future(reply.as_future()), tally.patience)
            except TimeoutError:
                tally.unanswered += 1
            except (Exception, asyncio.CancelledError):
                tally.note_error(number, reply.exception(0), QueryCancelled)
            else:
                tally.note_result(number, reply.get())
