"""The system on the stage: locks, queues, threads and clocks, as the crew's modules know them."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from queue import Empty
from types import SimpleNamespace
from typing import Any

from tests.worlds.stage import Stage, Task

_LONGEST = 1e9  # seconds


class _ThisThread:
    """The stage on which everything happens: one at a time."""

    stage: Stage


def stage() -> Stage:
    """Return the stage of the world that runs."""
    return _ThisThread.stage


def now() -> float:
    """Return the seconds of the world that runs."""
    return _ThisThread.stage.now


class Lock:
    """As `threading.Lock`."""

    def __init__(self) -> None:
        self._held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, waiting for it."""
        if not self._held or (blocking and stage().wait(self._is_free, None if timeout < 0 else timeout)):
            self._held = True
            return True
        return False

    def release(self) -> None:
        """Give it back, from any thread."""
        if not self._held:
            message = "release unlocked lock"
            raise RuntimeError(message)
        self._held = False

    def locked(self) -> bool:
        """Say whether it is taken."""
        return self._held

    def _is_free(self) -> bool:
        return not self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock:
    """As `threading.RLock`."""

    def __init__(self) -> None:
        self._owner: object = None
        self._depth = 0

    def __enter__(self) -> None:
        me = stage().current or stage()
        if self._owner is not me:
            stage().wait(self._is_free)
            self._owner = me
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None

    def _is_free(self) -> bool:
        return self._owner is None

    def _is_owned(self) -> bool:
        return self._owner is (stage().current or stage())


def waits_for_mail(ready: Any) -> bool:
    """Say whether a task that waits until `ready` waits at a `Queue`."""
    return isinstance(getattr(ready, "__self__", None), deque)


class Queue:
    """As `queue.SimpleQueue`."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        """Add an item."""
        self._items.append(item)

    def get(self, timeout: float | None = None) -> Any:
        """Return the next item, waiting for it."""
        if not self._items and not stage().wait(self._items.__len__, timeout):
            raise Empty
        return self._items.popleft()

    def get_nowait(self) -> Any:
        """Return the next item, if there is one."""
        if not self._items:
            raise Empty
        return self._items.popleft()

    def empty(self) -> bool:
        """Say whether there is no item."""
        return not self._items


class Thread:
    """As `threading.Thread`, and as the threads of actors."""

    task: Task | None = None

    def __init__(self, target: Callable[[], object], name: str, daemon: bool = True) -> None:
        self._target, self._name = target, name
        self._process = getattr(stage().current, "process", None)

    def start(self) -> None:
        """Begin as a task."""
        short = self._name.replace("querycrew-", "").replace("world-", "").replace("-", " ")
        self.task = stage().spawn(short, self._target, self._process)


class Time:
    """As the module `time`."""

    monotonic = perf_counter = staticmethod(now)

    @staticmethod
    def sleep(seconds: float) -> None:
        """Let others go on, and a little time pass."""
        stage().wait(_never, max(seconds, 1e-4))


def _never() -> bool:
    return False


_threads = SimpleNamespace(Lock=Lock, RLock=RLock, Thread=Thread, TIMEOUT_MAX=_LONGEST)

_PATCHES: list[tuple[str, str, Any]] = [
    ("actors.replies.reply", "threading", _threads),
    ("actors.system.waiting", "threading", _threads),
    ("actors.inbox", "threading", _threads),
    ("actors.inbox", "SimpleQueue", Queue),
    ("actors.replies.checkout", "SimpleQueue", Queue),
    ("actors.dispatch.admission", "threading", _threads),
    ("actors.actor", "CrewThread", Thread),
    ("actors.databases.executor", "time", Time),
    ("actors.databases.child.connection", "time", Time),
    ("actors.databases.child.host", "time", Time),
    ("actors.databases.child.host", "threading", _threads),
]


@contextmanager
def on_stage(new: Stage, more: list[tuple[str, str, Any]]) -> Iterator[None]:
    """Let the crew's modules use this stage for as long as the block runs."""
    _ThisThread.stage = new
    modules = [(import_module(module), name, value) for module, name, value in (*_PATCHES, *more)]
    before = [getattr(module, name) for module, name, _ in modules]
    for module, name, value in modules:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(modules, before, strict=True):
            setattr(module, name, value)
