"""Logging that cannot harm: `event key=value`. An exception that a filter or handler raises stays here."""

import logging
import os
from typing import Any, Literal

__all__ = ["log"]


# A library writes to no screen by itself. Without a handler Python prints warnings and errors.
logging.getLogger("querycrew").addHandler(logging.NullHandler())

# Looking a logger up takes the lock of all logging, in Python code that leaves it held if its thread is killed.
_loggers: dict[str, logging.Logger] = {}


def log(logger: str, level: Literal["debug", "info", "warning", "error"], event: str, **fields: Any) -> None:
    """Log `event key=value …` and never raise.

    The logger of `actors.worker` is `querycrew.worker`: one name to configure all of the library.

    A filter or handler that raises would otherwise end the thread of an actor. Callers
    pass no parameters, passwords or results. An exception is shown by its class, and by the line
    of the user's code that raised it: its text may quote a parameter.
    """
    try:
        number = getattr(logging, level.upper())
        target = _loggers.get(logger)
        if target is None:
            target = _loggers[logger] = logging.getLogger(f"querycrew.{logger.removeprefix('actors.')}")
        if target.isEnabledFor(number):
            target.log(number, "%s %s", event, " ".join(f"{key}={_shown(value)}" for key, value in fields.items()))
    except BaseException:  # noqa: BLE001  # see above; there is nowhere left to say it
        return


def _shown(value: object) -> str:
    if isinstance(value, BaseException):
        return type(value).__name__ + _place(value)
    return repr(value) if isinstance(value, str) else str(value)


def _place(error: BaseException) -> str:
    """Return the file and the line in which code that is not ours raised `error`, if it did."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    module, file = trace.tb_frame.f_globals.get("__name__"), trace.tb_frame.f_code.co_filename
    if str(module).startswith("actors.") or file.endswith(".c"):  # APSW makes up frames for its own C code
        return ""
    return f"({os.path.basename(file)}:{trace.tb_lineno})"
