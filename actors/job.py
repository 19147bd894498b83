"""Job: a request on its way, with the reply that waits for it."""

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from actors.messages import Request
from actors.reply import Reply

if TYPE_CHECKING:
    from actors.conversation import Conversation
    from actors.lane import Lane
    from actors.member import Member
    from actors.tally import Ending

__all__ = ["NEW", "QUEUED", "SENT", "STARTED", "WITHDRAWN", "Abort", "Job", "JobState"]


class JobState(Enum):
    """Where a job is on its way; see `Job`."""

    NEW = "new"
    QUEUED = "queued"
    SENT = "sent"
    STARTED = "started"
    WITHDRAWN = "withdrawn"


# A global is found in a third of the time that a member of an enum takes, and every job needs four.
NEW, QUEUED, SENT, STARTED, WITHDRAWN = JobState


class Abort:
    """Why a running job was interrupted on purpose, and what its caller is told."""

    __slots__ = ("error", "give_up_at", "kind", "wins")

    def __init__(
        self,
        kind: "Ending",
        error: Callable[[bool | None], BaseException],
        give_up_at: float,
        *,
        wins: bool = False,
    ) -> None:
        self.kind = kind
        """What the job counts as."""
        self.error = error
        """Makes the error, from `executed`."""
        self.give_up_at = give_up_at
        """Monotonic seconds at which its worker is given up, if it still runs."""
        self.wins = wins
        """Whether the error is given even if the statement was done before the interrupt reached it."""


class Job:
    """A request, from the moment it is asked until its reply is settled.

    The dispatcher alone writes to it, under its lock, except for `reply`, which
    anybody may settle.

    | state | where it is | next |
    |---|---|---|
    | NEW | with its caller | QUEUED; or it is refused |
    | QUEUED | in the dispatcher's queue | STARTED, SENT, WITHDRAWN |
    | SENT | with a worker's connection, behind another job | STARTED; QUEUED again, if it was taken back |
    | WITHDRAWN | perhaps still in the queue, where it is skipped | |
    | STARTED | on exactly one worker, or done | |
    """

    __slots__ = (
        *("abort", "deadline", "lane", "member", "reply", "request", "seen", "started_at", "state", "submitted_at"),
        *("talk", "ticket", "waiter", "__weakref__"),
    )

    def __init__(self, request: Request, reply: Reply[Any], submitted_at: float, deadline: float | None = None) -> None:
        self.request = request
        self.reply = reply
        reply.job = self
        self.submitted_at = submitted_at
        """Monotonic seconds."""
        self.started_at = 0.0
        """Monotonic seconds; 0 until it is started."""
        self.state = NEW
        self.seen = False
        """Whether the dispatcher has noted its deadline, if it has one."""
        self.deadline = deadline
        """Monotonic seconds; `None` for never."""
        self.lane: Lane | None = None
        """Where it waits, or waited."""
        self.talk: Conversation | None = None
        """What it and its caller say to each other while it runs, if they do."""
        self.member: Member | None = None
        """The worker that it was given to."""
        self.ticket = 0
        """Its number with that worker's connection, if that takes jobs ahead."""
        self.waiter: tuple[object, ...] | None = None
        """The last caller that began to wait for it without a time limit, for `Dispatcher.refuse_wait`."""
        self.abort: Abort | None = None
        """Set when the job was interrupted on purpose."""

    @property
    def is_queued(self) -> bool:
        """Whether it waits in the queue."""
        return self.state is QUEUED

    @property
    def is_withdrawn(self) -> bool:
        """Whether it was taken out of the queue, and will never run."""
        return self.state is WITHDRAWN
