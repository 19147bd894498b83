"""How a write is submitted, so that another step can interrupt it.

As a request, or as a session.
"""

import threading
from contextlib import suppress
from typing import Any

import apsw
import pykka

from supervisor import Reply, SupervisorRef
from tests.stress.truth.law import Told
from tests.stress.truth.write import Asked, Session

__all__ = ["PATIENCE", "Pending", "Waiter", "ask", "ask_and_wait"]

PATIENCE = 60.0
"""Seconds after which an answer counts as missing."""


class Pending:
    """A request that was asked without waiting."""

    def __init__(self, reply: Reply[Any]) -> None:
        self.reply = reply

    def cancel(self) -> None:
        self.reply.cancel()

    def told(self) -> Told:
        """Wait for the outcome."""
        try:
            error = self.reply.exception(PATIENCE)
        except pykka.Timeout as late:
            error = late
        return Told(None if error is not None else self.reply.get(), error)


class _PendingSession(Pending):
    """A session in a thread of its own."""

    def __init__(self, db: SupervisorRef, session: Session) -> None:
        self._told: Told | None = None
        self._thread = threading.Thread(target=self._run, args=(db, session), name="session")
        self._thread.start()

    def _run(self, db: SupervisorRef, session: Session) -> None:
        self._told = _in_a_session(db, session, self)

    def cancel(self) -> None:
        """Cancel the statement that runs, and with it the transaction."""
        reply: Reply[Any] | None = getattr(self, "reply", None)
        if reply is not None:
            reply.cancel()

    def told(self) -> Told:
        """Wait for the outcome."""
        self._thread.join(PATIENCE)
        assert self._told is not None, "a session has no end"
        return self._told


def _in_a_session(db: SupervisorRef, session: Session, pending: Pending | None = None) -> Told:
    results: list[Any] = []
    try:
        with db.transaction(timeout=session.timeout) as tx:
            for request in session.requests:
                reply = tx.ask(request, block=False)
                if pending is not None:
                    pending.reply = reply
                with suppress(*_forgiven(session)):
                    results.append(reply.get(timeout=PATIENCE))
    except Exception as error:
        return Told(error=error)
    return Told(results)


def _forgiven(session: Session) -> tuple[type[BaseException], ...]:
    return (apsw.ConstraintError,) if session.forgives else ()


def ask(db: SupervisorRef, asked: Asked, timeout: float | None = None) -> Pending:
    """Ask without waiting; `timeout` is the deadline of a request that is no session."""
    if isinstance(asked, Session):
        return _PendingSession(db, asked)
    return Pending(db.ask(asked, block=False, timeout=timeout))


def ask_and_wait(db: SupervisorRef, asked: Asked, timeout: float | None = None) -> Told:
    """Ask, and wait for so many seconds; a session is not limited so."""
    if isinstance(asked, Session):
        return _in_a_session(db, asked)
    try:
        return Told(db.ask(asked, timeout=timeout))
    except Exception as error:
        return Told(error=error)


class Waiter:
    """A write that a task of an event loop asks for and awaits."""

    def __init__(self, db: SupervisorRef, asked: Asked) -> None:
        self._db = db
        self._asked = asked
        # Of a session: whether it was about to commit.
        self._left = False
        self.reply: Reply[Any] | None = None if isinstance(asked, Session) else db.ask(asked, block=False)

    async def wait(self) -> Any:
        if self.reply is not None:
            return await self.reply
        assert isinstance(self._asked, Session)
        results: list[Any] = []
        async with self._db.transaction(timeout=self._asked.timeout) as tx:
            for request in self._asked.requests:
                with suppress(*_forgiven(self._asked)):
                    results.append(await tx.ask(request, block=False))
            self._left = True
        return results

    def told(self, value: Any, error: BaseException | None) -> Told:
        """Return the outcome of the task.

        The reply of a request says more, if it is still there.
        """
        if self.reply is not None:
            return Pending(self.reply).told()
        return Told(value, error, may_be_done=self._left)
