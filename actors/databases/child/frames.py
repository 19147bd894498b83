"""Frames: how requests travel to a child process, and answers back. For both ends of the pipes.

A frame is a head (see `HEAD`) and a body. Values that `marshal` can carry
without changing them travel so, since that takes half the time; everything else is pickled.
"""

import marshal
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from io import BytesIO
from typing import Any, Final, TypeAlias, TypeVar

from actors.databases.answers import Sealed
from actors.databases.steps import Execute, Step
from actors.values.errors import ConnectionLost, RemoteError
from actors.values.parameters import PLAIN, Parameters
from actors.values.record import store
from actors.values.requests import Call, Query, Request, Transaction, unbound
from actors.values.result import Result

__all__ = [
    "ANSWERS",
    "DONE",
    "ERROR",
    "FAILED",
    "FEW",
    "FIRST_BYTE",
    "FLUSH",
    "HEAD",
    "JOBS",
    "LARGE",
    "LOST",
    "MAGIC",
    "OUT_OF_MEMORY",
    "PICKLED",
    "READY",
    "RESULT",
    "ROWS",
    "SPECIFICATION",
    "STEP",
    "TICKET",
    "TOKEN",
    "WAITS",
    "WHATEVER_RUNS",
    "Item",
    "Packed",
    "answer_frames",
    "error_frame",
    "frame",
    "item_of",
    "jobs_frame",
    "load_error",
    "load_pickled",
    "load_request",
    "lost_frame",
    "tokens_of",
    "write",
]

E = TypeVar("E", bound=BaseException)

HEAD: Final = struct.Struct("<HQQBf")
"""`MAGIC`, length of the body in bytes, ticket of the job, or of the first one, kind, and the
seconds that the job ran, or how many jobs there are."""
TOKEN: Final = struct.Struct("<I")
"""The last four bytes of a ticket: they claim the job."""
MAGIC: Final = 0xC3B5
"""The first bytes of each frame. They show when foreign bytes are in the pipes."""
FIRST_BYTE: Final = MAGIC & 0xFF
"""The first of a frame."""

SPECIFICATION, JOBS, STEP = range(3)
"""Kinds of frames to a child: the specification of the database; jobs, with consecutive tickets,
each with a token; a step of a job that has begun. A step is never taken back, so it has no
token."""
ANSWERS, DONE, RESULT, ROWS, PICKLED, ERROR, LOST, READY, FAILED, WAITS = range(10)
"""Kinds of frames from a child:

* ANSWERS: small results of several jobs. DONE: the same, and no job of the frame is left.
* RESULT: a whole result, or its end. ROWS: rows that come before it. PICKLED: a pickled result.
* ERROR: the error of a statement. LOST: the error after which the connection is of no more use.
* READY: the connection is open. FAILED: why it could not be opened. WAITS: a job waits for a lock.
"""

TICKET: Final = struct.Struct("<Q")
"""The control pipe carries the ticket of the job to interrupt, or one of the next two values."""
WHATEVER_RUNS: Final = 0
"""Interrupt the job that runs now. No job has this ticket."""
FLUSH: Final = (1 << 64) - 1
"""Send the answers that are there."""
OUT_OF_MEMORY: Final = 70
"""The exit code of a child that found no memory to say so."""

Item: TypeAlias = "tuple[str, Parameters, int | None] | bytes | str"
"""A request as it travels: a plain query by its parts; another one pickled; or the reason why it
cannot be sent, which comes back as its error."""

_PORTION = 4 << 20  # bytes of rows in a frame, roughly: decoding one holds the interpreter for some milliseconds
LARGE: Final = 1 << 16
"""Bytes that are not copied on their way."""
FEW: Final = 256
"""Rows that are not worth measuring: they travel in one frame."""

