"""SupervisorRef: what a program holds of a crew."""

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Never, Self, TypeVar, overload

import pykka

from actors.dispatch.dispatcher import Dispatcher
from actors.dispatch.job import Job
from actors.keeper import Keeper
from actors.memory import with_memory
from actors.replies.derived import Derived
from actors.replies.reply import Reply
from actors.system.exit_and_fork import heed_executors
from actors.system.log import log
from actors.system.pykka_parts import ActorStop, Envelope
from actors.system.waiting import Latch, current_owner, this_thread
from actors.values.checks import check_bool, check_timeout
from actors.values.contexts import in_context
from actors.values.errors import QuerycrewError, WouldDeadlock
from actors.values.requests import (
    REQUESTS,
    Backup,
    Call,
    Interactive,
    Query,
    Request,
    Script,
    Shutdown,
    Status,
    Stream,
    Subscribe,
    Transaction,
    Unsubscribe,
    WaitUntilUp,
    can_be_told,
    shorten,
)
from actors.values.result import Result
from actors.values.status import CrewStatus

if TYPE_CHECKING:
    from types import TracebackType

    from actors.replies.checkout import Checkout
    from actors.replies.interactive import SessionCheckout
    from actors.replies.session import Session
    from actors.replies.stream import RowStream

__all__ = ["SupervisorRef"]

T = TypeVar("T")


