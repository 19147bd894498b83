"""Run many worlds."""

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from actors.system.log import log
from tests.worlds.world import World


class Findings:
    """What came of many worlds."""

    def __init__(self) -> None:
        self.wrong: dict[int, list[str]] = {}
        """What went wrong, by seed."""
        self.requests = 0
        self.ends: Counter[str] = Counter()
        """How the requests ended."""

    def add(self, world: World) -> None:
        """Add a world that has come to its end."""
        if world.ledger.wrong:
            self.wrong[world.seed] = world.ledger.wrong
        self.requests += len(world.ledger.entries)
        self.ends.update(ends_of(world))


def ends_of(world: World) -> Iterator[str]:
    """Yield how each request of a world has ended, and whether it took effect, as its caller was told."""
    for entry in world.ledger.entries:
        if entry.in_talk or entry.reply is None or not entry.reply.done():
            continue
        error = entry.reply.exception(0)
        executed = getattr(error, "executed", None)
        yield "answered" if error is None else f"{type(error).__name__}{'' if executed is None else f' {executed}'}"


@contextmanager
def silent() -> Iterator[None]:
    """Log nothing: faults are the rule here, and formatting them would take most of the time."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    # The first line to each logger takes other steps than the next: a world has to be the same every time.
    for level in ("debug", "info", "warning", "error"):
        for name in [name for name in sys.modules if name.partition(".")[0] in ("actors", "supervisor")]:
            log(name, level, "warming up")
        logging.getLogger("pykka").isEnabledFor(getattr(logging, level.upper()))
    try:
        yield
    finally:
        logging.disable(before)


def run_worlds(first_seed: int, worlds: int) -> Findings:
    """Run so many worlds; return what came of them."""
    findings = Findings()
    for seed in range(first_seed, first_seed + worlds):
        world = World(seed)
        world.run()
        findings.add(world)
    return findings
