"""Rejection: the outcome of a reply that was answered with an error."""

import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Rejection", "detached"]

E = TypeVar("E", bound=BaseException)

_OWN: Final = (
    *("actors.worker", "actors.actor", "actors.dispatch.", "actors.databases.base", "actors.databases.executor"),
)
"""Modules of the worker. Their frames at the head of a traceback are removed."""


class Rejection:
    """The outcome of a rejected reply: the error and its first traceback."""

    __slots__ = ("error", "traceback")

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.traceback = error.__traceback__
        """Each `get` raises with this traceback, since the error's own grows with each `get`."""


def detached(error: E) -> E:
    """Release the objects that the traceback of an error keeps alive, and return the error.

    The frames of a traceback hold the cursor, and the cursor may hold a lock on the database. The
    first frames belong to the worker and hold the job. The traceback still shows where the error
    was raised.
    """
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        link = todo.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        link.__traceback__ = _without_own(link.__traceback__)
        traceback.clear_frames(link.__traceback__)
        todo += [link.__cause__, link.__context__]
    return error


def _without_own(trace: "TracebackType | None") -> "TracebackType | None":
    while trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith(_OWN):
        with suppress(RuntimeError):  # the frame is still running
            trace.tb_frame.clear()
        trace = trace.tb_next
    return trace
