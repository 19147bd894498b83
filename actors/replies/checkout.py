"""Checkout: a worker that its caller holds, and that performs one step of the caller after another.

The caller asks for a step. The worker performs the step and answers. Such a step with its reply is
a `StepCall`. The worker serves no other caller meanwhile.

A checkout is a job. The job's reply is the end of the checkout. That reply is settled exactly once,
and the replies of all unanswered steps are settled with it. So a checkout has every guarantee of a
job.

A caller that drops its checkout releases the worker. A queue wakes the worker. The queue's `put`
never waits, so a finalizer may release the worker, too.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from actors.databases.steps import CopyPages, KeepCopy, OpenBackup, Step
from actors.replies.owner import Crew, Owner
from actors.replies.reply import Reply
from actors.system.waiting import current_owner
from actors.values.contexts import InContext
from actors.values.errors import SessionClosed
from actors.values.rejection import Rejection
from actors.values.requests import Backup
from actors.values.result import Result

__all__ = ["BackupCheckout", "Checkout", "OpeningReply", "StepCall", "StepReply"]

T = TypeVar("T")

_NO_VALUE: Final = object()


class StepReply(Reply[T]):
    """The answer of one step.

    To cancel it is to cancel the whole checkout, since no step can be removed from it.
    """

    __slots__ = ("_end",)

    def __init__(self, crew: Any, end: Reply[Any]) -> None:
        super().__init__(crew)
        self._end = end

    @property
    def id(self) -> int | None:
        """The number of the job of the whole checkout. See `Reply.id`."""
        return self._end.id

    def _awaited_job(self) -> Owner | None:
        return self._end.job

    def cancel(self) -> bool:
        """Cancel the job of the checkout. See `Reply.cancel`."""
        return not self.done() and self._end.cancel()


class OpeningReply(StepReply[T]):
    """The answer of a step that opens a transaction or a cursor.

    If the caller does not take the answer, `close` closes the transaction or the cursor.
    """

    __slots__ = ("_close",)

    def __init__(self, crew: Any, end: Reply[Any], close: Callable[[], object]) -> None:
        super().__init__(crew, end)
        self._close = close

    def _give_up(self) -> None:
        """Cancel and close. The answer may have come when an exception cut the caller off."""
        self.cancel()
        if type(self._outcome) is not Rejection:
            self._close()


class StepCall:
    """One step that the caller asks the worker for, and the reply that the caller waits for."""

    __slots__ = ("about", "receive", "reply", "step")

    def __init__(
        self,
        step: Step,
        reply: Reply[Any],
        receive: Callable[[Any], Any] | None = None,
        about: object = None,
    ) -> None:
        self.step = step
        self.reply = reply
        self.receive = receive
        """Makes the caller's value from the worker's answer. `None` keeps the answer as it is."""
        self.about = step if about is None else about
        """The request or step that an error of the step names."""

    def value_of(self, answer: Any) -> Any:
        """Return the caller's value for the worker's answer."""
        return answer if self.receive is None else self.receive(answer)


class Checkout:
    """A worker that its caller holds: the job, and the steps that the caller has asked for."""

    what = "checkout"
    """The word for this kind of checkout in errors."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        # The thread or task that began the checkout.
        self._owner = current_owner()
        self._signals: SimpleQueue[None] = SimpleQueue()
        # Steps that are not answered. The worker performs the first one.
        self._calls: deque[StepCall] = deque()
        self._interrupted = False
        self.travels = False
        """Whether another process performs the steps. Then an early request saves time."""
        self.end: Reply[Any] = Reply(crew)
        """The reply of the job. It is settled when the checkout ends."""
        self.last: Any = _NO_VALUE
        """The answer of the last step, once the job is done."""
        # Not a callback: an exception that cuts off a callback is logged and forgotten.
        self.end._add_waker(self._close)

    # --- the caller's side, any thread ----------------------------------------------------

    def _send(self, call: StepCall) -> Reply[Any]:
        """Hand a step to the worker, and return its reply.

        The checkout must not keep the reply of an opening step beyond its answer. A caller that
        drops the answer releases the worker.
        """
        self._calls.append(call)
        self._signals.put(None)
        if self.end.done():
            self._close()
        return call.reply

    def _step(self, step: Step, about: object = None) -> Reply[Any]:
        """Ask the worker for a step."""
        return self._send(StepCall(step, StepReply(self._crew, self.end), None, about))

    def refuse(self) -> Reply[Any]:
        """Return a rejected reply, for a step after the end of the checkout."""
        reply: StepReply[Any] = StepReply(self._crew, self.end)
        reply.reject(self.closed())
        return reply

    def closed(self) -> SessionClosed:
        """Return the error of a step after the end of the checkout."""
        return SessionClosed(f"the {self.what} is over, and takes no more steps")

    def release(self) -> None:
        """End the checkout: the worker is free at once. Never waits.

        An exception, such as that of a signal handler, may cut this off. Then the caller calls
        `release` again.
        """
        if not self.end.done():
            self.end.cancel()
            self.interrupt()  # a job that is not submitted yet cannot be cancelled; now it never begins

    def abandon(self) -> None:
        """Release the worker if the caller was cut off while it began the checkout.

        The caller submits no job after this call.
        """
        self.release()
        if self.end.job is None:
            self.end.reject(self.closed())  # no worker will ever get the job

    def interrupt(self) -> None:
        """Wake a worker that waits for a step, and let it end. Never waits and never raises."""
        self._interrupted = True
        self._signals.put(None)

    def _close(self) -> None:
        """Settle the replies of the steps that are left, once the job is over.

        Two threads may do this at once: the thread that settles the end, and a caller whose step
        came when the end was settled. Each reply keeps its first outcome.
        """
        error = self.end.exception()
        while self._calls:
            with suppress(IndexError):  # another thread removed the last step
                call = self._calls[0]
                if error is not None:
                    call.reply.reject(self._error_of(call, error))
                elif self.last is not _NO_VALUE:
                    self._answer_last(call)
                else:
                    call.reply.reject(self.closed())
                self._remove(call)

    def _answer_last(self, call: StepCall) -> None:
        """Answer the last step, even if the connection's answer does not fit the step."""
        try:
            value = call.value_of(self.last)
        except Exception as error:  # noqa: BLE001  # the connection may be a user's own class
            call.reply.reject(error)
        else:
            call.reply.settle(value)
        self.last = _NO_VALUE

    def _error_of(self, call: StepCall, error: BaseException) -> BaseException:
        """Return the error for a step that was unanswered when the job ended with `error`."""
        del call
        return error

    # --- the worker's side ----------------------------------------------------------------

    def next(self) -> StepCall | None:
        """Wait for the next step and return it. Return `None` if no step will come."""
        while not self._calls and not self._interrupted:
            self._signals.get()
        return None if self._interrupted else self._calls[0]

    @property
    def waits_for_caller(self) -> bool:
        """Whether the worker has nothing to do until the caller asks for the next step."""
        return not self._calls

    def answer(self, call: StepCall, value: Any) -> None:
        """Answer a step with the connection's `value`."""
        call.reply.settle(call.value_of(value))
        self._remove(call)

    def reject(self, call: StepCall, error: BaseException) -> None:
        """Answer a step with an error that does not end the checkout."""
        call.reply.reject(error)
        self._remove(call)

    def _remove(self, call: StepCall) -> None:
        with suppress(ValueError):  # another thread ends the checkout and has removed the step
            self._calls.remove(call)

    # --- differences between the kinds of checkouts ---------------------------------------

    def is_held_by(self, owner: tuple[object, ...]) -> bool:
        """Say whether the checkout lasts until this owner ends it. See `current_owner`."""
        return self._owner == owner

    def note_opened(self, job: Owner) -> None:
        """Note that the worker has performed the first step. Called in the worker's thread."""

    @property
    def takes_no_effect(self) -> bool:
        """Whether nothing of the checkout takes effect if its worker dies now."""
        return False

    def ends_with_error_of(self, step: Step) -> bool:
        """Say whether the job is over after this step has failed."""
        del step
        return True

    def ends_with(self, step: Step, value: Any) -> bool:
        """Say whether the job is over after this step, whose answer is `value`."""
        raise NotImplementedError

    def outcome_of(self, value: Any) -> Result | None:
        """Return the answer of the job, made from the answer of its last step."""
        del value
        return None


