"""The crew and its peers: each with the same number of threads, on the same file."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any, Protocol

import apsw
import pykka

from benchmarks import ways
from benchmarks.data import POINT, key
from benchmarks.plain_pykka import Job, PlainSupervisor
from supervisor import Database, Query, Supervisor

__all__ = [
    "AIOSQLITE",
    "APSW_AIO",
    "CREW",
    "DIRECT",
    "EXECUTOR",
    "PYKKA",
    "SQLITE3",
    "Crew",
    "Direct",
    "Executor",
    "Peer",
    "open_peers",
]

CREW = "the crew"
EXECUTOR = "executor on APSW"
SQLITE3 = "executor on sqlite3"
AIOSQLITE = "aiosqlite"
APSW_AIO = "apsw.aio"
PYKKA = "plain Pykka"
DIRECT = "direct call"

Rows = list[tuple[Any, ...]]


class Peer(Protocol):
    """A contestant: it answers queries."""

    ways: Mapping[str, Callable[..., object]]
    """Name of a way to ask → a function that asks point queries in that way.

    It takes the number of queries, and then the number that is outstanding at any time. For the way
    `one by one` it takes only the first.
    """

    def ask(self, sql: str, params: tuple[Any, ...]) -> Rows:
        """Ask one query and wait for its rows."""
        ...

    def close(self) -> None: ...


class Crew:
    """Querycrew itself."""

    def __init__(self, database: str | Database, size: int) -> None:
        self.ref = Supervisor.start(database, size=size)
        self._runner = asyncio.Runner()
        self.ways = {
            "batches": partial(ways.batches, self._submit, _get),
            "window": partial(ways.window, self._submit, _get),
            "callbacks": partial(ways.callbacks, self._submit),
            "coroutines": lambda *numbers: self._runner.run(ways.awaiting(self._await, *numbers)),
            "threads": partial(ways.threads, self._ask),
            "one by one": lambda count: [self._ask(number) for number in range(count)],
        }

    def _submit(self, number: int) -> Any:
        return self.ref.ask(Query(POINT, (key(number),)), block=False)

    def _ask(self, number: int) -> Rows:
        return self.ref.ask(Query(POINT, (key(number),))).rows

    async def _await(self, number: int) -> Rows:
        return (await self.ref.ask(Query(POINT, (key(number),)), block=False)).rows

    def ask(self, sql: str, params: tuple[Any, ...]) -> Rows:
        return self.ref.ask(Query(sql, params)).rows

    def close(self) -> None:
        self._runner.close()
        self.ref.stop()


def _get(reply: Any) -> Rows:
    return reply.get().rows


class Executor:
    """`ThreadPoolExecutor`, each thread with its own connection."""

    def __init__(self, size: int, connect: Callable[[], Any]) -> None:
        self._local = threading.local()
        self._runner = asyncio.Runner()
        self.pool = ThreadPoolExecutor(size, initializer=lambda: setattr(self._local, "connection", connect()))
        self.ways = {
            "batches": partial(ways.batches, self._submit, Future.result),
            "window": partial(ways.window, self._submit, Future.result),
            "callbacks": partial(ways.callbacks, self._submit),
            "coroutines": lambda *numbers: self._runner.run(ways.awaiting(self._await, *numbers)),
            "threads": partial(ways.threads, lambda number: self._submit(number).result()),
            "one by one": lambda count: [self._submit(number).result() for number in range(count)],
        }

    def run(self, sql: str, params: tuple[Any, ...]) -> Rows:
        """Run a query, on one of the pool's threads."""
        return self._local.connection.execute(sql, params).fetchall()

    def _submit(self, number: int) -> Future[Rows]:
        return self.pool.submit(self.run, POINT, (key(number),))

    async def _await(self, number: int) -> Rows:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.pool, self.run, POINT, (key(number),))

    def ask(self, sql: str, params: tuple[Any, ...]) -> Rows:
        return self.pool.submit(self.run, sql, params).result()

    def close(self) -> None:
        self._runner.close()
        self.pool.shutdown()


