"""Overload: the waits of jobs when three times as many come as the crew can serve."""

import gc
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from benchmarks.data import SCAN, create
from benchmarks.figures import TIMES, Figure, at_least, at_most
from benchmarks.machine import cpus
from benchmarks.peers import Direct
from benchmarks.plot import Waits
from benchmarks.rounds import Effort
from benchmarks.scans import calibrated
from benchmarks.ways import OUTSTANDING, window
from supervisor import CrewStatus, Query, Status, Supervisor, SupervisorRef

__all__ = ["run"]

_SHED_AFTER = 0.1  # seconds
_LOAD = 3  # times the capacity
_SCAN = 0.001  # seconds that one query takes: the thread that asks must not be the bottleneck
_STEP = 0.002  # seconds between two bunches of queries


class Seen(NamedTuple):
    """One run: the time and the wait of each answered job, and the counters of the crew."""

    answers: list[tuple[float, float]]
    """Seconds since the beginning, and seconds since the job was asked."""
    status: CrewStatus
    """The status at the end of the load."""
    seconds: float
    """How long the load went on."""
    capacity: float
    """Jobs a second that a crew served just before and just after, without overload."""

    def wait(self, part: float) -> float:
        """Return the milliseconds within which this part of the answered jobs had their answers."""
        waits = sorted(waited for _, waited in self.answers)
        return waits[int(len(waits) * part)] * 1000

    @property
    def throughput(self) -> float:
        """Return the rate of answers, as a part of the capacity."""
        return len(self.answers) / self.seconds / self.capacity


def run(effort: Effort) -> Iterator[Figure | Waits]:
    """Compare a crew that sheds with a crew that does not."""
    seconds = effort.pick(quick=2, full=3)
    rounds = effort.pick(quick=1, full=3)
    cases = {f"shed_after={_SHED_AFTER:g}": _SHED_AFTER, "without shedding": None}
    seen: dict[str, list[Seen]] = {case: [] for case in cases}
    with TemporaryDirectory() as folder:
        path = create(Path(folder) / "overload.db")
        direct = Direct(path)
        steps = calibrated(direct, _SCAN)
        direct.close()
        for turn in range(rounds):
            for case in cases if turn % 2 == 0 else reversed(cases):
                seen[case].append(_pressed(path, steps, cases[case], seconds))
    for case, runs in seen.items():
        yield from _figures(case, runs, wanted=cases[case] is not None)
    yield Waits(
        {case: sorted(runs, key=lambda run: run.wait(0.99))[rounds // 2].answers for case, runs in seen.items()},
        _LOAD,
        _SHED_AFTER,
    )


def _figures(case: str, runs: list[Seen], *, wanted: bool) -> Iterator[Figure]:
    text = f"{_LOAD} {TIMES} the load that the crew can serve, {case}"
    p50, p99 = (median(run.wait(part) for run in runs) for part in (0.5, 0.99))
    yield Figure(
        f"{text}: p99 wait of the answered jobs",
        f"{p99:.0f} ms (p50 {p50:.0f} ms)",
        p99,
        at_most(2 * _SHED_AFTER * 1000, "ms") if wanted else None,
    )
    answered = median(len(run.answers) / run.status.submitted for run in runs)
    shed = median(run.status.shed / run.status.submitted for run in runs)
    times = median(run.throughput for run in runs)
    rate = median(run.capacity * run.throughput for run in runs)
    capacity = median(run.capacity for run in runs)
    yield Figure(
        f"{text}: throughput, capacity",
        f"{times:.2f} {TIMES} ({rate / 1000:.2f} against {capacity / 1000:.2f} thousand/s; "
        f"answered {answered:.0%}, shed {shed:.0%}, left waiting {max(0.0, 1 - answered - shed):.0%})",
        times,
        at_least(0.9, TIMES) if wanted else None,
    )


def _pressed(path: str, steps: int, shed_after: float | None, seconds: float) -> Seen:
    """Measure the capacity of a crew, offer it more, and measure the capacity again."""
    with Supervisor.start(path, size=cpus()) as calm:
        _capacity(calm, steps, seconds / 20)  # warm
        before = _capacity(calm, steps, seconds / 8)
        gc.collect()
        with Supervisor.start(path, size=cpus(), shed_after=shed_after) as ref:
            ref.ask(Query(SCAN, (steps,)))
            answers, status = _offer(ref, steps, _LOAD * before, seconds)
            ref.shutdown(cancel_pending=True)
        after = _capacity(calm, steps, seconds / 8)
    return Seen(answers, status, seconds, (before + after) / 2)


def _capacity(ref: SupervisorRef, steps: int, seconds: float) -> float:
    """Return how many jobs a second are answered while 64 are outstanding."""
    count = max(OUTSTANDING, round(seconds / _SCAN))
    start = time.perf_counter()
    window(lambda _: ref.ask(Query(SCAN, (steps,)), block=False), lambda reply: reply.get(), count)
    return count / (time.perf_counter() - start)


def _offer(ref: SupervisorRef, steps: int, rate: float, seconds: float) -> tuple[list[tuple[float, float]], CrewStatus]:
    """Ask `rate` queries a second, whether or not answers come."""
    answers: list[tuple[float, float]] = []
    start = time.perf_counter()

    def note(asked: float, reply: Any) -> None:
        now = time.perf_counter()
        if reply.exception() is None and now - start <= seconds:
            answers.append((now - start, now - asked))

    asked = 0
    while (now := time.perf_counter() - start) < seconds:
        for _ in range(int(now * rate) - asked):
            reply = ref.ask(Query(SCAN, (steps,)), block=False)
            reply.add_done_callback(partial(note, time.perf_counter()))
            asked += 1
        time.sleep(_STEP)
    return answers.copy(), ref.ask(Status())
