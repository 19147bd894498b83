"""Keyboard: single keys of a terminal, without waiting for the end of a line."""

import os
import re
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, Never, TextIO

from actors.console.visible import is_dumb_terminal

try:
    import termios
except ImportError:  # Windows has none
    HAS_TERMINAL = False
else:
    HAS_TERMINAL = True

__all__ = ["HAS_TERMINAL", "Keyboard", "ended_by_signals", "is_interactive"]

_KEYS: Final = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "home",
    "\x1bOH": "home",
    "\x1b[1~": "home",
    "\x1b[F": "end",
    "\x1bOF": "end",
    "\x1b[4~": "end",
    "\x03": "quit",  # Ctrl-C
    "\x04": "quit",  # Ctrl-D
    "\x1b": "escape",
}
_WHOLE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|[^\[O])|[^\x1b]", re.DOTALL)
"""The bytes of one key."""
_REST: Final = 0.02  # seconds in which the rest of a key follows; then it was the key Escape


def is_interactive(output: TextIO) -> bool:
    """Say whether a person sees the output and has a keyboard."""
    import sys

    if not HAS_TERMINAL or is_dumb_terminal():
        return False
    try:
        return output.isatty() and sys.stdin is not None and sys.stdin.isatty() and sys.stdin.fileno() >= 0
    except (OSError, ValueError):
        return False


class Keyboard:
    """While it is entered, keys come one by one, and Ctrl-C is a key like the others.

    So Ctrl-C reaches the thread that reads the keys, and cuts off no other step. The settings of
    the terminal come back at every way out.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Switch the terminal over, and back at the end."""
        before = termios.tcgetattr(self._descriptor)
        mode = termios.tcgetattr(self._descriptor)
        mode[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        try:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, mode)
            yield
        finally:
            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, before)

    def key(self, seconds: float) -> str | None:
        """Wait for a key, at most for so long, and return its name.

        It takes no byte behind the key: keys that are typed ahead belong to the next program.

        Returns:
            The name, an empty text for an unknown key, or `None` if no key came.

        Raises:
            EOFError: the terminal is gone.
        """
        read = ""
        while self._has_more(seconds):
            try:
                byte = os.read(self._descriptor, 1)
            except OSError:
                byte = b""
            if not byte:
                raise EOFError
            read += byte.decode("latin-1")
            if _WHOLE.fullmatch(read):
                break
            seconds = _REST
        return _KEYS.get(read, read if len(read) == 1 else "") if read else None

    def _has_more(self, seconds: float) -> bool:
        return bool(select.select([self._descriptor], [], [], seconds)[0])


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the program through its `finally` clauses.

    A signal for which the program has a function of its own keeps it. In other threads than the
    main thread nothing changes, since Python allows it to the main thread only.
    """
    taken: list[int] = []
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _exit)
                taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> Never:
    del frame
    raise SystemExit(128 + number)
