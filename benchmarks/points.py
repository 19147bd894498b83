"""Point queries by primary key: many outstanding in several ways, and one by one."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.data import create
from benchmarks.figures import TIMES, Figure, at_least
from benchmarks.machine import cpus
from benchmarks.peers import AIOSQLITE, APSW_AIO, CREW, DIRECT, EXECUTOR, PYKKA, SQLITE3, Peer, open_peers
from benchmarks.rounds import Effort, alternate, ratio
from benchmarks.ways import OUTSTANDING

__all__ = ["compared", "one_by_one", "outstanding"]

_PEERS = (EXECUTOR, SQLITE3, AIOSQLITE, APSW_AIO, PYKKA, DIRECT)
_ALONE = "one by one"
_TEXTS = {
    "batches": "{0} outstanding, submit {0}, collect {0}",
    "window": "{0} outstanding, wait for the oldest of {0}",
    "callbacks": "{0} outstanding, a callback submits the next",
    "coroutines": "{0} outstanding, {0} coroutines await",
    "threads": "{0} outstanding, {0} threads ask and wait",
    _ALONE: "one after the other",
}
# The least wanted ratio of the crew to each peer. The other peers are shown without a limit.
_WANTED = {
    "batches": {EXECUTOR: 2.0, SQLITE3: 2.5, AIOSQLITE: 2.5, PYKKA: 5.0},
    "window": {EXECUTOR: 2.0},
    "callbacks": {},
    "coroutines": {EXECUTOR: 2.0, AIOSQLITE: 1.8, APSW_AIO: 2.0},
    "threads": {EXECUTOR: 1.3},
}
_WANTED_OF_FEWER = {16: 1.8, 4: 1.5}


def outstanding(effort: Effort) -> Iterator[Figure]:
    """Compare point queries with 64 outstanding in each way, and with fewer in two ways."""
    count = OUTSTANDING * effort.pick(quick=20, full=100)
    with TemporaryDirectory() as folder, open_peers(create(Path(folder) / "points.db"), cpus()) as peers:
        for way, wanted in _WANTED.items():
            rounds = effort.pick(quick=3, full=13 if wanted else 7)
            yield from compared(way, peers, count=count, rounds=rounds, wanted=wanted)
        executors = {name: peers[name] for name in (CREW, EXECUTOR, SQLITE3)}
        for depth, times in _WANTED_OF_FEWER.items():
            for way in ("batches", "window"):
                rounds = effort.pick(quick=3, full=13)
                wanted = {EXECUTOR: times}
                yield from compared(way, executors, count=count, rounds=rounds, wanted=wanted, depth=depth)


def one_by_one(effort: Effort) -> Iterator[Figure]:
    """Compare point queries that are asked one after the other."""
    count = effort.pick(quick=1000, full=3000)
    rounds = effort.pick(quick=5, full=15)
    with TemporaryDirectory() as folder, open_peers(create(Path(folder) / "points.db"), cpus()) as peers:
        yield from compared(_ALONE, peers, count=count, rounds=rounds, wanted={EXECUTOR: 1.2})


def compared(
    way: str,
    peers: Mapping[str, Peer],
    *,
    count: int,
    rounds: int,
    wanted: Mapping[str, float],
    depth: int = OUTSTANDING,
    prefix: str = "",
) -> Iterator[Figure]:
    """Compare the crew with its peers at point queries, asked in one way, `depth` outstanding."""
    numbers = () if way == _ALONE else (depth,)
    asking = {name: peer.ways[way] for name, peer in peers.items() if way in peer.ways}
    for ask in asking.values():
        ask(count // 4, *numbers)  # warm
    seconds = alternate({name: partial(ask, count, *numbers) for name, ask in asking.items()}, rounds)
    rate = {name: count / median(times) / 1000 for name, times in seconds.items()}
    text = prefix + _TEXTS[way].format(depth)
    for name in _PEERS:
        bound = at_least(wanted[name], TIMES) if name in wanted else None
        if name in seconds:
            times = ratio(seconds[name], seconds[CREW])
            seen = f"{times:.2f} {TIMES} ({rate[CREW]:.0f} against {rate[name]:.0f} thousand/s)"
            yield Figure(f"{text}: {name}", seen, times, bound)
        elif bound is not None:
            yield Figure(f"{text}: {name}", "not installed", None, bound)
