"""Interrupted cells of IPython and Jupyter, which would leave their queries running.

* At Ctrl-C the prompt of IPython drops the task of the cell. It stays on an event loop that no
  longer runs. Here the task is cancelled, as `asyncio.run` does it.
* At an interrupt the kernel of Jupyter cancels the task of the cell from another thread, and does
  not wake its event loop. Here the event loop wakes by itself while a cell runs.

This module imports neither IPython nor asyncio. A program that has not imported them has no cell.
"""

import sys
from contextlib import suppress
from functools import partial
from typing import Any, Final

__all__ = ["heed_interrupted_cells"]

_CELL: Final = "run_cell_async"
"""The function of IPython whose coroutine is the task of a cell."""
_WAKES: Final = 0.1  # seconds between two wakes of a kernel's event loop
_PATIENCE: Final = 2.0  # seconds for a task that was cancelled


def heed_interrupted_cells(loop: Any) -> None:
    """Cancel interrupted cells from now on, if `loop` runs the cells of IPython.

    Called once for each event loop, in its thread, when a task waits for a reply there.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or not _cells(loop):
        return
    with suppress(AttributeError):  # another version of IPython
        if hasattr(shell, "kernel"):
            beat = _Beat(loop)
            shell.events.register("pre_run_cell", beat.start)
            shell.events.register("post_run_cell", beat.stop)
            beat.start()
        else:
            shell.events.register("post_run_cell", partial(_end_dropped_cells, shell, loop))


def _cells(loop: Any) -> list[Any]:
    """Return the tasks of cells that have not ended."""
    tasks = sys.modules["asyncio"].all_tasks(loop)
    return [task for task in tasks if getattr(task.get_coro(), "__name__", None) == _CELL]


def _end_dropped_cells(shell: Any, loop: Any, _: object) -> None:
    """Cancel the task of a cell, and run its event loop until the task has ended."""
    if loop.is_running() or loop.is_closed():
        return
    dropped = _cells(loop)
    if not dropped:
        return
    for task in dropped:
        task.cancel()
    shell.showtraceback = lambda *_, **__: None  # the interrupt has been shown
    try:
        loop.run_until_complete(sys.modules["asyncio"].wait(dropped, timeout=_PATIENCE))
    finally:
        del shell.showtraceback


class _Beat:
    """Wakes an event loop from time to time while a cell runs."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._timer: Any = None

    def start(self, *_: object) -> None:
        """Begin, or go on."""
        self.stop()
        self._timer = self._loop.call_later(_WAKES, self.start)

    def stop(self, *_: object) -> None:
        """End until the next start."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
