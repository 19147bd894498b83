"""A reply's outcome, sent to an actor as a message, or as a `concurrent.futures.Future`."""

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Protocol

import pykka

from actors.system.log import log
from actors.values.errors import QueryCancelled
from actors.values.record import Record

__all__ = ["Outcome", "linked_future", "tell_outcome"]


class Outcome(Record):
    """The outcome of a request, as `Reply.pipe_to` sends it."""

    value: Any
    """The result. `None` after an error."""
    error: BaseException | None
    """The error. `None` after a success."""

    def get(self) -> Any:
        """Return the value or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


class _Settled(Protocol):
    """The methods of a reply that this module calls."""

    def get(self, *, timeout: float | None = None) -> Any: ...
    def exception(self, timeout: float | None = None) -> BaseException | None: ...
    def cancel(self) -> bool: ...
    def add_done_callback(self, callback: Callable[[Any], object]) -> None: ...
    def refuse_deadlock(self, *, endless: bool) -> None: ...


def _outcome(reply: _Settled) -> Outcome:
    error = reply.exception()
    return Outcome(reply.get(), None) if error is None else Outcome(None, error)


def tell_outcome(reply: _Settled, actor_ref: pykka.ActorRef[Any], wrap: Callable[[Outcome], object] | None) -> None:
    """Send the outcome of a settled reply to an actor."""
    message: object = _outcome(reply)
    if wrap is not None:
        try:
            message = wrap(_outcome(reply))
        except Exception as error:  # noqa: BLE001  # the actor still gets a message, with the error
            log(__name__, "error", "wrap_failed", actor=actor_ref.actor_urn, error=error)
            message = Outcome(None, error)
    try:
        actor_ref.tell(message)
    except pykka.ActorDeadError as error:
        log(__name__, "warning", "outcome_undelivered", actor=actor_ref.actor_urn, error=error)


class _LinkedFuture(Future[Any]):
    """A future that refuses a wait if the same wait for its reply would deadlock."""

    def __init__(self, reply: _Settled) -> None:
        super().__init__()
        self._reply = reply

    def result(self, timeout: float | None = None) -> Any:
        """Return the value. See `concurrent.futures.Future.result`."""
        if not self.done():
            self._reply.refuse_deadlock(endless=timeout is None)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error. See `concurrent.futures.Future.exception`."""
        if not self.done():
            self._reply.refuse_deadlock(endless=timeout is None)
        return super().exception(timeout)


def linked_future(reply: _Settled) -> Future[Any]:
    """Return a future that is settled with `reply`. To cancel one is to cancel the other."""
    future = _LinkedFuture(reply)

    def settle(settled: _Settled) -> None:
        outcome = _outcome(settled)
        with suppress(InvalidStateError):  # another thread cancelled the future at this moment
            if isinstance(outcome.error, QueryCancelled):
                future.cancel()
            if not future.set_running_or_notify_cancel():
                return
            if outcome.error is None:
                future.set_result(outcome.value)
            else:
                future.set_exception(outcome.error)

    def pass_on(future: Future[Any]) -> None:
        if future.cancelled():
            reply.cancel()

    future.add_done_callback(pass_on)
    reply.add_done_callback(settle)
    return future
