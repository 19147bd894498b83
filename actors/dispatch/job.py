"""Job: a request on its way, its claim, and its end. `Abort`: why a job ends early."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.replies.reply import Reply
from actors.values.rejection import Rejection
from actors.values.requests import Request, Script

if TYPE_CHECKING:
    from actors.dispatch.admission import Admission
    from actors.dispatch.counters import Counters, Ending
    from actors.dispatch.lane import Lane
    from actors.replies.checkout import Checkout

__all__ = ["Abort", "Job"]


class Abort:
    """Why a job ends before its statement does, or without it.

    An `Abort` claims a job that has not begun. It marks a job that has. The module `aborts` makes
    one for each reason that the dispatcher knows.
    """

    __slots__ = ("ends", "error", "give_up_at", "kind")

    def __init__(
        self, kind: "Ending", error: Callable[["Job", bool | None], BaseException], give_up_at: float = float("inf")
    ) -> None:
        self.kind = kind
        """The counter of the job's end."""
        self.error = error
        """Makes the error, from the job and `executed`. It holds no job, so a job never holds
        itself."""
        self.give_up_at = give_up_at
        """Monotonic seconds at which the worker is given up, if the job still runs."""
        self.ends: list[Rejection] = []
        """The outcomes with which threads tried to keep the promise of a cancel. The first
        counts."""


class Job:
    """A request, from the moment the caller submits it until its reply is settled.

    **The owner of the claim settles the job.** A job may lie in several places at once: in a queue,
    in the batches of workers, in the timers. It has one claim. The owner is a batch, which begins
    the job, or an `Abort`, which rejects it. So a job is begun at most once. A cancel, a deadline
    or a stop that comes before the begin owns the claim, and then nothing of the job runs. A cancel
    that comes later finds a batch as the owner, and can only interrupt.

    Claiming is one step of the interpreter: each claimant appends itself to a list, and the first
    in the list is the owner. If a thread is killed in the middle, either it has not claimed the
    job, or every other thread can see that it has.

    All methods may be called from any thread.
    """

    __slots__ = (
        *(
            "abort",
            "cancel",
            "claims",
            "deadline",
            "lane",
            "reply",
            "request",
            "is_scheduled",
            "started_at",
            "submitted_at",
        ),
        *("checkout", "waiter"),
    )

    def __init__(self, request: Request, reply: Reply[Any], submitted_at: float, deadline: float | None = None) -> None:
        self.request = request
        self.reply = reply
        reply.job = self
        self.submitted_at = submitted_at
        """Monotonic seconds."""
        self.deadline = deadline
        """Monotonic seconds; `None` for never."""
        self.claims: list[Any] = []
        """The owner, and for a moment behind it the claimants that came too late."""
        self.started_at = 0.0
        """Monotonic seconds; 0 until the job is begun."""
        self.lane: Lane | None = None
        """The lane in which the job waits, or waited. `Dispatcher.submit` chooses the first one."""
        self.checkout: Checkout | None = None
        """The calls between the job and its caller while the job runs; `None` for most requests."""
        self.is_scheduled = False
        """Whether the timers have scheduled its deadline. Only `Timers` writes it."""
        self.abort: Abort | None = None
        """Why the running job was interrupted, unless it was a cancel."""
        self.cancel: Abort | None = None
        """The cancel of the running job. The caller may rely on it once `Reply.promise` has
        returned."""
        self.waiter: tuple[object, ...] | None = None
        """The caller that waits for it without a time limit; see `current_owner`."""

    # --- the claim ------------------------------------------------------------------------

    def claim(self, by: object) -> bool:
        """Claim the job for `by`, an object that claims nothing else at this moment.

        Returns:
            Whether `by` is the owner now.
        """
        claims = self.claims
        if claims:
            return False
        claims.append(by)
        if claims[0] is by:
            return True
        self.step_back(by)
        return False

    def step_back(self, by: object) -> None:
        """Remove the mark of `by`, which came too late.

        The race: the owner may have given the claim back in the meantime. Then another worker may
        have skipped the job, because it saw the mark of `by`. So the job is put back into its lane.
        """
        self.unclaim(by)
        if not self.claims and self.lane is not None:
            self.lane.requeue([self])

    def unclaim(self, by: object) -> bool:
        """Give the claim of `by` back, since nothing of the job ran.

        Returns:
            Whether this call did so. If several threads give back one claim, one of them gets
            `True`.
        """
        try:
            self.claims.remove(by)
        except ValueError:
            return False
        return True

    def move_to(self, lane: "Lane", by: object) -> None:
        """Give the claim of `by` back, so that the job waits in another lane.

        Nothing of the job ran.
        """
        self.lane = lane
        self.unclaim(by)

    def start(self, now: float) -> None:
        """Note that the job runs since `now`, in monotonic seconds."""
        self.started_at = now

    def forget_start(self) -> None:
        """Note that the job has not started: the connection had the job, and nothing of it ran."""
        self.started_at = 0.0

    @property
    def owner(self) -> Any:
        """The object that has the claim; `None` while the job waits."""
        try:
            return self.claims[0]
        except IndexError:
            return None

    @property
    def is_waiting(self) -> bool:
        """Whether nothing has claimed it."""
        return not self.claims

    # --- interrupts -----------------------------------------------------------------------

    def mark(self, why: Abort) -> None:
        """Note why the job is interrupted.

        The first cancel counts, and the first of all other reasons.
        """
        if why.kind == "cancelled":
            if self.cancel is None:
                self.cancel = why
        elif self.abort is None:
            self.abort = why

    @property
    def why(self) -> Abort | None:
        """Why the job was interrupted; `None` if it was not.

        A cancel comes before other reasons, since it is promised.
        """
        return self.cancel or self.abort

    @property
    def is_unwanted(self) -> bool:
        """Whether it was interrupted on purpose."""
        return self.abort is not None or self.cancel is not None

    @property
    def is_given_up(self) -> bool:
        """Whether the worker that began it was removed."""
        return getattr(self.owner, "is_over", False)

    @property
    def give_up_at(self) -> float:
        """Monotonic seconds at which the worker of an interrupted job is given up."""
        return min(each.give_up_at for each in (self.abort, self.cancel) if each is not None)

    # --- the end: the one place that decides which error and which counter follow -----------

    def finish(self, outcome: Any, counters: "Counters") -> None:
        """Count and settle a job that has run to its end. Counting comes first.

        A deadline promises nothing: an answer that arrives after it is still given. A cancel is
        kept once it is promised, even if there is an answer.

        The race with a cancel that has marked the job and has promised nothing yet: the supervisor
        may interrupt the job by that mark. So the error of a marked job is that of its cancel.

        Args:
            outcome: the value, or a `Rejection`.
            counters: the counters of the worker.
        """
        if type(outcome) is not Rejection:
            counters.answered += 1
            if not self.reply.settle(outcome):
                self._correct("answered", counters, True, None)
            return
        error = outcome.error
        ending: Ending = "failed"
        why = self.why
        if why is not None:
            ending = why.kind
            outcome = Rejection(_caused(why.error(self, self._executed(error)), error))
        counters.count(ending)
        if not self.reply.settle(outcome):
            self._correct(ending, counters, self._executed(error), error)

    def reject(self, why: Abort, counters: "Counters | Admission", executed: bool | None = False) -> None:
        """Count and settle a job that did not run, or whose worker is gone. Counting comes first.

        A promised cancel is kept.

        Args:
            why: the reason, which makes the error.
            counters: where the end is counted.
            executed: whether the job took effect; `None` if nobody knows.
        """
        error = why.error(self, executed)
        counters.count(why.kind)
        if self.reply.reject(error):
            return
        # Another thread has settled it, or has promised that it is cancelled.
        if self._keep_promise(getattr(error, "executed", None), None):
            counters.count("cancelled")
        counters.count(why.kind, -1)

    def release(self) -> None:
        """Release all callers that wait for the settled reply, after a kill."""
        self.reply.fulfil(None)

    def _correct(
        self, ending: "Ending", counters: "Counters", executed: bool | None, cause: BaseException | None
    ) -> None:
        """Keep the promise of a cancel, and correct the counters after a late answer."""
        if self._keep_promise(executed, cause):
            counters.count(ending, -1)
            counters.count("cancelled")
        elif self.is_given_up:
            counters.count(ending, -1)  # the job was counted as its worker was given up

    def _keep_promise(self, executed: bool | None, cause: BaseException | None) -> bool:
        """Reject the reply as the cancel has promised; say whether this call did so.

        Two threads may be here at once. The first that appends its outcome counts the cancel.
        """
        if self.cancel is None or self.reply.done():
            return False
        error, ends = self.cancel.error(self, executed), self.cancel.ends
        mine = Rejection(error if cause is None else _caused(error, cause))
        ends.append(mine)
        self.reply.fulfil(ends[0])
        return ends[0] is mine

    def _executed(self, error: BaseException) -> bool | None:
        """Say whether a statement that was interrupted, and ended with `error`, took effect."""
        executed: bool | None = getattr(error, "executed", False)
        if executed:
            # The result was lost after the commit. A session is undone as a whole.
            return self.checkout is None
        # The statements of a script that came before an interrupted one stay done.
        return None if isinstance(self.request, Script) else executed


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error
