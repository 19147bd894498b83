"""The event loop's tick: its lateness while 64 coroutines await answers."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import apsw

from benchmarks.data import POINT, ROWS, create, key
from benchmarks.figures import TIMES, Figure, at_most
from benchmarks.machine import cpus
from benchmarks.peers import Crew, Executor
from benchmarks.rounds import Effort, ratio
from benchmarks.ways import OUTSTANDING
from supervisor import Query

__all__ = ["run"]

_TICK = 0.001  # seconds
_ROWS = 1000
_MANY = f"SELECT id, name, age FROM users WHERE id >= ? ORDER BY id LIMIT {_ROWS}"

Ask = Callable[[str, int], Awaitable[object]]


class Seen(NamedTuple):
    """One run: the lateness of the loop's ticks, in milliseconds, and the queries a second."""

    p50: float
    p99: float
    rate: float

    def __str__(self) -> str:
        return f"{self.p99:.1f} ms, p50 {self.p50:.1f} ms, at {self.rate / 1000:.1f} thousand/s"


class _Ticker:
    """Asks to be called each millisecond, and notes how late that was.

    Ticks that pass while the loop is busy count as well, each from its own time. So one long
    stop is many late ticks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.late: list[float] = []
        self._loop = loop
        self._due = loop.time() + _TICK
        loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        while self._due <= now:
            self.late.append(now - self._due)
            self._due += _TICK
        self._loop.call_at(self._due, self._tick)


def run(effort: Effort) -> Iterator[Figure]:
    """Compare the loop's lateness under a saturated crew and under a saturated executor."""
    seconds = 0.4
    rounds = effort.pick(quick=3, full=13)
    with TemporaryDirectory() as folder:
        path = create(Path(folder) / "ticks.db")
        for text, sql in (("point queries", POINT), (f"queries of {_ROWS:,} rows", _MANY)):
            yield _compared(text, sql, path, seconds, rounds)


def _compared(text: str, sql: str, path: str, seconds: float, rounds: int) -> Figure:
    crew, executor = Crew(path, cpus()), Executor(cpus(), partial(apsw.Connection, path))
    asks: dict[str, Ask] = {"crew": partial(_ask_crew, crew), "executor": partial(_ask_executor, executor)}
    seen: dict[str, list[Seen]] = {name: [] for name in asks}
    idle: list[Seen] = []
    for ask in asks.values():
        asyncio.run(_ticking(seconds / 4, [partial(ask, sql)] * OUTSTANDING))  # warm
    for turn in range(rounds):
        for name in list(asks) if turn % 2 == 0 else reversed(list(asks)):
            gc.collect()
            seen[name].append(asyncio.run(_ticking(seconds, [partial(asks[name], sql)] * OUTSTANDING)))
        idle.append(asyncio.run(_ticking(seconds / 4, [])))
    crew.close()
    executor.close()
    times = ratio([run.p99 for run in seen["crew"]], [run.p99 for run in seen["executor"]])
    ours, theirs = (Seen(*map(median, zip(*seen[name], strict=True))) for name in asks)
    still = median(run.p99 for run in idle)
    return Figure(
        f"p99 lateness of a loop's 1 ms tick, 64 await {text}: executor on APSW",
        f"{times:.2f} {TIMES} ({ours} against {theirs}; with nothing to do {still:.1f} ms)",
        times,
        at_most(1.0, TIMES),
    )


async def _ask_crew(crew: Crew, sql: str, number: int) -> list[Any]:
    return (await crew.ref.ask(Query(sql, _params(number)), block=False)).rows


async def _ask_executor(executor: Executor, sql: str, number: int) -> list[Any]:
    return await asyncio.get_running_loop().run_in_executor(executor.pool, executor.run, sql, _params(number))


def _params(number: int) -> tuple[int]:
    return (key(number) % (ROWS - _ROWS),)  # enough rows come after it


async def _ticking(seconds: float, clients: list[Callable[[int], Awaitable[object]]]) -> Seen:
    """Let each client ask again and again for `seconds`, on a loop that ticks."""
    loop = asyncio.get_running_loop()
    ticker = _Ticker(loop)
    end = loop.time() + seconds
    asked = 0

    async def client(ask: Callable[[int], Awaitable[object]]) -> None:
        nonlocal asked
        while loop.time() < end:
            asked += 1
            await ask(asked)

    await asyncio.gather(asyncio.sleep(seconds), *[client(ask) for ask in clients])
    late = sorted(ticker.late)
    return Seen(late[len(late) // 2] * 1000, late[len(late) * 99 // 100] * 1000, asked / seconds)
