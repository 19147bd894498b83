"""Writes: many that wait together, beside readers at full load, and one alone; and reads beside writes at full load."""

import gc
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from functools import partial
from itertools import count as counter
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Self

import apsw

from benchmarks.data import POINT, create, key
from benchmarks.figures import TIMES, Figure, Wanted, at_least, at_most
from benchmarks.machine import cpus, folder_on_disk
from benchmarks.peers import CREW, EXECUTOR, SQLITE3, Crew, Executor
from benchmarks.rounds import Effort, alternate, ratio, timed
from benchmarks.ways import batches, window
from supervisor import ChildProcess, Query

__all__ = ["beside_readers", "grouped", "log", "lone", "reads"]

CHILDREN = "children"
BY_HAND = "by hand"
_OUTSTANDING = 256
_AT_ONCE = 128  # as many as the crew puts into one transaction at most
_INSERT = "INSERT INTO notes (text, at) VALUES (?, ?)"
_READ = "SELECT count(name), sum(age) FROM users"
_PATIENT = 120.0  # seconds of waiting for a lock, after which something would be lost

Statement = Callable[[int], tuple[str, tuple[Any, ...]]]
"""What is asked, by number: SQL and parameters."""

_KINDS = {CREW: "", CHILDREN: "children, "}  # as they stand before a figure's name


def _create(folder: str, name: str) -> str:
    """Make a file of the contestant's own: nobody shall write back what another one has written."""
    path = create(Path(folder) / _file(name))
    connection = apsw.Connection(path)
    connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT, at INTEGER)")
    connection.close()
    return path


def _file(name: str) -> str:
    return f"{name.replace(' ', '-')}.db"


def _crew(folder: str, kind: str) -> Crew:
    path = _create(folder, kind)
    return Crew(ChildProcess(path) if kind == CHILDREN else path, cpus())


def _by_apsw(path: str) -> apsw.Connection:
    """Connect as one does who sets no timeout; the rest as the crew has it."""
    connection = apsw.Connection(path)
    connection.pragma("synchronous", "full")
    return connection


def _by_sqlite3(path: str, timeout: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=timeout)
    connection.execute("PRAGMA synchronous = full")
    return connection


def _note(number: int) -> tuple[str, int]:
    return "what somebody wrote down", number


def _submit_to_crew(crew: Crew, number: int) -> Any:
    return crew.ref.ask(Query(_INSERT, _note(number)), block=False)


def _submit_to(crew: Crew, statement: Statement, number: int) -> Any:
    return crew.ref.ask(Query(*statement(number)), block=False)


def _submit_to_executor(executor: Executor, number: int) -> Any:
    return executor.pool.submit(executor.run, _INSERT, _note(number))


def _submit_scan(executor: Executor, _: int) -> Any:
    return executor.pool.submit(executor.run, _READ, ())


def _get(reply: Any) -> object:
    return reply.get()


def _batches(submit: Callable[[int], Any], collect: Callable[[Any], object]) -> Callable[[int], None]:
    return lambda count: batches(submit, collect, count, _OUTSTANDING)


# --- many that wait together --------------------------------------------------------------


