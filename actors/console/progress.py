"""Progress: how long a statement takes and how many rows it has given, on a terminal."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TextIO

from actors.console.visible import is_dumb_terminal

__all__ = ["Progress"]

_BEGINS = 0.7  # seconds that pass in silence
_EVERY = 0.25  # seconds


class Progress:
    """While it is entered, draws one line on a terminal, and clears it at the end.

    A thread of its own draws, since the program waits for rows meanwhile. Without a terminal there
    is no thread, and nothing is drawn.
    """

    def __init__(self, stream: TextIO, *, on: bool = True, timed: bool = False) -> None:
        self._stream = stream
        self._started_at = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="querycrew-progress", daemon=True)
        self._on = on and stream.isatty() and not is_dumb_terminal()
        # Held while a line is drawn, and while the program writes something itself.
        self._writing = threading.Lock()
        self._drawn = False
        self.timed = timed
        """Whether the line below the rows says how long the statement took."""
        self.rows = 0
        """How many rows there are until now."""

    @property
    def seconds(self) -> float:
        """How long it has been entered."""
        return time.monotonic() - self._started_at

    def __enter__(self) -> Self:
        self._started_at = time.monotonic()
        try:
            if self._on:
                self._thread.start()
        except BaseException:  # Ctrl-C: `__exit__` will not be called, and the thread may run
            self._end.set()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Clear the line; nothing is drawn afterwards. May be called again."""
        try:
            self._stop()
        except BaseException:  # Ctrl-C has cut it off
            self._stop()
            raise

    def _stop(self) -> None:
        self._end.set()
        if self._on and self._thread.is_alive():
            self._thread.join()
        self._clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Clear the line, and draw nothing while the program writes."""
        with self._writing:
            self._clear()
            yield

    def _draw(self) -> None:
        wait = _BEGINS
        while not self._end.wait(wait):
            wait = _EVERY
            with self._writing:
                if self._end.is_set():
                    return
                self._drawn = True
                rows = f"   {self.rows:,} rows" if self.rows else ""
                self._write(f"\r{self.seconds:.1f} s{rows}   Ctrl-C cancels\x1b[K")

    def _clear(self) -> None:
        if self._drawn:
            self._drawn = False
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass  # the terminal is gone
