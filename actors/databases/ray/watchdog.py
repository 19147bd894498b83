"""Watchdog: notices within seconds that an actor, a node or the whole cluster does not answer.

Ray itself needs 16 to 60 seconds for that, and notices a frozen node only later.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from actors.databases.ray.hosted import CONTROL
from actors.values.errors import ChildProcessEnded

__all__ = ["Watchdog", "first_line"]

_PERIOD: Final = 1.0  # seconds between two pings of an actor


class _Watched(Protocol):
    actor: Any
    """The handle of the actor."""

    def lose(self, error: ChildProcessEnded, *, is_silent: bool = False) -> None:
        """Take note that the actor is gone, or only silent."""
        ...


class Watchdog:
    """Pings the actors and the head of the cluster. Both threads are daemons."""

    def __init__(self, ray: Any, silence: float, on_silence: Callable[[ChildProcessEnded], object]) -> None:
        """Make a watchdog, which does not watch yet.

        Args:
            ray: the connected driver.
            silence: seconds without an answer, after which an actor or the cluster is given up.
            on_silence: called when the head of the cluster is silent.
        """
        self._ray = ray
        self._silence = silence
        self._on_silence = on_silence
        self._watched: set[_Watched] = set()
        self._stopped = threading.Event()
        self._heard = time.monotonic()

    def start(self) -> None:
        """Begin to watch."""
        self._heard = time.monotonic()
        for work in (self._watch_actors, self._watch_head):
            threading.Thread(target=work, name="querycrew-watchdog", daemon=True).start()

    def add(self, watched: _Watched) -> None:
        """Watch an actor."""
        self._watched.add(watched)

    def remove(self, watched: _Watched) -> None:
        """Watch it no more."""
        self._watched.discard(watched)

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()

    def _watch_head(self) -> None:
        while not self._stopped.wait(_PERIOD):
            with suppress(Exception):  # of Ray: then nothing was heard
                self._ray.nodes()
                self._heard = time.monotonic()

    def _watch_actors(self) -> None:
        # The pings that have no answer yet, with their actors and times.
        pings: dict[Any, tuple[_Watched, float]] = {}
        try:
            while not self._stopped.wait(_PERIOD):
                self._take_answers(pings)
                self._ping(pings)
                silent = time.monotonic() - self._heard
                # Running jobs do not need the head, so it gets more time than an actor.
                if silent > 2 * self._silence + _PERIOD:
                    self._on_silence(ChildProcessEnded(f"the Ray cluster has not answered for {silent:.1f} seconds"))
        except Exception as error:  # noqa: BLE001  # nothing works without a watchdog
            if not self._stopped.is_set():
                self._on_silence(ChildProcessEnded(f"the Ray cluster cannot be asked: {first_line(error)}"))

    def _ping(self, pings: dict[Any, tuple[_Watched, float]]) -> None:
        """Ping the actors that owe no answer; give up each actor that owes one for too long."""
        now = time.monotonic()
        for ping, (watched, since) in list(pings.items()):
            if watched not in self._watched:
                del pings[ping]
            elif now - since > self._silence:
                del pings[ping]
                error = ChildProcessEnded(f"{watched} has not answered for {now - since:.1f} seconds")
                watched.lose(error, is_silent=True)
        pinged = {watched for watched, _ in pings.values()}
        for watched in self._watched.copy() - pinged:
            pings[watched.actor.ping.options(concurrency_group=CONTROL).remote()] = (watched, now)

    def _take_answers(self, pings: dict[Any, tuple[_Watched, float]]) -> None:
        if not pings:
            return
        answered, _ = self._ray.wait(list(pings), num_returns=len(pings), timeout=0)
        for ping in answered:
            watched, _ = pings.pop(ping)
            try:
                self._ray.get(ping)
            except Exception as error:  # noqa: BLE001  # the actor is gone
                watched.lose(ChildProcessEnded(f"{watched} ended: {first_line(error)}"))


def first_line(error: BaseException) -> str:
    """Return the first line of an error of Ray, which may have many."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
