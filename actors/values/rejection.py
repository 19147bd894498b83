"""Rejection: the outcome of a reply that is no value."""

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
"""Modules whose frames at the head of a traceback are the worker's own machinery."""


class Rejection:
    """The outcome of a reply that was rejected: the error, as it was when it came."""

    __slots__ = ("error", "traceback")

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.traceback = error.__traceback__
        """Each `get` raises from here; otherwise the error's own would grow with each."""


def detached(error: E) -> E:
    """Free an error of all that it would keep alive through its traceback, and return it.

    The frames hold the cursor, and through it a lock on the database. The first of them are the worker's own, which
    hold the job. Where the error was raised stays readable.
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
        with suppress(RuntimeError):  # it is still running
            trace.tb_frame.clear()
        trace = trace.tb_next
    return trace
