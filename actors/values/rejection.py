"""Rejection: the outcome of a reply that was answered with an error."""

import traceback
from typing import TypeVar

from actors.system.tracebacks import trim_to_caller

__all__ = ["Rejection", "detached"]

E = TypeVar("E", bound=BaseException)


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
    first frames belong to the worker and hold the job. So each frame is cleared. The frames of the
    caller's own functions stay in the traceback.
    """
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        link = todo.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        traceback.clear_frames(link.__traceback__)
        trim_to_caller(link)
        todo += [link.__cause__, link.__context__]
    return error
