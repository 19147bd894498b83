"""SupervisorRef: what a program holds of a crew."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, Never, Self, TypeVar, overload

import pykka
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from actors.derived import Derived
from actors.dispatcher import Dispatcher
from actors.errors import WouldDeadlock
from actors.job import Job
from actors.log import log
from actors.memory import with_memory
from actors.messages import (
    REQUESTS,
    Call,
    Query,
    Request,
    Script,
    Shutdown,
    Status,
    Subscribe,
    Transaction,
    Unsubscribe,
    check_timeout,
)
from actors.reply import Reply
from actors.result import Result
from actors.status import CrewStatus
from actors.waiting import Latch, here

if TYPE_CHECKING:
    from types import TracebackType

    from supervisor import Supervisor

__all__ = ["SupervisorRef"]

T = TypeVar("T")


class SupervisorRef(pykka.ActorRef["Supervisor"]):
    """A reference to a running crew; every method may be called from any thread.

    As a context manager it stops the crew at the end of the block: `with Supervisor.start("app.db") as db:`, or
    `async with`, which does not block the event loop meanwhile.
    """

    def __init__(self, actor: "Supervisor", dispatcher: Dispatcher, timeout: float | None = None) -> None:
        super().__init__(actor)
        # Of requests without their own, in seconds.
        self._timeout = timeout
        self._dispatcher = dispatcher
        # Set once the crew has ended for good; unlike `actor_stopped`, after everything is closed.
        self._ended = Latch()

    # Pykka's own signatures take any message and any future; ours say what comes back.
    @overload  # type: ignore[override]
    def ask(self, message: Query | Script, *, block: Literal[True] = True, timeout: float | None = None) -> Result: ...
    @overload
    def ask(self, message: Query | Script, *, block: Literal[False], timeout: float | None = None) -> Reply[Result]: ...
    @overload
    def ask(self, message: Query | Script, *, block: bool, timeout: float | None = None) -> Result | Reply[Result]: ...
    @overload
    def ask(
        self, message: Transaction, *, block: Literal[True] = True, timeout: float | None = None
    ) -> list[Result]: ...
    @overload
    def ask(
        self, message: Transaction, *, block: Literal[False], timeout: float | None = None
    ) -> Reply[list[Result]]: ...
    @overload
    def ask(self, message: Call[T], *, block: Literal[True] = True, timeout: float | None = None) -> T: ...
    @overload
    def ask(self, message: Call[T], *, block: Literal[False], timeout: float | None = None) -> Reply[T]: ...
    @overload
    def ask(self, message: Status, *, block: Literal[True] = True, timeout: float | None = None) -> CrewStatus: ...
    @overload
    def ask(self, message: Status, *, block: Literal[False], timeout: float | None = None) -> Reply[CrewStatus]: ...
    @overload
    def ask(
        self, message: Subscribe | Unsubscribe, *, block: Literal[True] = True, timeout: float | None = None
    ) -> None: ...
    @overload
    def ask(
        self, message: Subscribe | Unsubscribe, *, block: Literal[False], timeout: float | None = None
    ) -> Reply[None]: ...
    def ask(
        self, message: Request | Status | Subscribe | Unsubscribe, *, block: bool = True, timeout: float | None = None
    ) -> Any:
        """Hand `message` to the crew and return its answer, or with `block=False` its `Reply`.

        The reply is settled exactly once, whatever dies. Without `block=False` this waits, but
        nothing else ever waits for the crew.

        Args:
            message: a `Query`, `Script`, `Transaction` or `Call`; `Status()`, `Subscribe(actor_ref)` or
                `Unsubscribe(actor_ref)`.
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
            WouldDeadlock: called with `block=True` from one of the crew's own threads.
            Exception: the driver's own error.
        """
        dispatcher = self._dispatcher
        reply: Reply[Any] = Reply(dispatcher)
        if not isinstance(message, REQUESTS):
            self._ask_the_supervisor(message, reply)
            return reply.get(timeout=timeout) if block else reply
        if block and self._must_not_wait():
            raise WouldDeadlock(_WOULD_DEADLOCK.format(dispatcher.name))
        if timeout is not None:
            check_timeout("ask", timeout)
        now = dispatcher.clock()
        limited = self._timeout is not None or message.timeout is not None or timeout is not None
        job = Job(message, reply, now, self._deadline(now, message, None if block else timeout) if limited else None)
        try:
            refusal = dispatcher.submit(job)
            if refusal is not None:
                reply.reject(refusal)
            return reply.get(timeout=timeout) if block else reply
        except BaseException:
            # Whatever it is, even a signal handler's own exception: nobody will take the answer any more, and the
            # job shall cost nothing more.
            reply.cancel()
            raise

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

    def tell(self, message: Request | _ActorStop) -> None:
        """Hand `message` to the crew and forget it; an error is logged.

        Raises:
            TypeError: `message` is not a request.
        """
        if isinstance(message, _ActorStop):
            super().tell(message)
            return
        if not isinstance(message, REQUESTS):
            raise TypeError(_not_a_request(message))
        reply: Reply[Any] = Reply(self._dispatcher)
        reply.add_done_callback(lambda reply: _log_failure(self._dispatcher.name, message, reply))
        now = self._dispatcher.clock()
        refusal = self._dispatcher.submit(Job(message, reply, now, self._deadline(now, message)))
        if refusal is not None:
            reply.reject(refusal)

    @overload  # type: ignore[override]
    def stop(self, *, block: Literal[True] = True, timeout: float | None = None) -> bool: ...
    @overload
    def stop(self, *, block: Literal[False], timeout: float | None = None) -> Reply[bool]: ...
    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        """Stop the crew once everything accepted so far is answered; later asks are refused at once.

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
        # A mailbox that is closed already answers at once.
        self.actor_inbox.put(Envelope(_ActorStop(), reply_to=asked))
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
        self.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        await self.stop(block=False)

    def __repr__(self) -> str:
        return f"<SupervisorRef {self._dispatcher!r}>"

    __str__ = __repr__

    def wait_until_ended(self, timeout: float | None = None) -> bool:
        """Wait until the crew has ended and closed everything; say whether it has."""
        return self._ended.wait(timeout)

    def note_end(self) -> None:
        """For the supervisor: release everybody who waits for the end."""
        self._ended.set()

    def forget_the_parent(self) -> None:
        """For the supervisor, in the child of a fork: the crew has ended here."""
        self._ended.set()

    def _must_not_wait(self) -> bool:
        return here.crew is self._dispatcher or self._dispatcher.is_mine()


_FOREVER = 1e9  # seconds: thirty years are as good as never, and overflow nothing

_WOULD_DEADLOCK = (
    "this thread belongs to crew {0!r}, and would wait for itself; use block=False here with "
    "add_done_callback(), or ask another crew"
)


def _not_a_request(message: object) -> str:
    return f"a crew takes Query, Script, Transaction, Call, Status and Subscribe, not {type(message).__name__}"


def _log_failure(crew: str, request: Request, reply: Reply[Any]) -> None:
    error = reply.exception()
    if error is not None:
        log(__name__, "error", "told_request_failed", crew=crew, request=request, error=error)
