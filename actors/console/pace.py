"""Pace: how fast the demo goes; Stopwatch: how long a reply took."""

import time
from typing import Any, Final

from supervisor import Reply

__all__ = ["USUAL", "Pace", "Stopwatch"]

USUAL: Final = 15.0
"""Seconds that the demo takes, unless its caller wants another duration."""

_SLACK: Final = 0.5  # seconds behind the plan that are not late
_HURRY: Final = 0.5  # how much shorter the waits of a late demo are


class Pace:
    """How fast the story goes. It counts the seconds of the plan, and the seconds that went by."""

    def __init__(self, seconds: float, began: float) -> None:
        self._began = began
        self.scale = seconds / USUAL
        """How much longer than the usual demo it takes."""
        self._planned = 0.0
        # Whether the last scene ended later than planned.
        self._is_late = False

    @property
    def passed(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds until the planned end of the scene that plays; below 0 if the demo is late."""
        return self._planned * self.scale - self.passed

    def seconds(self, usual: float) -> float:
        """Return a duration of the usual demo, for this demo. A late demo hurries."""
        return usual * self.scale * (_HURRY if self._is_late else 1.0)

    def plan(self, usual: float) -> None:
        """Note that a scene begins, for which so many seconds of the usual demo are planned."""
        self._is_late = self.left < -_SLACK * self.scale
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
