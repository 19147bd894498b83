"""SupervisorRef: a program's reference to a crew."""

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
from actors.system.tracebacks import trim_to_caller
from actors.system.waiting import Latch, current_owner, this_thread
from actors.values.checks import check_bool, check_isolation, check_timeout
from actors.values.contexts import in_context
from actors.values.errors import QuerycrewError, WouldDeadlock
from actors.values.requests import (
    REQUESTS,
    Backup,
    Call,
    Cancel,
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
    """A reference to a running crew. Any thread may call any method.

    The program must keep the reference that `Supervisor.start` returned. Once the reference is
    dropped, the crew stops as by `stop(block=False)`, with a `ResourceWarning`. Accepted requests
    are answered, and open transactions and streams go on.

    As a context manager the reference stops the crew at the end of the block:
    `with Supervisor.start("app.db") as db:`. `async with` does not block the event loop while the
    crew stops. The end of the block also ends open transactions and streams of the thread or task
    that leaves the block.

    If an exception leaves the block, queued requests are rejected and running requests are
    interrupted, as by `shutdown(cancel_pending=True, timeout=0)`. Then the exception goes on.
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
        # Stops the crew once this reference is dropped. `None` in the reference of the registry.
        self._keeper = keeper
        # The timeout of requests without a timeout of their own, in seconds.
        self._timeout = timeout
        self._dispatcher = dispatcher
        self._ended = ended

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """The errors of crew and driver, for `except db.errors:`. See `QuerycrewError`."""
        return (QuerycrewError, *self._driver_errors)

    # Pykka's signatures take any message. These signatures tell the type of each answer.
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
    def ask(self, message: Cancel, *, block: Literal[True] = True, timeout: float | None = None) -> bool: ...
    @overload
    def ask(self, message: Cancel, *, block: Literal[False], timeout: float | None = None) -> Reply[bool]: ...
    @overload
    def ask(self, message: Cancel, *, block: bool, timeout: float | None = None) -> bool | Reply[bool]: ...
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
        self,
        message: Request | Status | Cancel | Subscribe | Unsubscribe,
        *,
        block: bool = True,
        timeout: float | None = None,
    ) -> Any:
        """Hand `message` to the crew and return its answer, or with `block=False` its `Reply`.

        The reply is settled exactly once, even if workers die. With `block=True` the caller waits
        for the answer. With `block=False` the caller never waits.

        Args:
            message: a `Query`, `Script`, `Transaction`, `Call`, `Stream` or `Backup`, `Status()`,
                `Cancel(job_id)`, `Subscribe(actor_ref)` or `Unsubscribe(actor_ref)`.
            block: whether to wait for the answer.
            timeout: seconds to wait for the answer. Then the job is cancelled. With `block=False`
                it is the request's deadline, unless the request has an earlier one. The `timeout`
                of a request tells more, since its error says whether the statement ran.

        Raises:
            TypeError: `message` is not a request.
            pykka.Timeout: no answer within `timeout`.
            QueueFull, DatabaseUnavailable: the job was refused. Nothing ran.
            Overloaded: the job has waited too long in a queue that stands. Nothing ran.
            SupervisorStopped: the crew stops. `executed` says whether the job ran.
            QueryTimeout: the `timeout` of the request, or of the crew, has passed.
            QueryCancelled: another thread cancelled the reply.
            WorkerDied: the worker died. It is unknown whether the request took effect.
            WouldDeadlock: called with `block=True` on a thread of the crew, or by a caller whose
                transactions and streams hold all workers for the job.
            Exception: the driver's own error.
        """
        dispatcher = self._dispatcher
        reply: Reply[Any] = Reply(dispatcher)
        try:
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
            if isinstance(message, _SPECIAL):
                reply, job = self._special_job(message, now, deadline)
            else:
                job = Job(message, reply, now, deadline)
            dispatcher.submit(job)
            return reply.get(timeout=timeout) if block else reply
        except BaseException as error:
            # Any exception, even that of a signal handler: the caller does not take the answer, so
            # the job is cancelled.
            reply._give_up()
            trim_to_caller(error)
            raise

    def _special_job(
        self, request: Call[Any] | Stream | Backup, now: float, deadline: float | None
    ) -> tuple[Reply[Any], Job]:
        """Return the caller's reply and the job of a `Call`, a `Stream` or a `Backup`.

        A `Call` needs the caller's context. The other two need a checkout.
        """
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
        self,
        *,
        readonly: bool = False,
        timeout: float | None = 30.0,
        wait: float | None = None,
        isolation: str | None = None,
    ) -> "Session":
        """Return a transaction whose requests come one by one: `with db.transaction() as tx:`.

        The transaction begins when the block is entered. Its worker serves no other caller until
        the transaction ends. With `readonly=True` the worker is a reader. Otherwise it is the
        writer, and all other writes wait.

        Args:
            readonly: whether the transaction only reads. It then sees one state of the database.
            timeout: seconds from the beginning of the block until the end. Then the transaction is
                rolled back. `None` means the crew's default. Infinity means no limit.
            wait: seconds from the beginning of the block until the transaction has its worker and
                its lock. `None` is no limit but `timeout`.
            isolation: the isolation level, as for a `Transaction`.

        Raises:
            TypeError, ValueError: `timeout` or `wait` is not a number of seconds of 0 or more, or
                `isolation` is no level.
            WouldDeadlock: the block was entered by `with` on a thread of the crew.
            QueueFull, DatabaseUnavailable, SupervisorStopped, Overloaded: the block was not
                entered. No transaction has begun.
            QueryTimeout: the block was not entered within `wait` or `timeout`. No transaction has
                begun or will begin.
        """
        from actors.databases.steps import Begin  # few programs need it
        from actors.replies.interactive import SessionCheckout  # as above
        from actors.replies.session import Session

        level = check_isolation("transaction", isolation)
        request = Interactive(check_bool("transaction", "readonly", readonly), timeout, wait, level)
        if timeout is not None:
            check_timeout("transaction", timeout)
        if wait is not None:
            check_timeout("transaction", wait, "wait")
        make = partial(SessionCheckout, self._dispatcher, Begin(readonly, level))
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
        elif isinstance(message, Cancel):
            try:
                reply.settle(self._dispatcher.cancel_by_id(message.job_id))
            except LookupError as error:
                reply.reject(error)
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
        """Wait until the crew is up: a worker has opened the database.

        `Supervisor.start` does not wait for that. A program that waits finds a wrong path at its
        start.

        Args:
            block: whether to wait here.
            timeout: seconds to wait. The crew keeps starting after that.

        Returns:
            None. With `block=False` the reply, for `await`.

        Raises:
            DatabaseUnavailable: no worker can open the database. The text says why.
            SupervisorStopped: the crew is stopping or stopped.
            pykka.Timeout: no worker has opened the database within `timeout`.
            WouldDeadlock: called with `block=True` on a thread of the crew.
        """
        if block:
            self._check_may_wait()
        if timeout is not None:
            check_timeout("wait", timeout)
        reply: Reply[None] = Reply(self._dispatcher)
        heard: Reply[None] = Reply(self._dispatcher)
        # A supervisor that ends before it reads the message does not settle `reply`. Pykka rejects
        # `heard` then.
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
        except BaseException as error:
            trim_to_caller(error)
            raise

    def cancel(self, job_id: int) -> bool:
        """Cancel the job with an id, as `Reply.cancel` does. Never waits.

        It ends a job whose reply is lost. `Status` and `Reply.id` tell the id. A worker's first job
        is `WorkerStatus.jobs[0]`, and the oldest jobs that wait are `CrewStatus.waiting`. To cancel
        the job of a transaction, a stream or a backup ends all of it.

        Returns:
            True if the job will be rejected with `QueryCancelled`, False if it has ended.

        Raises:
            LookupError: the crew has given no job this id.
            TypeError: the id is not a whole number.
        """
        return self._dispatcher.cancel_by_id(Cancel(job_id).job_id)

    def watch(self, *, refresh: float = 1.0) -> None:
        """Show the crew live on the terminal, until the key `q` or Ctrl-C.

        It runs in the caller's thread, and restores the terminal at every way out. The crew and
        other threads go on meanwhile. If standard output or standard input is no terminal, or
        `rich` is not installed, it writes the state once as plain lines.

        Args:
            refresh: seconds between two looks at the crew.
        """
        from importlib import import_module  # few programs need it

        check_timeout("watch", refresh, "refresh")
        # The view is a program above this library, so no module of the library imports it.
        watching = import_module("actors.console.watching")
        watching.watch(self, refresh=max(refresh, _SHORTEST_REFRESH))

    def tell(self, message: Request | Cancel | ActorStop) -> None:
        """Hand `message` to the crew without an answer. An error is logged.

        Raises:
            TypeError: `message` is not a request.
        """
        if isinstance(message, ActorStop):
            super().tell(message)
            return
        if not can_be_told(message):
            raise TypeError(_not_a_request(message, told=True))
        if isinstance(message, Cancel):
            reply = self.ask(message, block=False)
            reply.add_done_callback(partial(_log_failure, self._dispatcher.name, message))
            return
        now = self._dispatcher.clock()
        if isinstance(message, _SPECIAL):
            reply, job = self._special_job(message, now, self._deadline(now, message))
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
        """Stop the crew once all accepted requests are answered. Refuse later requests.

        An open transaction or stream of the caller without a deadline is ended, since the caller
        would wait for itself. Other transactions and streams go on until their end. `shutdown` with
        a `timeout` limits that time.

        This does not wait on a thread of the crew, nor in code that the garbage collector or a
        signal runs in the middle of an `ask`. Such a caller would wait for itself.

        Args:
            block: whether to wait for the end.
            timeout: seconds to wait for the end. The crew keeps stopping after that.

        Returns:
            True if the crew was running, False if it had ended. With `block=False` a future of
            that.

        Raises:
            pykka.Timeout: the crew has not ended within `timeout`.
        """
        self._dispatcher.stop_accepting()
        asked: Reply[None] = Reply(self._dispatcher)
        alive = self.is_alive()
        if block:
            self._release_own(endless=True)
        # A closed mailbox answers at once.
        self.actor_inbox.put(Envelope(ActorStop(), reply_to=asked))
        stopped = Derived([asked], lambda _: alive)
        if not block:
            return stopped
        return alive if self._must_not_wait() else stopped.get(timeout=timeout)

    def shutdown(self, wait: bool = True, *, cancel_pending: bool = False, timeout: float | None = None) -> None:
        """Stop the crew, as `concurrent.futures.Executor.shutdown` does, with a time limit.

        Args:
            wait: whether to wait for the end.
            cancel_pending: whether to reject queued jobs instead of running them.
            timeout: seconds until the crew rejects the jobs that are still queued and interrupts
                the jobs that still run, both with `SupervisorStopped`. `None` is never.

        Raises:
            ValueError: `timeout` is negative.
        """
        if timeout is not None and not timeout >= 0:
            message = f"shutdown(timeout={timeout}) must be 0 or more seconds, or None"
            raise ValueError(message)
        self._dispatcher.stop_accepting()
        with suppress(pykka.ActorDeadError):  # the crew is ending already
            self.actor_inbox.put(Envelope(Shutdown(cancel_pending, timeout)))
        if wait and not self._must_not_wait():
            if timeout is None:
                self._release_own(endless=True)
            heed_executors()
            self.wait_until_ended()

    def proxy(self) -> Never:
        """Refuse, since a crew has no methods to proxy.

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
            self._release_own()
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
            self._release_own()
            if kind is not None:
                self.shutdown(wait=False, cancel_pending=True, timeout=0)
            stopped = self.stop(block=False)
            if not self._must_not_wait():
                await stopped
        except BaseException:
            self._stop_at_least()
            raise

    def _stop_at_least(self) -> None:
        """Stop without waiting, after an exception cut off the end of the block."""
        self._release_own()
        self.stop(block=False)

    def __repr__(self) -> str:
        return f"<SupervisorRef {self._dispatcher!r}>"

    __str__ = __repr__

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in _FOR_THE_SUPERVISOR]

    def __eq__(self, other: object) -> bool:
        """Say whether both refer to the same crew. Pykka's registry has a reference of its own."""
        return isinstance(other, SupervisorRef) and other.actor_urn == self.actor_urn

    def __hash__(self) -> int:
        """Return the same number for all references to a crew."""
        return hash(self.actor_urn)

    def wait_until_ended(self, timeout: float | None = None) -> bool:
        """Wait until the crew has ended and has closed everything. Say whether it has ended."""
        return self._ended.wait(timeout)

    def _check_may_wait(self) -> None:
        if self._must_not_wait():
            raise WouldDeadlock(_WOULD_DEADLOCK.format(self._dispatcher.name))

    def _release_own(self, *, endless: bool = False) -> None:
        """End the caller's checkouts before the caller waits. No other thread would end them."""
        if self._dispatcher.has_checkouts:
            for checkout in self._dispatcher.checkouts_of(current_owner(), endless=endless):
                checkout.release()

    def _must_not_wait(self) -> bool:
        return this_thread.crew is self._dispatcher or self._dispatcher.is_mine()


