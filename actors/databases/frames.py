"""Frames: how requests travel to a child process, and answers back. Both ends of the pipes use this.

A frame is a head (see `HEAD`) and a body. Values that `marshal` can carry
without changing them travel so, since that takes half the time; everything else is pickled.
"""

import marshal
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from actors.databases.steps import Step
from actors.errors import RemoteError
from actors.messages import Call, Query, Request, unbound
from actors.result import Result

__all__ = [
    "ERROR",
    "FAILED",
    "FEW",
    "FIRST_BYTE",
    "HEAD",
    "LOST",
    "MAGIC",
    "PICKLED",
    "READY",
    "RESULT",
    "ROWS",
    "TOO_LARGE",
    "WAITS",
    "answer_frame",
    "answer_frames",
    "error_frame",
    "frame",
    "load_error",
    "load_pickled",
    "load_request",
    "packing",
    "request_frame",
    "write",
]

E = TypeVar("E", bound=BaseException)

HEAD: Final = struct.Struct("<HQQBf")
"""`MAGIC`, length of the body in bytes, ticket of the job, kind, seconds that the job ran."""
MAGIC: Final = 0xC3B5
"""What each frame begins with: something else that is written into the pipes is noticed."""
FIRST_BYTE: Final = MAGIC & 0xFF
"""The first of a frame."""

QUERY, PICKLED_REQUEST, UNSENDABLE, TOO_LARGE = range(4)
"""Kinds of requests. One that cannot be sent goes as the reason for that, and comes back in its turn as the error; one
for which there is no memory over there becomes the last."""
RESULT, ROWS, PICKLED, ERROR, LOST, READY, FAILED, WAITS = range(8)
"""Kinds of answers: a whole result, or its end; rows that come before it; a result that was pickled; an error of the
statement; the error after which the connection is of no more use; an open connection; why it could not be opened; and
what is no answer: that the job waits for a lock."""

_PORTION = 4 << 20  # bytes of rows in a frame, roughly: decoding one holds the interpreter for some milliseconds
FEW: Final = 256
"""Rows that are not worth measuring: they travel in one frame."""

# What SQLite binds and `marshal` does not change. It would turn anything that has a buffer into bytes, and so
# hide what the driver refuses.
_PLAIN: Final = {int, float, str, bytes, bool, type(None)}
_MAKERS: Final[tuple[tuple[Any, Callable[[Any], object]], ...]] = (
    (bool, bool),
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    ((bytes, bytearray, memoryview), bytes),
)


def frame(kind: int, ticket: int, body: bytes, seconds: float = 0.0) -> bytes:
    """Return a frame."""
    return HEAD.pack(MAGIC, len(body), ticket, kind, seconds) + body


def write(descriptor: int, data: bytes) -> None:
    """Write all of `data` to a descriptor that blocks."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


# --- requests -----------------------------------------------------------------------------


def request_frame(ticket: int, request: Request | Step) -> bytes:
    """Return the frame of a request, or of the reason why it cannot be sent. Never raises."""
    try:
        if type(request) is Query and request.many is None and request.max_rows is None:
            params = request.params
            if type(params) is not tuple or not _PLAIN.issuperset(map(type, params)):
                params = _plainer(params)
            if params is not None:
                return frame(QUERY, ticket, marshal.dumps((_plain(request.sql), params)))
        reason = _not_importable(request.function) if isinstance(request, Call) else None
        if reason is None:
            return frame(PICKLED_REQUEST, ticket, _pickle(request))
        reason = _wrong_function(request, reason)
    except BaseException as error:  # noqa: BLE001  # whatever the class of a parameter does there
        reason = _unsendable(request, type(error).__name__)
    return frame(UNSENDABLE, ticket, reason.encode(errors="replace"))


def _pickle(value: object) -> bytes:
    import pickle  # few requests need it

    return pickle.dumps(value)


def _unsendable(request: Request | Step, error: str) -> str:
    """Return why a request cannot be pickled. By the error's class: its text may show a value."""
    if isinstance(request, Call):
        try:
            _pickle(request.function)
        except BaseException:  # noqa: BLE001  # a class of the user's
            return _wrong_function(request, f"it cannot be pickled ({error})")
    return f"a parameter cannot be sent to a child process ({error}){_types_of(request)}"


def _wrong_function(request: Request | Step, reason: str) -> str:
    return (
        f"{request} cannot be sent to a child process: {reason}. The function must stand at the top level of a module "
        "that the child can import; an object that it is bound to must be made of values"
    )


def _not_importable(function: Callable[..., Any]) -> str | None:
    """Return why a child process cannot import a function by its name, as far as the name tells."""
    function = unbound(function)
    name = str(getattr(function, "__qualname__", type(function).__qualname__))
    if name.endswith("<lambda>"):
        return "it is a lambda"
    if "<locals>" in name:
        return "it is defined inside another function"
    if getattr(function, "__module__", None) == "__main__":
        return "it is defined in __main__, which a child does not run"
    return None


def _plain(value: Any) -> Any:
    """Return a value of a class that SQLite binds as one of its own as just that; others as they are."""
    for kind, make in _MAKERS:
        if isinstance(value, kind):
            return make(value)
    return value


