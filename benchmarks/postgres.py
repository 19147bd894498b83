"""A crew on PostgreSQL beside the pools of psycopg and asyncpg, on one server over a socket."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Any, Self

from benchmarks.figures import TIMES, Figure, Wanted, at_least, at_most
from benchmarks.postgres_server import MISSING, PostgresServer, postgres_server
from benchmarks.rounds import Effort, alternate, ratio
from supervisor import PostgreSQL, Query, QuerycrewError, Supervisor, SupervisorRef

__all__ = ["run"]

_WORKERS = 4
_OUTSTANDING = 64
_KEYS = 10_000
_READ = "SELECT v FROM points WHERE id = %s"
_WRITE = "INSERT INTO written (v) VALUES (%s)"
_CREATE = f"""
CREATE TABLE points AS SELECT i AS id, 'value ' || i AS v FROM generate_series(0, {_KEYS - 1}) AS i;
ALTER TABLE points ADD PRIMARY KEY (id); ANALYZE points;
CREATE TABLE written (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v bigint)"""
_SLEEP = "SELECT pg_sleep(0.01)"

POOL, ASYNC, PLAIN, GROUPED = "psycopg_pool, 4 threads", "asyncpg's pool, 64 tasks", "each", "group_commit"


def run(effort: Effort) -> Iterator[Figure]:
    """Measure point queries, inserts, waiting queries and a restart of the server."""
    try:
        import asyncpg  # noqa: F401
        import psycopg  # noqa: F401
        import psycopg_pool  # noqa: F401

        context = postgres_server()
        with context as server, ExitStack() as stack:
            yield from _measured(effort, server, stack)
    except ImportError:
        yield Figure("PostgreSQL, point queries", MISSING)


def _measured(effort: Effort, server: PostgresServer, stack: ExitStack) -> Iterator[Figure]:
    import psycopg

    with psycopg.connect(server.uri, autocommit=True) as connection:
        connection.execute(_CREATE)
    plain = stack.enter_context(Supervisor.start(PostgreSQL(server.uri), size=_WORKERS))
    grouped = stack.enter_context(Supervisor.start(PostgreSQL(server.uri, group_commit=True), size=_WORKERS))
    pool = stack.enter_context(_Pool(server.uri))
    tasks = stack.enter_context(_Tasks(server.uri))
    count = effort.pick(quick=4_096, full=20_480)
    rounds = effort.pick(quick=3, full=9)
    yield from _compared(
        "64 outstanding, point queries",
        {
            PLAIN: partial(_outstanding, plain, _READ, count),
            GROUPED: partial(_outstanding, grouped, _READ, count),
            POOL: partial(pool.run, _READ, count),
            ASYNC: partial(tasks.run, _READ.replace("%s", "$1"), count),
        },
        rounds,
        count,
        {
            (PLAIN, POOL): at_least(1.2, TIMES),
            (GROUPED, POOL): at_least(1.6, TIMES),
            (PLAIN, ASYNC): at_least(2, TIMES),
        },
    )
    yield from _compared(
        "4 threads ask and wait, point queries",
        {PLAIN: partial(_blocking, plain, _READ, count // 4), POOL: partial(pool.run, _READ, count // 4)},
        rounds,
        count // 4,
        {(PLAIN, POOL): at_least(0.9, TIMES)},
    )
    writes = count // 4
    yield from _compared(
        "64 outstanding, durable inserts",
        {
            PLAIN: partial(_outstanding, plain, _WRITE, writes),
            GROUPED: partial(_outstanding, grouped, _WRITE, writes),
            POOL: partial(pool.run, _WRITE, writes),
        },
        rounds,
        writes,
        {(PLAIN, POOL): at_least(1.4, TIMES), (GROUPED, POOL): at_least(5, TIMES)},
    )
    yield from _waiting(plain, effort)
    yield from _restart(server, plain, effort)


def _compared(
    work: str,
    actions: dict[str, Callable[[], object]],
    rounds: int,
    count: int,
    wanted: dict[tuple[str, str], Wanted],
) -> Iterator[Figure]:
    for action in actions.values():
        action()  # prepared statements, caches
    seconds = alternate(actions, rounds)
    for (ours, theirs), limit in wanted.items():
        times = ratio(seconds[theirs], seconds[ours])
        rates = [count / median(seconds[name]) / 1000 for name in (ours, theirs)]
        shown = f"{times:.2f} {TIMES} ({rates[0]:.1f} against {rates[1]:.1f} thousand/s)"
        how = "" if ours == PLAIN else f", {ours}"
        yield Figure(f"PostgreSQL, {work}{how}: {theirs}", shown, times, limit)


def _waiting(crew: SupervisorRef, effort: Effort) -> Iterator[Figure]:
    count = effort.pick(quick=80, full=400)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for reply in [crew.ask(Query(_SLEEP), block=False) for _ in range(count)]:
            reply.get()
        times.append(count * 0.01 / (time.perf_counter() - start))
    seen = median(times)
    name = f"PostgreSQL, queries that wait 10 ms in the server, {_WORKERS} workers: one after the other"
    yield Figure(name, f"{seen:.2f} {TIMES}", seen, at_least(0.95 * _WORKERS, TIMES))


def _restart(server: PostgresServer, crew: SupervisorRef, effort: Effort) -> Iterator[Figure]:
    """Restart the server under 8 callers, and look how long they wait and when answers come."""
    longest, first, poisoned, lost = 0.0, [], 0, 0
    for _ in range(effort.pick(quick=1, full=5)):
        callers = [_Caller(crew) for _ in range(8)]
        for caller in callers:
            caller.start()
        while min(caller.answered for caller in callers) < 10:
            time.sleep(0.01)
        server.restart()
        is_back = time.monotonic()
        while any(caller.answered_at < is_back for caller in callers) and time.monotonic() < is_back + 30:
            time.sleep(0.001)
        for caller in callers:
            caller.is_going = False
        for caller in callers:
            caller.join()
        longest = max(longest, *(caller.longest for caller in callers))
        first.append(max(0.0, *(caller.first_after(is_back) for caller in callers)))
        poisoned += sum(caller.errors["PoisonQuery"] for caller in callers)
        lost += sum(caller.errors["WorkerDied"] for caller in callers)
    name = "PostgreSQL, a restart under 8 callers"
    yield Figure(f"{name}: the longest wait of a caller", f"{longest:.2f} s", longest, at_most(1, "s"))
    latest = max(first)
    yield Figure(f"{name}: the last caller has an answer after", f"{latest:.2f} s", latest, at_most(0.5, "s"))
    yield Figure(f"{name}: PoisonQuery", f"{poisoned} ({lost} WorkerDied)", poisoned, at_most(0, "errors"))


class _Caller(threading.Thread):
    """Asks one query after the other, and notes its waits and its errors."""

    def __init__(self, crew: SupervisorRef) -> None:
        super().__init__(daemon=True)
        self._crew = crew
        self.is_going = True
        self.answered, self.answered_at, self.longest = 0, 0.0, 0.0
        self.errors: Counter[str] = Counter()
        self._times: list[float] = []

    def run(self) -> None:
        while self.is_going:
            asked = time.monotonic()
            try:
                self._crew.ask(Query(_READ, (1,)))
            except QuerycrewError as error:
                self.errors[type(error).__name__] += 1
                time.sleep(0.001)  # as a program that tries again
            else:
                self.answered += 1
                self.answered_at = time.monotonic()
                self._times.append(self.answered_at)
            self.longest = max(self.longest, time.monotonic() - asked)

    def first_after(self, moment: float) -> float:
        """Return the seconds from a moment to the first answer behind it."""
        return next((answered - moment for answered in self._times if answered >= moment), float("inf"))


def _outstanding(crew: SupervisorRef, sql: str, count: int) -> None:
    for start in range(0, count, _OUTSTANDING):
        for reply in [crew.ask(Query(sql, (n % _KEYS,)), block=False) for n in range(start, start + _OUTSTANDING)]:
            reply.get()


def _blocking(crew: SupervisorRef, sql: str, count: int) -> None:
    def ask(first: int) -> None:
        for number in range(first, count, _WORKERS):
            crew.ask(Query(sql, (number % _KEYS,)))

    _in_threads(ask)


def _in_threads(action: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=action, args=(number,)) for number in range(_WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class _Pool:
    """psycopg_pool, as its documentation shows it."""

    def __init__(self, uri: str) -> None:
        from psycopg_pool import ConnectionPool

        self._pool: Any = ConnectionPool(
            uri, min_size=_WORKERS, max_size=_WORKERS, kwargs={"autocommit": True}, open=True
        )

    def __enter__(self) -> Self:
        self._pool.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def run(self, sql: str, count: int) -> None:
        def ask(first: int) -> None:
            for number in range(first, count, _WORKERS):
                with self._pool.connection() as connection:
                    cursor = connection.execute(sql, (number % _KEYS,))
                    if cursor.description is not None:
                        cursor.fetchall()

        _in_threads(ask)


class _Tasks:
    """The pool of asyncpg, in an event loop of its own."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._loop = asyncio.new_event_loop()
        self._pool: Any = None

    def __enter__(self) -> Self:
        import asyncpg

        folder = self._uri.partition("host=")[2]

        async def opened() -> Any:
            return await asyncpg.create_pool(
                host=folder, user="postgres", database="postgres", min_size=_WORKERS, max_size=_WORKERS
            )

        self._pool = self._loop.run_until_complete(opened())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._pool.close())
        self._loop.close()

    def run(self, sql: str, count: int) -> None:
        async def ask(first: int) -> None:
            for number in range(first, count, _OUTSTANDING):
                await self._pool.fetch(sql, number % _KEYS)

        async def ask_all() -> None:
            await asyncio.gather(*(ask(first) for first in range(_OUTSTANDING)))

        self._loop.run_until_complete(ask_all())
