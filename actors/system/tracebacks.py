"""Tracebacks that show the caller's own lines, and no frame of this library.

An error of a statement is raised in a worker's thread, and again in the thread of its caller. The
caller needs neither the frames of the worker nor those between `ask` and the wait.

With the environment variable `QUERYCREW_DEBUG=1` all frames are shown.
"""

import os
from types import FrameType, TracebackType
from typing import Final

__all__ = ["trim_to_caller"]

_OWN: Final = ("actors.", "supervisor.")


def trim_to_caller(error: BaseException) -> None:
    """Remove the frames of this library from the traceback of an error.

    Call it in an `except` clause that ends with a bare `raise`. Python adds no frame for a bare
    `raise`. So the traceback ends with the line of the caller, as for a function written in C.
    The frames of the caller's own functions stay, even if this library has called them.
    """
    if os.environ.get("QUERYCREW_DEBUG", "0") in ("", "0"):
        error.__traceback__ = _without_own(error.__traceback__)


def _without_own(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of this library."""
    kept: list[TracebackType] = []
    is_own = False
    while trace is not None:
        # APSW adds frames for its C code. Such a frame belongs to the frame that called it.
        if not trace.tb_frame.f_code.co_filename.endswith(".c"):
            is_own = _is_own(trace.tb_frame)
        if not is_own:
            kept.append(trace)
        trace = trace.tb_next
    shown: TracebackType | None = None
    for each in reversed(kept):
        if each.tb_next is not shown:
            each = TracebackType(shown, each.tb_frame, each.tb_lasti, each.tb_lineno)  # noqa: PLW2901
        shown = each
    return shown


def _is_own(frame: FrameType) -> bool:
    return f"{frame.f_globals.get('__name__')}.".startswith(_OWN)
