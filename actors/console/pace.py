"""Pace: how fast the demo goes; Stopwatch: how long a reply took."""

import os
import time
from typing import Any, Final

from supervisor import Reply

__all__ = ["USUAL", "Pace", "Stopwatch", "cpus"]

USUAL: Final = 15.0
"""Seconds that the demo takes, unless its caller wants another duration."""

_LATE: Final = 1.0  # seconds behind the plan from which nothing waits for the viewer any more


class Pace:
    """How fast the story goes. It counts the seconds of the plan, and the seconds that went by."""

    def __init__(self, seconds: float, began: float) -> None:
        self.total = seconds
        """About how many seconds the demo takes."""
        self._began = began
        self._scale = seconds / USUAL
        self._planned = 0.0

    @property
    def passed(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began

    @property
    def is_late(self) -> bool:
        """Whether the scenes until now took longer than planned."""
        return self.passed > (self._planned + _LATE) * self._scale

    def seconds(self, usual: float) -> float:
        """Return a duration of the usual demo, for this demo."""
        return usual * self._scale

    def plan(self, usual: float) -> None:
        """Note that a scene has ended, for which so many seconds of the usual demo were planned."""
        self._planned += usual


class Stopwatch:
    """How long a reply took. The crew's thread stops it, so a drawing adds nothing."""

    def __init__(self, reply: Reply[Any]) -> None:
        self.started_at = time.monotonic()
        self.stopped_at: float | None = None
        """When the reply was settled."""
        reply.add_done_callback(self._stop)

    @property
    def seconds(self) -> float:
        """Seconds until the reply was settled, or until now."""
        return (self.stopped_at or time.monotonic()) - self.started_at

    def _stop(self, reply: Any) -> None:
        del reply
        self.stopped_at = time.monotonic()


def cpus() -> int:
    """Return how many CPUs this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows do not tell
        return os.cpu_count() or 1
