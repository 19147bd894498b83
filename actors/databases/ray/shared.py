"""Shared memory: how the large buffers of an answer get from the gateway to the program.

The gateway sees an object of the cluster's store without a copy. It copies the buffers once, into
memory that both processes map, and the object is freed. So the program's table depends neither on
the store nor on the gateway.
"""

import mmap
import os
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

__all__ = ["Places", "mapped", "shared"]

_ALIGNED: Final = 64  # bytes: as Arrow recommends

Places: TypeAlias = "list[tuple[int, int]]"
"""Where each buffer begins and ends."""


def shared(buffers: Sequence[Any]) -> tuple[int, Places]:
    """Copy buffers into shared memory; return its descriptor, and where the buffers are.

    Raises:
        OSError: there is no memory for them.
    """
    descriptor = _memory()
    try:
        places: Places = []
        end = 0
        for buffer in buffers:
            with memoryview(buffer) as whole, whole.cast("B") as view:
                begin = -(-end // _ALIGNED) * _ALIGNED
                end = begin + len(view)
                places.append((begin, end))
                _write(descriptor, view, begin)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, places


def _memory() -> int:
    """Return the descriptor of new memory that has no name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("querycrew")
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(descriptor: int, view: memoryview, begin: int) -> None:
    written = 0
    while written < len(view):
        written += os.pwrite(descriptor, view[written:], begin + written)


def mapped(descriptor: int, places: Places) -> list[memoryview]:
    """Return the buffers that `shared` has copied. The memory is freed with the last of them.

    Raises:
        OSError: they cannot be mapped.
    """
    whole = memoryview(mmap.mmap(descriptor, places[-1][1], prot=mmap.PROT_READ))
    return [whole[begin:end] for begin, end in places]
