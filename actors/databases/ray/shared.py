"""Shared memory: how the large buffers of an answer get from the gateway to the program.

The gateway sees an object of the cluster's store without a copy. It copies the buffers once, into
memory that both processes map, and the object is freed. So the program's table depends neither on
the store nor on the gateway.

New memory costs eight times as much as the copy (the kernel must find and clear each page). So the
gateway uses memory again that the program has let go, as an allocator does in one process. The
first byte of each piece tells that: the program writes it, and the gateway reads it.
"""

import mmap
import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

__all__ = ["Places", "SharedPool", "forget", "mapped"]

_ALIGNED: Final = 64  # bytes: as Arrow recommends
_PORTION: Final = 1 << 20  # bytes that are copied at once: other threads of the gateway run in between
_PIECES: Final = 8  # that the gateway keeps at most; each takes a descriptor
_MOST: Final = 256 << 20  # bytes of a piece that is worth keeping
_IDLE: Final = 5.0  # seconds after which unused memory is freed
_WASTE: Final = 4  # a piece is not used for an answer that is smaller by more than this factor

_USED, _FREE, _FORGOTTEN = range(3)
"""The first byte of a piece. The program holds buffers of it; it has let go all of them; it has let
go all of them, and a forked process may still have some, so nobody may use the piece again."""

Places: TypeAlias = "list[tuple[int, int]]"
"""Where each buffer begins and ends."""


class SharedPool:
    """The memory that a gateway shares with its program. Any thread may use it."""

    def __init__(self) -> None:
        # Held to change the list of pieces, the oldest first.
        self._lock = threading.Lock()
        self._pieces: list[_Piece] = []

    def put(self, buffers: Sequence[Any]) -> tuple[int, Places]:
        """Copy buffers into shared memory.

        Returns:
            A descriptor of the memory, which the caller closes, and where the buffers are. `mapped`
            takes both.

        Raises:
            OSError: there is no memory for them.
        """
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        places = _placed(len(view) for view in views)
        piece = self._piece(places[-1][1])
        try:
            for (begin, _), view in zip(places, views, strict=True):
                piece.write(begin, view)
            descriptor = os.dup(piece.descriptor)
        except BaseException:
            piece.close()
            raise
        with self._lock:
            self._keep(piece)
        return descriptor, places

    def _piece(self, size: int) -> "_Piece":
        """Take a free piece out of the pool, or make one."""
        size = -(-size // _PORTION) * _PORTION
        with self._lock:
            fitting = [piece for piece in self._pieces if piece.state == _FREE and size <= piece.size <= _WASTE * size]
            if fitting:
                piece = min(fitting, key=lambda piece: piece.size)
                self._pieces.remove(piece)
                piece.state = _USED
                return piece
        return _Piece(size)

    def _keep(self, piece: "_Piece") -> None:
        """Put a piece into the pool, instead of the oldest one if the pool is full."""
        piece.used_at = time.monotonic()
        if piece.size > _MOST:
            piece.close()
            return
        self._pieces.append(piece)
        if len(self._pieces) > _PIECES:
            self._pieces.pop(0).close()

    def trim(self) -> None:
        """Free the memory that was not used for some seconds."""
        since = time.monotonic() - _IDLE
        with self._lock:
            for piece in self._pieces[:]:
                if piece.state == _FORGOTTEN or (piece.state == _FREE and piece.used_at < since):
                    self._pieces.remove(piece)
                    piece.close()


class _Piece:
    """A piece of shared memory, as the gateway has it mapped."""

    def __init__(self, size: int) -> None:
        """Make a piece.

        Raises:
            OSError: there is no memory for it.
        """
        self.size = size
        self.descriptor = _unnamed()
        self.used_at = 0.0
        try:
            # A write to a mapping without memory behind it would kill the process.
            getattr(os, "posix_fallocate", _extend)(self.descriptor, 0, size)
            self._map = mmap.mmap(self.descriptor, size)
        except BaseException:
            os.close(self.descriptor)
            raise

    @property
    def state(self) -> int:
        """The first byte."""
        return self._map[0]

    @state.setter
    def state(self, value: int) -> None:
        self._map[0] = value

    def write(self, begin: int, view: memoryview) -> None:
        """Copy a buffer to its place."""
        for at in range(0, len(view), _PORTION):
            part = view[at : at + _PORTION]
            self._map[begin + at : begin + at + len(part)] = part

    def close(self) -> None:
        """Free the memory here. It lives on where the program still has it mapped."""
        self._map.close()
        os.close(self.descriptor)


def _placed(sizes: Iterator[int]) -> Places:
    """Return the places of buffers behind the first byte, and behind each other."""
    places: Places = []
    end = 1
    for size in sizes:
        begin = -(-end // _ALIGNED) * _ALIGNED
        end = begin + size
        places.append((begin, end))
    return places


def _unnamed() -> int:
    """Return the descriptor of new memory that has no name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("querycrew")
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _extend(descriptor: int, begin: int, size: int) -> None:
    """Extend a file, where the system cannot reserve memory for it."""
    os.ftruncate(descriptor, begin + size)


# --- in the program -----------------------------------------------------------------------

# The mapped first bytes of all pieces that the program holds, by the identities of their mappings.
_held: Final[dict[int, mmap.mmap]] = {}


def mapped(descriptor: int, places: Places) -> list[memoryview]:
    """Return the buffers that `SharedPool.put` has copied. Nobody can change them here.

    With the last of them, the gateway may use the memory again.

    Raises:
        OSError: they cannot be mapped. The gateway does not use this memory again.
    """
    try:
        whole = _Whole(descriptor, places[-1][1], prot=mmap.PROT_READ)
        _held[id(whole)] = mmap.mmap(descriptor, 1)
    except BaseException:
        forget(descriptor)
        raise
    view = memoryview(whole)
    return [view[begin:end] for begin, end in places]


def forget(descriptor: int) -> None:
    """Give up memory that nobody maps here. The gateway frees it."""
    os.pwrite(descriptor, bytes([_FORGOTTEN]), 0)


class _Whole(mmap.mmap):
    """A piece as the program has it mapped. Its buffers keep it."""

    # The default value: at the end of the interpreter, the module may have lost its names.
    def __del__(self, held: dict[int, mmap.mmap] = _held) -> None:
        """Tell the gateway that it may use the piece again. In any thread; takes no lock.

        A garbage collection calls this while buffers exist, if they are part of its garbage. The
        `__del__` of another part may save them. Then nobody may use the piece again.
        """
        first = held.pop(id(self), None)
        if first is None:
            return
        state = _FREE
        try:
            self.close()
        except BufferError:
            state = _FORGOTTEN
        # A fork in another thread may write to `first` at this moment. So nobody closes it: it ends
        # with its last reference.
        if first[0] == _USED:
            first[0] = state


def _after_fork_in_child() -> None:
    """Leave the pieces alone: the parent tells the gateway about them."""
    _held.clear()


def _before_fork() -> None:
    """Let nobody use the memory again that the child of the fork sees, too."""
    for first in tuple(_held.values()):
        first[0] = _FORGOTTEN


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
