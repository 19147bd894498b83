"""The process ends or forks, and its crews follow."""

import atexit
import os
import sys
import threading
import time
import weakref
from typing import Final, Protocol

from actors.system.waiting import this_thread

__all__ = ["Crew", "crews", "heed_executors", "main_thread_has_ended"]

_EXIT_BOUND = 0.9  # seconds. The end of the program waits for all crews together.


class Crew(Protocol):
    """The methods of a supervisor that this module calls."""

    def note_end_of_main_thread(self) -> None:
        """Let the crew look at `main_thread_has_ended` soon. Returns at once."""
        ...

    def shutdown_at_exit(self) -> None:
        """Ask the crew to end now. Returns at once."""
        ...

    def wait_until_ended(self, timeout: float) -> bool:
        """Wait until the crew has ended. Say whether it has."""
        ...

    def forget_the_parent(self) -> None:
        """Let the crew refuse every request in the child of a fork, where it has no threads."""
        ...


crews: Final["weakref.WeakSet[Crew]"] = weakref.WeakSet()
"""Every crew of this process that has not ended."""


class _MainThread:
    """Whether the main thread has ended, and the state of the hook at its end."""

    has_ended = False
    # `ThreadPoolExecutor` when the hook was registered. `None` if it was not imported then.
    executors: object = "not looked for yet"


def main_thread_has_ended() -> bool:
    """Say whether the main thread has ended. Then the program only waits for other threads."""
    return _MainThread.has_ended


def heed_executors() -> None:
    """Register our hook at the end of the main thread so that it runs before that of executors.

    Python calls these hooks in reverse order. `concurrent.futures.thread` registers a hook when it
    is imported. That hook waits for all threads of executors. If the module was imported after this
    one, our hook must be registered again. Every wait for a crew calls this function. It takes
    0.1 µs.
    """
    executors = getattr(sys.modules.get("concurrent.futures.thread"), "ThreadPoolExecutor", None)
    if executors is not _MainThread.executors:
        _MainThread.executors = executors
        _register()


def _register() -> None:
    # The function is private in `threading`. Executors use it, too. Without our hook, the end of a
    # program would wait for every non-daemon thread that waits for a crew.
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        try:
            register(_main_thread_ends)
        except RuntimeError:  # the main thread has ended already
            _main_thread_ends()


def _main_thread_ends() -> None:
    """Tell all crews. Runs before Python waits for the non-daemon threads."""
    _MainThread.has_ended = True
    for crew in list(crews):
        crew.note_end_of_main_thread()


def _at_exit() -> None:
    """End all crews at the end of the program. Wait for them together at most `_EXIT_BOUND`.

    The end of the process ends every crew that needs longer.
    """
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


# The threads of a crew are daemons. Python would wait for other threads before it calls this hook.
atexit.register(_at_exit)
heed_executors()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
