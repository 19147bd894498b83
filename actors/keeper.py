"""Keeper: what notices that nobody holds a crew any more."""

import warnings
from typing import Any, ClassVar

from actors.dispatcher import Dispatcher, Mode
from actors.inbox import Inbox
from actors.waiting import Latch

__all__ = ["Keeper"]


class Keeper:
    """Held by the reference that `Supervisor.start` returns, and by nothing of the crew: their ends are one.

    A crew that nobody can ask anything more is stopped, as a file that nobody holds is closed. That happens wherever
    the last reference is dropped, and wherever the garbage collector runs: on any thread, in the middle of any step,
    with any lock held. So it takes no lock, and waits for nothing: it puts a word into the supervisor's mailbox.
    """

    # What it needs as the interpreter ends, when the names of a module may be gone.
    _over: ClassVar[Any] = (Mode.STOPPING, Mode.STOPPED)
    _warn: ClassVar[Any] = staticmethod(warnings.warn)

    def __init__(self, dispatcher: Dispatcher, inbox: Inbox, stopped: Latch) -> None:
        self._dispatcher = dispatcher
        self._inbox = inbox
        # Whether the supervisor has ended, or could not even be started.
        self._stopped = stopped

    def __del__(self) -> None:
        crew = self._dispatcher
        if crew.mode in self._over or self._stopped.is_set():
            return
        self._inbox.ask_to_stop()  # before the warning, which may be an error
        self._warn(
            f"crew {crew.name!r} was dropped without stop(), and stops by itself: keep what Supervisor.start() "
            "returns, and call its stop(), or use it in a with block",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )
