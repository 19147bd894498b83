"""Checkout: what a job and its caller say to each other while a worker runs it.

A caller takes calls: it asks for a step, and its worker performs the step and answers. The worker
serves no other caller meanwhile. The reply of the job is the end of the checkout. That reply is
settled exactly once, and all calls that were not answered by then are rejected with it. So a
checkout has every guarantee of a job.

A caller that drops its end hangs up. A queue wakes the worker. Its `put` never waits, so a
finalizer may hang up, too.
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

_NOTHING: Final = object()


class StepReply(Reply[T]):
    """The answer of one call. To cancel it is to cancel all: a step cannot be taken out of its checkout."""

    __slots__ = ("_end",)

    def __init__(self, crew: Any, end: Reply[Any]) -> None:
        super().__init__(crew)
        self._end = end

    def _awaited_job(self) -> Owner | None:
        return self._end.job

    def cancel(self) -> bool:
        """Cancel the job; see `Reply.cancel`."""
        return not self.done() and self._end.cancel()


class OpeningReply(StepReply[T]):
    """The answer of a call that opens something: a caller that does not take it closes that."""

    __slots__ = ("_close",)

    def __init__(self, crew: Any, end: Reply[Any], close: Callable[[], object]) -> None:
        super().__init__(crew, end)
        self._close = close

    def _give_up(self) -> None:
        """Cancel, and close what is open: the answer may have come as the caller was cut off."""
        self.cancel()
        if type(self._outcome) is not Rejection:
            self._close()


class StepCall:
    """A step, and who waits for its answer."""

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
        """Makes the caller's value of the answer of the step; `None` leaves that as it is."""
        self.about = step if about is None else about
        """What an error of the step names."""

    def value_of(self, answer: Any) -> Any:
        """Return the caller's value for the answer of the step."""
        return answer if self.receive is None else self.receive(answer)


class Checkout:
    """The calls of one job."""

    what = "checkout"
    """What it is called in errors."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        # The thread or task that began it.
        self._owner = current_owner()
        self._signals: SimpleQueue[None] = SimpleQueue()
        # Taken and not yet answered, the one that the worker performs first.
        self._calls: deque[StepCall] = deque()
        self._interrupted = False
        self.travels = False
        """Whether steps are performed in another process, so that it is worth while to ask for the next one early."""
        self.end: Reply[Any] = Reply(crew)
        """The reply of the job."""
        self.last: Any = _NOTHING
        """What the last call is answered by, once the job is done."""
        # No callback: what cuts that off is logged and forgotten.
        self.end._add_waker(self._close)

    # --- the caller's side, any thread ----------------------------------------------------

    def _take(self, call: StepCall) -> Reply[Any]:
        """Take a call, and return its reply.

        Nothing here may keep the reply of an opening: when its caller drops the answer, that hangs
        up.
        """
        self._calls.append(call)
        self._signals.put(None)
        if self.end.done():
            self._close()
        return call.reply

    def _step(self, step: Step, about: object = None) -> Reply[Any]:
        """Ask for a step."""
        return self._take(StepCall(step, StepReply(self._crew, self.end), None, about))

    def refuse(self) -> Reply[Any]:
        """Return the reply of a step that comes too late."""
        reply: StepReply[Any] = StepReply(self._crew, self.end)
        reply.reject(self.closed())
        return reply

    def closed(self) -> SessionClosed:
        """Return the error of what comes too late."""
        return SessionClosed(f"the {self.what} is over, and takes no more steps")

    def release(self) -> None:
        """End it for its caller: the worker is free at once. Never waits.

        If an exception, such as a signal handler's, cuts this off, the caller calls it again.
        """
        if not self.end.done():
            self.end.cancel()
            self.interrupt()  # a job that is about to be submitted cannot be cancelled yet: so it never begins

    def abandon(self) -> None:
        """Hang up what its caller did not come to begin. That caller submits nothing any more."""
        self.release()
        if self.end.job is None:
            self.end.reject(self.closed())  # no worker will ever have it

    def interrupt(self) -> None:
        """End the worker's waiting for a call. Never waits, never raises."""
        self._interrupted = True
        self._signals.put(None)

    def _close(self) -> None:
        """Answer the calls that are left: the job is over."""
        error = self.end.exception()
        while self._calls:
            with suppress(IndexError):  # another thread may do the same
                call = self._calls[0]
                if error is not None:
                    call.reply.reject(self._error_of(call, error))
                elif self.last is not _NOTHING:
                    self._answer_last(call)
                else:
                    call.reply.reject(self.closed())
                self._strike(call)

    def _answer_last(self, call: StepCall) -> None:
        """Answer the last call, also where the connection's answer makes no sense for it."""
        try:
            value = call.value_of(self.last)
        except Exception as error:  # noqa: BLE001  # a connection of somebody's own
            call.reply.reject(error)
        else:
            call.reply.settle(value)
        self.last = _NOTHING

    def _error_of(self, call: StepCall, error: BaseException) -> BaseException:
        """Return how a call is rejected that was open when the job ended with an error."""
        del call
        return error

    # --- the worker's side ----------------------------------------------------------------

    def next(self) -> StepCall | None:
        """Return the next call, waiting for it; `None` if there will be none."""
        while not self._calls and not self._interrupted:
            self._signals.get()
        return None if self._interrupted else self._calls[0]

    @property
    def waits_for_caller(self) -> bool:
        """Whether the worker has nothing to do until the caller takes the next call."""
        return not self._calls

    def answer(self, call: StepCall, value: Any) -> None:
        """Answer a call with what its step was answered by."""
        call.reply.settle(call.value_of(value))
        self._strike(call)

    def reject(self, call: StepCall, error: BaseException) -> None:
        """Answer a call with an error that is no end."""
        call.reply.reject(error)
        self._strike(call)

    def _strike(self, call: StepCall) -> None:
        with suppress(ValueError):  # another thread, which ends the checkout, has done it
            self._calls.remove(call)

    # --- kinds ----------------------------------------------------------------------------

    def is_held_by(self, owner: tuple[object, ...]) -> bool:
        """Say whether it goes on until this owner ends it; see `current_owner`."""
        return self._owner == owner

    def note_opened(self, job: Owner) -> None:
        """Note, in the worker's thread, that the first step was performed."""

    @property
    def takes_no_effect(self) -> bool:
        """Whether nothing of it will have taken effect, if its worker dies now."""
        return False

    def ends_with_error_of(self, step: Step) -> bool:
        """Say whether the job is over if this step has failed."""
        del step
        return True

    def ends_with(self, step: Step, value: Any) -> bool:
        """Say whether the job is over with this step, which was answered by a value."""
        raise NotImplementedError

    def outcome_of(self, value: Any) -> Result | None:
        """Return what the job is answered by, from the answer of its last step."""
        del value
        return None


class BackupCheckout(Checkout):
    """A copy of a database, some pages at a time: it takes all calls by itself."""

    what = "backup"

    def __init__(self, crew: Crew, request: Backup) -> None:
        super().__init__(crew)
        self._request = request
        self._progress = None if request.progress is None else InContext(request.progress)
        self._is_whole = False
        self._step(OpenBackup(request.path))

    @property
    def waits_for_caller(self) -> bool:
        """Whether the worker waits for the caller: a backup needs no caller to go on."""
        return False

    def next(self) -> StepCall | None:
        """Return the next step; see `Checkout`."""
        if not self._calls:
            self._step(KeepCopy() if self._is_whole else CopyPages(self._request.pages))
        return super().next()

    def ends_with(self, step: Step, value: Any) -> bool:
        """Tell how far it is, and say whether that is the end."""
        if isinstance(step, CopyPages):
            copied, pages, _ = value.rows[0]
            self._is_whole = not value.truncated
            if self._progress is not None:
                self._progress(copied, pages)
        return isinstance(step, KeepCopy)

    def outcome_of(self, value: Any) -> Result:
        """Return how much was copied."""
        _, pages, page_size = value.rows[0]
        return Result(("pages", "bytes"), [(pages, pages * page_size)], 1)
