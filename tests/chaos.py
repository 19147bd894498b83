"""Chaos on real threads: callers of every kind, workers killed in every way, and nothing lost.

    python -m tests.chaos --asks 1000000 --seed 1
    python -m tests.chaos --asks 100000 --seed 1 --database sqlite

Each statement has a number of its own, and each connection writes down what it runs. At the end: every ask was
answered, none twice, none ran twice, the crew is at full size, and nothing is left behind. The exit code is 1
if any of that is not so. How long it took to replace the workers that died is measured, too.
"""

import argparse
import ctypes
import gc
import logging
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pykka

import actors.ref
from actors.messages import WorkerDown, WorkerUp
from actors.reply import Reply
from actors.seat import SeatState
from actors.worker import Worker
from supervisor import RestartPolicy, Status, Supervisor, SupervisorRef
from tests.chaos_callers import CALLERS, Tally, told
from tests.chaos_databases import Killed, NumberedSQLite, Scripted
from tests.conftest import eventually, open_descriptors

_LOGGERS = ("supervisor", "actors.worker", "actors.reply", "actors.ref", "actors.actor", "pykka")
_POLICY = RestartPolicy(max_restarts=10**6, quiet_period=0, backoff_initial=0.001, backoff_max=0.01)


class CountingReply(Reply[Any]):
    """A reply that notices when it accepts two answers."""

    __slots__ = ("answered",)

    answered_twice: ClassVar[list["CountingReply"]] = []

    def __init__(self, crew: object = None) -> None:
        super().__init__(crew)
        self.answered = False
        if told.replies is not None:
            told.replies.append(self)

    def settle(self, outcome: Any) -> bool:
        first = super().settle(outcome)
        if first:
            if self.answered:
                self.answered_twice.append(self)
            self.answered = True
        return first


class ChaosWorker(Worker):
    """A worker that the killer can find, from its first step to its last."""

    targets: ClassVar[dict[int, "ChaosWorker"]] = {}
    aiming: ClassVar[threading.Lock] = threading.Lock()

    def on_start(self) -> None:
        self.targets[threading.get_ident()] = self
        super().on_start()

    def on_gone(self, cause: BaseException | None) -> None:
        # Its thread's number may soon be another's: whoever aims has to know that it is gone.
        with self.aiming:
            self.targets.pop(threading.get_ident(), None)
        super().on_gone(cause)


class ChaosSupervisor(Supervisor):
    """A supervisor that measures from each death notice until the replacement is up."""

    worker_class = ChaosWorker

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.recoveries: list[float] = []
        """Seconds from a death to the replacement's first breath, where that could open the database at once."""
        self.hard_recoveries: list[float] = []
        """The same, where the database could not be opened at first."""
        self._heard: dict[tuple[type, int], float] = {}
        # By the seat's id: since when it is vacant, and whether opening has failed since.
        self._vacant: dict[int, float] = {}
        self._hard: set[int] = set()

    def _hear(self, news: Any) -> None:
        self._heard[type(news), news.worker_id] = time.monotonic()
        super()._hear(news)

    def _on_worker_down(self, worker_id: int, cause: BaseException | None) -> None:
        seat = self._seat_of(worker_id)
        if seat is not None:
            self._vacant.setdefault(id(seat), self._heard[WorkerDown, worker_id])
            if seat.state is SeatState.STARTING:
                self._hard.add(id(seat))
        super()._on_worker_down(worker_id, cause)

    def _on_worker_up(self, worker_id: int) -> None:
        seat = id(self._seat_of(worker_id))
        since = self._vacant.pop(seat, None)
        if since is not None:
            recoveries = self.hard_recoveries if seat in self._hard else self.recoveries
            recoveries.append(self._heard[WorkerUp, worker_id] - since)
        self._hard.discard(seat)
        super()._on_worker_up(worker_id)


