"""Writes: many that wait together, writes beside readers at full load, and a write alone."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import apsw

from benchmarks.data import POINT, key
from benchmarks.figures import TIMES, Figure, Wanted, at_least, at_most
from benchmarks.loads import Load, Threads, check_locked
from benchmarks.machine import cpus, folder_on_disk
from benchmarks.peers import CREW, EXECUTOR, SQLITE3, Crew, Executor
from benchmarks.rounds import Effort, alternate, ratio, timed
from benchmarks.ways import batches, window
from benchmarks.writers import (
    AT_ONCE,
    BY_HAND,
    CHILDREN,
    INSERT,
    KINDS,
    OUTSTANDING,
    PATIENT,
    READ,
    Statement,
    by_apsw,
    by_sqlite3,
    create_for,
    crew_for,
    in_groups,
    latencies_of,
    note,
    submit_to,
    submit_to_executor,
)
from supervisor import Query

__all__ = ["beside_readers", "grouped", "lone"]

_WANTED = {CREW: at_least(18, TIMES), CHILDREN: at_least(14, TIMES)}  # of writes that are outstanding together


def _submit_to_crew(crew: Crew, number: int) -> Any:
    return crew.ref.ask(Query(INSERT, note(number)), block=False)


def _submit_scan(executor: Executor, _: int) -> Any:
    return executor.pool.submit(executor.run, READ, ())


def _get(reply: Any) -> object:
    return reply.get()


def _batches(submit: Callable[[int], Any], collect: Callable[[Any], object]) -> Callable[[int], None]:
    return lambda count: batches(submit, collect, count, OUTSTANDING)


# --- many that wait together --------------------------------------------------------------


def grouped(effort: Effort) -> Iterator[Figure]:
    """Compare 256 outstanding inserts with one commit for each, and with an executor of writers."""
    with TemporaryDirectory(dir=folder_on_disk()) as folder, ExitStack() as stack:
        crews = {kind: stack.enter_context(closing(crew_for(folder, kind))) for kind in KINDS}
        connection = stack.enter_context(closing(by_apsw(create_for(folder, BY_HAND))))
        path = create_for(folder, SQLITE3)
        executor = stack.enter_context(closing(Executor(cpus(), partial(by_sqlite3, path, PATIENT))))
        locked: Counter[str] = Counter()
        writes: dict[str, Callable[[int], object]] = {
            BY_HAND: partial(_one_by_one, connection),
            "in groups": partial(in_groups, connection),
            SQLITE3: _batches(partial(submit_to_executor, executor), partial(_note_locked, locked)),
        }
        for kind, crew in crews.items():
            writes[kind] = _batches(partial(_submit_to_crew, crew), _get)
            writes[f"{kind}, window"] = partial(window, partial(_submit_to_crew, crew), _get, outstanding=OUTSTANDING)
        times = effort.pick(quick=8, full=20)
        counts = {name: OUTSTANDING * (2 if name in (BY_HAND, SQLITE3) else times) for name in writes}
        for name, write in writes.items():
            write(counts[name] // 2)  # warm
        rounds = effort.pick(quick=3, full=11)
        seconds = alternate({name: partial(write, counts[name]) for name, write in writes.items()}, rounds)
        each = {name: [taken / counts[name] for taken in seconds[name]] for name in writes}
        for kind, crew in crews.items():
            written = sum(counts[name] // 2 + rounds * counts[name] for name in (kind, f"{kind}, window"))
            assert crew.ask("SELECT count(*) FROM notes", ()) == [(written,)]
    lost = f"; {locked[SQLITE3] or 'none'} of its writes failed, as locked"
    for kind, prefix in KINDS.items():
        for ours, way in ((kind, "submit 256, collect 256"), (f"{kind}, window", "wait for the oldest of 256")):
            text, seen = f"{prefix}256 writes outstanding, {way}:", each[ours]
            yield _faster(f"{text} one commit for each, {BY_HAND}", seen, each[BY_HAND], _WANTED[kind])
            yield _faster(f"{text} {SQLITE3}, whose threads all write", seen, each[SQLITE3], at_least(10, TIMES), lost)
            if ours == kind:
                yield _faster(f"{text} one commit for {AT_ONCE}, {BY_HAND}", seen, each["in groups"])


def _one_by_one(connection: apsw.Connection, count: int) -> None:
    for number in range(count):
        connection.execute(INSERT, note(number))


def _note_locked(locked: Counter[str], future: Any) -> None:
    """Wait for an answer; count it if it got no lock, and raise every other error."""
    error = future.exception()
    if error is not None:
        check_locked(error)
        locked[SQLITE3] += 1


def _faster(text: str, ours: list[float], theirs: list[float], wanted: Wanted | None = None, more: str = "") -> Figure:
    times = ratio(theirs, ours)
    rates = f"{_rate(ours)} against {_rate(theirs)} thousand/s"
    return Figure(text, f"{times:.2f} {TIMES} ({rates}{more})", times, wanted)


def _rate(each: list[float]) -> str:
    return f"{1 / median(each) / 1000:.3g}"


# --- beside readers -----------------------------------------------------------------------

_READS: dict[str, Statement] = {
    "scans of 10,000 rows": lambda _: (READ, ()),
    "point queries": lambda number: (POINT, (key(number),)),
}


def beside_readers(effort: Effort) -> Iterator[Figure]:
    """Compare writes beside busy readers with writes alone; count requests without a lock."""
    count = OUTSTANDING * effort.pick(quick=4, full=12)
    with TemporaryDirectory(dir=folder_on_disk()) as folder:
        for kind, prefix in KINDS.items():
            with closing(crew_for(folder, kind)) as crew:
                write = partial(_batches(partial(_submit_to_crew, crew), _get), count)
                for read_text, read in _READS.items():
                    load = Load(partial(submit_to, crew, read), 4 * cpus())
                    text = f"{prefix}writes beside {read_text}"
                    yield _beside(text, write, count, load, effort, wanted=at_least(0.5, TIMES))
                    failed = load.locked()
                    seen = f"{failed} of {load.answered:,}"
                    yield Figure(f"{text}: reads that found it locked", seen, failed, at_most(0, "reads"))
        yield _bare(folder, effort)
        yield from _executors_beside(folder, effort)


def _bare(folder: str, effort: Effort) -> Figure:
    """Measure the limit of the machine: by hand, in groups, beside bare threads that scan."""
    path = create_for(folder, BY_HAND)
    with ExitStack() as stack:
        writer, *readers = (stack.enter_context(closing(by_apsw(path))) for _ in range(1 + cpus()))
        load = Threads([lambda reader=reader: reader.execute(READ).fetchall() for reader in readers])
        count = AT_ONCE * effort.pick(quick=80, full=240)
        text = f"one commit for {AT_ONCE}, {BY_HAND}, beside {cpus()} bare threads that scan"
        return _beside(text, partial(in_groups, writer, count), count, load, effort)


def _beside(
    text: str,
    write: Callable[[], object],
    count: int,
    load: Load | Threads,
    effort: Effort,
    *,
    wanted: Wanted | None = None,
) -> Figure:
    reads_a_second: list[float] = []

    def beside() -> float:
        with load:
            time.sleep(0.01)  # until the load is at its height
            before = load.answered
            seconds = timed(write)
            reads_a_second.append((load.answered - before) / seconds)
        return seconds

    write()  # warm
    taken: dict[str, list[float]] = {"alone": [], "beside": []}
    for turn in range(effort.pick(quick=3, full=11)):
        for name in taken if turn % 2 == 0 else reversed(taken):
            taken[name].append(beside() if name == "beside" else timed(write))
    kept = ratio(taken["alone"], taken["beside"])
    beside_them, alone = (_rate([seconds / count for seconds in taken[name]]) for name in ("beside", "alone"))
    reads_seen = f"beside {median(reads_a_second) / 1000:.3g} thousand reads/s"
    seen = f"{kept:.2f} {TIMES} ({beside_them} against {alone} thousand/s, {reads_seen})"
    return Figure(f"{text}: against alone", seen, kept, wanted)


def _executors_beside(folder: str, effort: Effort) -> Iterator[Figure]:
    """Count the failures if every thread reads and writes, with the default timeout of a driver."""
    connects: dict[str, Callable[[str], Any]] = {
        EXECUTOR: by_apsw,
        SQLITE3: lambda path: by_sqlite3(path, 5.0),
    }
    waits = {EXECUTOR: "waits for no lock", SQLITE3: "waits 5 s for a lock"}
    for name, connect in connects.items():
        with closing(Executor(cpus() + 1, partial(connect, create_for(folder, name)))) as executor:
            reading = Load(partial(_submit_scan, executor), 4 * cpus())
            writing = Load(partial(submit_to_executor, executor), 4 * cpus())
            seconds = effort.pick(quick=1, full=3)
            with reading, writing:
                time.sleep(seconds)
        yield Figure(
            f"{name} (it {waits[name]}), whose {cpus() + 1} threads all read and write: found it locked",
            f"{reading.locked()} of {reading.answered:,} reads, {writing.locked():,} of {writing.answered:,} writes "
            f"({(writing.answered - writing.locked()) / seconds / 1000:.2g} thousand writes/s, "
            f"{reading.answered / seconds / 1000:.2g} thousand reads/s)",
        )


# --- one alone ----------------------------------------------------------------------------


def lone(effort: Effort) -> Iterator[Figure]:
    """Compare the latency of writes in a row with a direct call, and with an executor."""
    with TemporaryDirectory(dir=folder_on_disk()) as folder, ExitStack() as stack:
        crews = {kind: stack.enter_context(closing(crew_for(folder, kind))) for kind in KINDS}
        connection = stack.enter_context(closing(by_apsw(create_for(folder, BY_HAND))))
        executor = stack.enter_context(closing(Executor(1, partial(by_apsw, create_for(folder, EXECUTOR)))))
        asks: dict[str, Callable[[int], object]] = {
            BY_HAND: lambda number: connection.execute(INSERT, note(number)),
            EXECUTOR: lambda number: submit_to_executor(executor, number).result(),
        }
        for kind, crew in crews.items():
            asks[kind] = lambda number, ref=crew.ref: ref.ask(Query(INSERT, note(number)))
        for ask in asks.values():
            latencies_of(ask, 50)  # warm
        p50s: dict[str, list[float]] = {name: [] for name in asks}
        for turn in range(effort.pick(quick=7, full=25)):
            for name in list(asks) if turn % 2 == 0 else reversed(list(asks)):
                latencies: list[float] = []
                timed(lambda ask=asks[name], into=latencies: into.extend(latencies_of(ask, 100)))
                p50s[name].append(median(latencies))
    for kind, prefix in KINDS.items():
        for peer in (BY_HAND, EXECUTOR):
            times = ratio(p50s[kind], p50s[peer])
            ours, theirs = (f"{median(p50s[name]) * 1e6:.0f} µs" for name in (kind, peer))
            text = f"{prefix}a lone write, median latency against {peer}"
            yield Figure(text, f"{times:.2f} {TIMES} ({ours} against {theirs})", times)
