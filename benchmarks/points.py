"""Point queries by primary key: 64 outstanding in several ways, and one by one."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.data import create
from benchmarks.figures import TIMES, Figure, Wanted, at_least
from benchmarks.machine import cpus
from benchmarks.peers import AIOSQLITE, CREW, DIRECT, EXECUTOR, PYKKA, SQLITE3, Peer, open_peers
from benchmarks.rounds import Effort, alternate, ratio

__all__ = ["compared", "one_by_one", "outstanding"]

# What is wanted of the main way to keep 64 outstanding; the others are shown beside it.
_MAIN = "batches"
_WANTED = {EXECUTOR: 1.3, SQLITE3: 2.5, AIOSQLITE: 2.5, PYKKA: 5.0}
_WAYS = {
    "batches": "submit 64, collect 64",
    "window": "wait for the oldest of 64",
    "callbacks": "a callback submits the next",
    "coroutines": "64 coroutines await",
    "threads": "64 threads ask and wait",
}


def outstanding(effort: Effort) -> Iterator[Figure]:
    """Compare point queries with 64 outstanding."""
    count = 64 * effort.pick(quick=40, full=100)
    with TemporaryDirectory() as folder, open_peers(create(Path(folder) / "points.db"), cpus()) as peers:
        for way, text in _WAYS.items():
            wanted = {peer: at_least(times, TIMES) for peer, times in _WANTED.items()} if way == _MAIN else {}
            rounds = effort.pick(quick=5, full=15 if way == _MAIN else 9)
            yield from compared(f"64 outstanding, {text}", way, peers, count=count, rounds=rounds, wanted=wanted)


def one_by_one(effort: Effort) -> Iterator[Figure]:
    """Compare point queries that are asked one after the other."""
    count = effort.pick(quick=1000, full=3000)
    rounds = effort.pick(quick=5, full=15)
    wanted = {EXECUTOR: at_least(1.0, TIMES)}
    with TemporaryDirectory() as folder, open_peers(create(Path(folder) / "points.db"), cpus()) as peers:
        yield from compared("one after the other", "one by one", peers, count=count, rounds=rounds, wanted=wanted)


def compared(
    text: str, way: str, peers: Mapping[str, Peer], *, count: int, rounds: int, wanted: dict[str, Wanted]
) -> Iterator[Figure]:
    """Compare the crew with its peers at point queries, asked in one way."""
    asking = {name: peer.ways[way] for name, peer in peers.items() if way in peer.ways}
    for ask in asking.values():
        ask(count // 4)  # warm
    seconds = alternate({name: lambda ask=ask: ask(count) for name, ask in asking.items()}, rounds)
    rate = {name: count / median(times) / 1000 for name, times in seconds.items()}
    for name in (*_WANTED, DIRECT):
        if name in seconds:
            times = ratio(seconds[name], seconds[CREW])
            seen = f"{times:.2f} {TIMES} ({rate[CREW]:.0f} against {rate[name]:.0f} thousand/s)"
            yield Figure(f"{text}: {name}", seen, times, wanted.get(name))
        elif name in wanted:
            yield Figure(f"{text}: {name}", "not installed", None, wanted[name])
