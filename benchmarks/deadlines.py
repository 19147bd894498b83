"""Deadlines: the cost of a deadline on every job."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.cheap import CheapDatabase
from benchmarks.data import POINT, create, key
from benchmarks.figures import TIMES, Figure, Wanted, at_least
from benchmarks.machine import cpus
from benchmarks.rounds import Effort, ratio, timed
from benchmarks.ways import OUTSTANDING, batches
from supervisor import Query, Reply, Result, Supervisor

__all__ = ["run"]

_SECONDS = 30  # no job takes that long: each deadline is set, kept and removed again
_WANTED = at_least(0.9, TIMES)


def run(effort: Effort) -> Iterator[Figure]:
    """Compare jobs that have a deadline with the same jobs that have none."""
    with TemporaryDirectory() as folder:
        path = create(Path(folder) / "deadlines.db")
        yield from _compared("point queries", path, effort, wanted=_WANTED)
    yield from _compared("the crew alone", CheapDatabase(), effort, wanted=None)


def _compared(text: str, database: str | CheapDatabase, effort: Effort, *, wanted: Wanted | None) -> Iterator[Figure]:
    count = OUTSTANDING * effort.pick(quick=40, full=100)
    rounds = effort.pick(quick=9, full=25)
    # The timeout of the crew, and of each query, in seconds.
    cases = {"without": (None, None), "each its own": (None, _SECONDS), "the crew's": (_SECONDS, None)}
    seen: dict[str, list[float]] = {case: [] for case in cases}
    for turn in range(rounds):
        for case in cases if turn % 2 == 0 else reversed(cases):
            seen[case].append(_answered(database, count, *cases[case]))
    rate = {case: count / median(times) / 1000 for case, times in seen.items()}
    for case in ("each its own", "the crew's"):
        times = ratio(seen["without"], seen[case])
        yield Figure(
            f"64 outstanding, a deadline on every job, {case}, {text}: without",
            f"{times:.2f} {TIMES} ({rate[case]:.0f} against {rate['without']:.0f} thousand/s)",
            times,
            wanted,
        )


def _answered(database: str | CheapDatabase, count: int, default: float | None, timeout: float | None) -> float:
    """Return the seconds that so many jobs take.

    Each run has a new crew: two crews of the same kind can differ by more than the cost of a
    deadline.
    """
    with Supervisor.start(database, size=cpus(), timeout=default) as ref:

        def submit(number: int) -> Reply[Result]:
            return ref.ask(Query(POINT, (key(number),), timeout), block=False)

        batches(submit, lambda reply: reply.get(), OUTSTANDING * 4)  # warm
        return timed(lambda: batches(submit, lambda reply: reply.get(), count))
