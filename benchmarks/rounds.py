"""Measuring side by side: all run in every round, so that a noisy machine is noisy for all."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["Effort", "alternate", "ratio", "spread", "timed"]


@dataclass(frozen=True, slots=True)
class Effort:
    """The time to spend on a measurement."""

    quick: bool

    def pick(self, quick: int, full: int) -> int:
        return quick if self.quick else full


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that `action` takes, without the collection of older garbage."""
    gc.collect()
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def alternate(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Run all `actions` in each round, forwards and backwards by turns.

    Returns:
        The seconds, by name and round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(rounds):
        for name in list(actions) if turn % 2 == 0 else reversed(list(actions)):
            seconds[name].append(timed(actions[name]))
    return seconds


def ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """Return how many times as fast `faster` is: the median of the rounds' own ratios."""
    return median(one / other for one, other in zip(slower, faster, strict=True))


def spread(costs: Mapping[int, Sequence[float]]) -> float:
    """Return the ratio of the highest cost to the lowest, each relative to its round's first."""
    first = next(iter(costs.values()))
    relative = [ratio(seen, first) for seen in costs.values()]
    return max(relative) / min(relative)
