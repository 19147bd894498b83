"""Replies that are computed from others: `map`, `filter`, `join` and `reduce` return them."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import pykka

from actors.replies.reply import Reply, check_callback
from actors.system.pykka_parts import is_settled
from actors.system.tracebacks import trim_to_caller
from actors.values.contexts import InContext
from actors.values.errors import QueryCancelled, WouldDeadlock

__all__ = ["Derived"]

T = TypeVar("T")


class Derived(Reply[T]):
    """A reply that is computed once all of its sources are settled.

    The first thread that needs the value computes it.
    """

    __slots__ = ("_compute", "_computing", "_sources")

    def __init__(self, sources: list[pykka.Future[Any]], compute: Callable[[list[Any]], T]) -> None:
        super().__init__()
        self._sources = [_as_reply(source) for source in sources]
        self._compute = compute
        self._computing = threading.RLock()

    def cancel(self) -> bool:
        """Cancel the jobs of all sources. Say whether any job will be cancelled."""
        return sum(source.cancel() for source in self._sources) > 0

    def _give_up(self) -> None:
        for source in self._sources:
            source._give_up()

    def cancelled(self) -> bool:
        """Say whether the reply was rejected because the job of a source was cancelled."""
        return self.done() and isinstance(self.exception(), QueryCancelled)

    def done(self) -> bool:
        """Say whether all sources are settled, so that `get` would not wait."""
        return super().done() or all(source.done() for source in self._sources)

    def _wait(self, timeout: float | None) -> bool:
        if super().done():
            return True
        if timeout is None or timeout > 0:
            self.refuse_deadlock(endless=timeout is None)
        deadline = None if timeout is None else time.monotonic() + timeout
        for source in self._sources:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not source._wait(left):
                return super().done()
        self._finish()
        return True

    def _late(self, timeout: float | None) -> pykka.Timeout:
        late = next((source for source in self._sources if not source.done()), None)
        return super()._late(timeout) if late is None else late._late(timeout)

    def refuse_deadlock(self, *, endless: bool) -> None:
        """Raise `WouldDeadlock` if a wait for a source would deadlock. Such a source never runs."""
        refused = []
        for source in self._sources:
            try:
                source.refuse_deadlock(endless=endless)
            except WouldDeadlock as error:
                refused.append(error)
        if refused:
            try:
                raise next((error for error in refused if error.executed is None), refused[0])
            finally:
                del self, refused  # the traceback holds this frame, and the frame holds the errors

    def _finish(self) -> None:
        """Compute the value, once. All sources are settled."""
        with self._computing:
            if super().done():
                return
            try:
                value = self._compute([source.get() for source in self._sources])
            except Exception as error:  # noqa: BLE001  # the error is the outcome, as in Pykka
                trim_to_caller(error)
                self.reject(error)
            else:
                self.settle(value)

    def add_done_callback(self, callback: Callable[[Reply[T]], object]) -> None:
        """Call `callback(reply)` once the value can be computed. See `Reply.add_done_callback`."""
        check_callback(callback)
        if self.done():
            self._call(InContext(callback))
            return
        self._add_callback(InContext(callback))
        self._listen()

    def _add_waker(self, waker: Callable[[], object]) -> bool:
        if self.done() or not super()._add_waker(waker):
            return False
        self._listen()
        return True

    def _listen(self) -> None:
        """Listen to the sources. `_on_source_settled` may be called twice without harm."""
        for source in self._sources:
            source._remove_waker(self._on_source_settled)
            source._add_waker(self._on_source_settled)
        self._on_source_settled()

    def _on_source_settled(self) -> None:
        if self.done():
            self._release()


class _Foreign(Reply[T]):
    """A plain future of Pykka. It has no callbacks, so a thread waits for it."""

    __slots__ = ("_source", "_unwatched")

    def __init__(self, future: pykka.Future[T]) -> None:
        super().__init__()
        self._source = future
        # One token. The thread that takes it starts the one thread that waits.
        self._unwatched: list[None] = [None]

    def done(self) -> bool:
        if not super().done():
            if is_settled(self._source):
                self._take()
            else:
                self._watch()
        return super().done()

    def _wait(self, timeout: float | None) -> bool:
        return self.done() or super()._wait(timeout)

    def _watch(self) -> None:
        if self._unwatched:
            with suppress(IndexError):
                self._unwatched.pop()
                threading.Thread(target=self._take, name="querycrew-foreign-future", daemon=True).start()

    def _take(self) -> None:
        try:
            self.settle(self._source.get())
        except BaseException as error:  # noqa: BLE001  # the error is the outcome
            self.reject(error)


def _as_reply(future: pykka.Future[Any]) -> Reply[Any]:
    return future if isinstance(future, Reply) and not future.is_hooked else _Foreign(future)


Reply._derived = Derived
