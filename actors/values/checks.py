"""Checks of the arguments that callers pass. Every error names the argument, never its secret."""

import os
from typing import Any, Final, TypeGuard

__all__ = [
    "ISOLATION",
    "check_bool",
    "check_isolation",
    "check_number",
    "check_timeout",
    "check_whole",
    "checked_path",
    "is_number",
    "is_whole",
]


ISOLATION: Final = ("read uncommitted", "read committed", "repeatable read", "snapshot", "serializable")
"""The isolation levels that a request may ask for. Each database refuses the levels it lacks."""


def is_number(value: object) -> TypeGuard[int | float]:
    """Say whether `value` is an `int` or a `float`. A `bool` is no number here."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    """Say whether `value` is an `int`. A `bool` is no number here."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_number(kind: str, name: str, value: Any, *, at_least: float = 0, whole: bool = False) -> None:
    """Raise unless the argument `name` of `kind` is a finite number.

    Args:
        kind: the class or function that takes the argument, for the error.
        name: the argument's name, for the error.
        value: the value that the caller passed.
        at_least: the smallest number that is allowed.
        whole: whether only an `int` is allowed.

    Raises:
        TypeError: `value` is not a number.
        ValueError: `value` is too small, infinite or NaN.
    """
    if not (is_whole(value) if whole else is_number(value)):
        message = f"{kind}({name}) must be a number, not {type(value).__name__}"
        raise TypeError(message)
    if not at_least <= value < float("inf"):
        message = f"{kind}({name}={value}) must be {at_least} or more, and finite"
        raise ValueError(message)


def check_timeout(kind: str, timeout: object, name: str = "timeout") -> None:
    """Raise unless the argument `name` of `kind` is a number of seconds. Infinity is allowed.

    Raises:
        TypeError: `timeout` is not a number.
        ValueError: `timeout` is negative or NaN.
    """
    if not is_number(timeout):
        message = f"{kind}({name}) must be a number of seconds, not {type(timeout).__name__}"
        raise TypeError(message)
    if not timeout >= 0:
        message = f"{kind}({name}={timeout}) must be 0 or more seconds"
        raise ValueError(message)


def check_isolation(kind: str, isolation: object) -> str | None:
    """Return the isolation level in lower case, or `None` for the database's own.

    Raises:
        TypeError: `isolation` is not a string.
        ValueError: no database knows this level.
    """
    if isolation is None:
        return None
    if not isinstance(isolation, str):
        message = f"{kind}(isolation) must be a str, not {type(isolation).__name__}"
        raise TypeError(message)
    level = isolation.lower()
    if level not in ISOLATION:
        message = f"{kind}(isolation={isolation!r}) must be one of: {', '.join(ISOLATION)}"
        raise ValueError(message)
    return level


def check_whole(kind: str, name: str, value: object, *, at_least: int) -> None:
    """Raise unless the argument `name` of `kind` is a whole number of `at_least` or more.

    Raises:
        TypeError: `value` is not an `int`.
        ValueError: `value` is too small.
    """
    if not is_whole(value):
        message = f"{kind}({name}) must be a whole number, not {type(value).__name__}"
        raise TypeError(message)
    if value < at_least:
        message = f"{kind}({name}={value}) must be {at_least} or more"
        raise ValueError(message)


def check_bool(kind: str, name: str, value: object) -> bool:
    """Return the argument `name` of `kind` if it is a `bool`.

    Raises:
        TypeError: `value` is not a `bool`.
    """
    if not isinstance(value, bool):
        message = f"{kind}({name}) must be a bool, not {type(value).__name__}"
        raise TypeError(message)
    return value


def checked_path(kind: str, path: object) -> str:
    """Return the argument `path` of `kind` as an absolute path.

    Raises:
        TypeError: `path` is neither a `str` nor a path of `str`.
        ValueError: `path` is empty, or contains a null character.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(text := os.fspath(path), str):
        message = f"{kind}(path) must be a str or a path, not {type(path).__name__}"
        raise TypeError(message)
    if not text or "\0" in text:
        message = f"{kind}(path) must name a file"
        raise ValueError(message)
    return os.path.abspath(text)
