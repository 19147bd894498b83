"""Waiting on an event loop of asyncio or trio, which nothing may block. anyio runs on either.

Neither is imported here: a program that has not imported it runs no such loop, and importing takes
longer than all of this library.
"""

import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["current_loop", "current_task", "settled_on"]

Waker: TypeAlias = Callable[[], object]


def current_loop() -> Any:
    """Return the event loop that runs in this thread, if any: asyncio's loop, or trio's token."""
    trio = _running_trio()
    if trio is not None:
        return trio.current_trio_token()
    return _running_asyncio()


def current_task() -> object:
    """Return the task of an event loop that calls this, if one does."""
    trio = _running_trio()
    if trio is not None:
        return trio.current_task()
    loop = _running_asyncio()
    return None if loop is None else sys.modules["asyncio"].current_task(loop)


def _running_trio() -> Any:
    """Return `trio.lowlevel`, if a task of trio runs in this thread."""
    # First: as a guest, trio runs inside of asyncio's loop.
    trio = sys.modules.get("trio")
    if trio is None:
        return None
    lowlevel = getattr(trio, "lowlevel", None)  # another thread may be about to import it
    if lowlevel is None:
        return None
    try:
        lowlevel.current_task()
    except RuntimeError:
        return None
    return lowlevel


def _running_asyncio() -> "AbstractEventLoop | None":
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        return asyncio.get_running_loop()  # type: ignore[no-any-return]
    except RuntimeError:
        return None


def settled_on(
    loop: Any, add_waker: Callable[[Waker], bool], remove_waker: Callable[[Waker], object], *, shielded: bool = False
) -> Generator[Any, None, None]:
    """Return what waits on `loop`, without blocking it, until the waker that `add_waker` was given is called.

    Args:
        loop: the one of the task that calls this; see `current_loop`.
        add_waker: takes the waker, or returns `False` if there is nothing to wait for.
        remove_waker: forgets it.
        shielded: whether trio's cancelling, which comes at every `await` again, waits for the end
            of this.
    """
    bell = _bells.get(loop)
    if bell is None:
        is_trio = not hasattr(loop, "call_soon_threadsafe")
        bell = _bells[loop] = _TrioBell(loop) if is_trio else _Bell(loop)
    if type(bell) is _TrioBell:
        return _settled_on_trio(bell, add_waker, remove_waker, shielded)
    return _settled_on_asyncio(loop, bell, add_waker, remove_waker)


def _settled_on_asyncio(
    loop: "AbstractEventLoop",
    bell: "_Bell",
    add_waker: Callable[[Waker], bool],
    remove_waker: Callable[[Waker], object],
) -> Generator[Any, None, None]:
    future = loop.create_future()
    wake = partial(bell.notify, future)
    try:
        if add_waker(wake):
            yield from future
    finally:
        remove_waker(wake)


def _settled_on_trio(
    bell: "_Bell", add_waker: Callable[[Waker], bool], remove_waker: Callable[[Waker], object], shielded: bool
) -> Generator[Any, None, None]:
    trio = sys.modules["trio"].lowlevel
    task, waits = trio.current_task(), True

    # These two run in trio's own thread, so neither comes in the middle of the other.
    def resume() -> None:
        nonlocal waits
        if waits:
            waits = False
            trio.reschedule(task)

    def abort(_: object) -> Any:
        nonlocal waits
        if shielded:
            return trio.Abort.FAILED
        waits = False
        return trio.Abort.SUCCEEDED

    wake = partial(bell.notify, resume)
    try:
        if add_waker(wake):
            yield from trio.wait_task_rescheduled(abort).__await__()
    finally:
        waits = False  # a task that does not wait must not be rescheduled
        remove_waker(wake)


class _Bell:
    """Wakes an event loop for all that was settled since it last looked.

    Waking it once for each reply costs a system call each, and the loop a turn each.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = weakref.ref(loop)
        # What waits on the loop and can go on: futures of asyncio, or functions to call.
        self._settled: deque[Any] = deque()
        # Monotonic seconds of the call that the loop has not answered yet.
        self._rung_at: float | None = None

    def notify(self, waiting: Any) -> None:
        """Let what waits on the loop go on. From any thread; may be called again."""
        loop = self._loop()
        if loop is None or self._is_closed(loop):
            self._settled.clear()  # no task waits there any more; and these would keep the loop
            return
        self._settled.append(waiting)
        rung_at, now = self._rung_at, time.monotonic()
        # Again after a while: the thread that rang may have been killed before the loop could hear
        # it.
        if rung_at is None or now - rung_at > _RING_AGAIN:
            try:
                self._rung_at = now
                self._call(loop)
            except BaseException as error:
                self._rung_at = None
                if isinstance(error, RuntimeError):  # it was closed in this very moment
                    self._settled.clear()
                raise

    def _is_closed(self, loop: Any) -> bool:
        return loop.is_closed()  # type: ignore[no-any-return]

    def _call(self, loop: Any) -> None:
        loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._rung_at = None  # first: what comes from here on rings again
        while self._settled:
            self._resume(self._settled.popleft())

    def _resume(self, waiting: Any) -> None:
        if not waiting.done():
            waiting.set_result(None)


class _TrioBell(_Bell):
    """The same for trio, whose token says only as it is called that its loop has ended."""

    def _is_closed(self, loop: Any) -> bool:
        del loop
        return False

    def _call(self, loop: Any) -> None:
        loop.run_sync_soon(self._answer)

    def _resume(self, waiting: Callable[[], None]) -> None:
        waiting()


_RING_AGAIN = 0.05  # seconds
_bells: "weakref.WeakKeyDictionary[Any, _Bell]" = weakref.WeakKeyDictionary()
