"""What a reply knows of the job that answers it, and of the crew that runs the job: two protocols."""

from typing import Any, Protocol

from actors.values.errors import WouldDeadlock

__all__ = ["Crew", "Owner"]


class Owner(Protocol):
    """The job that answers a reply."""

    waiter: tuple[object, ...] | None
    """The caller that waits for it without a time limit; see `current_owner`."""

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds; `None` for never."""
        ...


class Crew(Protocol):
    """What a reply needs of the crew whose job it waits for. Every method returns at once, from any thread."""

    @property
    def has_checkouts(self) -> bool:
        """Whether a caller has ever checked out a worker."""
        ...

    def is_mine(self) -> bool:
        """Say whether this thread runs a method of the crew, so that it must not wait."""
        ...

    def late(self, job: Any, seconds: float) -> str:
        """Return the text of a `pykka.Timeout`."""
        ...

    def refuse_wait(self, job: Any, owner: tuple[object, ...] | None) -> WouldDeadlock | None:
        """Decide whether a wait would deadlock."""
        ...

    def cancel(self, job: Any) -> bool:
        """Cancel a job; say whether its reply will be rejected."""
        ...

    def set_deadline(self, job: Any, deadline: float | None) -> None:
        """Let another deadline hold for a job that runs."""
        ...
