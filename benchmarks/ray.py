"""A crew on a Ray cluster beside Ray itself: bare actors and ActorPool, on one machine."""

import os
import signal
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import TIMES, Figure, at_least, at_most
from benchmarks.rounds import Effort, alternate, ratio
from supervisor import DuckDB, Query, QuerycrewError, Ray, RestartPolicy, SQLite, Status, Supervisor, SupervisorRef

__all__ = ["run"]

_WORKERS = 4
_OUTSTANDING = 64
_KEYS = 10_000
_READ = "SELECT v FROM points WHERE id = ?"
_COUNT = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT count(*) FROM n"
_FOREVER = 10**15
_ROWS = 3_400_000
_TABLE = "SELECT * FROM t"
_SMALL: dict[str, Any] = {"object_store_memory": 100 << 20}


def run(effort: Effort) -> Iterator[Figure]:
    """Measure point queries, slow queries on two nodes, deaths, a lost cluster, and columns."""
    try:
        import ray  # noqa: F401
    except ImportError:
        yield Figure("Ray, point queries", "ray is not installed")
        return
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "points.db"
        _fill(path)
        cluster = stack.enter_context(_cluster())
        second = cluster.add_node(num_cpus=2, **_SMALL)
        yield from _points(cluster.address, path, effort)
        yield from _on_two_nodes(cluster.address, path, effort)
        yield from _killed(cluster.address, path, effort)
        yield _frozen(cluster.address, path, second)
    with tempfile.TemporaryDirectory() as folder:
        yield _restarted(Path(folder) / "points.db")
        with _cluster(object_store_memory=512 << 20) as roomy:
            yield from _columns(roomy.address, Path(folder) / "table.db", effort)


def _fill(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE points (id INTEGER PRIMARY KEY, v)")
        connection.executemany("INSERT INTO points VALUES (?, ?)", ((n, f"value {n}") for n in range(_KEYS)))


def _started(**head: Any) -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster

        return Cluster(
            initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, **_SMALL, **head}
        )


@contextmanager
def _cluster(**head: Any) -> Iterator[Any]:
    cluster = _started(**head)
    try:
        yield cluster
    finally:
        cluster.shutdown()


