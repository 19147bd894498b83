"""Reads: the slowest ones while the writer is at full load."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.data import POINT, key
from benchmarks.figures import TIMES, Figure, Wanted, at_most
from benchmarks.loads import Load, Threads
from benchmarks.machine import cpus, folder_on_disk
from benchmarks.peers import SQLITE3, Crew, Executor
from benchmarks.rounds import Effort, ratio
from benchmarks.writers import (
    AT_ONCE,
    BY_HAND,
    INSERT,
    KINDS,
    OUTSTANDING,
    PATIENT,
    Statement,
    by_apsw,
    by_sqlite3,
    create_for,
    crew_for,
    file_of,
    in_groups,
    latencies_of,
    note,
    submit_to,
    submit_to_executor,
)
from supervisor import Query

__all__ = ["run"]

_FILL = (
    "INSERT INTO notes (text, at) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) "
    "SELECT 'a note that a user wrote', i FROM n"
)
_SMALL = "256 writes of one row are outstanding"
_LOADS: dict[str, tuple[int, Statement]] = {
    _SMALL: (OUTSTANDING, lambda number: (INSERT, note(number))),
    "4 writes of 1,000 rows are outstanding": (4, lambda _: (_FILL, ())),
    "one write of 200,000 rows is always running": (2, lambda _: (_FILL.replace("1000", "200000"), ())),
}
_REST = "at rest"
_BARE = f"a bare thread commits {AT_ONCE} at a time, {BY_HAND}"


def run(effort: Effort) -> Iterator[Figure]:
    """Compare the p99 of point reads while the writer is at full load with the p99 at rest."""
    much = effort.pick(quick=1000, full=4000), effort.pick(quick=3, full=9)
    with TemporaryDirectory(dir=folder_on_disk()) as folder:
        for kind, prefix in KINDS.items():
            with (
                closing(crew_for(folder, kind)) as crew,
                closing(by_apsw(str(Path(folder) / file_of(kind)))) as connection,
            ):
                for text, (outstanding, write) in _LOADS.items():
                    loads: dict[str, Load | Threads] = {text: Load(partial(submit_to, crew, write), outstanding)}
                    if text == _SMALL:
                        loads[_BARE] = Threads([partial(in_groups, connection, AT_ONCE)])
                    waits = _waits_under(partial(_ask_point, crew), loads, *much)
                    yield from _beside_loads(f"{prefix}p99 of reads while", waits, text)
        path = create_for(folder, SQLITE3)
        connect = partial(by_sqlite3, path, PATIENT)
        with closing(Executor(cpus(), connect)) as writers, closing(Executor(cpus(), connect)) as readers:
            load = Load(partial(submit_to_executor, writers), OUTSTANDING)
            text = "256 writes are outstanding on another"
            count, rounds = much
            waits = _waits_under(lambda number: readers.ask(POINT, (key(number),)), {text: load}, count // 4, rounds)
            yield _against_rest(f"p99 of reads on {SQLITE3} while", waits, text)


def _ask_point(crew: Crew, number: int) -> object:
    return crew.ref.ask(Query(POINT, (key(number),)))


class _Waits:
    """The times of reads under a load, in each round, and the part of the load that was done."""

    def __init__(self, unit: str) -> None:
        self.p50s: list[float] = []  # milliseconds
        self.p99s: list[float] = []
        self._rates: list[float] = []
        self._unit = unit

    def note(self, latencies: list[float], rate: float) -> None:
        self.p50s.append(median(latencies) * 1000)
        self.p99s.append(sorted(latencies)[len(latencies) * 99 // 100] * 1000)
        self._rates.append(rate)

    def __str__(self) -> str:
        return f"{median(self.p99s):.2g} ms, p50 {median(self.p50s):.2g} ms"

    @property
    def done(self) -> str:
        return f"{median(self._rates) / 1000:.3g} thousand {self._unit}/s"


def _waits_under(
    ask: Callable[[int], object], loads: Mapping[str, Load | Threads], count: int, rounds: int
) -> dict[str, _Waits]:
    """Ask `count` reads at rest and under each load, in each round; return the times by load."""
    conditions = {_REST: Threads([]), **loads}
    waits = {name: _Waits("groups" if isinstance(load, Threads) else "writes") for name, load in conditions.items()}
    for turn in range(-1, rounds):  # the first round is not counted
        for name in list(conditions) if turn % 2 == 0 else reversed(list(conditions)):
            load = conditions[name]
            gc.collect()
            with load:
                before, start = load.answered, time.perf_counter()
                latencies = latencies_of(ask, count)
                rate = (load.answered - before) / (time.perf_counter() - start)
            if turn >= 0:
                waits[name].note(latencies, rate)
    assert not any(load.errors for load in conditions.values())
    return waits


def _beside_loads(text: str, waits: dict[str, _Waits], load: str) -> Iterator[Figure]:
    """Compare with the reads at rest, or with the slower reads beside a bare thread."""
    if _BARE not in waits:
        yield _against_rest(text, waits, load, at_most(2, TIMES))
        return
    busy, rest, bare = waits[load], waits[_REST], waits[_BARE]
    to_rest, to_bare = ratio(busy.p99s, rest.p99s), ratio(busy.p99s, bare.p99s)
    best = min(to_rest, to_bare)
    seen = (
        f"{best:.2f} {TIMES} ({to_rest:.2f} {TIMES} of none, {to_bare:.2f} {TIMES} of the bare thread; "
        f"{busy}, against {rest} and {bare}; {busy.done})"
    )
    name = f"{text} {load}: against none, or a bare thread {BY_HAND} if that is worse"
    yield Figure(name, seen, best, at_most(2, TIMES))
    yield _against_rest(text, waits, _BARE)


def _against_rest(text: str, waits: dict[str, _Waits], load: str, wanted: Wanted | None = None) -> Figure:
    busy, rest = waits[load], waits[_REST]
    times = ratio(busy.p99s, rest.p99s)
    return Figure(
        f"{text} {load}: against none", f"{times:.2f} {TIMES} ({busy}, against {rest}; {busy.done})", times, wanted
    )
