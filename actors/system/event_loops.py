"""Waiting on an event loop of asyncio or trio without blocking it. anyio runs on either of them.

This module imports neither of them. A program that has not imported one runs no such loop, and
the import takes longer than all of this library.
"""

import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from actors.system.ipython import heed_interrupted_cells

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["current_loop", "current_task", "settled_on"]

Waker: TypeAlias = Callable[[], object]


def current_loop() -> Any:
    """Return asyncio's loop or trio's token, if such an event loop runs in this thread."""
    trio = _running_trio()
    if trio is not None:
        return trio.current_trio_token()
    return _running_asyncio()


def current_task() -> object:
    """Return the task of an event loop that calls this function, or `None` outside of a task."""
    trio = _running_trio()
    if trio is not None:
        return trio.current_task()
    loop = _running_asyncio()
    return None if loop is None else sys.modules["asyncio"].current_task(loop)


def _running_trio() -> Any:
    """Return `trio.lowlevel`, if a task of trio runs in this thread."""
    # Look for trio before asyncio: as a guest, trio runs inside asyncio's loop.
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
    """Wait on `loop` until the waker is called, without blocking the loop. Use with `yield from`.

    Args:
        loop: the loop of the calling task. See `current_loop`.
        add_waker: takes the waker. It returns `False` if there is nothing to wait for.
        remove_waker: forgets the waker.
        shielded: whether the wait goes on after trio has cancelled the task. trio cancels a task
            again at every `await`.
    """
    loop_waker = _loop_wakers.get(loop)
    if loop_waker is None:
        is_trio = not hasattr(loop, "call_soon_threadsafe")
        loop_waker = _loop_wakers[loop] = _TrioWaker(loop) if is_trio else _LoopWaker(loop)
        if not is_trio and "IPython" in sys.modules:
            heed_interrupted_cells(loop)
    if type(loop_waker) is _TrioWaker:
        return _settled_on_trio(loop_waker, add_waker, remove_waker, shielded)
    return _settled_on_asyncio(loop, loop_waker, add_waker, remove_waker)


def _settled_on_asyncio(
    loop: "AbstractEventLoop",
    loop_waker: "_LoopWaker",
    add_waker: Callable[[Waker], bool],
    remove_waker: Callable[[Waker], object],
) -> Generator[Any, None, None]:
    future = loop.create_future()
    wake = partial(loop_waker.notify, future)
    try:
        if add_waker(wake):
            yield from future
    finally:
        remove_waker(wake)


def _settled_on_trio(
    loop_waker: "_LoopWaker",
    add_waker: Callable[[Waker], bool],
    remove_waker: Callable[[Waker], object],
    shielded: bool,
) -> Generator[Any, None, None]:
    trio = sys.modules["trio"].lowlevel
    task, waits = trio.current_task(), True

    # Both functions run in trio's thread. So neither interrupts the other.
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

    wake = partial(loop_waker.notify, resume)
    try:
        if add_waker(wake):
            yield from trio.wait_task_rescheduled(abort).__await__()
    finally:
        waits = False  # a task that does not wait must not be rescheduled
        remove_waker(wake)


class _LoopWaker:
    """Wakes an event loop once for all replies that were settled since its last wake.

    A wake for each reply would cost a system call, and a turn of the loop, for each reply.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = weakref.ref(loop)
        # Waits that can end: futures of asyncio, or functions that resume a task of trio.
        self._settled: deque[Any] = deque()
        # When the loop was woken, in monotonic seconds. `None` once the loop has answered.
        self._woken_at: float | None = None

    def notify(self, waiting: Any) -> None:
        """Let one wait on the loop end. May be called from any thread, and more than once."""
        loop = self._loop()
        if loop is None or self._is_closed(loop):
            self._settled.clear()  # no task waits there any more, and the futures would keep the loop
            return
        self._settled.append(waiting)
        woken_at, now = self._woken_at, time.monotonic()
        # Wake the loop again after a while. The thread that noted the wake may have been killed
        # before the loop got it.
        if woken_at is None or now - woken_at > _WAKE_AGAIN:
            try:
                self._woken_at = now
                self._call(loop)
            except BaseException as error:
                self._woken_at = None
                if isinstance(error, RuntimeError):  # the loop was closed at this moment
                    self._settled.clear()
                raise

    def _is_closed(self, loop: Any) -> bool:
        return loop.is_closed()  # type: ignore[no-any-return]

    def _call(self, loop: Any) -> None:
        loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._woken_at = None  # before the loop below: a later `notify` wakes the loop again
        while self._settled:
            self._resume(self._settled.popleft())

    def _resume(self, waiting: Any) -> None:
        if not waiting.done():
            waiting.set_result(None)


class _TrioWaker(_LoopWaker):
    """The same for trio. A token of trio cannot be asked whether its loop has ended."""

    def _is_closed(self, loop: Any) -> bool:
        del loop
        return False

    def _call(self, loop: Any) -> None:
        loop.run_sync_soon(self._answer)

    def _resume(self, waiting: Callable[[], None]) -> None:
        waiting()


_WAKE_AGAIN = 0.05  # seconds
_loop_wakers: "weakref.WeakKeyDictionary[Any, _LoopWaker]" = weakref.WeakKeyDictionary()
