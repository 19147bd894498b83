"""CrewThread: a thread that belongs to the crew."""

import threading
from collections.abc import Callable

__all__ = ["CrewThread"]


class _Started(threading.Event):
    """The event that `Thread.start` waits for, with a limit of a second."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(1.0 if timeout is None else timeout)


class CrewThread(threading.Thread):
    """A daemon thread whose `start` never waits for ever.

    An asynchronous exception may hit a new thread in its first instructions, in two cases:

    * It was meant for a thread that has just ended. The new thread got the same identifier.
    * It was meant for the starter. At first the new thread has the starter's identifier.

    The new thread then never sets its event, and `start` of a plain thread would wait for ever.
    """

    def __init__(self, target: Callable[[], object], name: str) -> None:
        super().__init__(target=target, name=name, daemon=True)
        self._started = _Started()

    @property
    def has_begun(self) -> bool:
        """Whether the thread runs or has run, and was not killed before that."""
        return self._started.is_set()
