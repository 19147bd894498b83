"""Reply: a `pykka.Future` that is settled exactly once and never blocks an event loop."""

import functools
import queue
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast

import pykka

from actors.replies.outcome import Outcome, linked_future, tell_outcome
from actors.system.event_loops import current_loop, settled_on
from actors.system.exit_and_fork import heed_executors
from actors.system.log import log
from actors.system.tracebacks import trim_to_caller
from actors.system.waiting import current_owner, this_thread
from actors.values.contexts import InContext
from actors.values.errors import QueryCancelled, WouldDeadlock
from actors.values.rejection import Rejection

if TYPE_CHECKING:
    from concurrent.futures import Future as ConcurrentFuture

    from actors.replies.derived import Derived
    from actors.replies.owner import Crew, Owner

__all__ = ["Reply"]

T = TypeVar("T")
J = TypeVar("J")
M = TypeVar("M")
R = TypeVar("R")


_PENDING: Final = object()
_PROMISE: Final[tuple[Any, ...]] = ()
_FOR_THE_CREW: Final = frozenset(
    {"fulfil", "is_hooked", "job", "known_id", "promise", "refuse_deadlock", "reject", "settle"}
)
"""Methods for the crew itself. Completion at a prompt does not offer them."""


class _Callback:
    """A function of a caller that runs once, when the reply is settled."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[["Reply[Any]"], object]) -> None:
        self.call = call


class Reply(pykka.Future[T]):
    """The answer to one request, now or later.

    A `pykka.Future` that is settled exactly once, with a value or an error. Any thread may call any
    method. Only `get`, `exception` and iteration in Pykka's way wait. They must not be used on an
    event loop: use `await` there.

    States:

    * *pending*: there is no answer.
    * *promised*: a cancel has found the job running and has the right to answer. It answers once
      the job is done.
    * *settled*: by the first call of `settle`, or of Pykka's `set` or `set_exception`. A later
      answer is dropped.

    No method takes a lock. Two threads may answer at once, and a thread may be killed at any
    moment:

    1. Each thread that answers appends its outcome to a list, in one step of the interpreter. The
       first outcome in the list counts.
    2. The thread stores the outcome, releases every waiter and calls the callbacks.
    3. If the thread is killed in between, the next call of `settle` goes on at the same place.
    """

    __slots__ = ("_answers", "_crew", "_outcome", "_waiters", "job")

    # This class replaces every method of Pykka's future, so it does not call Pykka's constructor.
    # Two more attributes, and a dictionary for them, would be a fifth of the cost of a job.
    _hook: Callable[[float | None], Any] | None = None
    # The class of replies that are computed from others. `actors.replies.derived` sets it, since
    # that class derives from this one.
    _derived: "ClassVar[type[Derived[Any]]]"
    _hooked_value: Any = _PENDING
    known_id: int | None = None
    """The id of the job, after the first question for it. Only `JobIds` writes it."""

    def __init__(self, crew: "Crew | None" = None) -> None:
        self._crew = crew
        self.job: Owner | None = None
        """The job that will settle the reply, for `cancel`.

        `None` once the reply is settled. So neither object keeps the other alive."""
        # The value, or a Rejection.
        self._outcome: Any = _PENDING
        # The first item is the outcome in a tuple, or the promise of an outcome. Outcomes of later
        # answers follow.
        self._answers: list[tuple[Any, ...]] = []
        # Wakers, each called once or twice, and callbacks, each called at most once.
        self._waiters: list[Any] = []

    def __repr__(self) -> str:
        outcome, number = self._outcome, self.known_id
        name = "Reply" if number is None else f"Reply of job {number}"
        if outcome is _PENDING:
            return f"<{name} pending>"
        return (
            f"<{name} rejected: {type(outcome.error).__name__}>" if type(outcome) is Rejection else f"<{name} answered>"
        )

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in _FOR_THE_CREW]

    # --- settling -------------------------------------------------------------------------

    def settle(self, outcome: "T | Rejection") -> bool:
        """Answer with a value or a `Rejection`. Say whether this was the first answer.

        The thread of the first answer may have been killed before it released the waiters. Then
        this call stores the first outcome and releases the waiters.
        """
        answers, answer = self._answers, (outcome,)
        if not answers:
            answers.append(answer)
        first = answers[0]
        if first is _PROMISE:
            return False
        if first is answer or self._outcome is _PENDING or self._waiters:  # the first was cut off
            self._outcome = first[0]
            self.job = None
            if self._waiters:
                self._release()
        return first is answer

    def promise(self) -> bool:
        """Take the right to answer, for `fulfil`. Say whether the reply is promised now.

        It is not if the reply was answered before.
        """
        if not self._answers:
            self._answers.append(_PROMISE)
        first = self._answers[0]
        if first is _PROMISE:
            return True
        self._outcome = first[0]  # the thread that answers is about to do the same
        return False

    def fulfil(self, outcome: "T | Rejection") -> None:
        """Answer as promised. May be called again. The first outcome counts."""
        if self._outcome is _PENDING:
            self._outcome = outcome
        self.job = None
        self._release()

    def reject(self, error: BaseException) -> bool:
        """Answer with `error`. Say whether this was the first answer."""
        return self.settle(Rejection(error))

    def set(self, value: T | None = None) -> None:
        """Answer in Pykka's way.

        Raises:
            queue.Full: the reply is settled already or has a get hook, as Pykka has it.
        """
        self._settle_by_hand(cast("T", value))

    def set_exception(self, exc_info: Any = None) -> None:
        """Reject in Pykka's way, with the error of `exc_info` or the error that is handled.

        Raises:
            queue.Full: the reply is settled already or has a get hook, as Pykka has it.
        """
        kind, error, _ = sys.exc_info() if exc_info is None else exc_info
        if error is None:
            error = kind() if kind is not None else RuntimeError("set_exception() outside of an except block")
        self._settle_by_hand(Rejection(error))

    def _settle_by_hand(self, outcome: "T | Rejection") -> None:
        if self._hook is not None or not self.settle(outcome):
            raise _full()

    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        """Let `get` call `func(timeout)`, as in Pykka. `get` then ignores the crew's own answer.

        Raises:
            queue.Full: the reply is settled already, as Pykka has it.
        """
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
        # Two threads may be here at once, and either may be killed. A waker leaves the list after
        # it was called. If the thread is killed in between, the next thread that settles calls the
        # waker again. A callback leaves the list before it is called, so it runs at most once.
        waiters = self._waiters
        for waker in tuple(waiters):
            if type(waker) is not _Callback:
                with suppress(RuntimeError):
                    waker()
                with suppress(ValueError):
                    waiters.remove(waker)
        while waiters:
            try:
                waiter = waiters.pop(0)
            except IndexError:
                return
            if type(waiter) is _Callback:
                self._call(waiter.call)
            else:
                with suppress(RuntimeError):
                    waiter()

    def _call(self, callback: Callable[["Reply[T]"], object]) -> None:
        try:
            callback(self)
        except BaseException as error:  # noqa: BLE001  # a caller's function must not harm a worker
            log(__name__, "error", "callback_failed", error=error, callback=_name(callback))

    # --- asking ---------------------------------------------------------------------------

    @property
    def id(self) -> int | None:
        """The number of the job in its crew, as `Status` shows it, for `SupervisorRef.cancel`.

        The job gets its number at the first question for it. `None` for a reply that is computed
        from others, as `map` returns it.
        """
        crew = self._crew
        return None if crew is None else crew.id_of(self)

    def done(self) -> bool:
        """Say whether the reply is settled, so that `get` would not wait."""
        return self._outcome is not _PENDING

    def get(self, *, timeout: float | None = None) -> T:
        """Wait for the answer and return the value.

        Args:
            timeout: seconds to wait. `None` waits without a limit. The crew settles every reply,
                even if workers die.

        Raises:
            pykka.Timeout: no answer came in time. The job goes on.
            WouldDeadlock: the caller is a thread of the crew and would wait for itself. Or the
                caller waits without a `timeout`, and its own transactions and streams hold all
                workers for the job. A job that had not begun is removed from the queue and never
                runs.
            Exception: the error with which the request was rejected.
        """
        try:
            if self._hook is not None:
                return self._from_hook(self._hook, timeout)  # type: ignore[no-any-return]  # any value is the value
            if not self._wait(timeout):
                raise self._late(timeout)  # noqa: TRY301  # a call more would make every answer slower
            outcome = self._outcome
            if type(outcome) is not Rejection:
                return outcome  # type: ignore[no-any-return]  # anything but a Rejection is the value
            raise outcome.error.with_traceback(outcome.traceback)  # noqa: TRY301  # as above
        except BaseException as error:
            trim_to_caller(error)
            raise

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait as `get` does. Return the error with which the request was rejected, or `None`.

        Raises:
            pykka.Timeout: no answer came in time.
        """
        try:
            if not self._wait(timeout):
                raise self._late(timeout)  # noqa: TRY301  # as above
        except BaseException as error:
            trim_to_caller(error)
            raise
        outcome = self._outcome
        return outcome.error if type(outcome) is Rejection else None

    def _wait(self, timeout: float | None) -> bool:
        """Wait until the reply is settled. Say whether it is settled."""
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
            except BaseException:  # Ctrl-C, for example: the caller waits no more
                if (job := self._awaited_job()) is not None:
                    job.waiter = None
                raise
        if gate.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
            return True
        self._remove_waker(gate.release)
        return self.done()

    def _late(self, timeout: float | None) -> pykka.Timeout:
        """Return the error of a wait that ended without an answer."""
        crew = self._crew
        if crew is None or timeout is None:
            return pykka.Timeout(f"{timeout} seconds")
        return pykka.Timeout(crew.late(self._awaited_job(), timeout))

    def refuse_deadlock(self, *, endless: bool) -> None:
        """Raise `WouldDeadlock` if a wait for this reply would deadlock.

        A job that has not begun then never runs. Every way of waiting calls this first. A thread of
        the crew must not wait for the crew. Another thread must not wait without a time limit for
        workers that its own transactions and streams hold.
        """
        crew, job = self._crew, self._awaited_job()
        if crew is None or self._outcome is not _PENDING:
            return
        if this_thread.crew is crew or crew.is_mine():
            owner = None
        elif endless and job is not None and crew.has_checkouts:
            owner = current_owner()
        else:
            return
        error = crew.refuse_wait(job, owner)
        if error is not None:
            try:
                raise error
            finally:
                del self, error, job  # the traceback holds this frame, and the frame holds the error

    def _awaited_job(self) -> "Owner | None":
        """Return the job that will settle this reply, or `None`."""
        return self.job

    def add_done_callback(self, callback: Callable[["Reply[T]"], object]) -> None:
        """Call `callback(reply)` once the reply is settled, or now if it is settled.

        The callback runs on the thread that settles the reply: a worker's thread if the job ran,
        the thread that called `cancel` if the job still waited, and else mostly the supervisor's
        thread. Keep the callback short, since other callers wait for that thread.

        An exception of the callback is logged and has no other effect. The callback runs in a copy
        of the current context variables, as a callback of `loop.call_soon` does.

        Raises:
            TypeError: the callback belongs to `asyncio.wait`, which needs a future of asyncio.
        """
        check_callback(callback)
        heed_executors()
        self._add_callback(InContext(callback))

    def _add_callback(self, callback: Callable[["Reply[T]"], object]) -> None:
        waiter = _Callback(callback)
        self._waiters.append(waiter)
        if self._outcome is not _PENDING:
            with suppress(ValueError):  # the thread that settles runs the callback
                self._waiters.remove(waiter)
                self._call(callback)

    def _add_waker(self, waker: Callable[[], object]) -> bool:
        """Call `waker` once the reply is settled. Return `False` if the reply is already settled.

        The waker may be called even if this returns `False`.
        """
        self._waiters.append(waker)
        if self._outcome is _PENDING:
            return True
        self._remove_waker(waker)
        return False

    def _remove_waker(self, waker: Callable[[], object]) -> None:
        if self._waiters:
            with suppress(ValueError):
                self._waiters.remove(waker)

    # --- cancelling -----------------------------------------------------------------------

    def cancel(self) -> bool:
        """Cancel the job. Never waits.

        A queued job is removed from the queue, and its reply is rejected with `QueryCancelled` at
        once. A running job is interrupted, and its reply is rejected once its worker has left the
        statement. The interrupt never hits another job.

        Returns:
            True if the reply will be rejected with `QueryCancelled`, False if it is settled
            already.
        """
        crew, job = self._crew, self.job
        return crew is not None and job is not None and crew.cancel(job)

    def cancelled(self) -> bool:
        """Say whether the reply was rejected because its job was cancelled."""
        outcome = self._outcome
        return type(outcome) is Rejection and isinstance(outcome.error, QueryCancelled)

    # --- passing the outcome on -----------------------------------------------------------

    def pipe_to(self, actor_ref: pykka.ActorRef[Any], wrap: Callable[["Outcome"], object] | None = None) -> None:
        """Send the `Outcome` to an actor once the reply is settled. Never waits.

        If the actor has ended by then, a warning is logged.

        Args:
            actor_ref: the actor that gets the message.
            wrap: makes the message from the `Outcome`. It runs on the thread that settles the
                reply. If it raises, the message is an `Outcome` with that error.
        """
        self.add_done_callback(lambda reply: tell_outcome(reply, actor_ref, wrap))

    def as_future(self) -> "ConcurrentFuture[T]":
        """Return a `concurrent.futures.Future` with the same answer.

        Use it with `wait`, `as_completed` and `wrap_future`. To cancel the future is to cancel the
        job. To cancel this reply is to cancel the future.
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
        except BaseException as error:
            if not isinstance(error, WouldDeadlock):  # that job left the queue, or has begun and goes on
                self._give_up()  # the task was cancelled, or its loop ends
            trim_to_caller(error)
            raise

    __iter__ = __await__

    def _give_up(self) -> None:
        """Cancel the job, since the caller does not take the answer."""
        self.cancel()

    # --- derived replies ------------------------------------------------------------------

    def map(self, func: Callable[[T], M]) -> "Reply[M]":
        """Return a reply with `func(value)`. `func` runs once, in the first thread that asks."""
        return self._derived([self], lambda values: func(values[0]))

    def filter(self: "Reply[Any]", func: Callable[[J], bool]) -> "Reply[Iterable[J]]":
        """Return a reply with the list of the items of the value for which `func` is true."""
        return self._derived([self], lambda values: list(filter(func, values[0])))

    def join(self: "Reply[Any]", *futures: pykka.Future[Any]) -> "Reply[Iterable[Any]]":
        """Return a reply with the list of the values of this reply and of all `futures`."""
        return self._derived([self, *futures], list)

    def reduce(self: "Reply[Any]", func: Callable[[R, J], R], *args: R) -> "Reply[R]":
        """Return a reply with `functools.reduce(func, value, *args)`."""
        return self._derived([self], lambda values: functools.reduce(func, values[0], *args))


def check_callback(callback: Callable[..., object]) -> None:
    """Raise `TypeError` for a callback of `asyncio.wait`. A worker must not call it."""
    if getattr(callback, "__module__", None) == "asyncio.tasks":
        message = "asyncio.wait() takes only futures of asyncio: write asyncio.wait([asyncio.ensure_future(reply)])"
        raise TypeError(message)


def _full() -> queue.Full:
    return queue.Full("the reply is settled already, or has a get hook")


def _name(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
