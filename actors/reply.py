"""Reply: a `pykka.Future` that is settled exactly once and never blocks an event loop."""

import functools
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

import pykka
from pykka._future import _Unset

from actors.errors import WouldDeadlock
from actors.log import log
from actors.waiting import here, running_loop, settled_on

__all__ = ["Rejection", "Reply"]

T = TypeVar("T")
J = TypeVar("J")
M = TypeVar("M")
R = TypeVar("R")


_PENDING: Final = object()


class Rejection:
    """The outcome of a reply that was rejected: the error, as it was when it came."""

    __slots__ = ("error", "traceback")

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.traceback = error.__traceback__
        """Each `get` raises from here; otherwise the error's own would grow with each."""


class Reply(pykka.Future[T]):
    """The answer to one request, now or later.

    A `pykka.Future`, settled exactly once, with a value or an error. Every method
    may be called from any thread; only `get`, `exception` and iterating in Pykka's
    way wait, and none waits on an event loop: use `await` there.

    States: *pending* → *settled*, by `settle`, or Pykka's `set` and
    `set_exception`, whichever comes first. A later answer is dropped.

    Settling runs in this order: the outcome is stored, then every waiter is released,
    then the callbacks are called. If the settling thread is killed in between, settling
    again releases whoever is left.
    """

    __slots__ = ("_crew", "_lock", "_outcome", "_wakers", "callbacks")

    # Pykka's constructor is not called: these two are all that it sets, and an object
    # and a dictionary a reply would be a fifth of what a job costs.
    _get_hook: Any = None

    def __init__(self, crew: object = None) -> None:
        self._lock = threading.Lock()
        self._crew = crew
        # The value, or a Rejection.
        self._outcome: Any = _PENDING
        # Waiters to release; a waker may be called twice, never not at all.
        self._wakers: list[Callable[[], object]] | None = None
        self.callbacks: list[Callable[[Reply[T]], object]] | None = None
        """Code of callers that settling will run, each at most once; `None` where there is none."""

    def __repr__(self) -> str:
        if not self.done():
            return "<Reply pending>"
        error = self.exception(0)
        return "<Reply answered>" if error is None else f"<Reply rejected: {type(error).__name__}>"

    # --- settling -------------------------------------------------------------------------

    def settle(self, outcome: "T | Rejection") -> bool:
        """Answer with a value, or with a `Rejection`; say whether this was the first answer."""
        with self._lock:
            first = self._outcome is _PENDING
            if first:
                self._outcome = outcome
        if self._wakers is not None or self.callbacks is not None:
            self._release()
        return first

    def reject(self, error: BaseException) -> bool:
        """Answer with `error`; say whether this was the first answer."""
        return self.settle(Rejection(error))

    def set(self, value: T | None = None) -> None:
        """Answer in Pykka's way.

        Raises:
            queue.Full: the reply is settled already, as Pykka has it.
        """
        if not self.settle(cast("T", value)):
            raise _full()

    def set_exception(self, exc_info: Any = None) -> None:
        """Reject in Pykka's way, with the exception being handled or that of `exc_info`.

        Raises:
            queue.Full: the reply is settled already, as Pykka has it.
        """
        kind, error, _ = sys.exc_info() if exc_info is None else exc_info
        if error is None:
            error = kind() if kind is not None else RuntimeError("set_exception() outside of an except block")
        if not self.reject(error):
            raise _full()

    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        """Let `get` call `func(timeout)`, as in Pykka; the crew's own answer is then not seen.

        Raises:
            queue.Full: the reply is settled already, as Pykka has it.
        """
        with self._lock:
            if self._outcome is not _PENDING:
                raise _full()
            self._get_hook = func
            self._get_hook_result = _Unset()

    def _release(self) -> None:
        # A waker leaves the list only after it was called: a thread that is killed here
        # leaves it for the next one that settles. A callback leaves before it is called.
        # Two threads may be here at once, hence the suppressed errors.
        wakers, callbacks = self._wakers, self.callbacks
        while wakers:
            with suppress(IndexError, ValueError):
                waker = wakers[-1]
                with suppress(RuntimeError):
                    waker()
                wakers.remove(waker)
        while callbacks:
            with suppress(IndexError):
                self._call(callbacks.pop(0))

    def _call(self, callback: Callable[["Reply[T]"], object]) -> None:
        try:
            callback(self)
        except BaseException as error:  # noqa: BLE001  # nothing of a caller's may harm a worker
            log(__name__, "error", "callback_failed", error=error, callback=_name(callback))

    def forget_the_parent(self) -> None:
        """In the child of a fork: the thread that held the lock may not be here."""
        self._lock = threading.Lock()

    # --- asking ---------------------------------------------------------------------------

    def done(self) -> bool:
        """Say whether the reply is settled, so that `get` would not wait."""
        return self._outcome is not _PENDING

    def get(self, *, timeout: float | None = None) -> T:
        """Return the value, waiting for it if need be.

        Args:
            timeout: seconds to wait; `None` waits for as long as it takes, which the
                crew bounds: it settles every reply, whatever dies.

        Raises:
            pykka.Timeout: nothing came in time. The job goes on.
            WouldDeadlock: called from one of the crew's own threads, which would wait for itself.
            Exception: the error with which the request was rejected.
        """
        if self._get_hook is not None:
            return super().get(timeout=timeout)
        if not self._wait(timeout):
            message = f"{timeout} seconds"
            raise pykka.Timeout(message)
        outcome = self._outcome
        if type(outcome) is not Rejection:
            return cast("T", outcome)
        try:
            raise outcome.error.with_traceback(outcome.traceback)
        finally:
            del self, outcome  # the traceback holds this frame, and the frame would hold the error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error with which the request was rejected, or `None`; wait as `get` does.

        Raises:
            pykka.Timeout: nothing came in time.
        """
        if not self._wait(timeout):
            message = f"{timeout} seconds"
            raise pykka.Timeout(message)
        outcome = self._outcome
        return outcome.error if type(outcome) is Rejection else None

    def _wait(self, timeout: float | None) -> bool:
        """Wait until the reply is settled; say whether it is."""
        if self._outcome is not _PENDING:
            return True
        if timeout is not None and timeout <= 0:
            return False
        if self._crew is not None and here.crew is self._crew:
            message = (
                "this thread belongs to the crew that has to give the answer, and would wait for itself; "
                "use add_done_callback() here, or ask another crew"
            )
            raise WouldDeadlock(message)
        gate = threading.Lock()
        gate.acquire()
        if not self._add_waker(gate.release):
            return True
        if timeout is None:
            return gate.acquire()
        if gate.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
            return True
        self._remove_waker(gate.release)
        return self.done()

    def add_done_callback(self, callback: Callable[["Reply[T]"], object]) -> None:
        """Call `callback(reply)` once the reply is settled; at once if it is.

        It runs on the thread that settles, mostly a worker's: keep it short. What it
        raises is logged and harms nobody.
        """
        with self._lock:
            if self._outcome is _PENDING:
                if self.callbacks is None:
                    self.callbacks = []
                self.callbacks.append(callback)
                return
        self._call(callback)

    def _add_waker(self, waker: Callable[[], object]) -> bool:
        """Call `waker` once settled; return False, and do not, if that is so already."""
        with self._lock:
            if self._outcome is not _PENDING:
                return False
            if self._wakers is None:
                self._wakers = []
            self._wakers.append(waker)
            return True

    def _remove_waker(self, waker: Callable[[], object]) -> None:
        with self._lock:
            if self._wakers is not None and waker in self._wakers:
                self._wakers.remove(waker)

    # --- asyncio --------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, T]:
        loop = running_loop()
        if loop is None:
            yield
        elif not self.done():
            yield from settled_on(loop, self._add_waker, self._remove_waker)
        return self.get()

    __iter__ = __await__

    # --- derived replies ------------------------------------------------------------------

    def map(self, func: Callable[[T], M]) -> "Reply[M]":
        """Return a reply with `func(value)`; `func` runs once, in the first thread that asks."""
        return _Derived([self], lambda values: func(values[0]))

    def filter(self: "Reply[Any]", func: Callable[[J], bool]) -> "Reply[Iterable[J]]":
        """Return a reply with the list of those items of the value for which `func` is true."""
        return _Derived([self], lambda values: list(filter(func, values[0])))

    def join(self: "Reply[Any]", *futures: pykka.Future[Any]) -> "Reply[Iterable[Any]]":
        """Return a reply with the list of the values of this one and of all `futures`."""
        return _Derived([self, *futures], list)

    def reduce(self: "Reply[Any]", func: Callable[[R, J], R], *args: R) -> "Reply[R]":
        """Return a reply with `functools.reduce(func, value, *args)`."""
        return _Derived([self], lambda values: functools.reduce(func, values[0], *args))


class _Derived(Reply[T]):
    """A reply computed from others once all of them are settled, in the thread that asks first."""

    __slots__ = ("_compute", "_computing", "_sources")

    def __init__(self, sources: list[pykka.Future[Any]], compute: Callable[[list[Any]], T]) -> None:
        super().__init__()
        self._sources = sources
        self._compute = compute
        self._computing = threading.RLock()

    def done(self) -> bool:
        return super().done() or all(_is_done(source) for source in self._sources)

    def _wait(self, timeout: float | None) -> bool:
        if super().done():
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        for source in self._sources:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not _wait_for(source, left):
                return False
        self._finish()
        return True

    def _finish(self) -> None:
        """Compute the value, once; all sources are settled."""
        with self._computing:
            if super().done():
                return
            try:
                value = self._compute([source.get(timeout=0) for source in self._sources])
            except BaseException as error:  # noqa: BLE001  # the error is the outcome, as in Pykka
                self.reject(error)
            else:
                self.settle(value)

    def add_done_callback(self, callback: Callable[[Reply[T]], object]) -> None:
        if self._watch(lambda: self._call(callback)):
            return
        self._call(callback)

    def _add_waker(self, waker: Callable[[], object]) -> bool:
        return self._watch(waker)

    def _watch(self, notify: Callable[[], object]) -> bool:
        """Call `notify` once all sources are settled; return False, and do not, if they are."""
        waiting = [source for source in self._sources if not _is_done(source)]
        if not waiting:
            return False
        # One step for each source: the one that settles last leaves an empty list. A list's
        # pop is a single step, so two sources that settle together cannot both be last.
        open_sources = [None] * len(waiting)
        last = threading.Lock()

        def settled() -> None:
            with last:
                open_sources.pop()
                finished = not open_sources
            if finished:
                notify()

        for source in waiting:
            _when_done(source, settled)
        return True


def _is_done(future: pykka.Future[Any]) -> bool:
    return future.done() if isinstance(future, Reply) else _wait_for(future, 0)


def _wait_for(future: pykka.Future[Any], timeout: float | None) -> bool:
    """Wait for any Pykka future; say whether it is settled."""
    if isinstance(future, Reply):
        return future._wait(timeout)
    try:
        future.get(timeout=timeout)
    except pykka.Timeout:
        return False
    except BaseException:  # noqa: BLE001  # an error is an outcome too
        return True
    return True


def _when_done(future: pykka.Future[Any], notify: Callable[[], object]) -> None:
    if isinstance(future, Reply):
        future.add_done_callback(lambda _: notify())
        return

    def wait() -> None:
        _wait_for(future, None)
        notify()

    # A plain Pykka future tells nobody that it is settled: only a blocked thread learns of it.
    threading.Thread(target=wait, name="querycrew-foreign-future", daemon=True).start()


def _full() -> queue.Full:
    return queue.Full("the reply is settled already")


def _name(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
