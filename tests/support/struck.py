"""Strikes: a signal handler or an exception runs at one chosen moment of the crew's code."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Strike:
    """A profiler that calls `handler` at the `at`-th moment that counts.

    CPython looks for signals and for asynchronous exceptions as a function begins and after each
    call. So these are the moments. There is none between the acquisition of a lock and its `with`
    block, and none before the release of the lock. A subclass decides in `counts` which of the
    moments count.
    """

    def __init__(self, at: int, handler: Callable[[], object]) -> None:
        self.left = at
        self.handler = handler
        self.where = ""
        """The place of the strike; empty before it."""

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if self.where or event not in ("call", "return", "c_return") or not self.counts(frame, event):
            return
        self.left -= 1
        if self.left == 0:
            self.where = f"{event} in {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname} {arg}"
            self.handler()

    def counts(self, frame: FrameType, event: str) -> bool:
        """Say whether this moment counts."""
        raise NotImplementedError

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Strike in this thread while the block runs."""
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)


def interrupt() -> None:
    raise KeyboardInterrupt


class Struck(Strike):
    """A strike in the middle of a call of the crew's code by a test.

    The beginning and the end of the outermost call do not count. The crew's code can do nothing
    about a signal at these moments: the signal might as well have come just before or just after
    the call.
    """

    def __init__(self, at: int, handler: Callable[[], object] = interrupt) -> None:
        super().__init__(at, handler)

    def counts(self, frame: FrameType, event: str) -> bool:
        if not _only_from_actors(frame) or (event != "c_return" and not _only_from_actors(frame.f_back)):
            return False
        if event == "return" and frame.f_code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE):
            return False  # the generator may be suspended here, where no signal comes
        return _is_called_by_a_test(frame)


def _only_from_actors(frame: FrameType | None) -> bool:
    module = "" if frame is None else frame.f_globals.get("__name__", "")
    # A `Result` only reads values.
    return module.startswith("actors.") and module != "actors.values.result"


def _is_called_by_a_test(frame: FrameType | None) -> bool:
    """Say whether a test called the code, and not a finalizer or a callback of a loop.

    A finalizer and a generator that is thrown away swallow the exception. A loop is not
    interrupted.
    """
    while frame is not None and _only_from_actors(frame):
        if frame.f_code.co_name in ("__del__", "<genexpr>"):
            return False
        frame = frame.f_back
    return frame is not None and frame.f_globals["__name__"].startswith("tests.")


class KilledAt(Strike):
    """A strike anywhere in the life of an actor's thread, which raises `kind`."""

    def __init__(self, at: int, kind: type[BaseException]) -> None:
        super().__init__(at, self._raise)
        self.kind = kind

    def _raise(self) -> None:
        raise self.kind

    def counts(self, frame: FrameType, event: str) -> bool:
        module, function = str(frame.f_globals.get("__name__")), frame.f_code.co_name
        if module == "threading":
            return function == "start" and event == "return"  # this thread has just started another one
        # An exception outside of the guard around the whole life of a thread goes to CPython. A
        # generator that is thrown away swallows the exception.
        return module.startswith(("actors.", "supervisor")) and function not in ("_actor_loop", "<genexpr>")