class Killer(threading.Thread):
    """Kills workers, in every way, until it is told to stop."""

    def __init__(self, random: Random, database: Any, pause: float) -> None:
        super().__init__(name="chaos-killer", daemon=True)
        self.kills: Counter[str] = Counter()
        self.enough = threading.Event()
        self._random = random
        self._database = database
        self._pause = pause

    def run(self) -> None:
        ways = 6 * [self._interrupt] + 3 * [self._stop] + 3 * [self._doom] + [self._doom_opening]
        while not self.enough.wait(self._random.random() * 2 * self._pause):
            way = self._random.choice(ways)
            self.kills[way.__name__.strip("_")] += way()

    def _interrupt(self) -> bool:
        """Raise in the middle of whatever a worker does. Once in its life: a second one may hit its very end."""
        with ChaosWorker.aiming:
            idents = list(ChaosWorker.targets)
            if not idents:
                return False
            ident = self._random.choice(idents)
            del ChaosWorker.targets[ident]
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(Killed))
        return True

    def _stop(self) -> bool:
        workers = pykka.ActorRegistry.get_by_class(ChaosWorker)
        if workers:
            with suppress(pykka.ActorDeadError):
                self._random.choice(workers).stop(block=False)
        return bool(workers)

    def _doom(self) -> bool:
        return _doom(self._database.doomed, self._random.randrange(5))

    def _doom_opening(self) -> bool:
        return _doom(self._database.doomed_openings, self._random.randrange(2))


def _doom(dooms: deque[int], doom: int) -> bool:
    """One at a time: if nobody meets it, the next would wait too, and then all would come at once."""
    if not dooms:
        dooms.append(doom)
        return True
    return False


@dataclass
class Findings:
    """What a run has shown."""

    asks: int
    seconds: float
    unanswered: int
    answered_twice: int
    ran_twice: int
    unexpected: list[str]
    outcomes: Counter[str]
    callbacks_missed: int
    kills: Counter[str]
    deaths: int
    full_size: bool
    leaks: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    hard_recoveries: list[float] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """The invariants that do not hold."""
        wanted = {
            "unanswered": self.unanswered == 0,
            "answered twice": self.answered_twice == 0,
            "ran twice": self.ran_twice == 0,
            "unexpected": not self.unexpected,
            # A kill that hits a callback at its first step ends that callback, and no other.
            "callbacks missed": self.callbacks_missed <= self.kills["interrupt"],
            "full size": self.full_size,
            "leaks": not self.leaks,
        }
        return [name for name, holds in wanted.items() if not holds]

    def table(self) -> str:
        rows = {
            "asks": f"{self.asks:,} in {self.seconds:.1f} s, {self.asks / self.seconds:,.0f}/s",
            "outcomes": ", ".join(f"{name} {count:,}" for name, count in self.outcomes.most_common()),
            "kills": ", ".join(f"{name} {count:,}" for name, count in self.kills.most_common()),
            "workers lost": f"{self.deaths:,}",
            "unanswered": self.unanswered,
            "answered twice": self.answered_twice,
            "ran twice": self.ran_twice,
            "unexpected": self.unexpected[:5] or 0,
            "callbacks missed": self.callbacks_missed,
            "leaks": self.leaks or 0,
            "full size": self.full_size,
            "recovery": _milliseconds(self.recoveries),
            "…opening failed": _milliseconds(self.hard_recoveries),
            "verdict": "BROKEN: " + ", ".join(self.broken) if self.broken else "all invariants hold",
        }
        return "\n".join(f"{name:<17} {value}" for name, value in rows.items())


