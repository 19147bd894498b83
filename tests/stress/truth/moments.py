"""Moments: when to interrupt a write, swept over its length, most often around its decision."""

import time
from collections.abc import Callable, Hashable
from random import Random

__all__ = ["LARGEST", "SLOT", "Moments", "spin_until", "wait_for_slot"]

LARGEST = 9 << 20
"""Bytes of an answer that no child with the least memory can pack."""
SLOT = 0.01
"""Seconds: a deadline is kept up to one slot late."""
_LENGTH = 0.0015  # seconds that a write is taken to need before one was measured


class _Edge:
    """A value that divides the writes that take effect from the others.

    It is found by small steps. Each try moves it towards the other side.
    """

    def __init__(self, at: float) -> None:
        self.at = at
        self._least, self._most = at / 50, at * 50
        self._tries = 0

    def move(self, *, up: bool) -> None:
        self._tries += 1
        step = max(0.03, 0.4 / self._tries)
        self.at = min(max(self.at * (1 + step if up else 1 / (1 + step)), self._least), self._most)


class Moments:
    """The delays of interrupts.

    A third of the delays is spread evenly over 0 … 1.5 times the measured length. The others lie
    close to the edge between the tries that took effect and the others. The edge is a part of the
    length. It is learnt for each way to interrupt, and more exactly for each kind of write.
    """

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._lengths: dict[Hashable, float] = {}
        self._edges: dict[Hashable, _Edge] = {}

    def knows(self, write: Hashable) -> bool:
        """Say whether the length of a write was measured."""
        return write in self._lengths

    def length(self, write: Hashable) -> float:
        """Return how long a write takes, as far as that is known, in seconds."""
        return self._lengths.get(write, _LENGTH)

    def measured(self, write: Hashable, seconds: float) -> None:
        """Note how long a write took that nobody interrupted."""
        before = self._lengths.get(write)
        self._lengths[write] = seconds if before is None else before + 0.3 * (seconds - before)

    def draw(self, length: float, way: Hashable, write: Hashable) -> tuple[float, Callable[[bool], None]]:
        """Return a delay in seconds, and a function that takes whether the write took effect.

        Args:
            length: how long the write takes, and its neighbours.
            way: how it is interrupted, and in which circumstances.
            write: its kind.
        """
        of_all = self._edges.setdefault(way, _Edge(1.0))
        own = self._edges.setdefault((way, write), _Edge(of_all.at))
        if self._chance.random() < 1 / 3:
            return self._chance.uniform(0, 1.5 * length), lambda took_effect: None

        def tell(took_effect: bool) -> None:
            of_all.move(up=not took_effect)
            own.move(up=not took_effect)

        return max(0.0, own.at * length * (1 + self._chance.gauss(0, 0.08))), tell

    def draw_size(self, write: Hashable) -> tuple[int, Callable[[bool], None]]:
        """Return a number of bytes to be answered, and a function as `draw` does."""
        if self._chance.random() < 1 / 3:
            return self._chance.randrange(LARGEST), lambda took_effect: None
        edge = self._edges.setdefault((write, "size"), _Edge(LARGEST / 4))
        return int(edge.at * (1 + self._chance.gauss(0, 0.08))), lambda took_effect: edge.move(up=took_effect)


def spin_until(at: float) -> None:
    """Wait until a moment of `time.perf_counter` without sleeping.

    A wake-up takes as long as a write.
    """
    while time.perf_counter() < at:
        pass


def wait_for_slot(delay: float) -> None:
    """Wait until a moment from which a short timeout interrupts a request after `delay` seconds.

    A deadline takes effect at the end of its slot of 10 ms. So the slot must end then.
    """
    edge = (int((time.monotonic() + delay) / SLOT) + 1) * SLOT
    while time.monotonic() < edge - delay:
        pass
