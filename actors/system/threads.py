"""CrewThread: a thread of the crew's own."""

import threading
from collections.abc import Callable

__all__ = ["CrewThread"]


class _Started(threading.Event):
    """What `Thread.start` waits on until the new thread runs, but not for ever."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(1.0 if timeout is None else timeout)


class CrewThread(threading.Thread):
    """A daemon thread, whose starter does not wait for ever.

    An asynchronous exception may hit a new thread in its first instructions: one that was meant for a thread that has
    just ended, whose identifier it gets, or for its starter, whose identifier it has at first. Then it never says that
    it runs, and `start` of a plain thread would wait for ever.
    """

    def __init__(self, target: Callable[[], object], name: str) -> None:
        super().__init__(target=target, name=name, daemon=True)
        self._started = _Started()

    @property
    def has_begun(self) -> bool:
        """Whether it has run, or runs: it was not killed before that."""
        return self._started.is_set()
