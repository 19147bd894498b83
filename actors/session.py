"""Session: a transaction for interactive work."""

from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from actors.conversation import SessionTalk
from actors.databases.steps import Within
from actors.errors import QuerycrewError, SessionClosed
from actors.messages import Query
from actors.reply import Reply
from actors.result import Result

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Session"]


class Session:
    """A transaction whose statements are asked one by one: made by `SupervisorRef.transaction`, used by `with`.

    It begins as the block is entered, on a worker that serves nobody else until it ends: at the end of the block it
    is committed, after an error rolled back. It is rolled back, too, and its worker free again, once its time is over,
    once it is dropped, and whatever dies. An error of a statement undoes that statement alone.

    May be used from any thread, or from any task of an event loop by `async with`; statements run one after the other.
    """

    def __init__(self, begin: "Callable[[], SessionTalk]", check_may_wait: "Callable[[], None]") -> None:
        # Submits the job.
        self._begin = begin
        # Raises `WouldDeadlock` in a thread of the crew.
        self._check_may_wait = check_may_wait
        self._talk: SessionTalk | None = None
        # Whether it was committed or rolled back by its owner.
        self._left = False

    @overload
    def ask(self, query: Query, *, block: Literal[True] = True) -> Result: ...
    @overload
    def ask(self, query: Query, *, block: Literal[False]) -> Reply[Result]: ...
    def ask(self, query: Query, *, block: bool = True) -> Any:
        """Run a query in this transaction, and return its `Result`, or with `block=False` its `Reply`.

        To cancel the reply is to cancel the whole transaction.

        Raises:
            TypeError: it is no `Query`.
            ValueError: it has a `timeout` of its own.
            SessionClosed: the transaction has not begun, or is over.
            TransactionBroken: an error has rolled it back, or the query ended it by hand.
            QueryTimeout, WorkerDied: nothing of it has taken effect; the same for all that is asked after it.
            Exception: the driver's own error.
        """
        if not isinstance(query, Query):
            message = f"a transaction takes Query, not {type(query).__name__}"
            raise TypeError(message)
        if query.timeout is not None:
            message = "a Query of a transaction cannot have a timeout of its own: give it to transaction()"
            raise ValueError(message)
        talk = self._entered()
        if not block:
            return talk.refuse() if self._left else talk.ask(Within(query))
        self._check_may_wait()
        return self._wait(talk.refuse() if self._left else talk.ask(Within(query)))

    def rollback(self) -> None:
        """Undo all of it, now; what is asked afterwards is refused. Never waits."""
        self._entered().hang_up()
        self._left = True

    def _entered(self) -> SessionTalk:
        if self._talk is None:
            message = "the transaction has not begun: use it as `with db.transaction() as tx:`"
            raise SessionClosed(message)
        return self._talk

    def _wait(self, reply: Reply[Any]) -> Any:
        try:
            return reply.get()
        except BaseException:
            if not reply.done():  # Ctrl-C: nobody will take the answer
                self._entered().hang_up()
            raise
        finally:
            del reply  # the traceback of an error holds this frame, and it would hold the error

    def _refuse_second_use(self) -> None:
        if self._talk is not None:
            message = "a transaction is entered once; make another one"
            raise SessionClosed(message)

    def _enter(self) -> SessionTalk:
        self._refuse_second_use()
        self._talk = self._begin()
        return self._talk

    def __enter__(self) -> Self:
        self._refuse_second_use()
        self._check_may_wait()
        self._wait(self._enter().open())
        return self

    async def __aenter__(self) -> Self:
        await self._enter().open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        talk, left = self._entered(), self._left
        self._left = True
        if error is None and not left:
            self._wait(talk.commit())
        else:
            talk.hang_up()
            talk.end.exception()  # what was undone is undone when the block is left

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        talk, left = self._entered(), self._left
        self._left = True
        if error is None and not left:
            try:
                await talk.commit()
            except BaseException as failure:
                if not talk.end.done():  # the task was cancelled, and the commit is on its way
                    failure.add_note("querycrew: the transaction was about to be committed, and is not rolled back")
                raise
        else:
            talk.hang_up()
            with suppress(QuerycrewError):
                await talk.end  # what was undone is undone when the block is left

    def __del__(self) -> None:
        if getattr(self, "_talk", None) is not None:
            self._entered().hang_up()

    def __repr__(self) -> str:
        state = "not begun" if self._talk is None else "over" if self._talk.end.done() else "open"
        return f"<Session {state}>"