class _Bare:
    """An actor of a user who does without a crew."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path)

    def read(self, key: int) -> list[Any]:
        return self._connection.execute(_READ, (key,)).fetchall()


def _points(address: str, path: Path, effort: Effort) -> Iterator[Figure]:
    import ray
    from ray.util import ActorPool

    ray.init(address=address, log_to_driver=False, configure_logging=False)
    with Supervisor.start(Ray(SQLite(path), address), size=_WORKERS) as crew:
        kind = ray.remote(num_cpus=0)(_Bare)
        actors = [kind.remote(str(path)) for _ in range(_WORKERS)]
        pool = ActorPool(actors)
        count = effort.pick(quick=300, full=2_000)
        rounds = effort.pick(quick=3, full=7)

        def lone_in_crew() -> None:
            for number in range(count):
                crew.ask(Query(_READ, (number % _KEYS,)))

        def lone_bare() -> None:
            for number in range(count):
                ray.get(actors[0].read.remote(number % _KEYS))

        many = count * 4

        def pooled() -> None:
            for start in range(0, many, _OUTSTANDING):
                list(pool.map_unordered(lambda actor, key: actor.read.remote(key), range(start, start + _OUTSTANDING)))

        actions: dict[str, Callable[[], object]] = {
            "lone": lone_in_crew,
            "bare": lone_bare,
            "crew": partial(_outstanding, crew, many),
            "pool": pooled,
        }
        for action in actions.values():
            action()
        seconds = alternate(actions, rounds)
    ray.shutdown()
    each = median(seconds["lone"]) / count * 1000
    bare = median(seconds["bare"]) / count * 1000
    times = ratio(seconds["lone"], seconds["bare"])
    shown = f"{times:.2f} {TIMES} ({each:.2f} ms against {bare:.2f} ms)"
    yield Figure("Ray, a lone point query: the time of a bare call of an actor", shown, times, at_most(1.25, TIMES))
    times = ratio(seconds["pool"], seconds["crew"])
    rates = [many / median(seconds[name]) / 1000 for name in ("crew", "pool")]
    shown = f"{times:.2f} {TIMES} ({rates[0]:.1f} against {rates[1]:.1f} thousand/s)"
    yield Figure("Ray, 64 outstanding, point queries: ActorPool of 4", shown, times, at_least(5, TIMES))


def _outstanding(crew: SupervisorRef, count: int) -> None:
    for start in range(0, count, _OUTSTANDING):
        keys = range(start, start + _OUTSTANDING)
        for reply in [crew.ask(Query(_READ, (key % _KEYS,)), block=False) for key in keys]:
            reply.get()


def _on_two_nodes(address: str, path: Path, effort: Effort) -> Iterator[Figure]:
    """Slow queries on two nodes with a CPU each, beside the same queries one after the other."""
    steps = effort.pick(quick=2_000_000, full=5_000_000)
    with Supervisor.start(Ray(SQLite(path), address, each_node=True), size=2) as crew:
        _until(lambda: sum(worker.state != "starting" for worker in crew.ask(Status()).workers) == 2)

        def one_by_one() -> None:
            for _ in range(2):
                crew.ask(Query(_COUNT, (steps,)))

        def together() -> None:
            for reply in [crew.ask(Query(_COUNT, (steps,)), block=False) for _ in range(2)]:
                reply.get()

        seconds = alternate({"one": one_by_one, "both": together}, effort.pick(quick=3, full=5))
    times = ratio(seconds["one"], seconds["both"])
    name = "Ray, slow queries, a worker on each of 2 nodes: one after the other"
    yield Figure(name, f"{times:.2f} {TIMES}", times, at_least(0.95 * 2, TIMES))


class _Table:
    """An actor of a user who does without a crew, and reads a table as columns."""

    def __init__(self, path: str) -> None:
        import duckdb

        self._connection = duckdb.connect(path, read_only=True)

    def read(self) -> Any:
        return self._connection.sql(_TABLE).to_arrow_table()


def _columns(address: str, path: Path, effort: Effort) -> Iterator[Figure]:
    """A table of 100 MB as columns, beside an actor that returns the same table to `ray.get`."""
    import duckdb
    import ray

    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT i, i * 2 AS j, i / 3.0 AS k, i % 1000 AS l FROM range(?) AS r(i)", (_ROWS,)
        )
    ray.init(address=address, log_to_driver=False, configure_logging=False)
    with Supervisor.start(Ray(DuckDB(path, read_only=True), address), size=1) as crew:
        actor = ray.remote(num_cpus=0)(_Table).remote(str(path))
        actions: dict[str, Callable[[], object]] = {
            "crew": lambda: crew.ask(Query(_TABLE, arrow=True)).to_arrow().num_rows,
            "bare": lambda: ray.get(actor.read.remote()).num_rows,
        }
        for _ in range(3):  # the store keeps memory that it had once
            for action in actions.values():
                action()
        seconds = alternate(actions, effort.pick(quick=7, full=21))
        table = crew.ask(Query(_TABLE, arrow=True)).to_arrow()
        _until(
            lambda: ray.available_resources()["object_store_memory"] == ray.cluster_resources()["object_store_memory"]
        )
        size = table.nbytes / 1e6
    ray.shutdown()
    times = ratio(seconds["crew"], seconds["bare"])
    each = [median(seconds[name]) * 1000 for name in ("crew", "bare")]
    shown = f"{times:.2f} {TIMES} ({each[0]:.0f} ms against {each[1]:.0f} ms)"
    name = f"Ray, {size:.0f} MB as columns, the store is empty again: the time of ray.get"
    yield Figure(name, shown, times, at_most(1.3, TIMES))


def _killed(address: str, path: Path, effort: Effort) -> Iterator[Figure]:
    seconds = []
    patient = RestartPolicy(poison_after=0, backoff_initial=0)
    with Supervisor.start(Ray(SQLite(path), address), size=2, restart=patient) as crew:
        for _ in range(effort.pick(quick=5, full=10)):
            reply, worker = _running(crew)
            start = time.perf_counter()
            os.kill(worker.pid, signal.SIGKILL)
            reply.exception()
            seconds.append(time.perf_counter() - start)
    told = median(seconds) * 1000
    shown = f"{told:.0f} ms (longest {max(seconds) * 1000:.0f} ms)"
    yield Figure("Ray, kill -9 of an actor: its caller has an error after", shown, told, at_most(50, "ms"))


def _frozen(address: str, path: Path, node: Any) -> Figure:
    raylets = [process.process for process in node.all_processes["raylet"]]
    with Supervisor.start(Ray(SQLite(path), address).on(node.node_id), size=1) as crew:
        reply, worker = _running(crew)
        start = time.perf_counter()
        os.kill(worker.pid, signal.SIGSTOP)
        for raylet in raylets:
            raylet.send_signal(signal.SIGSTOP)
        reply.exception()
        told = time.perf_counter() - start
        for raylet in raylets:
            raylet.send_signal(signal.SIGCONT)
        os.kill(worker.pid, signal.SIGKILL)
    return Figure("Ray, a frozen node: its caller has an error after", f"{told:.1f} s", told, at_most(5, "s"))


def _restarted(path: Path) -> Figure:
    cluster = _started()
    port = int(cluster.address.rpartition(":")[2])
    with Supervisor.start(Ray(SQLite(path), cluster.address), size=1) as crew:
        crew.ask(Query("SELECT 1"))
        cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
        _until(lambda: crew.ask(Status()).state == "suspended")
        with _cluster(gcs_server_port=port):
            start = time.perf_counter()
            _until(lambda: crew.ask(Query("SELECT 1"), block=False).exception() is None)
            waited = time.perf_counter() - start
            crew.stop()
    name = "Ray, the cluster was killed and is back: the first answer after"
    return Figure(name, f"{waited:.1f} s", waited, at_most(5, "s"))


def _running(crew: SupervisorRef) -> Any:
    """Start a query without end; return its reply, and the worker that runs it."""
    reply = crew.ask(Query(_COUNT, (_FOREVER,)), block=False)
    found: list[Any] = []

    def is_running() -> bool:
        found[:] = [worker for worker in crew.ask(Status()).workers if worker.job and worker.pid]
        return bool(found)

    _until(is_running)
    return reply, found[0]


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if condition():
                return
        except QuerycrewError:
            pass
        time.sleep(0.01)
    message = "a crew on Ray did not come so far within a minute"
    raise TimeoutError(message)