def _plainer(params: Any) -> Any:
    """Return parameters as plain values, or `None` where one of them is no such value."""
    if isinstance(params, dict):
        named = {str(name): _plain(value) for name, value in params.items()}
        return named if _PLAIN.issuperset(map(type, named.values())) else None
    values = tuple(_plain(value) for value in params)
    return values if _PLAIN.issuperset(map(type, values)) else None


def _types_of(request: Request | Step) -> str:
    params = getattr(request, "params", getattr(request, "args", ()))
    values = params.values() if isinstance(params, dict) else params
    names = sorted({type(value).__qualname__ for value in values if type(value) not in _PLAIN})
    return f"; its types: {', '.join(names)}" if names else ""


def load_request(kind: int, body: bytes | bytearray) -> Request | Step:
    """Return the request of a frame.

    Raises:
        TypeError: it could not be sent.
        Exception: a parameter cannot be put together here.
    """
    if kind == UNSENDABLE:
        raise TypeError(body.decode())
    if kind == TOO_LARGE:
        message = "a child process has no memory for these parameters; see ChildProcess(memory_limit=…)"
        raise MemoryError(message)
    if kind == QUERY:
        return Query(*marshal.loads(body))
    import pickle

    try:
        request: Request | Step = pickle.loads(body)  # from our own parent
    except Exception as error:
        error.add_note("querycrew: a child process has to import what it is sent, and does not run __main__")
        raise
    return request


# --- answers ------------------------------------------------------------------------------


def answer_frame(ticket: int, result: Result, seconds: float) -> bytes:
    """Return the one frame of a result, which must be plain; see `answer_frames`."""
    body = marshal.dumps((result.columns, result.rows, result.rowcount, result.lastrowid, result.truncated))
    return HEAD.pack(MAGIC, len(body), ticket, RESULT, seconds) + body


def answer_frames(ticket: int, result: Any, seconds: float, *, plain: bool) -> Iterator[bytes]:
    """Yield the frames of an answer: one, or of a result several with some megabytes of rows each.

    Args:
        ticket: the job's.
        result: what was answered: a `Result`, or anything else.
        seconds: how long that took.
        plain: whether its rows hold nothing but None, int, float, str and bytes.

    Raises:
        TypeError: a value cannot be sent to another process.
    """
    if not plain or type(result) is not Result:
        yield _pickled(ticket, result, seconds)
        return
    rows, start = result.rows, 0
    if len(rows) > FEW:
        portion = max(1, _PORTION * 64 // len(marshal.dumps(rows[:64])))
        while len(rows) - start > portion:
            yield frame(ROWS, ticket, marshal.dumps(rows[start : start + portion]))
            start += portion
    last = rows[start:] if start else rows
    rest = Result(result.columns, last, result.rowcount, result.lastrowid, result.truncated)
    yield answer_frame(ticket, rest, seconds)


class _Packed(bytes):
    """What a function returned, packed while its transaction was still open."""

    __slots__ = ()


def packing(request: Call[Any]) -> Call[Any]:
    """Return a call of the same function that packs what that returns: what cannot be sent is to roll back."""

    def call(connection: Any, *args: Any) -> _Packed:
        return _Packed(_dumps(request.function(connection, *args), f"what {request} returned"))

    call.__module__, call.__qualname__ = request.sql.rpartition(".")[::2]
    return Call(call, *request.args, readonly=request.readonly, timeout=request.timeout)


def _dumps(value: object, what: str) -> bytes:
    import pickle

    try:
        return pickle.dumps(value)
    except Exception as error:
        message = f"{what} cannot be sent from a child process: {type(error).__name__}: {error}"
        raise TypeError(message) from error


def _pickled(ticket: int, result: object, seconds: float) -> bytes:
    body = result if isinstance(result, _Packed) else _dumps(result, "the job was done, and its result")
    return frame(PICKLED, ticket, body, seconds)


def load_pickled(body: Any) -> Any:
    """Return the answer of a frame that was pickled."""
    import pickle

    return pickle.loads(body)  # from our own child


def error_frame(kind: int, ticket: int, error: BaseException, seconds: float = 0.0) -> bytes:
    """Return the frame of an error, which arrives as what it is, if its class allows that."""
    import pickle

    notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
    try:
        dumped = pickle.dumps(error)
        pickle.loads(dumped)  # some classes can be taken apart and not be put together again
    except BaseException:  # noqa: BLE001  # whatever its class does there
        dumped = b""
    return frame(kind, ticket, pickle.dumps((_told(error), notes, dumped)), seconds)


def _told(error: BaseException) -> str:
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    try:
        return f"{name}: {error}"
    except BaseException:  # noqa: BLE001  # its own __str__
        return f"{name}, whose text cannot be had"


def load_error(body: Any, wanted: type[E]) -> E | RemoteError:
    """Return the error of a frame, or a `RemoteError` that tells what it was."""
    import pickle

    text, notes, dumped = pickle.loads(body)  # from our own child
    if dumped:
        try:
            error = pickle.loads(dumped)
        except BaseException as reason:  # noqa: BLE001  # a class that is only there, or cannot be put together here
            text += f" (its class cannot be loaded here: {type(reason).__name__})"
        else:
            if isinstance(error, wanted):
                return error
    remote = RemoteError(text)
    for note in notes:
        remote.add_note(note)
    return remote
