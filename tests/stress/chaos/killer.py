"""The killer: ends workers in every way there is."""

import ctypes
import logging
import threading
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any

import pykka

from supervisor import SupervisorRef
from tests.stress.chaos.crew import ChaosWorker
from tests.stress.chaos.databases import Killed

LOGGERS = (*(f"querycrew.{name}" for name in ("supervisor", "worker", "reply", "ref", "actor")), "pykka")


class Killer(threading.Thread):
    """Kills workers in every way until the run has had enough."""

    def __init__(self, random: Random, ref: SupervisorRef, database: Any, pause: float) -> None:
        super().__init__(name="chaos-killer", daemon=True)
        self.kills: Counter[str] = Counter()
        self.enough = threading.Event()
        self._random = random
        self._ref = ref
        self._database = database
        self._pause = pause

    def run(self) -> None:
        ways = 6 * [self._interrupt] + 3 * [self._stop] + 3 * [self._doom] + [self._doom_opening]
        while not self.enough.wait(self._random.random() * 2 * self._pause):
            way = self._random.choice(ways)
            self.kills[way.__name__.strip("_")] += way()

    def _interrupt(self) -> bool:
        """Raise in the middle of a worker's work.

        Only once in its life: a second kill may hit its end.
        """
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
        return bool(self._database.doom(self._ref, self._random))

    def _doom_opening(self) -> bool:
        return bool(self._database.doom_opening(self._random))


def be_rude(random: Random) -> None:
    """Let everything be logged, to a filter that raises now and then and lets nothing through."""

    def rude(record: logging.LogRecord) -> bool:
        if random.random() < 0.01:
            message = "a filter that raises"
            raise RuntimeError(message)
        return False

    for name in LOGGERS:
        logging.getLogger(name).addFilter(rude)
        logging.getLogger(name).setLevel(logging.DEBUG)