# `marshal` carries values of the classes in PLAIN unchanged. It would turn any other object that
# has a buffer into bytes, and so hide an error of the driver. SQLite binds values of these
# subclasses as the plain ones.
_MAKERS: Final[tuple[tuple[Any, Callable[[Any], object]], ...]] = (
    (bool, bool),
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    (bytes, bytes),
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


def item_of(request: Request | Step) -> tuple[Item, int]:
    """Return a request as it travels, and the bytes that this takes, roughly. Never raises."""
    if type(request) is Query and request.many is None and type(request.params) is tuple:
        # Most requests are of this kind: in one loop, without a call for each value.
        sql, params, size = request.sql, request.params, 0
        for value in params:
            kind = type(value)
            if kind is str or kind is bytes:
                size += len(value)
            elif kind not in PLAIN:
                break
        else:
            if type(sql) is str:
                return (sql, params, request.max_rows), size + len(sql)
    item = _item_of(request)
    return item, _size_of(item)


def _item_of(request: Request | Step) -> Item:
    try:
        if type(request) is Query and request.many is None:
            params = _plainer(request.params)
            if params is not None:
                sql = request.sql
                return sql if type(sql) is str else _plain(sql), params, request.max_rows
        inner = request.request if isinstance(request, Execute) else request
        reason = _not_importable(inner.function) if isinstance(inner, Call) else None
        if reason is None:
            return _pickle(request) if isinstance(inner, Call) else _pickle_plainly(request)
        return _wrong_function(inner, reason)
    except BaseException as error:  # noqa: BLE001  # whatever the class of a parameter does there
        return _unsendable(request.request if isinstance(request, Execute) else request, type(error).__name__)


def _size_of(item: Item) -> int:
    if type(item) is not tuple:
        return len(item)
    sql, params, _ = item
    values = params.values() if isinstance(params, dict) else params
    return len(sql) + sum(len(value) for value in values if type(value) is str or type(value) is bytes)


def jobs_frame(ticket: int, items: list[Item], kind: int = JOBS) -> bytes:
    """Return the frame of a step, or of jobs: the first job has `ticket`, the others follow."""
    return frame(kind, ticket, marshal.dumps(items), len(items))


def tokens_of(ticket: int, count: int) -> bytes:
    """Return the tokens of so many jobs, of which the first has this ticket."""
    return struct.pack(f"<{count}I", *(number & 0xFFFFFFFF for number in range(ticket, ticket + count)))


def _pickle(value: object) -> bytes:
    import pickle  # few requests need it

    return pickle.dumps(value)


def _pickle_plainly(request: Request | Step) -> bytes:
    """Pickle a request. Its parameters become plain values where SQLite binds them as such."""
    buffer = BytesIO()
    _plain_pickler()(buffer).dump(request)
    return buffer.getvalue()


@cache
def _plain_pickler() -> Any:
    import pickle

    class Plainly(pickle.Pickler):
        """A child need not be able to import such a class."""

        def reducer_override(self, value: Any) -> Any:
            for kind, make in _MAKERS:
                if isinstance(value, kind):
                    return kind, (make(value),)
            return NotImplemented

    return Plainly


def _unsendable(request: Request | Step, error: str) -> str:
    """Return why a request cannot be pickled. By the error's class: its text may show a value."""
    if isinstance(request, Call):
        try:
            _pickle(request.function)
        except BaseException:  # noqa: BLE001  # a class of the user's
            return _wrong_function(request, f"it cannot be pickled ({error})")
    queries = request.queries if isinstance(request, Transaction) else (request,)
    culprit = culprit_of([getattr(query, name, None) for query in queries for name in ("params", "many", "args")])
    return f"a parameter cannot be sent to a child process: {_described(culprit)} ({error})"


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
    """Return the plain value that SQLite binds for `value`; any other value unchanged."""
    for kind, make in _MAKERS:
        if isinstance(value, kind):
            return make(value)
    return value


def _plainer(params: Any) -> Any:
    """Return parameters as plain values, or `None` where one of them is no such value."""
    if isinstance(params, dict):
        named = {name: _plain(value) for name, value in params.items()}
        return named if PLAIN.issuperset(map(type, named.values())) else None
    values = tuple(_plain(value) for value in params)
    return values if PLAIN.issuperset(map(type, values)) else None


def load_request(item: Item) -> Request | Step:
    """Return the request of an item.

    Raises:
        TypeError: it could not be sent.
        Exception: a parameter cannot be put together here.
    """
    if type(item) is tuple:
        sql, params, max_rows = item
        query: Query = object.__new__(Query)  # it was checked where it was made
        store(query, "sql", sql)
        store(query, "params", params)
        if max_rows is not None:
            store(query, "max_rows", max_rows)
        return query
    if type(item) is str:
        raise TypeError(item)
    import pickle

    try:
        request: Request | Step = pickle.loads(item)  # type: ignore[arg-type]  # from our own parent
    except Exception as error:
        error.add_note("querycrew: a child process imports the classes of its parameters, and does not run __main__")
        raise
    return request


# --- answers ------------------------------------------------------------------------------


class Packed(Sealed):
    """An answer as it travels: the kinds and bodies of its frames."""

    __slots__ = ("parts",)

    def __init__(self, value: Any, request: object, *, plain: bool) -> None:
        """Pack the answer of `request`; see `answer_frames` for `plain` and the errors."""
        self.parts = list(_parts_of(value, request, plain=plain))


def answer_frames(ticket: int, value: Any, request: object, seconds: float, *, plain: bool) -> Iterator[bytes]:
    """Yield the frames of an answer. A large result has several, with some megabytes of rows each.

    Of a value that is `Packed` nothing large is copied: for a copy there may be no memory.

    Args:
        ticket: the job's.
        value: the answer: a `Result`, another value, or either of them `Packed`.
        request: the answered request.
        seconds: how long that took.
        plain: whether its rows hold nothing but None, int, float, str and bytes.

    Raises:
        TypeError: a value cannot be sent to another process.
    """
    for kind, body in value.parts if type(value) is Packed else _parts_of(value, request, plain=plain):
        head = HEAD.pack(MAGIC, len(body), ticket, kind, seconds)
        if len(body) < LARGE:
            yield head + body
        else:
            yield head
            yield body


def _parts_of(value: Any, request: object, *, plain: bool) -> Iterator[tuple[int, bytes]]:
    if not plain or type(value) is not Result:
        yield PICKLED, _pickled(value, request)
        return
    rows, start = value.rows, 0
    if len(rows) > FEW:
        portion = max(1, _PORTION * 64 // len(marshal.dumps(rows[:64])))
        while len(rows) - start > portion:
            yield ROWS, marshal.dumps(rows[start : start + portion])
            start += portion
    last = rows[start:] if start else rows
    yield RESULT, _body(Result(value.columns, last, value.rowcount, value.lastrowid, value.truncated))


def _body(result: Result) -> bytes:
    return marshal.dumps((result.columns, result.rows, result.rowcount, result.lastrowid, result.truncated))


def _pickled(value: object, request: object) -> bytes:
    import pickle

    try:
        return pickle.dumps(value)
    except MemoryError:
        raise
    except Exception as error:
        which = f"what {request} returned" if isinstance(request, Call) else f"the result of {request}"
        message = (
            f"{which} cannot be sent from a child process: {_described(culprit_of(value))} ({type(error).__name__})"
        )
        raise TypeError(message) from error


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


def _described(value: object) -> str:
    name = getattr(value, "__qualname__", None)
    return f"a {type(value).__qualname__}" if name is None else f"the {type(value).__qualname__} {name}"


def load_pickled(body: Any) -> Any:
    """Return the answer of a frame that was pickled."""
    import pickle

    return pickle.loads(body)  # from our own child


def error_frame(kind: int, ticket: int, error: BaseException, seconds: float = 0.0) -> bytes:
    """Return the frame of an error. The error arrives unchanged, if its class allows that."""
    return frame(kind, ticket, _error_body(error), seconds)


def _error_body(error: BaseException) -> bytes:
    import pickle

    notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
    try:
        dumped = pickle.dumps(error)
        pickle.loads(dumped)  # some classes can be taken apart and not be put together again
    except BaseException:  # noqa: BLE001  # whatever its class does there
        dumped = b""
    return pickle.dumps((_told(error), notes, dumped))


def lost_frame(lost: ConnectionLost) -> bytes:
    """Return the frame that says why nothing more can run."""
    flags = bytes([lost.begun | lost.blames << 1])
    return frame(LOST, 0, flags + _error_body(lost.__cause__ or lost))


def _told(error: BaseException) -> str:
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    try:
        return f"{name}: {error}"
    except BaseException:  # noqa: BLE001  # its own __str__
        return f"{name}, whose text cannot be had"


def load_error(body: Any, wanted: type[E]) -> E | RemoteError:
    """Return the error of a frame, or a `RemoteError` that describes it."""
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
