"""Conversation: what a job and its caller say to each other while a worker runs it.

A caller takes turns: it asks for a step, and its worker, which is for nobody else meanwhile, performs it and answers.
The reply of the job is the end of the conversation, and that is settled exactly once, whatever dies: all turns that
were not answered by then are rejected with it. So a conversation inherits every guarantee of a job.

Whoever drops its end hangs up. What wakes the worker is a queue whose `put` never waits, so that may happen in a
finalizer, too.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from actors.contexts import InContext
from actors.databases.steps import Begin, Commit, CopyPages, KeepCopy, MoreRows, OpenBackup, OpenRows, Step
from actors.errors import SessionClosed
from actors.messages import Backup, Stream
from actors.reply import Reply
from actors.result import Result
from actors.waiting import current_owner

if TYPE_CHECKING:
    from actors.dispatcher import Dispatcher

__all__ = ["BackupTalk", "Conversation", "SessionTalk", "StreamTalk", "Turn"]

T = TypeVar("T")


class TurnReply(Reply[T]):
    """The answer of one turn. To cancel it is to cancel all: a step cannot be taken out of its conversation."""

    __slots__ = ("_end",)

    def __init__(self, crew: Any, end: Reply[Any]) -> None:
        super().__init__(crew)
        self._end = end

    def _awaited_job(self) -> Any:
        return self._end.job

    def cancel(self) -> bool:
        """Cancel the job; see `Reply.cancel`."""
        return not self.done() and self._end.cancel()


class EndReply(TurnReply[T]):
    """The answer of a commit, which nobody takes back once it is asked."""

    __slots__ = ()

    def cancel(self) -> bool:
        """Do nothing."""
        return False


class Turn:
    """A step, and who waits for its answer."""

    __slots__ = ("reply", "step")

    def __init__(self, step: Step, reply: Reply[Any]) -> None:
        self.step = step
        self.reply = reply


class Conversation:
    """The turns of one job."""

    what = "conversation"
    """What it is called in errors."""

    def __init__(self, crew: "Dispatcher", opening: Step) -> None:
        self._crew = crew
        self._opening = opening
        self.owner = current_owner()
        """Who began it: nobody else, as a rule, takes turns."""
        self._calls: SimpleQueue[None] = SimpleQueue()
        # Taken and not yet answered, the one that the worker performs first.
        self._turns: deque[Turn] = deque()
        self._interrupted = False
        self.travels = False
        """Whether steps are performed in another process, so that it is worth while to ask for the next one early."""
        self.end: Reply[Any] = Reply(crew)
        """The reply of the job."""
        self.last: Any = None
        """What the last turn is answered by, once the job is done."""
        self.end.add_done_callback(lambda _: self._close())

    # --- the caller's side, any thread ----------------------------------------------------

    def open(self) -> TurnReply[Any]:
        """Take the first turn, once. Nothing here may keep its reply: whoever drops what it is answered by hangs up."""
        return self.ask(self._opening)

    def ask(self, step: Step) -> TurnReply[Any]:
        """Ask for a step, and return its reply."""
        return self._take(step, TurnReply(self._crew, self.end))

    def _take(self, step: Step, reply: TurnReply[Any]) -> TurnReply[Any]:
        self._turns.append(Turn(step, reply))
        self._calls.put(None)
        if self.end.done():
            self._close()
        return reply

    def refuse(self) -> TurnReply[Any]:
        """Return the reply of a step that comes too late."""
        reply: TurnReply[Any] = TurnReply(self._crew, self.end)
        reply.reject(self._closed())
        return reply

    def _closed(self) -> SessionClosed:
        return SessionClosed(f"the {self.what} is over, and takes no more steps")

    def hang_up(self) -> None:
        """Say that nobody is interested any more: the worker is free at once. Never waits, never raises."""
        if not self.end.done():
            self.end.cancel()

    def interrupt(self) -> None:
        """End the worker's waiting for a turn. Never waits, never raises."""
        self._interrupted = True
        self._calls.put(None)

    def forget_the_parent(self) -> None:
        """In the child of a fork: the threads that held the replies' locks may not be here."""
        for turn in list(self._turns):
            turn.reply.forget_the_parent()

    def _close(self) -> None:
        """Answer the turns that are left: the job is over."""
        error = self.end.exception()
        while self._turns:
            with suppress(IndexError):  # another thread may do the same
                turn = self._turns[0]
                if error is not None:
                    turn.reply.reject(error)
                elif self.last is not None:
                    turn.reply.settle(self.value_of(turn, self.last))
                    self.last = None
                else:
                    turn.reply.reject(self._closed())
                self._strike(turn)

    # --- the worker's side ----------------------------------------------------------------

    def next(self) -> Turn | None:
        """Return the next turn, waiting for it; `None` if there will be none."""
        while not self._turns and not self._interrupted:
            self._calls.get()
        return None if self._interrupted else self._turns[0]

    @property
    def waits_for_caller(self) -> bool:
        """Whether the worker has nothing to do until the caller takes the next turn."""
        return not self._turns

    def answer(self, turn: Turn, value: Any) -> None:
        """Answer a turn with what its step was answered by."""
        turn.reply.settle(self.value_of(turn, value))
        self._strike(turn)

    def reject(self, turn: Turn, error: BaseException) -> None:
        """Answer a turn with an error that is no end."""
        turn.reply.reject(error)
        self._strike(turn)

    def _strike(self, turn: Turn) -> None:
        with suppress(ValueError):  # another thread, which ends the conversation, has done it
            self._turns.remove(turn)

    # --- kinds ----------------------------------------------------------------------------

    def value_of(self, turn: Turn, value: Any) -> Any:
        """Return what the caller is given for what a step was answered by."""
        del turn
        return value

    @property
    def takes_no_effect(self) -> bool:
        """Whether nothing of it will have taken effect, if its worker dies now."""
        return False

    def ends_with(self, step: Step, value: Result | None) -> bool:
        """Say whether the job is over with this step, after it was answered by a value, or has failed (`None`)."""
        raise NotImplementedError

    def outcome_of(self, value: Result) -> Result | None:
        """Return what the job is answered by, from the answer of its last step."""
        del value
        return None


