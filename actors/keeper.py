"""Keeper: stops a crew once the program has dropped its reference."""

import warnings
from typing import Any, ClassVar

from actors.dispatch.dispatcher import Dispatcher
from actors.inbox import Inbox
from actors.system.waiting import Latch

__all__ = ["Keeper"]


class Keeper:
    """The object whose end stops a crew, as the end of a file object closes its file.

    The reference that `Supervisor.start` returns holds the keeper; the crew does not. Python may
    drop the reference on any thread, in the middle of any step, with any lock held: on a thread of
    the crew, or inside the dispatcher. So `__del__` takes no lock and never waits. It puts one
    message into the supervisor's mailbox.
    """

    # Kept here, since a module's globals may be gone while the interpreter ends.
    _warn: ClassVar[Any] = staticmethod(warnings.warn)

    def __init__(self, dispatcher: Dispatcher, inbox: Inbox, stopped: Latch) -> None:
        self._dispatcher = dispatcher
        self._inbox = inbox
        # Set if the supervisor has ended, or could not be started.
        self._stopped = stopped

    def __del__(self) -> None:
        crew = self._dispatcher
        if crew.admission.end is not None or self._stopped.is_set():
            return
        self._inbox.ask_to_stop()  # first: a filter may turn the warning into an error
        self._warn(
            f"crew {crew.name!r} was dropped without stop(), and stops by itself: keep the reference that "
            "Supervisor.start() returns, and call its stop(), or use it in a with block",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )
