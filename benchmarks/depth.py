"""The queue: the cost of a job with few and with many jobs before it, and its memory."""

import gc
import time
import tracemalloc
from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from benchmarks.cheap import blocked_crew
from benchmarks.figures import TIMES, Figure, Wanted, at_most
from benchmarks.rounds import Effort, spread
from supervisor import Query

__all__ = ["memory", "run"]

_AT_LEAST = 20_000  # jobs a measurement: shallow queues are filled and emptied several times


class Cost(NamedTuple):
    """Microseconds a job."""

    submit: float
    drain: float

    @property
    def both(self) -> float:
        return self.submit + self.drain


def run(effort: Effort) -> Iterator[Figure]:
    """Compare the cost per job of queues of several depths."""
    depths = [1_000, 10_000, 100_000] + [1_000_000] * effort.pick(quick=0, full=1)
    rounds = effort.pick(quick=3, full=5)
    _drained(depths[0])
    yield _figure("with the cycle collector", _measured(depths, rounds), at_most(1.5, TIMES))
    gc.disable()
    try:
        yield _figure("without the cycle collector", _measured(depths, rounds), at_most(1.2, TIMES))
    finally:
        gc.enable()


def memory(effort: Effort) -> Iterator[Figure]:
    """Measure the memory of a queued job, without its SQL and its parameters."""
    jobs = effort.pick(quick=20_000, full=100_000)
    parameters = [(number,) for number in range(jobs)]
    with blocked_crew(1) as (ref, release):
        replies = [None] * jobs
        gc.collect()
        tracemalloc.start()
        before, _peak = tracemalloc.get_traced_memory()
        for number, values in enumerate(parameters):
            replies[number] = ref.ask(Query("SELECT 1", values), block=False)
        after, _peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        release()
    each = (after - before) / jobs
    yield Figure("memory of a queued job: query, reply and job", f"{each:.0f} bytes", each, at_most(600, "bytes"))


def _measured(depths: list[int], rounds: int) -> dict[int, list[Cost]]:
    """Return the costs by depth; in each round every depth has its turn."""
    costs: dict[int, list[Cost]] = {depth: [] for depth in depths}
    for turn in range(rounds):
        for depth in depths if turn % 2 == 0 else reversed(depths):
            repeats = max(1, _AT_LEAST // depth)
            runs = [_drained(depth) for _ in range(repeats)]
            costs[depth].append(Cost(*(sum(parts) / repeats for parts in zip(*runs, strict=True))))
    return costs


def _drained(depth: int) -> Cost:
    """Queue jobs behind a blocked worker, then release the worker."""
    with blocked_crew(1) as (ref, release):
        gc.collect()
        start = time.perf_counter()
        replies = [ref.ask(Query("SELECT 1", (number,)), block=False) for number in range(depth)]
        queued = time.perf_counter()
        release()
        replies[-1].get()  # first in, first out: this job is the last
        end = time.perf_counter()
    return Cost((queued - start) / depth * 1e6, (end - queued) / depth * 1e6)


def _figure(text: str, costs: dict[int, list[Cost]], wanted: Wanted) -> Figure:
    flat = spread({depth: [cost.both for cost in seen] for depth, seen in costs.items()})
    middle = {depth: Cost(*map(median, zip(*seen, strict=True))) for depth, seen in costs.items()}
    parts = ", ".join(f"{depth:,}: {cost.submit:.1f} + {cost.drain:.1f}" for depth, cost in middle.items())
    return Figure(
        f"cost of a job by depth of the queue, {text}: highest to lowest",
        f"{flat:.2f} {TIMES} (µs to queue + to run; {parts})",
        flat,
        wanted,
    )
