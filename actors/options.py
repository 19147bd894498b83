"""Checks of `Supervisor.start`: its arguments, and the threads of the program.

They raise in the caller's thread, before the crew starts.
"""

import os
import sys
from queue import SimpleQueue

from actors.databases.adapter import default_size
from actors.databases.base import Database
from actors.values.checks import check_whole, is_number

__all__ = ["check_database", "check_max_queue", "check_shed_after", "check_threads", "check_type", "usable_size"]

_LONGEST = 1e9  # seconds


def check_threads(*, in_children: bool) -> None:
    """Raise if gevent or eventlet has replaced threads so that the crew could not keep a deadline.

    A worker thread is then a coroutine of one real thread, and a statement of SQLite stops all
    coroutines. Under gevent a worker can wait for a child process, if gevent has replaced every
    module that the wait uses. This function imports nothing.

    Args:
        in_children: whether the connections live in child processes.

    Raises:
        RuntimeError: the crew could not work. The text says how it works there.
    """
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None:
        used = ["threading", *(("os", "select", "subprocess") if in_children else ())]
        patched = [name for name in used if gevent.is_module_patched(name)]
        # The crew's mailboxes use the class that was imported, which gevent may replace later.
        patched += ["queue"] if SimpleQueue.__module__.startswith("gevent") else []
        if patched and not (in_children and len(patched) == len(used) + 1):
            raise RuntimeError(_GEVENT.format(", ".join(patched)))
    if eventlet is not None:
        used = ["thread", *(("select",) if in_children else ())]
        patched = [name for name in used if eventlet.is_monkey_patched(name)]
        if patched:
            raise RuntimeError(_EVENTLET.format(", ".join(patched)))


_GEVENT = (
    "gevent has replaced {}: worker threads cannot keep a deadline there, and child processes only if gevent has "
    "replaced every module that a worker waits with. Call monkey.patch_all(), with nothing left out, before supervisor "
    "is imported, and Supervisor.start(ChildProcess(…)). "
    "Or use threads, and call monkey.patch_all(thread=False, queue=False)"
)
_EVENTLET = (
    "eventlet has replaced {}: neither worker threads nor child processes can keep a deadline there. "
    "Call eventlet.monkey_patch(thread=False, select=False)"
)


def check_database(database: object) -> None:
    """Raise `TypeError` unless `database` is an object with a method `connect`."""
    if isinstance(database, type) or not callable(getattr(database, "connect", None)):
        message = (
            f"Supervisor.start(database) must be a path or a database such as SQLite(path), "
            f"not {type(database).__name__}"
        )
        raise TypeError(message)


def check_type(name: str, value: object, wanted: type) -> None:
    """Raise `TypeError` unless `value` is `None` or of the `wanted` type."""
    if value is not None and not isinstance(value, wanted):
        message = f"Supervisor.start({name}) must be a {wanted.__name__}, not {type(value).__name__}"
        raise TypeError(message)


def check_max_queue(jobs: object) -> None:
    """Raise unless `jobs` is `None` or a whole number of 0 or more."""
    if jobs is not None:
        check_whole("Supervisor.start", "max_queue", jobs, at_least=0)


def check_shed_after(seconds: object) -> None:
    """Raise unless `seconds` is `None` or a positive number of less than 1e9."""
    if seconds is None:
        return
    if not is_number(seconds):
        message = f"Supervisor.start(shed_after) must be a number of seconds, not {type(seconds).__name__}"
        raise TypeError(message)
    if not 0 < seconds < _LONGEST:
        message = f"Supervisor.start(shed_after={seconds}) must be more than 0 seconds, and less than 1e9"
        raise ValueError(message)


def usable_size(size: int | None, database: Database) -> int:
    """Return how many workers to start.

    That is `size`. Without it, the crew has as many workers as the database suggests, or one for
    each CPU that this process may use, but no more than the database allows.
    """
    most = database.max_size
    if size is None:
        usual = default_size(database) or _usable_cpus()
        return min(usual, most or usual)
    check_whole("Supervisor.start", "size", size, at_least=1)
    if most is not None and size > most:
        message = f"Supervisor.start(size={size}): {database} serves at most {most} worker"
        raise ValueError(message)
    return size


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