class SupervisorRef(pykka.ActorRef[Any]):
    """A reference to a running crew; every method may be called from any thread.

    The program has to keep the reference that `Supervisor.start` returned. Once it is dropped, the
    crew stops as by `stop(block=False)`, with a `ResourceWarning`: accepted requests are answered,
    open transactions and streams go on.

    As a context manager it stops the crew at the end of the block: `with Supervisor.start("app.db") as db:`, or
    `async with`, which does not block the event loop meanwhile. Transactions and streams that whoever leaves the block
    has left open are ended. If an exception leaves the block, queued requests are rejected and running
    ones interrupted, as by `shutdown(cancel_pending=True, timeout=0)`; then the exception goes on.
    """

    def __init__(
        self,
        actor: pykka.Actor,
        dispatcher: Dispatcher,
        ended: Latch,
        timeout: float | None = None,
        *,
        driver_errors: tuple[type[BaseException], ...] = (Exception,),
        keeper: Keeper | None = None,
    ) -> None:
        super().__init__(actor)
        self._driver_errors = driver_errors
        # Stops the crew once this is dropped; `None` in the reference that Pykka's registry holds.
        self._keeper = keeper
        # Of requests without their own, in seconds.
        self._timeout = timeout
        self._dispatcher = dispatcher
        self._ended = ended

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The errors that a statement can end with, for `except db.errors:`; see `QuerycrewError`."""
        return (QuerycrewError, *self._driver_errors)

    # Pykka's own signatures take any message and any future; ours say what comes back.
    @overload  # type: ignore[override]
    def ask(
        self, message: Query | Script | Backup, *, block: Literal[True] = True, timeout: float | None = None
    ) -> Result: ...
    @overload
    def ask(
        self, message: Query | Script | Backup, *, block: Literal[False], timeout: float | None = None
    ) -> Reply[Result]: ...
    @overload
    def ask(
        self, message: Query | Script | Backup, *, block: bool, timeout: float | None = None
    ) -> Result | Reply[Result]: ...
    @overload
    def ask(
        self, message: Transaction, *, block: Literal[True] = True, timeout: float | None = None
    ) -> list[Result]: ...
    @overload
    def ask(
        self, message: Transaction, *, block: Literal[False], timeout: float | None = None
    ) -> Reply[list[Result]]: ...
    @overload
    def ask(
        self, message: Transaction, *, block: bool, timeout: float | None = None
    ) -> list[Result] | Reply[list[Result]]: ...
    @overload
    def ask(self, message: Call[T], *, block: Literal[True] = True, timeout: float | None = None) -> T: ...
    @overload
    def ask(self, message: Call[T], *, block: Literal[False], timeout: float | None = None) -> Reply[T]: ...
    @overload
    def ask(self, message: Call[T], *, block: bool, timeout: float | None = None) -> T | Reply[T]: ...
    @overload
    def ask(self, message: Stream, *, block: Literal[True] = True, timeout: float | None = None) -> "RowStream": ...
    @overload
    def ask(self, message: Stream, *, block: Literal[False], timeout: float | None = None) -> "Reply[RowStream]": ...
    @overload
    def ask(self, message: Stream, *, block: bool, timeout: float | None = None) -> "RowStream | Reply[RowStream]": ...
    @overload
    def ask(self, message: Status, *, block: Literal[True] = True, timeout: float | None = None) -> CrewStatus: ...
    @overload
    def ask(self, message: Status, *, block: Literal[False], timeout: float | None = None) -> Reply[CrewStatus]: ...
    @overload
    def ask(self, message: Status, *, block: bool, timeout: float | None = None) -> CrewStatus | Reply[CrewStatus]: ...
    @overload
    def ask(
        self, message: Subscribe | Unsubscribe, *, block: Literal[True] = True, timeout: float | None = None
    ) -> None: ...
    @overload
    def ask(
        self, message: Subscribe | Unsubscribe, *, block: Literal[False], timeout: float | None = None
    ) -> Reply[None]: ...
    @overload
    def ask(
        self, message: Subscribe | Unsubscribe, *, block: bool, timeout: float | None = None
    ) -> Reply[None] | None: ...
    def ask(
        self, message: Request | Status | Subscribe | Unsubscribe, *, block: bool = True, timeout: float | None = None
    ) -> Any:
        """Hand `message` to the crew and return its answer, or with `block=False` its `Reply`.

        The reply is settled exactly once, whatever dies. Without `block=False` this waits, but
        nothing else ever waits for the crew.

        Args:
            message: a `Query`, `Script`, `Transaction`, `Call`, `Stream` or `Backup`; `Status()`,
                `Subscribe(actor_ref)` or `Unsubscribe(actor_ref)`.
            block: whether to wait for the answer.
            timeout: seconds to wait for it; then the job is cancelled. With `block=False` nobody waits, and it is
                the request's deadline, if that has none that comes earlier. A request's own `timeout` says more: it
                is an error that tells whether the statement ran.

        Raises:
            TypeError: `message` is not a request.
            pykka.Timeout: no answer within `timeout`.
            QueueFull, DatabaseUnavailable, SupervisorStopped, Overloaded: the job was refused, and nothing ran.
            QueryTimeout: the request's own `timeout`, or the crew's, has passed.
            QueryCancelled: another thread cancelled the reply.
            WorkerDied: its worker died; nobody knows whether it took effect.
            WouldDeadlock: called with `block=True` from one of the crew's own threads, or by one who holds all workers
                that could run it, by transactions or streams.
            Exception: the driver's own error.
        """
        dispatcher = self._dispatcher
        reply: Reply[Any] = Reply(dispatcher)
        if not isinstance(message, REQUESTS):
            self._ask_the_supervisor(message, reply)
            return reply.get(timeout=timeout) if block else reply
        if block:
            self._check_may_wait()
        if timeout is not None:
            check_timeout("ask", timeout)
        now, deadline = dispatcher.clock(), None
        if self._timeout is not None or message.timeout is not None or timeout is not None:
            deadline = self._deadline(now, message, None if block else timeout)
        if isinstance(message, _OF_THEIR_OWN):
            reply, job = self._job_of_its_own(message, now, deadline)
        else:
            job = Job(message, reply, now, deadline)
        try:
            dispatcher.submit(job)
            return reply.get(timeout=timeout) if block else reply
        except BaseException:
            # Whatever it is, even a signal handler's own exception: nobody will take the answer any more, and the
            # job shall cost nothing more.
            reply._give_up()
            raise
        finally:
            del reply, job  # the traceback of an error holds this frame, and these would hold the error

    def _job_of_its_own(
        self, request: Call[Any] | Stream | Backup, now: float, deadline: float | None
    ) -> tuple[Reply[Any], Job]:
        """Return the caller's reply and the job, for a request that needs more than these two."""
        if isinstance(request, Call):
            called: Reply[Any] = Reply(self._dispatcher)
            return called, Job(in_context(request), called, now, deadline)
        if isinstance(request, Stream):
            from actors.replies.stream import StreamCheckout  # few programs need it

            stream = StreamCheckout(self._dispatcher, request)
            reply: Reply[Any] = stream.open()
            checkout: Checkout = stream
        else:
            from actors.replies.checkout import BackupCheckout  # as above

            checkout = BackupCheckout(self._dispatcher, request)
            reply = checkout.end
        job = Job(request, checkout.end, now, deadline)
        job.checkout = checkout
        return reply, job

    def transaction(
        self, *, readonly: bool = False, timeout: float | None = 30.0, wait: float | None = None
    ) -> "Session":
        """Return a transaction whose requests are asked one by one: `with db.transaction() as tx:`.

        It begins as the block is entered. Until it ends, its worker is for nobody else: with `readonly=True` one of
        those that read, without it the one that writes, so that all other writes wait.

        Args:
            readonly: whether it only reads; all it reads is of one state of the database.
            timeout: seconds from the entering to the end; then it is rolled back. `None` means the crew's default, and
                infinity no limit.
            wait: seconds from the entering until it has begun, with its worker and its lock. `None`
                is no limit but `timeout`.

        Raises:
            TypeError, ValueError: `timeout` or `wait` is no number of seconds that can pass.
            WouldDeadlock: entered by `with` on one of the crew's own threads.
            QueueFull, DatabaseUnavailable, SupervisorStopped, Overloaded: as it is entered; nothing has begun.
            QueryTimeout: as it is entered, after `wait` or `timeout`; nothing has begun, or will.
        """
        from actors.replies.interactive import SessionCheckout  # few programs need it
        from actors.replies.session import Session

        request = Interactive(check_bool("transaction", "readonly", readonly), timeout, wait)
        if timeout is not None:
            check_timeout("transaction", timeout)
        if wait is not None:
            check_timeout("transaction", wait, "wait")
        make = partial(SessionCheckout, self._dispatcher, readonly=readonly)
        return Session(make, partial(self._begin, request), self._check_may_wait)

    def _begin(self, request: Interactive, checkout: "SessionCheckout") -> None:
        now = self._dispatcher.clock()
        checkout.deadline = self._deadline(now, request)
        job = Job(request, checkout.end, now, self._deadline(now, request, request.wait))
        job.checkout = checkout
        self._dispatcher.submit(job)

    def _deadline(self, now: float, request: Request, at_most: float | None = None) -> float | None:
        timeout = self._timeout if request.timeout is None else request.timeout
        if at_most is not None:
            timeout = at_most if timeout is None else min(timeout, at_most)
        return None if timeout is None or timeout >= _FOREVER else now + timeout

    def _ask_the_supervisor(self, message: object, reply: Reply[Any]) -> None:
        if isinstance(message, Status):
            reply.settle(with_memory(self._dispatcher.status()))
        elif isinstance(message, (Subscribe, Unsubscribe)):
            if not self.is_alive():
                reply.reject(self._dispatcher.stopped())
            self.actor_inbox.put(Envelope(message, reply_to=reply))
        else:
            raise TypeError(_not_a_request(message))

    @overload
    def wait(self, *, block: Literal[True] = True, timeout: float | None = None) -> None: ...
    @overload
    def wait(self, *, block: Literal[False], timeout: float | None = None) -> Reply[None]: ...
    def wait(self, *, block: bool = True, timeout: float | None = None) -> Any:
        """Wait until the crew is up: until a worker has opened the database.

        `Supervisor.start` does not wait for that. A program that waits learns at its start that a path is wrong.

        Args:
            block: whether to wait here.
            timeout: seconds to wait; the crew goes on starting.

        Returns:
            None; with `block=False` its reply, for `await`.

        Raises:
            DatabaseUnavailable: no worker can open the database, with the reason.
            SupervisorStopped: the crew is stopping or stopped.
            pykka.Timeout: no worker has opened the database within `timeout`.
            WouldDeadlock: called with `block=True` from one of the crew's own threads.
        """
        if block:
            self._check_may_wait()
        if timeout is not None:
            check_timeout("wait", timeout)
        reply: Reply[None] = Reply(self._dispatcher)
        heard: Reply[None] = Reply(self._dispatcher)
        # A supervisor that has ended, or ends before it reads this, answers nobody.
        heard._add_waker(lambda: heard.exception() and reply.reject(self._dispatcher.stopped()))
        self.actor_inbox.put(Envelope(WaitUntilUp(reply), reply_to=heard))
        if not block:
            return reply
        try:
            return reply.get(timeout=timeout)
        except pykka.Timeout:
            name, database = self._dispatcher.name, self._dispatcher.database
            message = f"crew {name!r}: no worker has opened {database} within {timeout} seconds; it goes on trying"
            raise pykka.Timeout(message) from None

    def tell(self, message: Request | ActorStop) -> None:
        """Hand `message` to the crew and forget it; an error is logged.

        Raises:
            TypeError: `message` is not a request.
        """
        if isinstance(message, ActorStop):
            super().tell(message)
            return
        if not can_be_told(message):
            raise TypeError(_not_a_request(message, told=True))
        now = self._dispatcher.clock()
        if isinstance(message, _OF_THEIR_OWN):
            reply, job = self._job_of_its_own(message, now, self._deadline(now, message))
        else:
            reply = Reply(self._dispatcher)
            job = Job(message, reply, now, self._deadline(now, message))
        reply.add_done_callback(partial(_log_failure, self._dispatcher.name, message))
        self._dispatcher.submit(job)

    @overload  # type: ignore[override]
    def stop(self, *, block: Literal[True] = True, timeout: float | None = None) -> bool: ...
    @overload
    def stop(self, *, block: Literal[False], timeout: float | None = None) -> Reply[bool]: ...
    @overload
    def stop(self, *, block: bool, timeout: float | None = None) -> bool | Reply[bool]: ...
    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        """Stop the crew once everything accepted so far is answered; later asks are refused at once.

        A transaction or stream of the caller's own that is still open and has no deadline is ended: it would wait for
        itself. Others are waited for; `shutdown` with a `timeout` does not wait so long.

        Called from one of the crew's own threads, or from code that the garbage collector or a signal
        runs in the middle of an ask, it does not wait: it would wait for itself.

        Args:
            block: whether to wait for the end.
            timeout: seconds to wait for it; stopping goes on.

        Returns:
            True if the crew was running, False if it had ended; with `block=False` a future of that.

        Raises:
            pykka.Timeout: the crew has not ended within `timeout`.
        """
        self._dispatcher.stop_accepting()
        asked: Reply[None] = Reply(self._dispatcher)
        alive = self.is_alive()
        if block:
            self._hang_up_own(endless=True)
        # A mailbox that is closed already answers at once.
        self.actor_inbox.put(Envelope(ActorStop(), reply_to=asked))
        stopped = Derived([asked], lambda _: alive)
        if not block:
            return stopped
        return alive if self._must_not_wait() else stopped.get(timeout=timeout)

    def shutdown(self, wait: bool = True, *, cancel_pending: bool = False, timeout: float | None = None) -> None:
        """Stop the crew, as `concurrent.futures.Executor.shutdown` does, with a time limit.

        Args:
            wait: whether to wait for the end.
            cancel_pending: reject what is queued instead of running it.
            timeout: seconds after which what is still queued is rejected and what is still
                running is interrupted, both with `SupervisorStopped`; `None` for never.

        Raises:
            ValueError: `timeout` is negative.
        """
        if timeout is not None and not timeout >= 0:
            message = f"shutdown(timeout={timeout}) must be 0 or more seconds, or None"
            raise ValueError(message)
        self._dispatcher.stop_accepting()
        with suppress(pykka.ActorDeadError):  # it is ending already
            self.actor_inbox.put(Envelope(Shutdown(cancel_pending, timeout)))
        if wait and not self._must_not_wait():
            if timeout is None:
                self._hang_up_own(endless=True)
            heed_executors()
            self.wait_until_ended()

    def proxy(self) -> Never:
        """Refuse: a crew is asked, not proxied.

        Raises:
            TypeError: always.
        """
        message = "a crew has no methods to proxy: send it requests with ask() and tell()"
        raise TypeError(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        try:
            self._hang_up_own()
            if kind is None:
                self.stop()
            else:
                self.shutdown(cancel_pending=True, timeout=0)
        except BaseException:
            self._stop_at_least()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        try:
            self._hang_up_own()
            if kind is not None:
                self.shutdown(wait=False, cancel_pending=True, timeout=0)
            stopped = self.stop(block=False)
            if not self._must_not_wait():
                await stopped
        except BaseException:
            self._stop_at_least()
            raise

    def _stop_at_least(self) -> None:
        """After an exception while the block was left: end what is open in it, and do not wait."""
        self._hang_up_own()
        self.stop(block=False)

    def __repr__(self) -> str:
        return f"<SupervisorRef {self._dispatcher!r}>"

    __str__ = __repr__

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in _FOR_THE_SUPERVISOR]

    def __eq__(self, other: object) -> bool:
        """Say whether both refer to the same crew; Pykka's registry has another reference to it."""
        return isinstance(other, SupervisorRef) and other.actor_urn == self.actor_urn

    def __hash__(self) -> int:
        """Return the same number for all references to a crew."""
        return hash(self.actor_urn)

    def wait_until_ended(self, timeout: float | None = None) -> bool:
        """Wait until the crew has ended and closed everything; say whether it has."""
        return self._ended.wait(timeout)

    def _check_may_wait(self) -> None:
        if self._must_not_wait():
            raise WouldDeadlock(_WOULD_DEADLOCK.format(self._dispatcher.name))

    def _hang_up_own(self, *, endless: bool = False) -> None:
        """End the checkouts of whoever calls this and is about to wait: nobody would go on with them."""
        if self._dispatcher.has_checkouts:
            for checkout in self._dispatcher.checkouts_of(current_owner(), endless=endless):
                checkout.release()

    def _must_not_wait(self) -> bool:
        return this_thread.crew is self._dispatcher or self._dispatcher.is_mine()


