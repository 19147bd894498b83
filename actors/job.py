"""Job: a request on its way, with the reply that waits for it."""

from collections.abc import Callable
from enum import Enum
from typing import Any

from actors.messages import Request
from actors.reply import Reply

__all__ = ["NEW", "QUEUED", "STARTED", "WITHDRAWN", "Job", "JobState"]


class JobState(Enum):
    """Where a job is on its way; see `Job`."""

    NEW = "new"
    QUEUED = "queued"
    STARTED = "started"
    WITHDRAWN = "withdrawn"


# A global is found in a third of the time that a member of an enum takes, and every job needs four.
NEW, QUEUED, STARTED, WITHDRAWN = JobState


class Job:
    """A request, from the moment it is asked until its reply is settled.

    The dispatcher alone writes to it, under its lock, except for `reply`, which
    anybody may settle.

    | state | where it is | next |
    |---|---|---|
    | NEW | with its caller | QUEUED; or it is refused |
    | QUEUED | in the dispatcher's queue | STARTED, WITHDRAWN |
    | WITHDRAWN | perhaps still in the queue, where it is skipped | |
    | STARTED | on exactly one worker, or done | |
    """

    __slots__ = ("abort", "reply", "request", "started_at", "state", "submitted_at")

    def __init__(self, request: Request, reply: Reply[Any], submitted_at: float) -> None:
        self.request = request
        self.reply = reply
        self.submitted_at = submitted_at
        """Monotonic seconds."""
        self.started_at = 0.0
        """Monotonic seconds; 0 until it is started."""
        self.state = NEW
        self.abort: Callable[[bool | None], BaseException] | None = None
        """Set when the job was interrupted on purpose: makes the error its caller gets, from `executed`."""
