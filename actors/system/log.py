"""Logging as `event key=value`. An exception of a filter or handler never leaves this module."""

import logging
import os
from typing import Any, Literal

__all__ = ["log"]


# A library must not print by itself. Without a handler, Python prints warnings and errors.
logging.getLogger("querycrew").addHandler(logging.NullHandler())

# `getLogger` takes the global lock of `logging` in Python code. A thread that is killed there
# leaves the lock held. So each logger is looked up once.
_loggers: dict[str, logging.Logger] = {}


def log(logger: str, level: Literal["debug", "info", "warning", "error"], event: str, **fields: Any) -> None:
    """Log `event key=value …` and never raise.

    The logger of `actors.worker` is `querycrew.worker`. So a program configures the logging of the
    whole library by the name `querycrew`.

    A filter or handler that raises would otherwise end the thread of an actor.

    Callers pass no parameters, passwords or results. An exception is shown by its class and by the
    line of the user's code that raised it, since its text may quote a parameter.
    """
    try:
        number = getattr(logging, level.upper())
        target = _loggers.get(logger)
        if target is None:
            target = _loggers[logger] = logging.getLogger(f"querycrew.{logger.removeprefix('actors.')}")
        if target.isEnabledFor(number):
            target.log(number, "%s %s", event, " ".join(f"{key}={_shown(value)}" for key, value in fields.items()))
    except BaseException:  # noqa: BLE001  # see the docstring
        return


def _shown(value: object) -> str:
    if isinstance(value, BaseException):
        return type(value).__name__ + _place(value)
    return repr(value) if isinstance(value, str) else str(value)


def _place(error: BaseException) -> str:
    """Return the file and the line of the user's code that raised `error`, or an empty text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    module, file = trace.tb_frame.f_globals.get("__name__"), trace.tb_frame.f_code.co_filename
    if str(module).startswith("actors.") or file.endswith(".c"):  # APSW adds frames for its C code
        return ""
    return f"({os.path.basename(file)}:{trace.tb_lineno})"