_FOR_THE_SUPERVISOR = frozenset({"wait_until_ended"})
"""Methods that completion at a prompt does not offer."""

_OF_THEIR_OWN = (Call, Stream, Backup)  # their jobs need a context, or take turns with the caller

_FOREVER = 1e9  # seconds: thirty years are as good as never, and overflow nothing

_WOULD_DEADLOCK = (
    "this thread belongs to crew {0!r}, and would wait for itself; use block=False here with "
    "add_done_callback(), or ask another crew"
)


def _not_a_request(message: object, *, told: bool = False) -> str:
    if isinstance(message, str):
        return f"a crew takes requests, not plain SQL; wrap it: Query({shorten(message)!r})"
    if told and isinstance(message, (Stream, Status, Subscribe, Unsubscribe)):
        return f"a {type(message).__name__} cannot be told, since nobody would get its answer: use ask()"
    kinds = "Query, Script, Transaction, Call" + (" and Backup" if told else ", Stream, Backup, Status and Subscribe")
    given = f"the class {message.__name__} itself" if isinstance(message, type) else type(message).__name__
    return f"a crew takes {kinds}, not {given}"


def _log_failure(crew: str, request: Request, reply: Reply[Any]) -> None:
    error = reply.exception()
    if error is not None:
        log(__name__, "error", "told_request_failed", crew=crew, request=request, error=error)
