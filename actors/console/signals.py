"""What ends the program from outside, and how it ends properly."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Never, Self

__all__ = ["Signals"]

_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP")


class Signals:
    """While it is entered, SIGTERM and SIGHUP end the program through its `finally` clauses, as SIGINT does.

    In the main thread only.
    """

    def __init__(self) -> None:
        # What each signal did before. One that is ignored stays so: nohup has asked for that.
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
        """Let nothing cut short what follows: whoever presses Ctrl-C twice has said nothing new."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> Never:
    del frame
    sys.exit(128 + number)
