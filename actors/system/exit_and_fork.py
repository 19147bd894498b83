"""What the process does to its crews: it ends, and it forks."""

import atexit
import os
import sys
import threading
import time
import weakref
from typing import Final, Protocol

from actors.system.waiting import this_thread

__all__ = ["Crew", "crews", "heed_executors", "main_thread_has_ended"]

_EXIT_BOUND = 0.9  # seconds that the end of the program waits for all crews together


class Crew(Protocol):
    """What this module needs of a supervisor."""

    def note_end_of_main_thread(self) -> None:
        """Look at `main_thread_has_ended` soon; returns at once."""
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
    """The state of the main thread, and of the hook at its end."""

    has_ended = False
    # `ThreadPoolExecutor` as it was when the hook was registered; `None` if it was not imported.
    executors: object = "not looked for yet"


def main_thread_has_ended() -> bool:
    """Say whether the main thread has ended, so that the program only waits for other threads."""
    return _MainThread.has_ended


def heed_executors() -> None:
    """Register the hook at the end of the main thread so that it runs before that of executors.

    Python calls these hooks in reverse order. `concurrent.futures.thread` registers its own when it
    is imported, and that hook waits for all threads of executors. If it was imported after this
    module, our hook has to be registered again. Every wait for a crew calls this; it takes 0.1 µs.
    """
    executors = getattr(sys.modules.get("concurrent.futures.thread"), "ThreadPoolExecutor", None)
    if executors is not _MainThread.executors:
        _MainThread.executors = executors
        _register()


def _register() -> None:
    # Private in `threading`; executors use it, too. Without it the end of a program waits for every
    # thread that waits for a crew and is no daemon.
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        try:
            register(_main_thread_ends)
        except RuntimeError:  # the main thread has ended already
            _main_thread_ends()


def _main_thread_ends() -> None:
    """Tell all crews. Runs before Python waits for the threads that are no daemons."""
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
    this_thread.crew = None
    _MainThread.has_ended = False
    for crew in forgotten:
        crew.forget_the_parent()


# Daemon threads and atexit: threads that are not daemons would keep the program from getting here.
atexit.register(_at_exit)
heed_executors()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