class BackupCheckout(Checkout):
    """A copy of a database, some pages at a time. The checkout asks for all steps itself."""

    what = "backup"

    def __init__(self, crew: Crew, request: Backup) -> None:
        super().__init__(crew)
        self._request = request
        self._progress = None if request.progress is None else InContext(request.progress)
        self._is_whole = False
        self._step(OpenBackup(request.path))

    @property
    def waits_for_caller(self) -> bool:
        """Whether the worker waits for the caller. A backup goes on without its caller."""
        return False

    def next(self) -> StepCall | None:
        """Return the next step. See `Checkout`."""
        if not self._calls:
            self._step(KeepCopy() if self._is_whole else CopyPages(self._request.pages))
        return super().next()

    def ends_with(self, step: Step, value: Any) -> bool:
        """Report the progress to the caller. Say whether the copy is complete and in its place."""
        if isinstance(step, CopyPages):
            copied, pages, _ = value.rows[0]
            self._is_whole = not value.truncated
            if self._progress is not None:
                self._progress(copied, pages)
        return isinstance(step, KeepCopy)

    def outcome_of(self, value: Any) -> Result:
        """Return the number of pages and bytes that were copied."""
        _, pages, page_size = value.rows[0]
        return Result(("pages", "bytes"), [(pages, pages * page_size)], 1)
