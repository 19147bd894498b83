"""Two protocols: the job that answers a reply, and the crew that runs the job."""

from typing import Any, Protocol

from actors.values.errors import WouldDeadlock

__all__ = ["Crew", "Owner"]


class Owner(Protocol):
    """The job that answers a reply."""

    waiter: tuple[object, ...] | None
    """The caller that waits for the reply without a time limit. See `current_owner`."""

    @property
    def deadline(self) -> float | None:
        """When the job's time is over, in monotonic seconds. `None` is never."""
        ...


class Crew(Protocol):
    """The crew whose job a reply waits for. Any thread may call any method. All return at once."""

    @property
    def has_checkouts(self) -> bool:
        """Whether a caller has ever checked out a worker."""
        ...

    def is_mine(self) -> bool:
        """Say whether this thread runs a method of the crew. Such a thread must not wait."""
        ...

    def late(self, job: Any, seconds: float) -> str:
        """Return the text of a `pykka.Timeout`."""
        ...

    def refuse_wait(self, job: Any, owner: tuple[object, ...] | None) -> WouldDeadlock | None:
        """Return the error if a wait would deadlock, else `None`."""
        ...

    def cancel(self, job: Any) -> bool:
        """Cancel a job. Say whether its reply will be rejected."""
        ...

    def id_of(self, reply: Any) -> int:
        """Return the id of a reply's job."""
        ...

    def set_deadline(self, job: Any, deadline: float | None) -> None:
        """Replace the deadline of a running job."""
        ...
