"""Parameters of requests: copied when a request is made, so that no later change reaches them."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

__all__ = ["PLAIN", "Parameters", "copied", "copied_rows"]

Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]
"""Positional values for `?`, or values by name for `:a`, `@a` and `$a`."""

PLAIN: Final = frozenset({int, float, str, bytes, bool, type(None)})
"""Classes whose values never change. A tuple of these is kept as it is."""

_NAMES: Final = frozenset({str})
_ROWS: Final = frozenset({tuple})
_TEXTS: Final = (str, bytes, bytearray, memoryview)
"""Sequences of characters and bytes, which are one value and not several."""


def copied(params: object, kind: str, run: int | None = None) -> tuple[Any, ...] | dict[str, Any]:
    """Return a copy of parameters that later changes of the caller's objects do not reach.

    A `bytearray`, `memoryview`, `array.array` or `mmap` becomes `bytes`. A number with a buffer,
    such as a NumPy number, becomes a Python number, since the driver would store its memory. A
    value without a buffer stays as it is, since each driver has classes of its own.

    Args:
        params: the parameters that the caller passed.
        kind: the class of the request, for errors.
        run: the number of the run among many runs, from 1.

    Raises:
        TypeError: `params` is neither a sequence nor a mapping, or one value is a buffer of
            another class. The text names the place and the class of the value, never the value.
    """
    if type(params) is dict or isinstance(params, Mapping):
        named = dict(params)
        if _NAMES.issuperset(map(type, named)) and PLAIN.issuperset(map(type, named.values())):
            return named
        return {(plain := _name(name, kind, run)): _settled(value, plain, kind, run) for name, value in named.items()}
    if type(params) is list or (isinstance(params, Sequence) and not isinstance(params, _TEXTS)):
        values = tuple(params)
        if PLAIN.issuperset(map(type, values)):
            return values
        return tuple(_settled(value, place, kind, run) for place, value in enumerate(values, 1))
    message = (
        f"{_origin(kind, run)} must be a sequence of values or a mapping of names to values, "
        f"not {type(params).__name__}; write (value,) for a single one"
    )
    raise TypeError(message)


def copied_rows(many: object) -> tuple[Any, ...]:
    """Return the parameters of many runs, each as `copied` returns them.

    Raises:
        TypeError: as `copied` does.
    """
    if isinstance(many, (*_TEXTS, Mapping)) or not isinstance(many, Iterable):
        message = f"Query(many) must be a sequence of parameters, not {type(many).__name__}"
        raise TypeError(message)
    rows = tuple(many)
    # This checks all rows in C. A check of each row in Python takes three times as long.
    if _ROWS.issuperset(map(type, rows)) and PLAIN.issuperset(map(type, chain.from_iterable(rows))):
        return rows
    return tuple(copied(row, "Query", number) for number, row in enumerate(rows, 1))


def _name(name: object, kind: str, run: int | None) -> str:
    if not isinstance(name, str):
        message = f"{_origin(kind, run)} by name needs str names, not {type(name).__name__}"
        raise TypeError(message)
    return str.__str__(name)  # a member of an enum can be a `str`, too


def _settled(value: Any, place: int | str, kind: str, run: int | None) -> Any:
    """Return one value as the driver will bind it."""
    if type(value) in PLAIN:
        return value
    try:
        view = memoryview(value)
    except TypeError:
        return value  # the value has no buffer
    except Exception as error:
        message = f"{_where(place, kind, run)} is of the class {type(value).__name__}, whose buffer cannot be read"
        raise TypeError(message) from error
    if view.ndim == 0 and hasattr(value, "item") and not hasattr(value, "__setitem__"):
        number = value.item()
        if type(number) in PLAIN:
            return number
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)) or _is_array(value):
        return view.tobytes()
    message = (
        f"{_where(place, kind, run)} is of the class {type(value).__name__}, and its memory would be stored as a "
        "blob. Write value.tobytes() or bytes(value) if you mean that, and value.item() or value.tolist() for the "
        "values in it"
    )
    raise TypeError(message)


def _is_array(value: object) -> bool:
    from array import array  # few requests need these modules
    from mmap import mmap

    return isinstance(value, (array, mmap))


def _where(place: int | str, kind: str, run: int | None) -> str:
    return f"{_origin(kind, run)}: parameter {place}"


def _origin(kind: str, run: int | None) -> str:
    return f"{kind}(params)" if run is None else f"{kind}(many), run {run}"
