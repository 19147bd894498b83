"""The crew's size: does a job cost the same with 1 worker and with 64?"""

import gc
import time
from collections.abc import Iterator
from statistics import median

from benchmarks.cheap import CheapDatabase, blocked_crew
from benchmarks.figures import TIMES, Figure, at_most
from benchmarks.rounds import Effort, spread
from benchmarks.ways import batches
from supervisor import Query, Supervisor

__all__ = ["run"]

_SIZES = (1, 2, 4, 8, 16, 32, 64)


def run(effort: Effort) -> Iterator[Figure]:
    """Compare the cost per job of crews of several sizes."""
    jobs = 64 * effort.pick(quick=100, full=600)
    rounds = effort.pick(quick=3, full=7)
    for text, measure in (("a full queue", _full_queue), ("64 outstanding", _outstanding)):
        seen: dict[int, list[float]] = {size: [] for size in _SIZES}
        for turn in range(rounds):
            for size in _SIZES if turn % 2 == 0 else reversed(_SIZES):
                seen[size].append(measure(size, jobs))
        flat = spread(seen)
        parts = ", ".join(f"{size}: {median(costs):.1f}" for size, costs in seen.items())
        yield Figure(
            f"cost of a job by workers, {text}: highest to lowest",
            f"{flat:.2f} {TIMES} (µs; {parts})",
            flat,
            at_most(1.3, TIMES),
        )


def _full_queue(size: int, jobs: int) -> float:
    """Return the microseconds for each job of a queue that was full when the workers began."""
    with blocked_crew(size) as (ref, release):
        replies = [ref.ask(Query("SELECT 1", (number,)), block=False) for number in range(jobs)]
        gc.collect()
        start = time.perf_counter()
        release()
        for reply in replies:
            reply.get()
        return (time.perf_counter() - start) / jobs * 1e6


def _outstanding(size: int, jobs: int) -> float:
    """Return the microseconds for each job in batches of 64; the crew is idle in between."""
    with Supervisor.start(CheapDatabase(), size=size) as ref:

        def submit(number: int) -> object:
            return ref.ask(Query("SELECT 1", (number,)), block=False)

        batches(submit, lambda reply: reply.get(), 64 * 4)
        gc.collect()
        start = time.perf_counter()
        batches(submit, lambda reply: reply.get(), jobs)
        return (time.perf_counter() - start) / jobs * 1e6