class SessionTalk(Conversation):
    """A transaction whose statements come one by one."""

    what = "transaction"

    def __init__(self, crew: "Dispatcher", *, readonly: bool) -> None:
        super().__init__(crew, Begin(readonly))

    def commit(self) -> TurnReply[Any]:
        """Ask for the last step."""
        return self._take(Commit(), EndReply(self._crew, self.end))

    @property
    def takes_no_effect(self) -> bool:
        """Whether it is not about to commit."""
        return not any(isinstance(turn.step, Commit) for turn in list(self._turns))

    def ends_with(self, step: Step, value: Result | None) -> bool:
        """Say whether it was the last step: an error of a statement leaves the transaction open."""
        return isinstance(step, Commit) or (value is None and isinstance(step, Begin))


class StreamTalk(Conversation):
    """The rows of a statement, as they are taken."""

    what = "stream"

    def __init__(self, crew: "Dispatcher", request: Stream, receive: Callable[["StreamTalk", Result], Any]) -> None:
        # Makes what the caller is given of the first rows.
        self._receive = receive
        super().__init__(crew, OpenRows(request.sql, request.params, request.chunk))

    def value_of(self, turn: Turn, value: Any) -> Any:
        """Return the stream for the first rows."""
        return self._receive(self, value) if isinstance(turn.step, OpenRows) else value

    def ends_with(self, step: Step, value: Result | None) -> bool:
        """Say whether there are no more rows."""
        del step
        return value is None or not value.truncated

    def more(self, rows: int) -> TurnReply[Result]:
        """Ask for so many rows."""
        return self.ask(MoreRows(rows))


class BackupTalk(Conversation):
    """A copy of a database, some pages at a time: nobody takes turns but itself."""

    what = "backup"

    def __init__(self, crew: "Dispatcher", request: Backup) -> None:
        self._request = request
        self._progress = None if request.progress is None else InContext(request.progress)
        self._is_whole = False
        super().__init__(crew, OpenBackup(request.path))

    @property
    def waits_for_caller(self) -> bool:
        """Whether the worker waits for the caller: a backup needs no caller to go on."""
        return False

    def next(self) -> Turn | None:
        """Return the next step; see `Conversation`."""
        if not self._turns:
            self.ask(KeepCopy() if self._is_whole else CopyPages(self._request.pages))
        return super().next()

    def ends_with(self, step: Step, value: Result | None) -> bool:
        """Tell how far it is, and say whether that is the end."""
        if value is not None and isinstance(step, CopyPages):
            copied, pages, _ = value.rows[0]
            self._is_whole = not value.truncated
            if self._progress is not None:
                self._progress(copied, pages)
        return value is None or isinstance(step, KeepCopy)

    def outcome_of(self, value: Result) -> Result:
        """Return how much was copied."""
        _, pages, page_size = value.rows[0]
        return Result(("pages", "bytes"), [(pages, pages * page_size)], 1)