class _OnLoop:
    """Connections that are taken in turn, each on a thread behind one event loop.

    There are as many of them as the other peers have threads.
    """

    def __init__(self, path: str, size: int) -> None:
        self._runner = asyncio.Runner()
        self._connections = self._runner.run(self._open(path, size))
        self.ways = {
            "batches": partial(self._run, ways.awaiting_batches),
            "window": partial(self._run, ways.awaiting_window),
            "coroutines": partial(self._run, ways.awaiting),
            "one by one": lambda count: self._runner.run(self._one_by_one(count)),
        }

    async def _open(self, path: str, size: int) -> list[Any]:
        return [await self._connect(path) for _ in range(size)]

    async def _connect(self, path: str) -> Any:
        raise NotImplementedError

    async def _disconnect(self, connection: Any) -> None:
        raise NotImplementedError

    async def _fetch(self, connection: Any, sql: str, params: tuple[Any, ...]) -> Rows:
        raise NotImplementedError

    def _run(self, way: Callable[..., Coroutine[Any, Any, None]], *numbers: int) -> None:
        self._runner.run(way(self._await, *numbers))

    async def _await(self, number: int) -> Rows:
        return await self._fetch(self._connections[number % len(self._connections)], POINT, (key(number),))

    async def _one_by_one(self, count: int) -> None:
        for number in range(count):
            await self._await(number)

    def ask(self, sql: str, params: tuple[Any, ...]) -> Rows:
        return self._runner.run(self._fetch(self._connections[0], sql, params))

    def close(self) -> None:
        for connection in self._connections:
            self._runner.run(self._disconnect(connection))
        self._runner.close()


class Aiosqlite(_OnLoop):
    """aiosqlite; one hop a query."""

    async def _connect(self, path: str) -> Any:
        import aiosqlite

        return await aiosqlite.connect(path, isolation_level=None)

    async def _disconnect(self, connection: Any) -> None:
        await connection.close()

    async def _fetch(self, connection: Any, sql: str, params: tuple[Any, ...]) -> Rows:
        return await connection.execute_fetchall(sql, params)


class ApswAio(_OnLoop):
    """APSW's own asynchronous connections. The hop of `execute` also brings the first rows."""

    async def _connect(self, path: str) -> Any:
        return await apsw.Connection.as_async(path)

    async def _disconnect(self, connection: Any) -> None:
        await connection.aclose()

    async def _fetch(self, connection: Any, sql: str, params: tuple[Any, ...]) -> Rows:
        return await (await connection.execute(sql, params)).fetchall()


class PlainPykka:
    """A crew of plain Pykka actors.

    Their futures have no callbacks, and to await a future blocks the event loop.
    """

    def __init__(self, path: str, size: int) -> None:
        self._ref = PlainSupervisor.start(path, size)
        self.ways = {
            "batches": partial(ways.batches, self._submit, pykka.ThreadingFuture.get),
            "window": partial(ways.window, self._submit, pykka.ThreadingFuture.get),
            "threads": partial(ways.threads, lambda number: self._submit(number).get()),
            "one by one": lambda count: [self._submit(number).get() for number in range(count)],
        }

    def _submit(self, number: int) -> pykka.ThreadingFuture[Rows]:
        return self._tell(POINT, (key(number),))

    def _tell(self, sql: str, params: tuple[Any, ...]) -> pykka.ThreadingFuture[Rows]:
        reply: pykka.ThreadingFuture[Rows] = pykka.ThreadingFuture()
        self._ref.tell(Job(sql, params, reply))
        return reply

    def ask(self, sql: str, params: tuple[Any, ...]) -> Rows:
        return self._tell(sql, params).get()

    def close(self) -> None:
        self._ref.stop()


class Direct:
    """No pool at all: the caller's own connection, in the caller's thread."""

    def __init__(self, path: str) -> None:
        self._connection = apsw.Connection(path)
        self.ways = {
            "one by one": lambda count: [self.ask(POINT, (key(number),)) for number in range(count)],
        }

    def ask(self, sql: str, params: tuple[Any, ...]) -> Rows:
        return self._connection.execute(sql, params).fetchall()

    def close(self) -> None:
        self._connection.close()


@contextmanager
def open_peers(path: str, size: int) -> Iterator[dict[str, Peer]]:
    """Open the crew and every installed peer, and check that all give the same answer."""
    makers: dict[str, Callable[[], Peer]] = {
        CREW: lambda: Crew(path, size),
        EXECUTOR: lambda: Executor(size, partial(apsw.Connection, path)),
        SQLITE3: lambda: Executor(size, partial(sqlite3.connect, path, isolation_level=None)),
        AIOSQLITE: lambda: Aiosqlite(path, size),
        APSW_AIO: lambda: ApswAio(path, size),
        PYKKA: lambda: PlainPykka(path, size),
        DIRECT: lambda: Direct(path),
    }
    for name in (AIOSQLITE, APSW_AIO):
        if find_spec(name) is None:
            del makers[name]
    with ExitStack() as stack:
        peers = {name: stack.enter_context(closing(make())) for name, make in makers.items()}
        for peer in peers.values():
            assert peer.ask(POINT, (key(1),)) == [("user 7919", 7919 % 90)]
        yield peers
