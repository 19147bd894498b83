"""What the process does to its crews: it ends, and it forks."""

import atexit
import os
import time
import weakref
from typing import Final, Protocol

from actors.waiting import here

__all__ = ["Crew", "crews"]

_EXIT_BOUND = 0.9  # seconds that the end of the program waits for all crews together


class Crew(Protocol):
    """What this module needs of a supervisor."""

    def shutdown_at_exit(self) -> None:
        """Ask the crew to end now; returns at once."""
        ...

    def wait_until_ended(self, timeout: float) -> bool:
        """Wait until it has."""
        ...

    def forget_the_parent(self) -> None:
        """In the child of a fork: the crew has no threads here, and can only refuse."""
        ...


crews: Final["weakref.WeakSet[Crew]"] = weakref.WeakSet()
"""Every crew of this process that has not ended."""


def _at_exit() -> None:
    """End all crews with the program, within a bound; what does not end by then is left to the system."""
    ending = list(crews)
    for crew in ending:
        crew.shutdown_at_exit()
    deadline = time.monotonic() + _EXIT_BOUND
    for crew in ending:
        crew.wait_until_ended(max(0.0, deadline - time.monotonic()))


def _after_fork_in_child() -> None:
    forgotten = list(crews)
    crews.clear()
    here.crew = None
    for crew in forgotten:
        crew.forget_the_parent()


# Daemon threads and atexit: threads that are not daemons would keep the program from getting here.
atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
