"""Event loops of every kind that a program may have, as the tests drive them."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import trio

Work = Callable[[], Awaitable[Any]]

LOOPS: dict[str, Callable[[Work], Any]] = {
    "asyncio": lambda main: asyncio.run(main()),
    "trio": trio.run,
    "anyio on asyncio": partial(anyio.run, backend="asyncio"),
    "anyio on trio": partial(anyio.run, backend="trio"),
}
"""Functions that run a coroutine function on a loop, by the name of the kind of loop."""


async def turn() -> None:
    """Let the loop, of any kind, go on once."""
    await anyio.lowlevel.checkpoint()


async def cancelled_after(loop: str, turns: int, spin: Callable[[], object], work: Work, kept: list[Any]) -> bool:
    """Run `work` in a task, and cancel the task as the loop does, after `turns` and a `spin`.

    The `spin` blocks the loop.

    The end of the task is put into `kept`. Return whether the task was done before the cancel.
    """

    async def run() -> None:
        try:
            await work()
            kept.append("done")
        except BaseException as error:
            kept.append(error)
            raise

    if loop == "asyncio":
        task = asyncio.ensure_future(run())
        await _wait(turns, spin)
        task.cancel()
        await asyncio.wait([task])
        kept.append(task)
    elif loop == "trio":
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await _wait(turns, spin)
            nursery.cancel_scope.cancel()
    else:
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await _wait(turns, spin)
            group.cancel_scope.cancel()
    return "done" in kept


async def _wait(turns: int, spin: Callable[[], object]) -> None:
    for _ in range(turns):
        await turn()
    spin()
