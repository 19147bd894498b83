"""Which part of a value cannot be pickled, for the texts of errors at both ends."""

from collections.abc import Iterable

from actors.values.result import Result

__all__ = ["culprit_of", "described"]


def culprit_of(value: object, depth: int = 8) -> object:
    """Return the part of a value that cannot be pickled: the value, or an element of it."""
    import pickle

    parts: Iterable[object] = ()
    if isinstance(value, dict):
        parts = (*value.keys(), *value.values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = value
    elif isinstance(value, Result):
        parts = value.rows
    for part in parts if depth else ():
        try:
            pickle.dumps(part)
        except BaseException:  # noqa: BLE001  # whatever its class does there
            return culprit_of(part, depth - 1)
    return value


def described(value: object) -> str:
    """Return the class of a value, and its name if it has one. The text shows no value."""
    name = getattr(value, "__qualname__", None)
    return f"a {type(value).__qualname__}" if name is None else f"the {type(value).__qualname__} {name}"
