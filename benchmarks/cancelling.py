"""Cancelling: whether it costs the same however many jobs wait."""

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
    """Leave them as they were asked."""
    del replies


def _shuffle(replies: list[Any]) -> None:
    random.Random(len(replies)).shuffle(replies)


_ORDERS: dict[str, Arrange] = {"the oldest first": _leave, "the newest first": list.reverse, "at random": _shuffle}


def run(effort: Effort) -> Iterator[Figure]:
    """Compare the cost of a cancel in queues of several depths."""
    rounds = effort.pick(quick=1, full=5)
    _crew(_DEPTHS[0], _leave)  # warm
    for order, arrange in _ORDERS.items():
        yield _figure(f"{order}, as Python comes", _measured(_crew, arrange, rounds), wanted=True)
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
        f"cost of a cancel by depth of the queue, {text}: dearest to cheapest",
        f"{flat:.2f} {TIMES} (µs; {parts})",
        flat,
        at_most(1.5, TIMES) if wanted else None,
    )


def _crew(depth: int, arrange: Arrange) -> float:
    """Queue so many jobs behind a worker that is held busy; return the microseconds that it takes to cancel one."""
    with blocked_crew(1) as (ref, let_go):
        replies = [ref.ask(Query("SELECT 1", (number,)), block=False) for number in range(depth)]
        cost = _cancelled(replies, arrange)
        let_go()
    return cost


def _executor(depth: int, arrange: Arrange) -> float:
    """Do the same with an executor, which leaves in its queue what was cancelled."""
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
