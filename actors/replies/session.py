"""Session: a transaction for interactive work."""

from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from actors.replies.interactive import SessionTalk
from actors.replies.reply import Reply
from actors.replies.stream import RowStream
from actors.system.event_loops import current_loop, settled_on
from actors.values.errors import SessionClosed, WouldDeadlock
from actors.values.requests import Call, Query, Script, Stream
from actors.values.result import Result

__all__ = ["Session"]

T = TypeVar("T")


class Session:
    """A transaction whose requests are asked one by one: `with db.transaction() as tx:`.

    It begins as the block is entered, on a worker that serves nobody else until it ends: at the end of the block it
    is committed, after an error rolled back. It is rolled back, too, and its worker free again, once its time is over,
    once it is dropped, and whatever dies. A request that fails is undone alone, and the transaction
    goes on.

    Without a block, `begin()`, `commit()` and `rollback()` do the same. A transaction is begun
    once.

    May be used from any thread, or from any task of an event loop by `async with`; requests run one
    after the other.
    """

    def __init__(
        self,
        make: "Callable[[], SessionTalk]",
        submit: "Callable[[SessionTalk], None]",
        check_may_wait: "Callable[[], None]",
    ) -> None:
        # Make the conversation, which is known here before its job is submitted: from then on it
        # can be hung up.
        self._make = make
        self._submit = submit
        # Raises `WouldDeadlock` in a thread of the crew.
        self._check_may_wait = check_may_wait
        self._talk: SessionTalk | None = None

    # --- beginning ------------------------------------------------------------------------

    @overload
    def begin(self, *, block: Literal[True] = True) -> None: ...
    @overload
    def begin(self, *, block: Literal[False]) -> Reply[None]: ...
    @overload
    def begin(self, *, block: bool) -> Reply[None] | None: ...
    def begin(self, *, block: bool = True) -> Reply[None] | None:
        """Begin, as entering the block does; or return the reply of that. The caller has to end it.

        If this raises, or the task that awaits the reply is cancelled, nothing is left begun.

        Raises:
            SessionClosed: it was begun before.
            QueryTimeout: it could not begin in time.
            Exception: as entering the block; see `SupervisorRef.transaction`.
        """
        self._check_new()
        try:
            return self._begin(block=block)  # type: ignore[no-any-return]
        except BaseException:
            self._abandon()
            raise

    def __enter__(self) -> Self:
        self._check_new()
        try:
            self._begin(block=True)
        except BaseException:
            self._abandon()
            raise
        return self

    async def __aenter__(self) -> Self:
        self._check_new()
        try:
            await self._begin(block=False)
        except BaseException:
            self._abandon()
            raise
        return self

    def _check_new(self) -> None:
        if self._talk is not None:
            message = "a transaction is entered once; make another one"
            raise SessionClosed(message)

    def _begin(self, *, block: bool) -> Any:
        if block:
            self._check_may_wait()
        self._talk = talk = self._make()
        reply = talk.open()
        try:
            self._submit(talk)
            return reply.get() if block else reply
        finally:
            del reply, talk  # the traceback of an error holds this frame, and these would hold the error

    def _abandon(self) -> None:
        """Hang up: its caller does not learn that it has begun, if it has."""
        if self._talk is not None:
            self._talk.abandon()

    # --- asking ---------------------------------------------------------------------------

    @overload
    def ask(self, request: Query | Script, *, block: Literal[True] = True) -> Result: ...
    @overload
    def ask(self, request: Query | Script, *, block: Literal[False]) -> Reply[Result]: ...
    @overload
    def ask(self, request: Query | Script, *, block: bool) -> Result | Reply[Result]: ...
    @overload
    def ask(self, request: Call[T], *, block: Literal[True] = True) -> T: ...
    @overload
    def ask(self, request: Call[T], *, block: Literal[False]) -> Reply[T]: ...
    @overload
    def ask(self, request: Call[T], *, block: bool) -> T | Reply[T]: ...
    @overload
    def ask(self, request: Stream, *, block: Literal[True] = True) -> RowStream: ...
    @overload
    def ask(self, request: Stream, *, block: Literal[False]) -> Reply[RowStream]: ...
    @overload
    def ask(self, request: Stream, *, block: bool) -> RowStream | Reply[RowStream]: ...
    def ask(self, request: Query | Script | Call[Any] | Stream, *, block: bool = True) -> Any:
        """Run a request in this transaction; return its answer, or with `block=False` its `Reply`.

        A `Script` and a `Call` are undone as a whole if they fail. A `Stream` reads what this
        transaction sees; several may be open at once, between other requests. What a `Call` changes
        of the connection itself is gone after the transaction.

        To cancel the reply is to cancel the whole transaction, unless it was answered.

        Raises:
            TypeError: it is no such request.
            ValueError: it has a `timeout` of its own.
            SessionClosed: the transaction has not begun, or is over.
            TransactionBroken: an error has rolled it back, or the request ended it by hand.
            QueryTimeout, WorkerDied: nothing of the transaction has taken effect, nor will.
            ResultLost: the answer cannot be brought from a child; the request is done in the transaction.
            Exception: the driver's own error, or that of the function of a `Call`.
        """
        _check(request)
        talk = self._entered()
        if block:
            self._check_may_wait()
        turn = talk.turn_of(request)
        reply = turn.reply
        try:
            talk.ask(turn)
            return reply.get() if block else reply
        except BaseException:
            reply._give_up()  # Ctrl-C: the caller does not take the answer
            raise
        finally:
            del turn, reply, talk  # as in `_begin`

    def _entered(self) -> SessionTalk:
        if self._talk is None:
            message = "the transaction has not begun: use it as `with db.transaction() as tx:`"
            raise SessionClosed(message)
        return self._talk

    # --- ending ---------------------------------------------------------------------------

    @overload
    def commit(self, *, block: Literal[True] = True) -> None: ...
    @overload
    def commit(self, *, block: Literal[False]) -> Reply[None]: ...
    @overload
    def commit(self, *, block: bool) -> Reply[None] | None: ...
    def commit(self, *, block: bool = True) -> Reply[None] | None:
        """Commit, behind all that was asked before; or return the reply of that.

        What is asked afterwards is refused.

        If it fails, all is rolled back. To cancel its reply does nothing once the commit is next.

        Raises:
            SessionClosed: the transaction has not begun, or is over.
            TransactionBroken: an error has rolled it back.
            QueryTimeout, WorkerDied: `executed` says whether it is committed.
            Exception: the driver's own error.
        """
        try:
            talk = self._entered()
            if block:
                self._check_may_wait()
            reply = talk.commit()
            return reply.get() if block else reply
        except (SessionClosed, WouldDeadlock):
            raise  # nothing has happened
        except BaseException:
            self._hang_up()
            raise

    @overload
    def rollback(self, *, block: Literal[True] = True) -> None: ...
    @overload
    def rollback(self, *, block: Literal[False]) -> Reply[None]: ...
    @overload
    def rollback(self, *, block: bool) -> Reply[None] | None: ...
    def rollback(self, *, block: bool = True) -> Reply[None] | None:
        """Undo all of it, now, and interrupt the request that runs; or return the reply of that.

        What is asked afterwards is refused. This does nothing if the transaction is over, or if its
        commit is next.

        It waits until all is undone, except on a thread that runs an event loop, and on one of the
        crew's own: there await the reply of `block=False`.

        Raises:
            SessionClosed: the transaction has not begun.
        """
        try:
            talk = self._entered()
            talk.left = True
            talk.hang_up()
            if not block:
                return talk.ended()
            if current_loop() is None:
                _wait_for_end(talk)
        except BaseException:
            self._hang_up()
            raise
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            talk = self._entered()
            if error is None and not talk.left:
                talk.commit().get()
                return
            if error is not None:
                talk.left = True
                talk.hang_up()
            _wait_for_end(talk)  # what was undone is undone when the block is left
        except BaseException:
            self._hang_up()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            talk = self._entered()
            if error is None and not talk.left:
                await talk.commit()
                return
            if error is not None:
                talk.left = True
                talk.hang_up()
            await _Ended(talk)  # as in `__exit__`
        except BaseException as failure:
            if self._hang_up():
                failure.add_note("querycrew: the transaction was about to be committed, and is not rolled back")
            raise

    def _hang_up(self) -> bool:
        """Roll back after an exception while it was ended; say whether the commit goes on."""
        talk = self._talk
        if talk is None:
            return False
        talk.left = True
        talk.hang_up()
        return talk.is_committing()

    def __del__(self) -> None:
        talk: SessionTalk | None = getattr(self, "_talk", None)
        if talk is not None and not talk.left:
            talk.left = True
            talk.hang_up()

    def __repr__(self) -> str:
        state = "not begun" if self._talk is None else "over" if self._talk.end.done() else "open"
        return f"<Session {state}>"


def _wait_for_end(talk: SessionTalk) -> None:
    try:
        talk.end.exception()
    except WouldDeadlock:
        return  # a thread of the crew must not wait


class _Ended:
    """Awaited until a transaction that was hung up is over: soon, or its worker is given up."""

    def __init__(self, talk: SessionTalk) -> None:
        self._end = talk.end

    def __await__(self) -> Generator[Any, None, None]:
        loop = current_loop()
        if loop is not None and not self._end.done():
            yield from settled_on(loop, self._end._add_waker, self._end._remove_waker, shielded=True)


def _check(request: object) -> None:
    """Raise unless a transaction takes this request."""
    kind = type(request).__name__
    if not isinstance(request, (Query, Script, Call, Stream)):
        message = f"a transaction takes Query, Script, Call and Stream, not {kind}"
        raise TypeError(message)
    if request.timeout is not None:
        message = f"a {kind} of a transaction cannot have a timeout of its own: give it to transaction()"
        raise ValueError(message)
