"""Session: a transaction for interactive work."""

from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from actors.replies.interactive import SessionCheckout
from actors.replies.reply import Reply
from actors.replies.stream import RowStream
from actors.system.event_loops import current_loop, settled_on
from actors.system.tracebacks import trim_to_caller
from actors.values.errors import SessionClosed, WouldDeadlock
from actors.values.requests import Call, Query, Script, Stream
from actors.values.result import Result

__all__ = ["Session"]

T = TypeVar("T")


class Session:
    """A transaction whose requests come one by one: `with db.transaction() as tx:`.

    The transaction begins when the block is entered. Its worker serves no other caller until the
    transaction ends. The end of the block commits the transaction. An error that leaves the block
    rolls it back.

    The crew also rolls the transaction back, and its worker is free again, when the time of the
    transaction is over, when the session is dropped, or when the worker dies. If a request fails,
    only this request is undone, and the transaction goes on.

    Without a block, `begin()`, `commit()` and `rollback()` do the same. A transaction begins at
    most once.

    Any thread may use a session, and any task of an event loop may use it by `async with`. Requests
    run one after the other.
    """

    def __init__(
        self,
        make: "Callable[[], SessionCheckout]",
        submit: "Callable[[SessionCheckout], None]",
        check_may_wait: "Callable[[], None]",
    ) -> None:
        # Makes the checkout. The session knows the checkout before its job is submitted. So it can
        # release the worker at any later moment.
        self._make = make
        self._submit = submit
        # Raises `WouldDeadlock` in a thread of the crew.
        self._check_may_wait = check_may_wait
        self._checkout: SessionCheckout | None = None

    # --- beginning ------------------------------------------------------------------------

    @overload
    def begin(self, *, block: Literal[True] = True) -> None: ...
    @overload
    def begin(self, *, block: Literal[False]) -> Reply[None]: ...
    @overload
    def begin(self, *, block: bool) -> Reply[None] | None: ...
    def begin(self, *, block: bool = True) -> Reply[None] | None:
        """Begin, or return the reply of the beginning. The caller must end the transaction.

        If this raises, or the task that awaits the reply is cancelled, no transaction has begun.

        Raises:
            SessionClosed: the transaction was begun before.
            QueryTimeout: the transaction could not begin in time.
            Exception: the same errors as for entering the block. See `SupervisorRef.transaction`.
        """
        self._check_new()
        try:
            return self._begin(block=block)  # type: ignore[no-any-return]
        except BaseException as error:
            self._abandon()
            trim_to_caller(error)
            raise

    def __enter__(self) -> Self:
        self._check_new()
        try:
            self._begin(block=True)
        except BaseException as error:
            self._abandon()
            trim_to_caller(error)
            raise
        return self

    async def __aenter__(self) -> Self:
        self._check_new()
        try:
            await self._begin(block=False)
        except BaseException as error:
            self._abandon()
            trim_to_caller(error)
            raise
        return self

    def _check_new(self) -> None:
        if self._checkout is not None:
            message = "a transaction is entered once; make another one"
            raise SessionClosed(message)

    def _begin(self, *, block: bool) -> Any:
        if block:
            self._check_may_wait()
        self._checkout = checkout = self._make()
        reply = checkout.open()
        try:
            self._submit(checkout)
            return reply.get() if block else reply
        finally:
            del reply, checkout  # the traceback holds this frame, and the two hold the error

    def _abandon(self) -> None:
        """Release the worker. The transaction may have begun without the caller's knowledge."""
        if self._checkout is not None:
            self._checkout.abandon()

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
        """Run a request in this transaction. Return its answer, or with `block=False` its `Reply`.

        A `Script` or a `Call` that fails is undone as a whole. A `Stream` reads the state that this
        transaction sees. Several streams may be open at once, between other requests. If a `Call`
        changes settings of the connection, the changes are gone after the transaction.

        To cancel a reply that is not answered is to cancel the whole transaction.

        Raises:
            TypeError: a transaction does not take this request.
            ValueError: the request has a `timeout` of its own.
            SessionClosed: the transaction has not begun, or is over.
            TransactionBroken: an error has rolled the transaction back, or the request ended it.
            QueryTimeout, WorkerDied: nothing of the transaction has taken or will take effect.
            ResultLost: the answer cannot be sent from a child. The request is done in the
                transaction.
            Exception: the driver's own error, or the error of the function of a `Call`.
        """
        reply: Reply[Any] | None = None
        try:
            _check(request)
            checkout = self._entered()
            if block:
                self._check_may_wait()
            call = checkout.call_of(request)
            reply = call.reply
            checkout.ask(call)
            return reply.get() if block else reply
        except BaseException as error:
            if reply is not None:
                reply._give_up()  # Ctrl-C: the caller does not take the answer
            trim_to_caller(error)
            raise

    def _entered(self) -> SessionCheckout:
        if self._checkout is None:
            message = "the transaction has not begun: use it as `with db.transaction() as tx:`"
            raise SessionClosed(message)
        return self._checkout

    # --- ending ---------------------------------------------------------------------------

    @overload
    def commit(self, *, block: Literal[True] = True) -> None: ...
    @overload
    def commit(self, *, block: Literal[False]) -> Reply[None]: ...
    @overload
    def commit(self, *, block: bool) -> Reply[None] | None: ...
    def commit(self, *, block: bool = True) -> Reply[None] | None:
        """Commit after all earlier requests, or return the reply of the commit.

        The transaction refuses later requests. If the commit fails, everything is rolled back. To
        cancel the reply has no effect once the commit is the next step.

        Raises:
            SessionClosed: the transaction has not begun, or is over.
            TransactionBroken: an error has rolled the transaction back.
            QueryTimeout, WorkerDied: `executed` says whether the transaction is committed.
            Exception: the driver's own error.
        """
        try:
            checkout = self._entered()
            if block:
                self._check_may_wait()
            reply = checkout.commit()
            return reply.get() if block else reply
        except BaseException as error:
            if not isinstance(error, (SessionClosed, WouldDeadlock)):  # else the transaction is unchanged
                self._release_now()
            trim_to_caller(error)
            raise

    @overload
    def rollback(self, *, block: Literal[True] = True) -> None: ...
    @overload
    def rollback(self, *, block: Literal[False]) -> Reply[None]: ...
    @overload
    def rollback(self, *, block: bool) -> Reply[None] | None: ...
    def rollback(self, *, block: bool = True) -> Reply[None] | None:
        """Undo everything now, and interrupt the running request. Or return the reply of the end.

        The transaction refuses later requests. This has no effect if the transaction is over, or if
        its commit is the next step.

        This waits until everything is undone. It does not wait on a thread that runs an event loop,
        nor on a thread of the crew. There, await the reply of `block=False`.

        Raises:
            SessionClosed: the transaction has not begun.
        """
        try:
            checkout = self._entered()
            checkout.left = True
            checkout.release()
            if not block:
                return checkout.ended()
            if current_loop() is None:
                _wait_for_end(checkout)
        except BaseException as failure:
            self._release_now()
            trim_to_caller(failure)
            raise
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            checkout = self._entered()
            if error is None and not checkout.left:
                checkout.commit().get()
                return
            if error is not None:
                checkout.left = True
                checkout.release()
            _wait_for_end(checkout)  # everything is undone when the block is left
        except BaseException as failure:
            self._release_now()
            trim_to_caller(failure)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            checkout = self._entered()
            if error is None and not checkout.left:
                await checkout.commit()
                return
            if error is not None:
                checkout.left = True
                checkout.release()
            await _Ended(checkout)  # as in `__exit__`
        except BaseException as failure:
            if self._release_now():
                failure.add_note("querycrew: the transaction was about to be committed, and is not rolled back")
            trim_to_caller(failure)
            raise

    def _release_now(self) -> bool:
        """Roll back after an exception cut off the end. Say whether the commit goes on."""
        checkout = self._checkout
        if checkout is None:
            return False
        checkout.left = True
        checkout.release()
        return checkout.is_committing()

    def __del__(self) -> None:
        checkout: SessionCheckout | None = getattr(self, "_checkout", None)
        if checkout is not None and not checkout.left:
            checkout.left = True
            checkout.release()

    def __repr__(self) -> str:
        state = "not begun" if self._checkout is None else "over" if self._checkout.end.done() else "open"
        return f"<Session {state}>"


def _wait_for_end(checkout: SessionCheckout) -> None:
    try:
        checkout.end.exception()
    except WouldDeadlock:
        return  # a thread of the crew must not wait


class _Ended:
    """Awaits the end of a released transaction. It comes soon, or the worker is given up."""

    def __init__(self, checkout: SessionCheckout) -> None:
        self._end = checkout.end

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
