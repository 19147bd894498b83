"""Workers in child processes: rows fetched without this program's GIL, points, costs."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count as counter
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import apsw

from actors.databases.child.connection import ChildConnection
from actors.databases.executor import Batch
from benchmarks.data import ROWS, create
from benchmarks.figures import TIMES, Figure, Wanted, at_least, at_most
from benchmarks.peers import CREW, EXECUTOR, SQLITE3, Crew, Executor
from benchmarks.points import compared
from benchmarks.rounds import Effort, alternate, ratio, timed
from benchmarks.starting import seconds_of
from supervisor import ChildProcess, Query, Status

__all__ = ["cost", "fetching", "millions", "points"]

CHILDREN = "children"
_WORKERS = 2
_OUTSTANDING = 4
_FETCH = "SELECT id, name, age, score, note FROM wide"
_MILLION = (
    "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) "
    "SELECT i, 'user ' || i, i % 90 FROM n"
)


def _create(folder: str) -> str:
    path = create(Path(folder) / "children.db")
    connection = apsw.Connection(path)
    connection.execute("CREATE TABLE wide AS SELECT id, name, age, id * 1.5 AS score, NULL AS note FROM users")
    connection.close()
    return path


# --- rows ---------------------------------------------------------------------------------


def fetching(effort: Effort) -> Iterator[Figure]:
    """Compare queries of 10,000 rows while the main thread waits, and while it computes."""
    rounds = effort.pick(quick=3, full=7)
    with TemporaryDirectory() as folder:
        path = _create(folder)
        children, threads = Crew(ChildProcess(path), _WORKERS), Crew(path, _WORKERS)
        by_apsw = Executor(_WORKERS, partial(apsw.Connection, path))
        by_sqlite3 = Executor(_WORKERS, partial(sqlite3.connect, path, isolation_level=None))
        submits: dict[str, Callable[[], Any]] = {
            CHILDREN: lambda: children.ref.ask(Query(_FETCH), block=False),
            CREW: lambda: threads.ref.ask(Query(_FETCH), block=False),
            EXECUTOR: lambda: by_apsw.pool.submit(by_apsw.run, _FETCH, ()),
            SQLITE3: lambda: by_sqlite3.pool.submit(by_sqlite3.run, _FETCH, ()),
        }
        for submit in submits.values():
            _chains(submit, 8, computing=False)
        number = effort.pick(quick=40, full=100)
        waiting = {name: partial(_chains, submit, number, computing=False) for name, submit in submits.items()}
        idle = alternate(waiting, rounds)
        # While the main thread computes, some need seconds for each query.
        numbers = {CHILDREN: number, CREW: 8, EXECUTOR: 8, SQLITE3: 2 if effort.quick else 4}
        computing = {name: partial(_chains, submits[name], numbers[name], computing=True) for name in submits}
        busy = alternate(computing, effort.pick(quick=1, full=3))
        for peer in (children, threads, by_apsw, by_sqlite3):
            peer.close()
    each_idle = {name: [seconds / number for seconds in taken] for name, taken in idle.items()}
    each_busy = {name: [seconds / numbers[name] for seconds in taken] for name, taken in busy.items()}
    text = f"queries of {ROWS:,} rows, {_OUTSTANDING} outstanding"
    wanted = {EXECUTOR: at_least(1.7, TIMES), SQLITE3: at_least(3, TIMES)}
    yield from _against_peers(f"{text}: children against", each_idle, wanted)
    wanted = {SQLITE3: at_least(20, TIMES)}
    yield from _against_peers(f"{text}, while the main thread computes: children against", each_busy, wanted)
    slower = median(each_busy[CHILDREN]) / median(each_idle[CHILDREN])
    yield Figure(
        f"{text}, children: time while the main thread computes, against while it waits",
        f"{slower:.2f} {TIMES} ({_rate(each_busy[CHILDREN])} against {_rate(each_idle[CHILDREN])} queries/s)",
        slower,
        at_most(2, TIMES),
    )


def _against_peers(text: str, each: dict[str, list[float]], wanted: dict[str, Wanted]) -> Iterator[Figure]:
    for peer in (EXECUTOR, SQLITE3, CREW):
        times = ratio(each[peer], each[CHILDREN])
        seen = f"{times:.2f} {TIMES} ({_rate(each[CHILDREN])} against {_rate(each[peer])} queries/s)"
        yield Figure(f"{text} {'the crew on threads' if peer == CREW else peer}", seen, times, wanted.get(peer))


def _rate(seconds: list[float]) -> str:
    return f"{1 / median(seconds):.3g}"


def _chains(submit: Callable[[], Any], number: int, *, computing: bool) -> None:
    """Run queries in four chains, in which each answer submits the next query.

    Args:
        submit: asks one query.
        number: of queries in all.
        computing: whether the main thread computes meanwhile, or waits.
    """
    left = iter(range(number))
    done = counter(1)
    finished = threading.Event()

    def go_on() -> None:
        if next(left, None) is not None:
            submit().add_done_callback(answered)

    def answered(reply: Any) -> None:
        assert reply.exception() is None
        if next(done) == number:
            finished.set()
        go_on()

    for _ in range(_OUTSTANDING):
        go_on()
    if computing:
        while not finished.is_set():
            sum(range(1000))
    else:
        finished.wait()


# --- points -------------------------------------------------------------------------------


# The way, the number of outstanding queries, and the least ratio to an executor on sqlite3.
_POINTS = (("batches", 64, 2.0), ("window", 64, 2.0), ("batches", 16, 1.4), ("window", 16, 1.4), ("one by one", 1, 0.8))


def points(effort: Effort) -> Iterator[Figure]:
    """Compare point queries with 64 and 16 outstanding, and one after the other."""
    with TemporaryDirectory() as folder:
        path = create(Path(folder) / "points.db")
        peers = {
            CREW: Crew(ChildProcess(path), _WORKERS),
            SQLITE3: Executor(_WORKERS, partial(sqlite3.connect, path, isolation_level=None)),
            EXECUTOR: Executor(_WORKERS, partial(apsw.Connection, path)),
        }
        rounds = effort.pick(quick=5, full=15)
        for way, depth, times in _POINTS:
            number = 64 * (effort.pick(quick=20, full=100) if depth > 1 else effort.pick(quick=10, full=25))
            wanted = {SQLITE3: times}
            yield from compared(
                way, peers, count=number, rounds=rounds, wanted=wanted, depth=depth, prefix="children, "
            )
        for peer in peers.values():
            peer.close()


# --- costs --------------------------------------------------------------------------------


class _One(Batch):
    """One request as a batch of its own, with its answer and the seconds that the child reports."""

    def __init__(self, connection: ChildConnection, request: Query) -> None:
        super().__init__(connection)
        self.request = request
        self.is_unwanted = False
        self.value: Any = None
        self.seconds = 0.0
        self._left = [self]  # it is its own task

    def __len__(self) -> int:
        return 1

    def begin(self) -> Any:
        return self._left.pop() if self._left else None

    def answer(self, task: Any, value: Any, seconds: float | None = None) -> None:
        assert task is self
        assert seconds is not None
        self.value, self.seconds = value, seconds

    def fail(self, task: Any, error: BaseException, seconds: float | None = None) -> None:
        del task, seconds
        raise error


def millions(effort: Effort) -> Iterator[Figure]:
    """Compare the time of a result of a million rows with the time that the child needs for it."""
    parts: list[float] = []
    with TemporaryDirectory() as folder:
        connection = ChildConnection(ChildProcess(Path(folder) / "millions.db"))
        for _ in range(effort.pick(quick=3, full=7)):
            one = _One(connection, Query(_MILLION))
            whole = timed(partial(connection.run, one))
            assert len(one.value.rows) == 1_000_000
            parts.append(one.seconds / whole)
        connection.close()
    speed = median(parts)
    yield Figure(
        "a result of a million rows of 3: speed against fetching it in the child",
        f"{speed:.2f} {TIMES}",
        speed,
        at_least(0.5, TIMES),
    )


def cost(effort: Effort) -> Iterator[Figure]:
    """Measure the first answer of four children, and the memory of eight that have worked."""
    with TemporaryDirectory() as folder:
        path = _create(folder)
        before = "from supervisor import ChildProcess, Query, Supervisor"
        start = f"db = Supervisor.start(ChildProcess({path!r}), size=4)\ndb.ask(Query('SELECT 1'))"
        first = median(seconds_of(folder, before, start) for _ in range(effort.pick(quick=5, full=15))) * 1000
        crew = Crew(ChildProcess(path), 8)
        _chains(lambda: crew.ref.ask(Query(_FETCH), block=False), 100, computing=False)
        memory = [_unshared(worker.pid) for worker in crew.ref.ask(Status()).workers if worker.pid is not None]
        crew.close()
    yield Figure("start to first answer: 4 children", f"{first:.0f} ms", first, at_most(250, "ms"))
    largest = max(memory) / 1e6
    text = f"{largest:.1f} MB (the largest of {len(memory)}, after queries of {ROWS:,} rows)"
    yield Figure("memory of a child that is its own (USS), 8 children", text, largest, at_most(25, "MB"))


def _unshared(pid: int) -> int:
    """Return the bytes that only this process uses (its USS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
