"""Ways to ask many queries with a fixed number of them outstanding at any time.

Each way takes functions of a peer and runs `count` point queries to their end. `submit(number)`
submits the query with this number, `collect(reply)` waits for its answer, and `await ask(number)`
does both.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import count as counter
from typing import Any

__all__ = [
    "OUTSTANDING",
    "awaiting",
    "awaiting_batches",
    "awaiting_window",
    "batches",
    "callbacks",
    "threads",
    "window",
]

OUTSTANDING = 64

Submit = Callable[[int], Any]
Collect = Callable[[Any], object]
AsyncAsk = Callable[[int], Awaitable[object]]


def batches(submit: Submit, collect: Collect, count: int, outstanding: int = OUTSTANDING) -> None:
    """Submit 64, collect 64, and again. `count` is a multiple of `outstanding`."""
    for start in range(0, count, outstanding):
        replies = [submit(number) for number in range(start, start + outstanding)]
        for reply in replies:
            collect(reply)


def window(submit: Submit, collect: Collect, count: int, outstanding: int = OUTSTANDING) -> None:
    """Wait for the oldest of 64, then submit one more."""
    replies: deque[Any] = deque()
    for number in range(count):
        if len(replies) == outstanding:
            collect(replies.popleft())
        replies.append(submit(number))
    for reply in replies:
        collect(reply)


def callbacks(submit: Submit, count: int, outstanding: int = OUTSTANDING) -> None:
    """Run 64 chains: each answer submits the next query, on the thread that gives the answer."""
    left = iter(range(count))
    done = counter(1)
    finished = threading.Event()

    def go_on(_: object = None) -> None:
        number = next(left, None)
        if number is not None:
            submit(number).add_done_callback(answered)

    def answered(_: object) -> None:
        if next(done) == count:
            finished.set()
        go_on()

    for _ in range(outstanding):
        go_on()
    finished.wait()


def threads(ask: Callable[[int], object], count: int, outstanding: int = OUTSTANDING) -> None:
    """Run 64 threads, each of which asks, waits and asks again."""

    def client(first: int) -> None:
        for number in range(first, count, outstanding):
            ask(number)

    clients = [threading.Thread(target=client, args=(first,)) for first in range(outstanding)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()


async def awaiting_batches(ask: AsyncAsk, count: int, outstanding: int = OUTSTANDING) -> None:
    """Do as `batches` does, on an event loop."""
    for start in range(0, count, outstanding):
        await asyncio.gather(*[ask(number) for number in range(start, start + outstanding)])


async def awaiting_window(ask: AsyncAsk, count: int, outstanding: int = OUTSTANDING) -> None:
    """Do as `window` does, on an event loop."""
    tasks: deque[asyncio.Future[object]] = deque()
    for number in range(count):
        if len(tasks) == outstanding:
            await tasks.popleft()
        tasks.append(asyncio.ensure_future(ask(number)))
    for task in tasks:
        await task


async def awaiting(ask: AsyncAsk, count: int, outstanding: int = OUTSTANDING) -> None:
    """Run 64 coroutines, each of which awaits an answer and asks again."""

    async def client(first: int) -> None:
        for number in range(first, count, outstanding):
            await ask(number)

    await asyncio.gather(*[client(first) for first in range(outstanding)])
