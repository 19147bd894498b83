"""Job: a request on its way, with the reply that waits for it and the claim that decides who settles it."""

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
    """Why a job ends otherwise than by its statement. It claims a job that has not begun, or marks one that has."""

    __slots__ = ("ends", "error", "give_up_at", "kind")

    def __init__(
        self, kind: "Ending", error: Callable[["Job", bool | None], BaseException], give_up_at: float = float("inf")
    ) -> None:
        self.kind = kind
        """What the job counts as."""
        self.error = error
        """Makes the error, from the job and `executed`. It holds no job: a job that is done must not hold itself."""
        self.give_up_at = give_up_at
        """Monotonic seconds at which its worker is given up, if the job still runs."""
        self.ends: list[Rejection] = []
        """How the promise of a cancel was kept. Two threads may do that at once: the first one counts."""


class Job:
    """A request, from the moment it is asked until its reply is settled.

    **The owner of the claim settles the job.** A job may lie in several places at once: in a queue, in the batches of
    workers, in the timers. It has one claim. The owner is a batch, which begins the job, or an `Abort`, which rejects
    it. So a job is begun at most once. A cancel, a deadline or a stop comes before the begin, and then nothing of the
    job runs; or it finds a batch as the owner, and then it can only interrupt.

    Claiming is one step of the interpreter: each claimant appends itself to a list, and the first in it is the owner.
    A thread that is killed in the middle has either not claimed, or everybody can see that it has.
    """

    __slots__ = (
        *("abort", "cancel", "claims", "deadline", "lane", "reply", "request", "seen", "started_at", "submitted_at"),
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
        """The owner, and behind it for a moment those that came too late."""
        self.started_at = 0.0
        """Monotonic seconds; 0 until it is begun."""
        self.lane: Lane | None = None
        """Where it waits, or waited."""
        self.checkout: Checkout | None = None
        """The calls that it and its caller take while it runs, if they do."""
        self.seen = False
        """Whether the timers have noted its deadline, if it has one."""
        self.abort: Abort | None = None
        """Why it was interrupted while it ran, if it was."""
        self.cancel: Abort | None = None
        """The same of a cancel, which is promised to the caller once the reply says so (`Reply.promise`)."""
        self.waiter: tuple[object, ...] | None = None
        """The caller that waits for it without a time limit; see `current_owner`."""

    # --- the claim ------------------------------------------------------------------------

    def claim(self, by: object) -> bool:
        """Take the claim for `by`, an object that claims nothing else at this moment; say whether it has it now."""
        claims = self.claims
        if claims:
            return False
        claims.append(by)
        if claims[0] is by:
            return True
        self.step_back(by)
        return False

    def step_back(self, by: object) -> None:
        """Take back the mark of `by`, which came too late.

        The owner may have given the claim back meanwhile. Then another worker may have passed over the job, since it
        saw this mark. So the job is put back to where it waits.
        """
        self.unclaim(by)
        if not self.claims and self.lane is not None:
            self.lane.requeue([self])

    def unclaim(self, by: object) -> bool:
        """Give the claim of `by` back, since nothing of the job ran; say whether this call did so.

        Of several threads that give back one claim, one is told so.
        """
        try:
            self.claims.remove(by)
        except ValueError:
            return False
        return True

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
        """Monotonic seconds at which its worker is given up, if it was interrupted and still runs."""
        return min(each.give_up_at for each in (self.abort, self.cancel) if each is not None)

    # --- the end --------------------------------------------------------------------------

    def finish(self, outcome: Any, counters: "Counters") -> None:
        """Settle a job that has run, with its value or a `Rejection`, and count it before.

        A deadline promises nothing: an answer that is there is given. A cancel is promised, if the reply says so.
        """
        if type(outcome) is not Rejection:
            counters.answered += 1
            if not self.reply.settle(outcome):
                self._note_late("answered", counters, True, None)
            return
        error = outcome.error
        ending: Ending = "failed"
        if self.abort is not None:
            ending = self.abort.kind
            outcome = Rejection(_caused(self.abort.error(self, self._executed(error)), error))
        counters.count(ending)
        if not self.reply.settle(outcome):
            self._note_late(ending, counters, self._executed(error), error)

    def _note_late(
        self, ending: "Ending", counters: "Counters", executed: bool | None, cause: BaseException | None
    ) -> None:
        """Keep a promised cancel, and take back what was counted for an answer that came too late."""
        if self._keep_promise(executed, cause):
            counters.count(ending, -1)
            counters.count("cancelled")
        elif self.is_given_up:
            counters.count(ending, -1)  # it was counted as its worker was given up

    def refuse(self, error: BaseException, ending: "Ending", counters: "Counters | Admission") -> None:
        """Settle a job that did not run, or whose worker is gone, and count it before. A promised cancel is kept."""
        counters.count(ending)
        if self.reply.reject(error):
            return
        # Another thread has settled it, or has promised that it is cancelled.
        if self._keep_promise(getattr(error, "executed", None), None):
            counters.count("cancelled")
        counters.count(ending, -1)

    def release(self) -> None:
        """Release all that wait for the reply, which is settled: a kill may have cut that off."""
        self.reply.fulfil(None)

    def _keep_promise(self, executed: bool | None, cause: BaseException | None) -> bool:
        if self.cancel is None or self.reply.done():
            return False
        error, ends = self.cancel.error(self, executed), self.cancel.ends
        mine = Rejection(error if cause is None else _caused(error, cause))
        ends.append(mine)
        self.reply.fulfil(ends[0])
        return ends[0] is mine

    def _executed(self, error: BaseException) -> bool | None:
        """Say whether a statement that was interrupted, and ended with an error, took effect."""
        told: bool | None = getattr(error, "executed", False)
        if told:
            return self.checkout is None  # its result was lost behind its commit; a session is undone as a whole
        # The statements of a script that came before an interrupted one stay done.
        return None if isinstance(self.request, Script) else told


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error
