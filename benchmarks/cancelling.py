"""Cancelling: does a cancel cost the same with few and with many waiting jobs?"""

import gc
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from benchmarks.cheap import blocked_crew
from benchmarks.figures import TIMES, Figure, at_most
from benchmarks.rounds import Effort, spread
from supervisor import Query

__all__ = ["run"]

_DEPTHS = (1_000, 10_000, 100_000)
_AT_LEAST = 10_000  # jobs a measurement: shallow queues are filled and cancelled several times

Arrange = Callable[[list[Any]], None]


def _leave(replies: list[Any]) -> None:
    """Keep the order in which the jobs were asked."""
    del replies


def _shuffle(replies: list[Any]) -> None:
    random.Random(len(replies)).shuffle(replies)


_ORDERS: dict[str, Arrange] = {"the oldest first": _leave, "the newest first": list.reverse, "at random": _shuffle}


def run(effort: Effort) -> Iterator[Figure]:
    """Compare the cost of a cancel in queues of several depths."""
    rounds = effort.pick(quick=1, full=5)
    _crew(_DEPTHS[0], _leave)  # warm
    for order, arrange in _ORDERS.items():
        yield _figure(f"{order}, with the cycle collector", _measured(_crew, arrange, rounds), wanted=True)
    gc.disable()
    try:
        for order, arrange in _ORDERS.items():
            costs = _measured(_crew, arrange, rounds)
            yield _figure(f"{order}, without the cycle collector", costs, wanted=True)
    finally:
        gc.enable()
    yield _figure(
        "at random, executor's futures", _measured(_executor, _shuffle, effort.pick(quick=1, full=3)), wanted=False
    )


def _measured(cancel: Callable[[int, Arrange], float], arrange: Arrange, rounds: int) -> dict[int, list[float]]:
    """Return the costs by depth; in each round every depth has its turn."""
    costs: dict[int, list[float]] = {depth: [] for depth in _DEPTHS}
    for turn in range(rounds):
        for depth in _DEPTHS if turn % 2 == 0 else reversed(_DEPTHS):
            repeats = max(1, _AT_LEAST // depth)
            costs[depth].append(sum(cancel(depth, arrange) for _ in range(repeats)) / repeats)
    return costs


def _figure(text: str, costs: dict[int, list[float]], *, wanted: bool) -> Figure:
    flat = spread(costs)
    parts = ", ".join(f"{depth:,}: {median(seen):.1f}" for depth, seen in costs.items())
    return Figure(
        f"cost of a cancel by depth of the queue, {text}: highest to lowest",
        f"{flat:.2f} {TIMES} (µs; {parts})",
        flat,
        at_most(1.5, TIMES) if wanted else None,
    )


def _crew(depth: int, arrange: Arrange) -> float:
    """Queue jobs behind a busy worker; return the microseconds that the cancel of one takes."""
    with blocked_crew(1) as (ref, release):
        replies = [ref.ask(Query("SELECT 1", (number,)), block=False) for number in range(depth)]
        cost = _cancelled(replies, arrange)
        release()
    return cost


def _executor(depth: int, arrange: Arrange) -> float:
    """Do the same with an executor, whose cancelled futures stay in its queue."""
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(gate.wait)
        cost = _cancelled([pool.submit(int, number) for number in range(depth)], arrange)
        gate.set()
    return cost


def _cancelled(replies: list[Any], arrange: Arrange) -> float:
    arrange(replies)
    gc.collect()
    start = time.perf_counter()
    cancelled = [reply.cancel() for reply in replies]
    seconds = time.perf_counter() - start
    assert all(cancelled)
    return seconds / len(replies) * 1e6
