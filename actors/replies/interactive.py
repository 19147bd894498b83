"""SessionCheckout: the checkout of a transaction whose requests come one by one."""

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, TypeVar

from actors.databases.steps import Begin, Commit, Deallocate, Execute, Fetch, Step
from actors.replies.checkout import OpeningReply, StepCall, StepReply
from actors.replies.owner import Crew, Owner
from actors.replies.reply import Reply
from actors.replies.stream import CursorCheckout
from actors.values.contexts import in_context
from actors.values.requests import Call, Query, Script, Stream

__all__ = ["SessionCheckout"]

T = TypeVar("T")


class CommitReply(StepReply[T]):
    """The answer of a commit. A commit that is the next step cannot be cancelled."""

    __slots__ = ("_is_next",)

    def __init__(self, crew: Any, end: Reply[Any], is_next: Callable[[], bool]) -> None:
        super().__init__(crew, end)
        self._is_next = is_next

    def cancel(self) -> bool:
        """Cancel the transaction if an earlier request is not answered yet. See `Reply.cancel`."""
        return not self._is_next() and super().cancel()


class SessionCheckout(CursorCheckout):
    """A transaction whose requests come one by one, on a worker that its caller holds."""

    what = "transaction"

    def __init__(self, crew: Crew, begin: Begin) -> None:
        super().__init__(crew)
        self._begin = begin
        self.left = False
        """Whether the caller has ended the transaction, or gave up while it began.

        The transaction then takes no more requests."""
        self.deadline: float | None = None
        """When the time of the transaction is over, in monotonic seconds. `None` is never.

        The job may have an earlier deadline until the transaction has begun."""
        self._cursors = count(1)

    def open(self) -> Reply[None]:
        """Ask for the first step, `Begin`. Called once."""
        return self._send(StepCall(self._begin, OpeningReply(self._crew, self.end, self.abandon), _nothing))

    def abandon(self) -> None:
        """Release the worker if the caller was cut off. See `Checkout.abandon`."""
        self.left = True
        super().abandon()

    def call_of(self, request: Query | Script | Call[Any] | Stream) -> StepCall:
        """Return the step call of a request, for `ask`.

        The caller knows the reply before it asks. So it can give the reply up if it is cut off.
        """
        if isinstance(request, Call):
            request = in_context(request)
        if not isinstance(request, Stream):
            return StepCall(Execute(request), StepReply(self._crew, self.end))
        # Not ahead: a write must not wait for rows that the caller has not asked for.
        return self.opening_of(next(self._cursors), request, ahead=False)

    def ask(self, call: StepCall) -> None:
        """Hand a step to the worker, unless the transaction takes no more requests."""
        if self.left:
            call.reply.reject(self.closed())
        else:
            self._send(call)

    def fetch(self, step: Fetch | Deallocate, request: Stream) -> Reply[Any]:
        """Ask for a step of a stream. See `CursorCheckout`."""
        return self.refuse() if self.left else super().fetch(step, request)

    def close_cursor(self, number: int, request: Stream) -> None:
        """Let the connection close the cursor, behind all earlier steps. Never waits."""
        self.fetch(Deallocate(number), request)

    def commit(self) -> Reply[None]:
        """Ask for the last step, `Commit`."""
        if self.left:
            return self.refuse()
        self.left = True
        return self._send(StepCall(Commit(), CommitReply(self._crew, self.end, self.is_committing), _nothing))

    def is_committing(self) -> bool:
        """Say whether the commit runs, or is the next step. It cannot be cancelled then."""
        for call in list(self._calls):
            if not call.reply.done():  # else another thread is about to remove the step
                return isinstance(call.step, Commit)
        return False

    def release(self) -> None:
        """Roll back, unless the transaction commits at this moment. See `Checkout.release`."""
        if self.is_committing():
            self._signals.put(None)  # the caller may have been cut off before it woke the worker
        else:
            super().release()

    def ended(self) -> Reply[None]:
        """Return a reply that is settled once the transaction has ended in any way."""
        reply: Reply[None] = Reply(self._crew)
        if not self.end._add_waker(partial(reply.settle, None)):
            reply.settle(None)
        return reply

    def is_held_by(self, owner: tuple[object, ...]) -> bool:
        """Say whether this owner has the transaction and has not asked for its end."""
        return not self.left and super().is_held_by(owner)

    def note_opened(self, job: Owner) -> None:
        """Give the job the deadline of the whole transaction."""
        if job.deadline != self.deadline:
            self._crew.set_deadline(job, self.deadline)

    @property
    def takes_no_effect(self) -> bool:
        """Whether no commit was asked for."""
        return not any(isinstance(call.step, Commit) for call in list(self._calls))

    def ends_with_error_of(self, step: Step) -> bool:
        """Say whether the step was `Begin` or `Commit`. Other errors do not end the transaction."""
        return isinstance(step, (Begin, Commit))

    def ends_with(self, step: Step, value: Any) -> bool:
        """Say whether the step was `Commit`."""
        del value
        return isinstance(step, Commit)

    def _error_of(self, call: StepCall, error: BaseException) -> BaseException:
        """Return `error`, or `SessionClosed` for rows of a transaction that its caller ended."""
        return self.closed() if isinstance(call.step, Fetch) and self.left else error


def _nothing(answer: object) -> None:
    """Return `None`, the caller's value for `Begin` and `Commit`."""
    del answer
