"""Run many worlds."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from actors.log import log
from tests.simulation.world import World


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


def run_worlds(first_seed: int, worlds: int) -> dict[int, list[str]]:
    """Run so many worlds; return what went wrong, by seed."""
    wrong = {}
    for seed in range(first_seed, first_seed + worlds):
        what = World(seed).run()
        if what:
            wrong[seed] = what
    return wrong
