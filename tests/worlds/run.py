"""Run many worlds."""

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from actors.system.log import log
from tests.worlds.world import World


class Findings:
    """The outcome of many worlds."""

    def __init__(self) -> None:
        self.wrong: dict[int, list[str]] = {}
        """The errors, by seed."""
        self.requests = 0
        self.ends: Counter[str] = Counter()
        """How the requests ended."""

    def add(self, world: World) -> None:
        """Add a world that has come to its end."""
        if world.history.wrong:
            self.wrong[world.seed] = world.history.wrong
        self.requests += len(world.history.entries)
        self.ends.update(ends_of(world))


def ends_of(world: World) -> Iterator[str]:
    """Yield the end of each request of a world, and its effect according to the answer."""
    for entry in world.history.entries:
        if entry.in_checkout or entry.reply is None or not entry.reply.done():
            continue
        error = entry.reply.exception(0)
        executed = getattr(error, "executed", None)
        yield "answered" if error is None else f"{type(error).__name__}{'' if executed is None else f' {executed}'}"


@contextmanager
def silent() -> Iterator[None]:
    """Log nothing: faults are the rule here, and formatting them would take most of the time."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    # The first line to each logger takes other steps than the next. A world must be the same every
    # time.
    for level in ("debug", "info", "warning", "error"):
        for name in [name for name in sys.modules if name.partition(".")[0] in ("actors", "supervisor")]:
            log(name, level, "warming up")
        logging.getLogger("pykka").isEnabledFor(getattr(logging, level.upper()))
    try:
        yield
    finally:
        logging.disable(before)


def run_worlds(first_seed: int, worlds: int) -> Findings:
    """Run so many worlds; return their outcome."""
    findings = Findings()
    for seed in range(first_seed, first_seed + worlds):
        world = World(seed)
        world.run()
        findings.add(world)
    return findings