_FOR_THE_SUPERVISOR = frozenset({"wait_until_ended"})
"""Methods for the supervisor. Completion at a prompt does not offer them."""

_SHORTEST_REFRESH = 0.05  # seconds

_SPECIAL = (Call, Stream, Backup)  # their jobs need a context or a checkout

_FOREVER = 1e9  # seconds: thirty years, which do not overflow any clock

_WOULD_DEADLOCK = (
    "this thread belongs to crew {0!r}, and would wait for itself; use block=False here with "
    "add_done_callback(), or ask another crew"
)


def _not_a_request(message: object, *, told: bool = False) -> str:
    if isinstance(message, str):
        return f"a crew takes requests, not plain SQL; wrap it: Query({shorten(message)!r})"
    if told and isinstance(message, (Stream, Status, Subscribe, Unsubscribe)):
        return f"a {type(message).__name__} needs its answer, which tell() drops: use ask()"
    kinds = "Query, Script, Transaction, Call" + (
        " and Backup" if told else ", Stream, Backup, Status, Cancel and Subscribe"
    )
    given = f"the class {message.__name__} itself" if isinstance(message, type) else type(message).__name__
    return f"a crew takes {kinds}, not {given}"


def _log_failure(crew: str, request: Request | Cancel, reply: Reply[Any]) -> None:
    error = reply.exception()
    if error is not None:
        log(__name__, "error", "told_request_failed", crew=crew, request=request, error=error)
