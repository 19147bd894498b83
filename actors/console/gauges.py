"""Gauges: numbers that the connections of a crew report to the demo, also from child processes.

a connection (here or in a child) ── writes a slot ──► a shared file ◄── reads a slot ── the demo
"""

import mmap
import struct
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, Self

import apsw

__all__ = ["COMMITS", "SLOTS", "Gauges", "connect_to"]

SLOTS: Final = 64
COMMITS: Final = 0
"""The slot that counts the commits of the crew. Searches have the slots after it."""

_WIDTH: Final = 8  # bytes of a slot, a little-endian integer
_CHECKPOINT: Final = 1000  # pages of the log, as in SQLite's own hook


class Gauges:
    """A file of integers in shared memory. Each slot has one writer at a time.

    It is a context manager. The file must be there as long as a crew can open connections.
    """

    def __init__(self, path: Path) -> None:
        # The zeros take their place on the disk now: a page that finds no place later is a SIGBUS.
        path.write_bytes(bytes(SLOTS * _WIDTH))
        self._memory = _map(path)

    def read(self, slot: int) -> int:
        """Return the number in a slot."""
        return _get(self._memory, slot)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.close()


def connect_to(path: Path, connection: apsw.Connection) -> None:
    """Let a connection report to the gauges at `path`. For `on_connect`, also in a child.

    The SQL function `gauge(slot, number)` writes a slot and returns 1. Each commit adds 1 to the
    slot `COMMITS`: SQLite calls its hook after every commit to the log.
    """
    memory = _map(path)
    connection.create_scalar_function("gauge", partial(_set, memory), 2)
    connection.set_wal_hook(partial(_on_commit, memory))


def _map(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


def _get(memory: mmap.mmap, slot: int) -> int:
    return int(struct.unpack_from("<q", memory, slot * _WIDTH)[0])


def _set(memory: mmap.mmap, slot: int, number: int) -> int:
    struct.pack_into("<q", memory, slot * _WIDTH, number)
    return 1


def _on_commit(memory: mmap.mmap, connection: apsw.Connection, name: str, pages: int) -> int:
    _set(memory, COMMITS, _get(memory, COMMITS) + 1)
    if pages >= _CHECKPOINT:
        # This hook replaces the hook that writes the log back.
        with suppress(apsw.BusyError):  # of another connection; the next commit tries again
            connection.wal_checkpoint(name)
    return apsw.SQLITE_OK
