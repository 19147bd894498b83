"""The checkout of a transaction whose requests come one by one; see `checkout`."""

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, TypeVar

from actors.databases.steps import Begin, Commit, Deallocate, Declare, Execute, Fetch, Step
from actors.replies.checkout import Checkout, OpeningReply, StepCall, StepReply
from actors.replies.owner import Crew, Owner
from actors.replies.reply import Reply
from actors.replies.stream import RowStream
from actors.values.contexts import in_context
from actors.values.requests import Call, Query, Script, Stream
from actors.values.result import Result

__all__ = ["SessionCheckout", "SessionRows"]

T = TypeVar("T")


class CommitReply(StepReply[T]):
    """The answer of a commit, which cannot be taken back once it is next."""

    __slots__ = ("_is_next",)

    def __init__(self, crew: Any, end: Reply[Any], is_next: Callable[[], bool]) -> None:
        super().__init__(crew, end)
        self._is_next = is_next

    def cancel(self) -> bool:
        """Cancel the transaction if a request before the commit is not answered; see `Reply`."""
        return not self._is_next() and super().cancel()


class SessionCheckout(Checkout):
    """A transaction whose requests come one by one."""

    what = "transaction"

    def __init__(self, crew: Crew, *, readonly: bool) -> None:
        super().__init__(crew)
        self._readonly = readonly
        self.left = False
        """Whether its owner has ended it, or did not begin it: it takes no more requests."""
        self.deadline: float | None = None
        """Monotonic seconds, of the whole; its job may have an earlier one until it begins."""
        self._cursors = count(1)

    def open(self) -> Reply[None]:
        """Take the first call, once."""
        return self._take(StepCall(Begin(self._readonly), OpeningReply(self._crew, self.end, self.abandon), _nothing))

    def abandon(self) -> None:
        """Hang up what its caller did not come to begin; see `Checkout`."""
        self.left = True
        super().abandon()

    def turn_of(self, request: Query | Script | Call[Any] | Stream) -> StepCall:
        """Return the call of a request, for `ask`: its reply is known before it is taken."""
        if isinstance(request, Call):
            request = in_context(request)
        if not isinstance(request, Stream):
            return StepCall(Execute(request), StepReply(self._crew, self.end))
        rows = SessionRows(self, next(self._cursors), request)
        # Not ahead: a write must not wait for rows that the caller has not asked for.
        step = Declare(rows.cursor, request.sql, request.params, request.chunk, ahead=False)
        reply: Reply[RowStream] = OpeningReply(self._crew, self.end, rows.release)
        return StepCall(step, reply, lambda first: RowStream(rows, first, request.chunk))

    def ask(self, call: StepCall) -> None:
        """Take a call, unless it comes too late."""
        if self.left:
            call.reply.reject(self.closed())
        else:
            self._take(call)

    def fetch(self, step: Fetch | Deallocate, request: Stream) -> Reply[Any]:
        """Ask for a step of a stream."""
        return self.refuse() if self.left else self._step(step, request)

    def commit(self) -> Reply[None]:
        """Ask for the last step."""
        if self.left:
            return self.refuse()
        self.left = True
        return self._take(StepCall(Commit(), CommitReply(self._crew, self.end, self.is_committing), _nothing))

    def is_committing(self) -> bool:
        """Say whether the worker does the commit now or next: it cannot be taken back."""
        for call in list(self._calls):
            if not call.reply.done():  # else it is about to be struck off
                return isinstance(call.step, Commit)
        return False

    def release(self) -> None:
        """Roll back, unless it commits at this moment; see `Checkout`."""
        if self.is_committing():
            self._signals.put(None)  # the caller may have been cut off before it woke the worker
        else:
            super().release()

    def ended(self) -> Reply[None]:
        """Return a reply that is settled at the end, however that comes."""
        reply: Reply[None] = Reply(self._crew)
        if not self.end._add_waker(partial(reply.settle, None)):
            reply.settle(None)
        return reply

    def is_held_by(self, owner: tuple[object, ...]) -> bool:
        """Say whether this owner has it, and has not asked for its end; see `Checkout`."""
        return not self.left and super().is_held_by(owner)

    def note_opened(self, job: Owner) -> None:
        """Let the deadline of the whole hold from now on."""
        if job.deadline != self.deadline:
            self._crew.set_deadline(job, self.deadline)

    @property
    def takes_no_effect(self) -> bool:
        """Whether it is not about to commit."""
        return not any(isinstance(call.step, Commit) for call in list(self._calls))

    def ends_with_error_of(self, step: Step) -> bool:
        """Say whether it was the first step or the last: an error of a request is no end."""
        return isinstance(step, (Begin, Commit))

    def ends_with(self, step: Step, value: Any) -> bool:
        """Say whether it was the last step."""
        del value
        return isinstance(step, Commit)

    def _error_of(self, call: StepCall, error: BaseException) -> BaseException:
        """Return the error; that the transaction is closed, for a stream whose owner ended it."""
        return self.closed() if isinstance(call.step, Fetch) and self.left else error


class SessionRows:
    """The rows of a statement in a transaction, as they are taken: one of its cursors."""

    travels = False

    def __init__(self, checkout: SessionCheckout, cursor: int, request: Stream) -> None:
        self._checkout = checkout
        self.cursor = cursor
        """Its number."""
        self._request = request

    def more(self, rows: int) -> Reply[Result]:
        """Ask for so many rows."""
        return self._checkout.fetch(Fetch(self.cursor, rows, ahead=False), self._request)

    def release(self) -> None:
        """Let the cursor be closed, behind what was asked before. Never waits."""
        self._checkout.fetch(Deallocate(self.cursor), self._request)


def _nothing(answer: object) -> None:
    """Return what the caller gets for a step whose answer says nothing."""
    del answer
