"""What the process does to its crews: it ends, and it forks."""

import atexit
import os
import sys
import threading
import time
import weakref
from typing import Final, Protocol

from actors.waiting import here

__all__ = ["Crew", "crews", "heed_executors", "main_thread_has_ended"]

_EXIT_BOUND = 0.9  # seconds that the end of the program waits for all crews together


class Crew(Protocol):
    """What this module needs of a supervisor."""

    def note_end_of_main_thread(self) -> None:
        """Look at `main_thread_has_ended`; returns at once."""
        ...

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


class _MainThread:
    """What is known of it."""

    has_ended = False
    # The class of executors before whose end crews are told, or `None` before it is imported.
    executors: object = "not looked for yet"


def main_thread_has_ended() -> bool:
    """Say whether the program only waits for its other threads."""
    return _MainThread.has_ended


def heed_executors() -> None:
    """See to it that crews are told of the main thread's end before the threads of executors are waited for.

    Whoever registers last is called first, and executors register as they are imported: so again, behind them. For all
    who make a thread wait; it costs next to nothing.
    """
    executors = getattr(sys.modules.get("concurrent.futures.thread"), "ThreadPoolExecutor", None)
    if executors is not _MainThread.executors:
        _MainThread.executors = executors
        _register()


def _register() -> None:
    # Private, and what executors use themselves. Without it a program's end waits for threads that wait for a crew.
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        try:
            register(_main_thread_ends)
        except RuntimeError:  # it has ended
            _main_thread_ends()


def _main_thread_ends() -> None:
    """Tell all crews, before the threads are waited for that are no daemons."""
    _MainThread.has_ended = True
    for crew in list(crews):
        crew.note_end_of_main_thread()


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
    _MainThread.has_ended = False
    for crew in forgotten:
        crew.forget_the_parent()


# Daemon threads and atexit: threads that are not daemons would keep the program from getting here.
atexit.register(_at_exit)
heed_executors()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
