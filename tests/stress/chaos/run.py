"""One chaos run: start everything, let it run, and check the rest at the end."""

import gc
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pykka

import actors.ref
from actors.replies.reply import Reply
from supervisor import CrewStatus, RestartPolicy, Status, SupervisorRef
from tests.conftest import eventually, open_descriptors
from tests.stress.chaos.callers import CALLERS, TALKERS, Tally
from tests.stress.chaos.crew import ChaosSupervisor, ChaosWorker, CountingReply
from tests.stress.chaos.databases import GRACE, Killed
from tests.stress.chaos.findings import Findings
from tests.stress.chaos.killer import LOGGERS, Killer, be_rude

_POLICY = RestartPolicy(
    max_restarts=10**6, quiet_period=0, backoff_initial=0.001, backoff_max=0.01, grace=GRACE, poison_after=0
)


def run(
    asks: int, seed: int, database: Any, *, workers: int = 4, pause: float = 0.002, patience: float = 60.0
) -> Findings:
    """Let the callers ask while the killer kills; return the findings.

    Args:
        asks: how many, all callers together.
        seed: of the killer's choices. No seed decides the timing of the threads.
        database: `Scripted`, or a `File`.
        workers: the size of the crew.
        pause: seconds between two kills, on average.
        patience: seconds after which an answer counts as missing.
    """
    before, descriptors = set(threading.enumerate()), open_descriptors()
    callers = (*CALLERS, *(TALKERS if database.checkouts else ()))
    tallies = [Tally(database, range(number, asks, len(callers)), patience) for number in range(len(callers))]
    with _hooks():
        crew_database = getattr(database, "database", database)
        ref = ChaosSupervisor.start(crew_database, size=workers, restart=_POLICY, name="chaos")
        killer = Killer(Random(seed), ref, database, pause)
        supervisor = ref._actor_weakref()
        be_rude(Random(seed))
        seconds = _let_it_happen(ref, callers, tallies, killer)
        database.spare()
        full_size = eventually(lambda: _is_full(ref, workers), 20)
        eventually(lambda: not _kept(ref), 10)  # the deadline of a job that was cancelled is forgotten as it passes
        status, kept = ref.ask(Status()), _kept(ref)
        stopped = _stop(ref, patience)
    recoveries, hard_recoveries = supervisor.recoveries, supervisor.hard_recoveries
    del supervisor
    findings = Findings(
        asks=asks,
        seconds=seconds,
        answered_twice=len(CountingReply.answered_twice),
        ran_twice=database.twice(),
        kills=killer.kills,
        restarts=status.restarts,
        miscounted=_miscounted(status),
        kept=kept,
        full_size=full_size,
        leaks=_leaks(before, descriptors) if stopped else ["the crew did not stop"],
        recoveries=recoveries,
        hard_recoveries=hard_recoveries,
    )
    for tally in tallies:
        findings.add(tally)
    findings.unexpected += database.never_ran(set().union(*(tally.acknowledged for tally in tallies)))
    findings.unexpected += database.not_undone(set().union(*(tally.denied for tally in tallies)))
    return findings


def _let_it_happen(ref: SupervisorRef, callers: Any, tallies: list[Tally], killer: Killer) -> float:
    """Run all callers to their end, and the killer meanwhile; return the seconds that took."""
    threads = [
        threading.Thread(target=caller, args=(ref, tally), name=caller.__name__, daemon=True)
        for caller, tally in zip(callers, tallies, strict=True)
    ]
    began = time.monotonic()
    for thread in [killer, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    killer.enough.set()
    killer.join()
    return seconds


@contextmanager
def _hooks() -> Iterator[None]:
    """Count the answers of replies; hide the errors of threads killed after their last act."""
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
        for name in LOGGERS:
            logging.getLogger(name).filters.clear()
            logging.getLogger(name).setLevel(logging.NOTSET)


def _miscounted(status: CrewStatus) -> int:
    """Return by how much the counters do not add up."""
    ends = (status.answered, status.failed, status.died, status.rejected, status.cancelled, status.timed_out)
    return status.submitted - sum(ends) - status.shed - status.queued - status.running


def _kept(ref: SupervisorRef) -> int:
    """Return how many deadlines and interrupts have outlived their jobs."""
    timers = ref._dispatcher.timers
    return len(timers.interrupted) + sum(map(len, timers._slots.values()))


def _is_full(ref: SupervisorRef, size: int) -> bool:
    status = ref.ask(Status())
    alive = [thread for thread in threading.enumerate() if thread.name.startswith("querycrew-chaos-worker-")]
    settled = (
        status.state == "up"
        and status.queued == status.stuck == 0
        and all(worker.state == "idle" for worker in status.workers)
    )
    readers = sum(worker.role != "writer" for worker in status.workers)
    return settled and readers == size and len(status.workers) == sum(thread.is_alive() for thread in alive)


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
