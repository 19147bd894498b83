"""The crew and its peers: each with the same number of threads, on the same file."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
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
PYKKA = "plain Pykka"
DIRECT = "direct call"

Rows = list[tuple[Any, ...]]


class Peer(Protocol):
    """Somebody who answers queries."""

    ways: Mapping[str, Callable[[int], object]]
    """Name of a way to ask → a function that asks so many point queries in that way."""

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
            "coroutines": lambda count: self._runner.run(ways.awaiting(self._await, count)),
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
            "coroutines": lambda count: self._runner.run(ways.awaiting(self._await, count)),
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


class Aiosqlite:
    """aiosqlite, as many connections as the others have threads, taken in turn; one hop a query."""

    def __init__(self, path: str, size: int) -> None:
        self._runner = asyncio.Runner()
        self._connections = self._runner.run(self._connect(path, size))
        self.ways = {
            "batches": lambda count: self._runner.run(ways.awaiting_batches(self._await, count)),
            "window": lambda count: self._runner.run(ways.awaiting_window(self._await, count)),
            "coroutines": lambda count: self._runner.run(ways.awaiting(self._await, count)),
            "one by one": lambda count: self._runner.run(self._one_by_one(count)),
        }

    async def _connect(self, path: str, size: int) -> list[Any]:
        import aiosqlite

        return [await aiosqlite.connect(path, isolation_level=None) for _ in range(size)]

    async def _await(self, number: int) -> Rows:
        connection = self._connections[number % len(self._connections)]
        return await connection.execute_fetchall(POINT, (key(number),))

    async def _one_by_one(self, count: int) -> None:
        for number in range(count):
            await self._await(number)

    def ask(self, sql: str, params: tuple[Any, ...]) -> Rows:
        return self._runner.run(self._connections[0].execute_fetchall(sql, params))

    def close(self) -> None:
        for connection in self._connections:
            self._runner.run(connection.close())
        self._runner.close()


class PlainPykka:
    """A crew of plain Pykka actors; their futures have no callbacks, and awaiting one blocks the event loop."""

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
    """Open the crew and every peer that is installed, and see to it that all give the same answer."""
    makers: dict[str, Callable[[], Peer]] = {
        CREW: lambda: Crew(path, size),
        EXECUTOR: lambda: Executor(size, partial(apsw.Connection, path)),
        SQLITE3: lambda: Executor(size, partial(sqlite3.connect, path, isolation_level=None)),
        AIOSQLITE: lambda: Aiosqlite(path, size),
        PYKKA: lambda: PlainPykka(path, size),
        DIRECT: lambda: Direct(path),
    }
    if find_spec("aiosqlite") is None:
        del makers[AIOSQLITE]
    with ExitStack() as stack:
        peers = {name: stack.enter_context(closing(make())) for name, make in makers.items()}
        for peer in peers.values():
            assert peer.ask(POINT, (key(1),)) == [("user 7919", 7919 % 90)]
        yield peers
