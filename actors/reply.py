"""Reply: a `pykka.Future` that is settled exactly once and never blocks an event loop."""

import functools
import queue
import sys
import threading
from _thread import RLock  # threading.RLock is a function that calls this one
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import pykka

from actors.contexts import InContext
from actors.errors import QueryCancelled, WouldDeadlock
from actors.event_loops import current_loop, settled_on
from actors.handing_on import Outcome, linked_future, tell_outcome
from actors.log import log
from actors.process import heed_executors
from actors.rejection import Rejection
from actors.waiting import current_owner, here

if TYPE_CHECKING:
    from concurrent.futures import Future as ConcurrentFuture

__all__ = ["Reply"]

T = TypeVar("T")
J = TypeVar("J")
M = TypeVar("M")
R = TypeVar("R")


_PENDING: Final = object()
_FOR_THE_CREW: Final = frozenset(
    {"callbacks", "forget_the_parent", "is_hooked", "job", "refuse_deadlock", "reject", "settle"}
)
"""Names that completion at a prompt does not offer."""


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

    __slots__ = ("_crew", "_lock", "_outcome", "_wakers", "callbacks", "job")

    # This class replaces every method of Pykka's, so Pykka's constructor is not called: its two
    # attributes, with a dictionary for them, would be a fifth of the cost of a job.
    _hook: Callable[[float | None], Any] | None = None
    _hooked_value: Any = _PENDING

    def __init__(self, crew: Any = None) -> None:
        # Re-entrant: a signal handler or a finalizer may cancel a reply in the middle of a wait for it.
        self._lock = RLock()
        self._crew = crew
        self.job: Any = None
        """The job that will settle it, for `cancel`; `None` once it is settled, so that neither keeps the other."""
        # The value, or a Rejection.
        self._outcome: Any = _PENDING
        # Waiters to release; a waker may be called twice, never not at all.
        self._wakers: list[Callable[[], object]] | None = None
        self.callbacks: list[Callable[[Reply[T]], object]] | None = None
        """Code of callers that settling will run, each at most once; `None` where there is none."""

    def __repr__(self) -> str:
        outcome = self._outcome
        if outcome is _PENDING:
            return "<Reply pending>"
        return f"<Reply rejected: {type(outcome.error).__name__}>" if type(outcome) is Rejection else "<Reply answered>"

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in _FOR_THE_CREW]

    # --- settling -------------------------------------------------------------------------

    def settle(self, outcome: "T | Rejection") -> bool:
        """Answer with a value, or with a `Rejection`; say whether this was the first answer."""
        with self._lock:
            first = self._outcome is _PENDING
            if first:
                self._outcome = outcome
                self.job = None
        if self._wakers is not None or self.callbacks is not None:
            self._release()
        return first

    def reject(self, error: BaseException) -> bool:
        """Answer with `error`; say whether this was the first answer."""
        return self.settle(Rejection(error))

    def set(self, value: T | None = None) -> None:
        """Answer in Pykka's way.

        Raises:
            queue.Full: the reply is settled already or has a get hook, as Pykka has it.
        """
        self._settle_by_hand(cast("T", value))

    def set_exception(self, exc_info: Any = None) -> None:
        """Reject in Pykka's way, with the exception being handled or that of `exc_info`.

        Raises:
            queue.Full: the reply is settled already or has a get hook, as Pykka has it.
        """
        kind, error, _ = sys.exc_info() if exc_info is None else exc_info
        if error is None:
            error = kind() if kind is not None else RuntimeError("set_exception() outside of an except block")
        self._settle_by_hand(Rejection(error))

    def _settle_by_hand(self, outcome: "T | Rejection") -> None:
        with self._lock:
            is_free = self._outcome is _PENDING and self._hook is None
            if is_free:
                self._outcome = outcome
                self.job = None
        self._release()  # in any case: a kill may have cut off the release of an earlier answer
        if not is_free:
            raise _full()

    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        """Let `get` call `func(timeout)`, as in Pykka; the crew's own answer is then not seen.

        Raises:
            queue.Full: the reply is settled already, as Pykka has it.
        """
        with self._lock:
            if self._outcome is not _PENDING:
                raise _full()
            self._hook = func

    @property
    def is_hooked(self) -> bool:
        """Whether `get` returns the value of a get hook."""
        return self._hook is not None

    def _from_hook(self, hook: Callable[[float | None], Any], timeout: float | None) -> Any:
        if self._hooked_value is _PENDING:
            self._hooked_value = hook(timeout)
        return self._hooked_value

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
        self._lock = RLock()

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
            WouldDeadlock: the caller would wait for itself: it is one of the crew's own threads, or it
                waits without a `timeout` while its own transactions or streams hold all workers for
                the job. A job that had not begun is taken out of the queue and never runs.
            Exception: the error with which the request was rejected.
        """
        if self._hook is not None:
            return self._from_hook(self._hook, timeout)  # type: ignore[no-any-return]  # any value is the value
        if not self._wait(timeout):
            raise self._late(timeout)
        outcome = self._outcome
        if type(outcome) is not Rejection:
            return outcome  # type: ignore[no-any-return]  # anything but a Rejection is the value
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
            raise self._late(timeout)
        outcome = self._outcome
        return outcome.error if type(outcome) is Rejection else None

    def _wait(self, timeout: float | None) -> bool:
        """Wait until the reply is settled; say whether it is."""
        if self._outcome is not _PENDING:
            return True
        if timeout is not None and timeout <= 0:
            return False
        self.refuse_deadlock(endless=timeout is None)
        heed_executors()
        gate = threading.Lock()
        gate.acquire()
        if not self._add_waker(gate.release):
            return True
        if timeout is None:
            try:
                return gate.acquire()
            except BaseException:  # Ctrl-C: the caller does not wait any more
                if (job := self._awaited_job()) is not None:
                    job.waiter = None
                raise
        if gate.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
            return True
        self._remove_waker(gate.release)
        return self.done()

    def _late(self, timeout: float | None) -> pykka.Timeout:
        """Return the error of a wait that ended before the answer came."""
        crew = self._crew
        return pykka.Timeout(f"{timeout} seconds" if crew is None else crew.late(self._awaited_job(), timeout))

    def refuse_deadlock(self, *, endless: bool) -> None:
        """Raise `WouldDeadlock` if the wait that is about to begin would deadlock; the job then never runs.

        Every way of waiting calls this. A thread of the crew must not wait for the crew. Any other
        thread must not wait without a time limit for workers that its own transactions or streams hold.
        """
        crew, job = self._crew, self._awaited_job()
        if crew is None or self._outcome is not _PENDING:
            return
        if here.crew is crew or crew.is_mine():
            owner = None
        elif endless and job is not None and crew.has_talks:
            owner = current_owner()
        else:
            return
        try:
            error = crew.refuse_wait(job, owner)
            if error is not None and job is not None and job.is_withdrawn:
                job.reply.reject(error)
        except BaseException:
            # Ctrl-C came after the job was withdrawn: no other thread will reject it.
            if job is not None and job.is_withdrawn:
                job.reply.reject(crew.cancelled(job, False))
            raise
        if error is not None:
            try:
                raise error
            finally:
                del self, error, job  # the traceback holds this frame, and the frame would hold the error

    def _awaited_job(self) -> Any:
        """Return the job that will settle this reply, if there is one."""
        return self.job

    def add_done_callback(self, callback: Callable[["Reply[T]"], object]) -> None:
        """Call `callback(reply)` once the reply is settled; at once if it is.

        It runs on the thread that settles, mostly a worker's, for a job that timed out in the queue the
        supervisor's: keep it short, since others wait for that thread. What it raises is logged and harms nobody.
        It sees the context variables of this moment, as a callback of `loop.call_soon` does.

        Raises:
            TypeError: the callback belongs to `asyncio.wait`, which needs it on its event loop.
        """
        check_callback(callback)
        heed_executors()
        with self._lock:
            if self._outcome is _PENDING:
                if self.callbacks is None:
                    self.callbacks = []
                self.callbacks.append(InContext(callback))
                if self._outcome is not _PENDING:  # settled in between, in this very thread
                    self._release()
                return
        self._call(InContext(callback))

    def _expect_callbacks(self) -> None:
        """Let it be known that settling this reply will run code of a caller's."""
        with self._lock:
            if self.callbacks is None:
                self.callbacks = []

    def _add_waker(self, waker: Callable[[], object]) -> bool:
        """Call `waker` once settled; return False, and do not, if that is so already."""
        with self._lock:
            if self._outcome is not _PENDING:
                return False
            if self._wakers is None:
                self._wakers = []
            self._wakers.append(waker)
            return self._outcome is _PENDING  # it may have been settled in between, in this very thread

    def _remove_waker(self, waker: Callable[[], object]) -> None:
        with self._lock:
            if self._wakers is not None and waker in self._wakers:
                self._wakers.remove(waker)

    # --- cancelling -----------------------------------------------------------------------

    def cancel(self) -> bool:
        """Cancel the job: taken out of the queue, or interrupted while it runs; no other job is ever hit.

        Never waits. The reply is then rejected with `QueryCancelled`: at once if the job was queued,
        otherwise as soon as its worker is out of the statement.

        Returns:
            True if the reply will be rejected so, False if it is settled already.
        """
        job = self.job
        if job is None:
            return False
        try:
            while True:
                if self._crew.withdraw(job):
                    return self.reject(self._crew.cancelled(job, False))
                if self._crew.cancel_running(job):
                    return True
                if not job.is_queued:  # else its worker died in between, and it waits again
                    return False
        except BaseException:
            # Ctrl-C came in between: nobody else will reject what was taken out of the queue here.
            if job.is_withdrawn:
                self.reject(self._crew.cancelled(job, False))
            raise

    def cancelled(self) -> bool:
        """Say whether the reply was rejected because its job was cancelled."""
        outcome = self._outcome
        return type(outcome) is Rejection and isinstance(outcome.error, QueryCancelled)

    # --- handing on -----------------------------------------------------------------------

    def pipe_to(self, actor_ref: pykka.ActorRef[Any], wrap: Callable[["Outcome"], object] | None = None) -> None:
        """Tell `actor_ref` the `Outcome` once the reply is settled; nobody waits.

        If that actor has ended by then, it is logged.

        Args:
            actor_ref: who is told.
            wrap: makes the message from the `Outcome`; it runs on the thread that settles. If it raises, the
                message is an `Outcome` of that error.
        """
        self.add_done_callback(lambda reply: tell_outcome(reply, actor_ref, wrap))

    def as_future(self) -> "ConcurrentFuture[T]":
        """Return a `concurrent.futures.Future` of the same answer, for `wait`, `as_completed`, `wrap_future`.

        Cancelling it cancels the job, and cancelling this reply cancels it.
        """
        return linked_future(self)

    # --- event loops ----------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, T]:
        try:
            loop = current_loop()
            if loop is None:
                yield
            elif not self.done():
                self.refuse_deadlock(endless=True)
                heed_executors()
                yield from settled_on(loop, self._add_waker, self._remove_waker)
            return self.get()
        except WouldDeadlock:
            raise  # the job was withdrawn, or has begun and goes on
        except BaseException:
            self._give_up()  # the task was cancelled, or its loop ends
            raise

    __iter__ = __await__

    def _give_up(self) -> None:
        """Note that the caller does not take the answer: the job must cost nothing more."""
        self.cancel()

    # --- derived replies ------------------------------------------------------------------

    def map(self, func: Callable[[T], M]) -> "Reply[M]":
        """Return a reply with `func(value)`; `func` runs once, in the first thread that asks."""
        return _derived([self], lambda values: func(values[0]))

    def filter(self: "Reply[Any]", func: Callable[[J], bool]) -> "Reply[Iterable[J]]":
        """Return a reply with the list of those items of the value for which `func` is true."""
        return _derived([self], lambda values: list(filter(func, values[0])))

    def join(self: "Reply[Any]", *futures: pykka.Future[Any]) -> "Reply[Iterable[Any]]":
        """Return a reply with the list of the values of this one and of all `futures`."""
        return _derived([self, *futures], list)

    def reduce(self: "Reply[Any]", func: Callable[[R, J], R], *args: R) -> "Reply[R]":
        """Return a reply with `functools.reduce(func, value, *args)`."""
        return _derived([self], lambda values: functools.reduce(func, values[0], *args))


def _derived(sources: "list[pykka.Future[Any]]", compute: Callable[[list[Any]], Any]) -> "Reply[Any]":
    from actors.derived import Derived  # which is a reply itself, and was imported with the rest by now

    return Derived(sources, compute)


def check_callback(callback: Callable[..., object]) -> None:
    """Raise `TypeError` for the callback of `asyncio.wait`, which a worker's thread must not call."""
    if getattr(callback, "__module__", None) == "asyncio.tasks":
        message = "asyncio.wait() takes only futures of asyncio: write asyncio.wait([asyncio.ensure_future(reply)])"
        raise TypeError(message)


def _full() -> queue.Full:
    return queue.Full("the reply is settled already, or has a get hook")


def _name(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