def grouped(effort: Effort) -> Iterator[Figure]:
    """Compare 256 single-row inserts outstanding with one commit for each, and with an executor of writers."""
    with TemporaryDirectory(dir=folder_on_disk()) as folder, ExitStack() as stack:
        crews = {kind: stack.enter_context(closing(_crew(folder, kind))) for kind in _KINDS}
        connection = stack.enter_context(closing(_by_apsw(_create(folder, BY_HAND))))
        path = _create(folder, SQLITE3)
        executor = stack.enter_context(closing(Executor(cpus(), partial(_by_sqlite3, path, _PATIENT))))
        locked: Counter[str] = Counter()
        writes: dict[str, Callable[[int], object]] = {
            BY_HAND: partial(_one_by_one, connection),
            "in groups": partial(_in_groups, connection),
            SQLITE3: _batches(partial(_submit_to_executor, executor), partial(_note_locked, locked)),
        }
        for kind, crew in crews.items():
            writes[kind] = _batches(partial(_submit_to_crew, crew), _get)
            writes[f"{kind}, window"] = partial(window, partial(_submit_to_crew, crew), _get, outstanding=_OUTSTANDING)
        times = effort.pick(quick=8, full=20)
        counts = {name: _OUTSTANDING * (2 if name in (BY_HAND, SQLITE3) else times) for name in writes}
        for name, write in writes.items():
            write(counts[name] // 2)  # warm
        rounds = effort.pick(quick=3, full=11)
        seconds = alternate({name: partial(write, counts[name]) for name, write in writes.items()}, rounds)
        each = {name: [taken / counts[name] for taken in seconds[name]] for name in writes}
        for kind, crew in crews.items():
            written = sum(counts[name] // 2 + rounds * counts[name] for name in (kind, f"{kind}, window"))
            assert crew.ask("SELECT count(*) FROM notes", ()) == [(written,)]
    lost = f"; {locked[SQLITE3] or 'none'} of its writes failed, as locked"
    for kind, prefix in _KINDS.items():
        for ours, way in ((kind, "submit 256, collect 256"), (f"{kind}, window", "wait for the oldest of 256")):
            main = ours == kind
            text, seen = f"{prefix}256 writes outstanding, {way}:", each[ours]
            wanted = (at_least(15, TIMES), at_least(10, TIMES)) if main else (None, None)
            yield _faster(f"{text} one commit for each, {BY_HAND}", seen, each[BY_HAND], wanted[0])
            yield _faster(f"{text} {SQLITE3}, whose threads all write", seen, each[SQLITE3], wanted[1], lost)
            if main:
                yield _faster(f"{text} one commit for {_AT_ONCE}, {BY_HAND}", seen, each["in groups"])


def _one_by_one(connection: apsw.Connection, count: int) -> None:
    for number in range(count):
        connection.execute(_INSERT, _note(number))


def _in_groups(connection: apsw.Connection, count: int) -> None:
    for start in range(0, count, _AT_ONCE):
        connection.execute("BEGIN IMMEDIATE")
        for number in range(start, start + _AT_ONCE):
            connection.execute(_INSERT, _note(number))
        connection.execute("COMMIT")


def _note_locked(locked: Counter[str], future: Any) -> None:
    """Wait for an answer; count those who did not get the lock, and raise every other error."""
    error = future.exception()
    if error is not None:
        _check_locked(error)
        locked[SQLITE3] += 1


def _check_locked(error: BaseException) -> None:
    if not isinstance(error, apsw.BusyError) and "locked" not in str(error):
        raise error


def _faster(text: str, ours: list[float], theirs: list[float], wanted: Wanted | None = None, more: str = "") -> Figure:
    times = ratio(theirs, ours)
    rates = f"{_rate(ours)} against {_rate(theirs)} thousand/s"
    return Figure(text, f"{times:.2f} {TIMES} ({rates}{more})", times, wanted)


def _rate(each: list[float]) -> str:
    return f"{1 / median(each) / 1000:.3g}"


# --- beside readers -----------------------------------------------------------------------


class _Load:
    """As long as it is entered, so many requests are outstanding: each answer submits the next."""

    def __init__(self, submit: Callable[[int], Any], outstanding: int) -> None:
        self.answered = 0
        self.errors: list[BaseException] = []
        self._submit = submit
        self._outstanding = outstanding
        self._numbers = counter()
        self._going = False
        self._ended = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._going = True
        for _ in range(self._outstanding):
            self._go_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._going = False
        for _ in range(self._outstanding):
            self._ended.acquire()

    def _go_on(self) -> None:
        self._submit(next(self._numbers)).add_done_callback(self._note)

    def _note(self, reply: Any) -> None:
        error = reply.exception()
        if error is not None:
            self.errors.append(error)
        with self._lock:
            self.answered += 1
        if self._going:
            self._go_on()
        else:
            self._ended.release()

    def locked(self) -> int:
        """Return how many did not get a lock; raise every other error."""
        for error in self.errors:
            _check_locked(error)
        return len(self.errors)


class _Threads:
    """As long as it is entered, bare threads do the same again and again, each on its own connection."""

    def __init__(self, actions: Iterable[Callable[[], object]]) -> None:
        self.answered = 0
        self.errors: list[BaseException] = []
        self._actions = list(actions)
        self._going = False
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._going = True
        self._threads = [threading.Thread(target=self._run, args=(action,)) for action in self._actions]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._going = False
        for thread in self._threads:
            thread.join()

    def _run(self, action: Callable[[], object]) -> None:
        try:
            while self._going:
                action()
                self.answered += 1
        except BaseException as error:
            self.errors.append(error)
            raise

    def locked(self) -> int:
        return len(self.errors)


_READS: dict[str, Statement] = {
    "scans of 10,000 rows": lambda _: (_READ, ()),
    "point queries": lambda number: (POINT, (key(number),)),
}


def beside_readers(effort: Effort) -> Iterator[Figure]:
    """Compare writes beside readers at full load with the same writes alone; count who did not get a lock."""
    count = _OUTSTANDING * effort.pick(quick=4, full=12)
    with TemporaryDirectory(dir=folder_on_disk()) as folder:
        for kind, prefix in _KINDS.items():
            with closing(_crew(folder, kind)) as crew:
                write = partial(_batches(partial(_submit_to_crew, crew), _get), count)
                for read_text, read in _READS.items():
                    load = _Load(partial(_submit_to, crew, read), 4 * cpus())
                    text = f"{prefix}writes beside {read_text}"
                    yield _beside(text, write, count, load, effort, wanted=at_least(0.5, TIMES))
                    failed = load.locked()
                    seen = f"{failed} of {load.answered:,}"
                    yield Figure(f"{text}: reads that found it locked", seen, failed, at_most(0, "reads"))
        yield _bare(folder, effort)
        yield from _executors_beside(folder, effort)


def _bare(folder: str, effort: Effort) -> Figure:
    """Measure what the machine gives: by hand, in groups, beside bare threads that scan."""
    path = _create(folder, BY_HAND)
    with ExitStack() as stack:
        writer, *readers = (stack.enter_context(closing(_by_apsw(path))) for _ in range(1 + cpus()))
        load = _Threads([lambda reader=reader: reader.execute(_READ).fetchall() for reader in readers])
        count = _AT_ONCE * effort.pick(quick=80, full=240)
        text = f"one commit for {_AT_ONCE}, {BY_HAND}, beside {cpus()} bare threads that scan"
        return _beside(text, partial(_in_groups, writer, count), count, load, effort)


def _beside(
    text: str,
    write: Callable[[], object],
    count: int,
    load: _Load | _Threads,
    effort: Effort,
    *,
    wanted: Wanted | None = None,
) -> Figure:
    reads_a_second: list[float] = []

    def beside() -> float:
        with load:
            time.sleep(0.01)  # until it is at its height
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
    """Count what fails where every thread reads and writes, with the timeout that a driver has by itself."""
    connects: dict[str, Callable[[str], Any]] = {
        EXECUTOR: _by_apsw,
        SQLITE3: lambda path: _by_sqlite3(path, 5.0),
    }
    waits = {EXECUTOR: "waits for no lock", SQLITE3: "waits 5 s for a lock"}
    for name, connect in connects.items():
        with closing(Executor(cpus() + 1, partial(connect, _create(folder, name)))) as executor:
            reading = _Load(partial(_submit_scan, executor), 4 * cpus())
            writing = _Load(partial(_submit_to_executor, executor), 4 * cpus())
            seconds = effort.pick(quick=1, full=3)
            with reading, writing:
                time.sleep(seconds)
        yield Figure(
            f"{name} (it {waits[name]}), whose {cpus() + 1} threads all read and write: what found it locked",
            f"{reading.locked()} of {reading.answered:,} reads, {writing.locked():,} of {writing.answered:,} writes "
            f"({(writing.answered - writing.locked()) / seconds / 1000:.2g} thousand writes/s, "
            f"{reading.answered / seconds / 1000:.2g} thousand reads/s)",
        )


# --- one alone ----------------------------------------------------------------------------


def lone(effort: Effort) -> Iterator[Figure]:
    """Compare the latency of writes that are asked one after the other with a direct call, and with an executor."""
    with TemporaryDirectory(dir=folder_on_disk()) as folder, ExitStack() as stack:
        crews = {kind: stack.enter_context(closing(_crew(folder, kind))) for kind in _KINDS}
        connection = stack.enter_context(closing(_by_apsw(_create(folder, BY_HAND))))
        executor = stack.enter_context(closing(Executor(1, partial(_by_apsw, _create(folder, EXECUTOR)))))
        asks: dict[str, Callable[[int], object]] = {
            BY_HAND: lambda number: connection.execute(_INSERT, _note(number)),
            EXECUTOR: lambda number: _submit_to_executor(executor, number).result(),
        }
        for kind, crew in crews.items():
            asks[kind] = lambda number, ref=crew.ref: ref.ask(Query(_INSERT, _note(number)))
        for ask in asks.values():
            _latencies(ask, 50)  # warm
        p50s: dict[str, list[float]] = {name: [] for name in asks}
        for turn in range(effort.pick(quick=7, full=25)):
            for name in list(asks) if turn % 2 == 0 else reversed(list(asks)):
                latencies: list[float] = []
                timed(lambda ask=asks[name], into=latencies: into.extend(_latencies(ask, 100)))
                p50s[name].append(median(latencies))
    for kind, prefix in _KINDS.items():
        for peer in (BY_HAND, EXECUTOR):
            times = ratio(p50s[kind], p50s[peer])
            ours, theirs = (f"{median(p50s[name]) * 1e6:.0f} µs" for name in (kind, peer))
            text = f"{prefix}a lone write, median latency against {peer}"
            yield Figure(text, f"{times:.2f} {TIMES} ({ours} against {theirs})", times)


def _latencies(ask: Callable[[int], object], count: int) -> list[float]:
    seen = []
    for number in range(count):
        start = time.perf_counter()
        ask(number)
        seen.append(time.perf_counter() - start)
    return seen


# --- reads beside writes ------------------------------------------------------------------

_FILL = (
    "INSERT INTO notes (text, at) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) "
    "SELECT 'what somebody wrote down', i FROM n"
)
_LOADS: dict[str, tuple[int, Statement]] = {
    "256 writes of one row are outstanding": (_OUTSTANDING, lambda number: (_INSERT, _note(number))),
    "4 writes of 1,000 rows are outstanding": (4, lambda _: (_FILL, ())),
    "one write of 200,000 rows is always running": (2, lambda _: (_FILL.replace("1000", "200000"), ())),
}


def reads(effort: Effort) -> Iterator[Figure]:
    """Compare the p99 of point reads, asked one after the other, while the writer is at full load, and at rest."""
    count = effort.pick(quick=1000, full=4000)
    rounds = effort.pick(quick=3, full=9)
    with TemporaryDirectory(dir=folder_on_disk()) as folder:
        for kind, prefix in _KINDS.items():
            with closing(_crew(folder, kind)) as crew:
                ask = partial(_ask_point, crew)
                for text, (outstanding, write) in _LOADS.items():
                    submit = partial(_submit_to, crew, write)
                    load = _Load(submit, outstanding)
                    yield _under(f"{prefix}p99 of reads while {text}", ask, load, (count, rounds), at_most(2, TIMES))
                if kind == CREW:
                    with closing(_by_apsw(str(Path(folder) / _file(kind)))) as connection:
                        groups = _Threads([partial(_in_groups, connection, _AT_ONCE)])
                        text = f"p99 of reads while a bare thread commits {_AT_ONCE} at a time, {BY_HAND}"
                        yield _under(text, ask, groups, (count, rounds))
        path = _create(folder, SQLITE3)
        connect = partial(_by_sqlite3, path, _PATIENT)
        with closing(Executor(cpus(), connect)) as writers, closing(Executor(cpus(), connect)) as readers:
            load = _Load(partial(_submit_to_executor, writers), _OUTSTANDING)
            text = f"p99 of reads on {SQLITE3} while 256 writes are outstanding on another"
            yield _under(text, lambda number: readers.ask(POINT, (key(number),)), load, (count // 4, rounds))


def _ask_point(crew: Crew, number: int) -> object:
    return crew.ref.ask(Query(POINT, (key(number),)))


def _under(
    text: str, ask: Callable[[int], object], load: _Load | _Threads, much: tuple[int, int], wanted: Wanted | None = None
) -> Figure:
    count, rounds = much
    conditions: dict[str, AbstractContextManager[Any]] = {"rest": nullcontext(), "load": load}
    p50s: dict[str, list[float]] = {name: [] for name in conditions}
    p99s: dict[str, list[float]] = {name: [] for name in conditions}
    rates: dict[str, list[float]] = {name: [] for name in conditions}
    for turn in range(-1, rounds):  # the first one warms
        for name in list(conditions) if turn % 2 == 0 else reversed(list(conditions)):
            gc.collect()
            with conditions[name]:
                before, start = load.answered, time.perf_counter()
                latencies = _latencies(ask, count)
                rate = (load.answered - before) / (time.perf_counter() - start)
            if turn >= 0:
                rates[name].append(rate)
                p50s[name].append(median(latencies) * 1000)
                p99s[name].append(sorted(latencies)[count * 99 // 100] * 1000)
    assert not load.errors
    unit = "groups" if isinstance(load, _Threads) else "writes"
    times = ratio(p99s["load"], p99s["rest"])
    busy, idle = (f"{median(p99s[name]):.2g} ms, p50 {median(p50s[name]):.2g} ms" for name in ("load", "rest"))
    seen = f"{times:.2f} {TIMES} ({busy}, against {idle}; {median(rates['load']) / 1000:.3g} thousand {unit}/s)"
    return Figure(f"{text}: against none", seen, times, wanted)


# --- the log ------------------------------------------------------------------------------

_BLOB = bytes(8000)
_REPLACE = "INSERT OR REPLACE INTO blobs VALUES (?, ?)"
_LOOK = "SELECT count(*) FROM blobs, (SELECT 1 UNION SELECT 2 UNION SELECT 3) WHERE length(blob) > ?"
_KEPT, _WRITTEN = 2000, 50


def log(effort: Effort) -> Iterator[Figure]:
    """Compare how long the write-ahead log becomes while somebody reads all the time, with connections as they come."""
    seconds = effort.pick(quick=3.0, full=10.0)
    with TemporaryDirectory(dir=folder_on_disk()) as folder:
        ours, theirs = (str(Path(folder) / name) for name in ("crew.db", "plain.db"))
        for path in (ours, theirs):
            connection = _by_apsw(path)
            connection.pragma("journal_mode", "wal")
            connection.execute("CREATE TABLE blobs (id INTEGER PRIMARY KEY, blob)")
            connection.executemany(_REPLACE, [(number, _BLOB) for number in range(_KEPT)])
            connection.close()
        with closing(Crew(ours, cpus())) as crew:
            write = partial(_replace_on_crew, crew)
            crews = _longest(ours, write, partial(crew.ref.ask, Query(_LOOK, (1,))), seconds)
        with (
            closing(_by_sqlite3(theirs, _PATIENT)) as writing,
            closing(Executor(cpus(), partial(_by_sqlite3, theirs, _PATIENT))) as reading,
        ):
            plain = _longest(theirs, partial(_replace_by_hand, writing), lambda: reading.ask(_LOOK, (1,)), seconds)
    text = f"megabytes of the log while {cpus() + 1} threads read all the time, after {seconds:g} s of writing"
    seen = f"{crews[0]:.0f} MB after {crews[1]:.0f} MB were written, against {plain[0]:.0f} after {plain[1]:.0f}"
    yield Figure(f"{text}: {SQLITE3}", seen, crews[0] / max(1.0, plain[0]))


def _replace_on_crew(crew: Crew, numbers: list[int]) -> None:
    crew.ref.ask(Query(_REPLACE, many=[(number, _BLOB) for number in numbers]))


def _replace_by_hand(connection: sqlite3.Connection, numbers: list[int]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_REPLACE, [(number, _BLOB) for number in numbers])
    connection.execute("COMMIT")


def _longest(
    path: str, write: Callable[[list[int]], object], read: Callable[[], object], seconds: float
) -> tuple[float, float]:
    """Return how many megabytes the log had at most, and how many were written."""
    over, longest, written = threading.Event(), 0.0, 0

    def read_on() -> None:
        while not over.is_set():
            read()

    readers = [threading.Thread(target=read_on) for _ in range(cpus() + 1)]
    for reader in readers:
        reader.start()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        write([(written + number) % _KEPT for number in range(_WRITTEN)])
        written += _WRITTEN
        longest = max(longest, Path(f"{path}-wal").stat().st_size / 1e6)
    over.set()
    for reader in readers:
        reader.join()
    return longest, written * len(_BLOB) / 1e6
