"""Short steps that keep the GIL: system calls that cannot wait, and `marshal.loads`."""

import ctypes
import gc
import marshal
import os
from collections.abc import Callable
from functools import partial
from operator import call
from typing import Any, Final

__all__ = ["loads", "quick_read", "quick_read_into", "quick_write"]

# `os.write` lets other threads run meanwhile. A thread that computes then keeps the interpreter for
# 5 ms, a thousand times longer than the call takes. These calls keep the interpreter, so they are
# for descriptors that do not block.
_libc: Final = ctypes.PyDLL(None, use_errno=True)
_libc.write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
_libc.write.restype = ctypes.c_ssize_t
_libc.read.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_libc.read.restype = ctypes.c_ssize_t

_MANY = 1 << 16  # bytes


def quick_write(descriptor: int, data: bytes) -> int:
    """Write as many bytes as a non-blocking descriptor takes now; return how many.

    Raises:
        BlockingIOError: nothing can be written now.
        BrokenPipeError: nobody will read it.
    """
    while (written := _libc.write(descriptor, data, len(data))) < 0:
        _raise_unless_interrupted()
    return int(written)


def quick_read_into(descriptor: int, address: int, room: int) -> int:
    """Read the bytes that are there into memory, from a non-blocking descriptor; return how many.

    Raises:
        BlockingIOError: nothing is there now.
    """
    while (got := _libc.read(descriptor, address, room)) < 0:
        _raise_unless_interrupted()
    return int(got)


def quick_read(descriptor: int, most: int) -> bytes:
    """Return the bytes that are there, from a non-blocking descriptor; none if none are."""
    place = ctypes.create_string_buffer(most)
    got = _libc.read(descriptor, place, most)
    return place.raw[:got] if got > 0 else b""


def _raise_unless_interrupted() -> None:
    number = ctypes.get_errno()
    error = OSError(number, os.strerror(number))
    if not isinstance(error, InterruptedError):
        raise error


def loads(body: Any) -> Any:
    """Call `marshal.loads`. For many rows the cycle collector is off: it takes a third of the time.

    All in one step of the interpreter: nothing can come in between that would leave the collector
    off.
    """
    if len(body) < _MANY or not gc.isenabled():
        return marshal.loads(body)
    try:
        steps: tuple[Callable[[], Any], ...] = (gc.disable, partial(marshal.loads, body), gc.enable)
        _, value, _ = map(call, steps)
    except BaseException:
        gc.enable()
        raise
    return value
