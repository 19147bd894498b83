"""Secrets in the arguments of `connect`, which no error may show."""

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["secrets_of", "without_secrets"]

_HIDDEN: Final = r"(?i)pass|pwd|secret|token|key|credential"
_IN_TEXT: Final = r"://[^/?#]*?:([^/?#]*)@|(?i:password|passwd|pwd|token|secret|key)\s*=\s*('[^']*'|[^\s;&]+)"


def secrets_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """Return every text in the arguments of `connect` that an error must not show."""
    found = [str(value) for name, value in kwargs.items() if value and re.search(_HIDDEN, name)]
    for value in (*args, *kwargs.values()):
        if isinstance(value, bytes):
            found.append(repr(value)[2:-1])
        elif isinstance(value, str):
            found += [part.strip("'\"") for pair in re.findall(_IN_TEXT, value) for part in pair if part]
            if "://" in value or "=" in value:
                found.append(value)
    return sorted({each for each in found if each}, key=len, reverse=True)


def without_secrets(error: Exception, secrets: list[str]) -> Exception:
    """Return an error whose text shows none of the secrets: the error itself, or a new one."""

    def clean(part: Any) -> Any:
        text = part if isinstance(part, str) else str(part)
        shown = text
        for secret in secrets:
            shown = shown.replace(secret, "…")
        return part if shown == text else shown

    args, text = [clean(part) for part in error.args], str(error)
    if all(new is old for new, old in zip(args, error.args, strict=True)) and clean(text) == text:
        return error
    try:
        return type(error)(*args)
    except Exception:  # noqa: BLE001  # a class with a constructor of its own
        return ConnectionError(f"{type(error).__name__}: {clean(text)}")