def run(
    asks: int, seed: int, database: Any, *, workers: int = 4, pause: float = 0.002, patience: float = 60.0
) -> Findings:
    """Let the callers ask while the killer kills; return what was found.

    Args:
        asks: how many, all callers together.
        seed: of what the killer and the callers decide; the threads' timing is nobody's.
        database: `Scripted`, or `NumberedSQLite`.
        workers: the size of the crew.
        pause: seconds between two kills, on average.
        patience: seconds after which an answer counts as missing.
    """
    before, descriptors = set(threading.enumerate()), open_descriptors()
    with _hooks():
        ref = ChaosSupervisor.start(database, size=workers, restart=_POLICY, name="chaos")
        _be_rude(Random(seed))
        supervisor = ref._actor_weakref()
        killer = Killer(Random(seed), database, pause)
        tallies = [Tally(database, range(number, asks, len(CALLERS)), patience) for number in range(len(CALLERS))]
        threads = [
            threading.Thread(target=caller, args=(ref, tally), name=caller.__name__, daemon=True)
            for caller, tally in zip(CALLERS, tallies, strict=True)
        ]
        began = time.monotonic()
        for thread in [killer, *threads]:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - began
        killer.enough.set()
        killer.join()
        database.doomed.clear()
        database.doomed_openings.clear()
        full_size = eventually(lambda: _is_full(ref, workers), 20)
        deaths = ref.ask(Status()).restarts
        stopped = _stop(ref, patience)
    findings = Findings(
        asks=asks,
        seconds=seconds,
        unanswered=sum(tally.unanswered for tally in tallies),
        answered_twice=len(CountingReply.answered_twice),
        ran_twice=sum(count > 1 for count in Counter(database.ran()).values()),
        unexpected=[text for tally in tallies for text in tally.unexpected],
        outcomes=sum((tally.outcomes for tally in tallies), Counter()),
        callbacks_missed=sum(tally.callbacks_missed for tally in tallies),
        kills=killer.kills,
        deaths=deaths,
        full_size=full_size,
        recoveries=supervisor.recoveries,
        hard_recoveries=supervisor.hard_recoveries,
    )
    findings.unexpected += database.never_ran(set().union(*(tally.acknowledged for tally in tallies)))
    del supervisor
    findings.leaks = [] if stopped else ["the crew did not stop"]
    findings.leaks += _leaks(before, descriptors)
    return findings


@contextmanager
def _hooks() -> Iterator[None]:
    """Count the answers of replies, and be silent about threads that are killed after their last act."""
    CountingReply.answered_twice.clear()
    actors.ref.Reply = CountingReply  # type: ignore[misc]
    hooks = threading.excepthook, sys.unraisablehook

    def if_not_killed(hook: Any) -> Any:
        return lambda args: None if isinstance(args.exc_value, Killed) else hook(args)

    threading.excepthook, sys.unraisablehook = (if_not_killed(hook) for hook in hooks)
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = hooks
        actors.ref.Reply = Reply  # type: ignore[misc]
        for name in _LOGGERS:
            logging.getLogger(name).filters.clear()
            logging.getLogger(name).setLevel(logging.NOTSET)


def _be_rude(random: Random) -> None:
    """Let everything be logged, to a filter that raises now and then and lets nothing through."""

    def rude(record: logging.LogRecord) -> bool:
        if random.random() < 0.01:
            message = "a filter that raises"
            raise RuntimeError(message)
        return False

    for name in _LOGGERS:
        logging.getLogger(name).addFilter(rude)
        logging.getLogger(name).setLevel(logging.DEBUG)


def _is_full(ref: SupervisorRef, size: int) -> bool:
    status = ref.ask(Status())
    alive = [thread for thread in threading.enumerate() if thread.name.startswith("querycrew-chaos-worker-")]
    settled = status.state == "up" and status.queued == 0 and all(worker.state == "idle" for worker in status.workers)
    return settled and len(status.workers) == sum(thread.is_alive() for thread in alive) == size


def _stop(ref: SupervisorRef, patience: float) -> bool:
    try:
        ref.stop(timeout=patience)
    except pykka.Timeout:
        return False
    return True


def _leaks(before: set[threading.Thread], descriptors: int) -> list[str]:
    def left() -> list[str]:
        threads = [thread for thread in threading.enumerate() if thread not in before and thread.is_alive()]
        refs = [*pykka.ActorRegistry.get_by_class(ChaosWorker), *pykka.ActorRegistry.get_by_class(ChaosSupervisor)]
        return [*(thread.name for thread in threads), *map(str, refs)]

    leaks = [] if eventually(lambda: not left()) else left()
    gc.collect()
    if open_descriptors() > descriptors:
        leaks.append(f"{open_descriptors() - descriptors} descriptors")
    return leaks


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Many asks, many kills, nothing lost.")
    parser.add_argument("--asks", type=int, default=100_000, help="how many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=("scripted", "sqlite"), default="scripted")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.002, help="seconds between two kills, on average")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Scripted() if options.database == "scripted" else NumberedSQLite(Path(folder) / "chaos.db")
        findings = run(options.asks, options.seed, database, workers=options.workers, pause=options.pause)
    sys.stdout.write(findings.table() + "\n")
    return 1 if findings.broken else 0


if __name__ == "__main__":
    sys.exit(main())
