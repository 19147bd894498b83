"""Signals that end the program, and how it cleans up before."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Never, Self

__all__ = ["Signals"]

_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP")


class Signals:
    """While it is entered, SIGTERM and SIGHUP end the program through its `finally` clauses.

    SIGINT does so anyway. For the main thread only.
    """

    def __init__(self) -> None:
        # The handler of each signal before. A signal that nohup ignores stays ignored.
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int] = {}

    def __enter__(self) -> Self:
        for name in _NAMES:
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            handler = None if number is None else signal.getsignal(number)
            if number is None or handler is None or handler is signal.SIG_IGN:
                continue
            self._before[number] = handler
            if name != "SIGINT":
                signal.signal(number, _exit)
        return self

    def ignore(self) -> None:
        """Ignore these signals from now on: the program is ending, and Ctrl-C adds nothing."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> Never:
    del frame
    sys.exit(128 + number)
