"""How the answer of a job travels: a result, another value, or an error.

Rows of plain values travel by `marshal`, which takes half the time of `pickle`. Every other value
is pickled. Large buffers of a pickled value, such as columns, may travel beside the pipes.
"""

import marshal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from actors.databases.answers import Sealed
from actors.databases.child.frames import BESIDE, COUNT, FEW, HEAD, LARGE, LOST, MAGIC, PICKLED, RESULT, ROWS, frame
from actors.databases.child.pickling import culprit_of, described
from actors.values.columns import WITH_BUFFERS
from actors.values.errors import ConnectionLost, RemoteError
from actors.values.requests import Call
from actors.values.result import Result

__all__ = ["Packed", "answer_frames", "error_body", "error_frame", "load_error", "load_pickled", "lost_frame"]

E = TypeVar("E", bound=BaseException)

_PORTION = 4 << 20  # bytes of rows in a frame, roughly: decoding one holds the interpreter for some milliseconds


class Packed(Sealed):
    """An answer as it travels: the kinds and bodies of its frames."""

    __slots__ = ("parts",)

    def __init__(self, value: Any, request: object, *, plain: bool) -> None:
        """Pack the answer of `request`; see `answer_frames` for `plain` and the errors."""
        self.parts = list(_parts_of(value, request, plain=plain))


def answer_frames(
    ticket: int, value: Any, request: object, seconds: float, *, plain: bool, beside: list[Any] | None = None
) -> Iterator[tuple[bytes, ...]]:
    """Yield the frames of an answer, each in one part or two, which nothing may come between.

    A large result has several frames, with some megabytes of rows each.

    Of a value that is `Packed` nothing large is copied: for a copy there may be no memory.

    Args:
        ticket: the job's.
        value: the answer: a `Result`, another value, or either of them `Packed`.
        request: the answered request.
        seconds: how long that took.
        plain: whether its rows hold nothing but None, int, float, str and bytes.
        beside: gets the large buffers of the answer that nobody can change. `None` if they travel
            in the frame.

    Raises:
        TypeError: a value cannot be sent to another process.
    """
    parts = value.parts if type(value) is Packed else _parts_of(value, request, plain=plain, beside=beside)
    for kind, body in parts:
        head = HEAD.pack(MAGIC, len(body), ticket, kind, seconds)
        yield (head + body,) if len(body) < LARGE else (head, body)


def _parts_of(
    value: Any, request: object, *, plain: bool, beside: list[Any] | None = None
) -> Iterator[tuple[int, bytes]]:
    if not plain or type(value) is not Result:
        buffers: list[Any] | None = None if beside is None else []
        body = _pickled(value, request, buffers)
        if buffers and beside is not None:
            beside += buffers
            yield BESIDE, COUNT.pack(len(buffers)) + body
        else:
            yield PICKLED, body
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


def _pickled(value: object, request: object, buffers: list[Any] | None) -> bytes:
    import pickle

    def stays(buffer: Any) -> bool:
        assert buffers is not None
        with suppress(BufferError), buffer.raw() as view:
            if view.nbytes >= LARGE and view.readonly:
                buffers.append(buffer)
                return False
        return True

    try:
        return pickle.dumps(value, WITH_BUFFERS, buffer_callback=None if buffers is None else stays)
    except MemoryError:
        raise
    except Exception as error:
        which = f"what {request} returned" if isinstance(request, Call) else f"the result of {request}"
        message = f"{which} cannot be sent to another process: {described(culprit_of(value))} ({type(error).__name__})"
        raise TypeError(message) from error


def load_pickled(body: Any, buffers: Sequence[Any] = ()) -> Any:
    """Return the answer of a frame that was pickled.

    Args:
        body: the pickle.
        buffers: the large buffers, which came another way.
    """
    import pickle

    return pickle.loads(body, buffers=buffers)  # from our own child


def error_frame(kind: int, ticket: int, error: BaseException, seconds: float = 0.0) -> bytes:
    """Return the frame of an error. The error arrives unchanged, if its class allows that."""
    return frame(kind, ticket, error_body(error), seconds)


def error_body(error: BaseException) -> bytes:
    """Return the body of the frame of an error, for `load_error`."""
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
    return frame(LOST, 0, flags + error_body(lost.__cause__ or lost))


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
