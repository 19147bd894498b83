"""Who waits, and on what: the crew's own threads, and event loops that nothing may block."""

import sys
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["here", "running_loop", "settled_on"]


class _Here(threading.local):
    """What the current thread is: which crew's actor runs on it, if any."""

    crew: object = None


here: Final = _Here()
"""A worker or supervisor writes its crew in here as its thread starts, so that code running on
it can be told not to wait for its own crew."""


def running_loop() -> "AbstractEventLoop | None":
    """Return the event loop that runs in this thread, if any."""
    # A program that has not imported asyncio runs no event loop, and importing it takes longer
    # than all of this library.
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        return cast("AbstractEventLoop", asyncio.get_running_loop())
    except RuntimeError:
        return None


def settled_on(
    loop: "AbstractEventLoop",
    add_waker: Callable[[Callable[[], object]], bool],
    remove_waker: Callable[[Callable[[], object]], object],
) -> Generator[Any, None, None]:
    """Wait on `loop`, without blocking it, until the waker that `add_waker` was given is called."""
    settled = loop.create_future()

    def finish() -> None:
        if not settled.done():
            settled.set_result(None)

    def wake() -> None:
        # A loop that was closed meanwhile raises RuntimeError: nobody waits there any more.
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish)

    if add_waker(wake):
        try:
            yield from settled
        finally:
            remove_waker(wake)
