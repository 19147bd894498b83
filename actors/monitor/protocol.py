"""The protocol: one JSON object on each line, of bounded size, with the version in each.

| request | answer in `ok` |
|---|---|
| `{"v": 1, "do": "hello"}` | the crew's `pid`, `name`, `database` and `path` |
| `{"v": 1, "do": "status"}` | the fields of `CrewStatus` |
| `{"v": 1, "do": "cancel", "job": 7}` | whether the job will be cancelled |
| `{"v": 1, "do": "kill", "worker": 3}` | the number of the process that was killed |

An answer is `{"v": 1, "ok": …}`, or `{"v": 1, "error": "…", "kind": "…"}`.
"""

import json
from contextlib import suppress
from types import NoneType, UnionType
from typing import Any, Final, get_args, get_origin

from actors.values.record import Record
from actors.values.status import CrewStatus

__all__ = ["LONGEST_ANSWER", "LONGEST_REQUEST", "VERSION", "line_of", "load_status", "object_of", "status_fields"]

VERSION: Final = 1
LONGEST_REQUEST: Final = 4096  # bytes
LONGEST_ANSWER: Final = 4 << 20  # bytes
_LONGEST_TEXT: Final = 300  # characters
_MOST: Final = 500  # workers, and items of other lists


def line_of(**fields: Any) -> bytes:
    """Return an object as a line."""
    return json.dumps({"v": VERSION, **fields}, separators=(",", ":")).encode() + b"\n"


def object_of(line: bytes) -> dict[str, Any]:
    """Return the object that a line holds.

    Raises:
        ValueError: the line is no object of this version. The text says so.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        message = "the line is no JSON object"
        raise ValueError(message)  # noqa: TRY004  # the text is wrong, not the type of an argument
    if found.get("v") != VERSION:
        message = f"the other side speaks another version than {VERSION} of the protocol"
        raise ValueError(message)
    return found


def status_fields(status: CrewStatus) -> Any:
    """Return a status as an object for JSON. Long texts and long lists are cut."""
    return _dumped(status)


def _dumped(value: Any) -> Any:
    if isinstance(value, Record):
        return {name: _dumped(getattr(value, name)) for name in value._fields}
    if isinstance(value, tuple):
        return [_dumped(item) for item in value[:_MOST]]
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return value[: _LONGEST_TEXT - 1] + "…"
    return value


def load_status(fields: Any) -> CrewStatus:
    """Return the status that an object holds. Unknown fields are ignored.

    Raises:
        ValueError: a field is missing or has a wrong type.
    """
    status: CrewStatus = _loaded(CrewStatus, fields)
    return status


def _loaded(kind: Any, value: Any) -> Any:
    """Return `value` as a `kind`, the annotation of a field."""
    if isinstance(kind, type) and issubclass(kind, Record):
        if isinstance(value, dict):
            given = {name: value[name] for name in kind._fields if name in value}
            try:
                return kind(**{name: _loaded(kind.__annotations__[name], item) for name, item in given.items()})
            except TypeError as error:
                raise ValueError(str(error)) from None
    elif get_origin(kind) is tuple:
        if isinstance(value, list):
            return tuple(_loaded(get_args(kind)[0], item) for item in value)
    elif isinstance(kind, UnionType):
        if value is None and NoneType in get_args(kind):
            return None
        return _loaded(get_args(kind)[0], value)
    elif type(value) is kind:
        return value
    elif kind is float and type(value) is int:
        with suppress(OverflowError):
            return float(value)
    message = f"{value!r:.100} is no {kind}"
    raise ValueError(message)
