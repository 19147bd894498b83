"""Logging that cannot harm: `event key=value`, and whatever a filter or handler raises stays here."""

import logging
from typing import Any, Literal

__all__ = ["log"]


# Looking a logger up takes the lock of all logging, in Python code that leaves it held if its thread is killed.
_loggers: dict[str, logging.Logger] = {}


def log(logger: str, level: Literal["debug", "info", "warning", "error"], event: str, **fields: Any) -> None:
    """Log `event key=value …` and never raise.

    The logger of `actors.worker` is `querycrew.worker`: one name to configure all of the library.

    A filter or handler that raises would otherwise end the thread of an actor. Callers
    pass no parameters, passwords or results. An exception is shown by class and text.
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
        return f"{type(value).__name__}({str(value)!r})"
    return repr(value) if isinstance(value, str) else str(value)
