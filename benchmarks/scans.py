"""Slow scans: do the CPUs work side by side?"""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import apsw

from benchmarks.data import SCAN, create
from benchmarks.figures import TIMES, Figure, at_least
from benchmarks.machine import cpus
from benchmarks.peers import Crew, Direct, Executor
from benchmarks.rounds import Effort, alternate, ratio
from supervisor import Query

__all__ = ["calibrated", "run"]

_SECONDS = 0.05  # that one scan takes


def run(effort: Effort) -> Iterator[Figure]:
    """Compare scans on all workers at once with the same scans in a row, without a pool."""
    rounds = effort.pick(quick=3, full=7)
    with TemporaryDirectory() as folder:
        path = create(Path(folder) / "scans.db")
        for workers in dict.fromkeys([1, cpus(), 2 * cpus()]):
            scans = max(workers, 2 * cpus()) * effort.pick(quick=1, full=2)
            yield from _compared(path, workers, scans, rounds)


def _compared(path: str, workers: int, scans: int, rounds: int) -> Iterator[Figure]:
    direct, crew, executor = Direct(path), Crew(path, workers), Executor(workers, partial(apsw.Connection, path))
    steps = calibrated(direct, _SECONDS)

    def ask_crew(count: int = scans) -> None:
        for reply in [crew.ref.ask(Query(SCAN, (steps,)), block=False) for _ in range(count)]:
            reply.get()

    def ask_executor(count: int = scans) -> None:
        for future in [executor.pool.submit(executor.run, SCAN, (steps,)) for _ in range(count)]:
            future.result()

    actions: dict[str, Callable[[], object]] = {
        "direct": lambda: [direct.ask(SCAN, (steps,)) for _ in range(scans)],
        "crew": ask_crew,
        "executor": ask_executor,
        "threads": lambda: _bare_threads(path, min(cpus(), workers), steps, scans),
    }
    ask_crew(workers)
    ask_executor(workers)
    seconds = alternate(actions, rounds)
    for peer in (direct, crew, executor):
        peer.close()
    side_by_side = min(cpus(), workers)
    times = {name: ratio(seconds["direct"], taken) for name, taken in seconds.items()}
    shown = {name: f"{value:.2f} {TIMES}" for name, value in times.items()}
    each = median(seconds["direct"]) / scans * 1000
    yield Figure(
        f"scans of {each:.0f} ms, {workers} {'worker' if workers == 1 else 'workers'}: direct call",
        f"{shown['crew']} (executor {shown['executor']}, bare threads {shown['threads']})",
        times["crew"],
        at_least(0.95 * side_by_side, TIMES),
    )


def calibrated(direct: Direct, seconds: float) -> int:
    """Return the number of steps of a scan that takes `seconds` on this machine."""
    steps = 100_000
    start = time.perf_counter()
    direct.ask(SCAN, (steps,))
    return max(1, round(steps * seconds / (time.perf_counter() - start)))


def _bare_threads(path: str, count: int, steps: int, scans: int) -> None:
    """Run the scans on threads without any pool: the limit of this machine."""

    def work(share: int) -> None:
        direct = Direct(path)
        for _ in range(share):
            direct.ask(SCAN, (steps,))
        direct.close()

    shares = [scans // count + (number < scans % count) for number in range(count)]
    threads = [threading.Thread(target=work, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
