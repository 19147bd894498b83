"""Requests: the frames of jobs, as a child process reads them from its pipe."""

import os
import select
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from actors.databases.child.frames import HEAD, MAGIC

__all__ = ["Requests"]

T = TypeVar("T")

_CHUNK: Final = 1 << 16  # bytes that are read at a time
# Seconds in which the next frame is awaited without sleeping. To wake a process takes longer than
# most jobs.
_EAGER: Final = 150e-6


class Requests:
    """The frames that a child is sent, one after the other."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._more = select.poll()
        self._more.register(descriptor, select.POLLIN)
        self._buffer = b""
        # Whole frames, as their first ticket, the number of their jobs, kind and body.
        self._read: deque[tuple[int, int, int, bytes | bytearray | None]] = deque()

    def next(self) -> tuple[int, int, int, bytes | bytearray | None] | None:
        """Return the next frame, waiting for it; `None` if the parent sends no more.

        Returns:
            The first ticket, the number of jobs, the kind, and the body; `None` instead of one for
            which there is no memory.
        """
        while not self._read:
            self._parse()
            if self._read:
                break
            if len(self._buffer) < HEAD.size or not self._receive_large():
                more = self._wait_for(lambda: os.read(self._descriptor, _CHUNK))
                if not more:
                    return None
                self._buffer += more
        return self._read.popleft()

    def _wait_for(self, read: Callable[[], T]) -> T:
        """Read the next bytes, at first without sleeping."""
        eager_until = time.perf_counter() + _EAGER
        while True:
            try:
                return read()
            except BlockingIOError:
                if time.perf_counter() < eager_until:
                    os.sched_yield()
                else:
                    self._more.poll()

    def _parse(self) -> None:
        buffer, at = self._buffer, 0
        while len(buffer) - at >= HEAD.size:
            magic, length, ticket, kind, count = HEAD.unpack_from(buffer, at)
            if magic != MAGIC:
                message = "the parent of this child process sent bytes that are not a request"
                raise ValueError(message)
            end = at + HEAD.size + length
            if end > len(buffer):
                break
            self._read.append((ticket, int(count), kind, buffer[at + HEAD.size : end]))
            at = end
        self._buffer = buffer[at:]

    def _receive_large(self) -> bool:
        """Read the rest of the next frame, if the frame is large; say whether it was.

        A frame for which there is no memory is thrown away as it comes: it becomes the error of its
        job, and of no other.
        """
        _, length, ticket, kind, count = HEAD.unpack_from(self._buffer)
        if length <= _CHUNK:
            return False
        begun, self._buffer = self._buffer[HEAD.size :], b""
        body: bytearray | None
        try:
            body = bytearray(length)
            body[: len(begun)] = begun
            place = memoryview(body)
        except MemoryError:
            body, place = None, memoryview(bytearray(_CHUNK))
        at = len(begun)
        while at < length:
            part = place[at:] if body is not None else place[: length - at]
            got = self._wait_for(partial(os.readv, self._descriptor, [part]))
            if not got:
                raise EOFError
            at += got
        self._read.append((ticket, int(count), kind, body))
        return True
