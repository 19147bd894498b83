"""Worker: one actor, one connection, one loop, one death notice."""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pykka

from actors.actor import CrewActor
from actors.databases.adapter import close, usable
from actors.databases.answers import checked
from actors.databases.base import Database
from actors.databases.steps import Close
from actors.dispatch import rejections
from actors.dispatch.batch import JobBatch
from actors.dispatch.dispatcher import Dispatcher
from actors.dispatch.job import Job
from actors.dispatch.worker_handle import WorkerHandle, WorkerState
from actors.system.log import log
from actors.system.waiting import this_thread
from actors.values.errors import ConnectionLost, ResultLost, WouldDeadlock
from actors.values.events import WorkerUp
from actors.values.places import note_request
from actors.values.rejection import Rejection, detached
from actors.values.requests import WorkerDown

if TYPE_CHECKING:
    from actors.replies.checkout import Checkout, StepCall

__all__ = ["Worker"]

_UNKNOWN: Final = (AttributeError, NotImplementedError, TypeError)
"""The errors of a connection that does not know a step. An error of a driver is none of these."""
_GIVEN_UP: Final = object()
"""The outcome of a checkout whose caller has given it up."""


class WorkerRef(pykka.ActorRef["Worker"]):
    """A reference to a worker.

    It keeps a thread of the worker's own crew from waiting for itself.
    """

    def __init__(self, worker: "Worker", crew: Dispatcher) -> None:
        super().__init__(worker)
        self._crew = crew

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """Ask the worker, as any actor; see `pykka.ActorRef.ask`.

        Raises:
            WouldDeadlock: called with `block=True` from one of the crew's own threads.
        """
        self._check(block)
        return super().ask(message, block=block, timeout=timeout)

    def tell(self, message: Any) -> None:
        """Wake the worker.

        If it has ended, raise nothing, since a broadcast must reach the other actors.
        """
        with suppress(pykka.ActorDeadError):
            super().tell(message)

    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        """Stop the worker after its job. Another worker takes its place. See `pykka.ActorRef.stop`.

        Raises:
            WouldDeadlock: called with `block=True` from one of the crew's own threads.
        """
        self._check(block)
        return super().stop(block=block, timeout=timeout)

    def _check(self, block: bool) -> None:
        if block and this_thread.crew is self._crew:
            message = f"this thread belongs to crew {self._crew.name!r}, and would wait for itself; use block=False"
            raise WouldDeadlock(message)


class Worker(CrewActor):
    """Takes jobs from its lane in batches and lets its own connection run them.

    Its life, all of it in its own thread:

    1. `on_start` opens the connection, tells the dispatcher that the worker is ready, and tells the
       supervisor `WorkerUp`.
    2. Every message, of any content, makes it take batches until there is none, or until a message
       has arrived.
    3. It ends when it is stopped, when it retires (its lane will have no more jobs), when its
       connection is lost, or when anything else is raised. `on_end` rejects its orphans with
       `WorkerDied`, puts the jobs that it has not begun back into their lanes, and closes the
       connection. Then the worker tells the supervisor `WorkerDown`.
    """

    def __init__(
        self, worker_id: int, database: Database, dispatcher: Dispatcher, notify: Callable[[object], object]
    ) -> None:
        super().__init__()
        self.own_ref = WorkerRef(self, dispatcher)
        self._database = database
        self._dispatcher = dispatcher
        # Gives the supervisor a message; raises nothing.
        self._notify = notify
        self._opened: Any = None
        # A job with a checkout that is over, and its outcome, until the job is settled.
        self._decided: tuple[JobBatch, Job, Any] | None = None
        # Whether the connection was good when the worker looked last.
        self._is_proven = False
        # Whether a step of the running checkout has succeeded, so that the connection may have
        # something to close.
        self._has_opened = False
        self.handle = WorkerHandle(worker_id, self.actor_inbox.wake)

    @property
    def thread_name(self) -> str:
        """The name of the worker's thread."""
        return f"querycrew-{self._dispatcher.name}-worker-{self.handle.id}"

    # --- from any thread ------------------------------------------------------------------

    def _on_connection_end(self) -> None:
        """Look at the connection, whose other end is gone, also while the worker is idle."""
        self.handle.wake()
        for job in self.handle.running:
            if job.checkout is not None:
                job.checkout.interrupt()

    def abandon(self) -> None:
        """End by force the job that runs in the worker's child process.

        From any thread; never raises.
        """
        self.handle.connection.abandon()

    def forget_the_parent(self) -> None:
        """In the child of a fork: never touch the parent's connection.

        To close it here, or to collect it as garbage, could harm the parent's database.
        """
        super().forget_the_parent()
        if self._opened is not None:
            import ctypes  # only the child of a fork needs it

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._opened))

    # --- in the worker's thread -----------------------------------------------------------

    def on_start(self) -> None:
        """Open the connection, tell the dispatcher and the supervisor, and take the first jobs."""
        this_thread.crew = self._dispatcher
        self._opened = self._database.connect()  # first: a kill must not lose it
        self.handle.connection = connection = usable(self._opened)
        connection.on_end = self._on_connection_end
        for warning in connection.warnings:
            log(__name__, "warning", "database_warning", crew=self._dispatcher.name, warning=warning)
        if not self._dispatcher.worker_ready(self.handle):
            self.actor_stopped.set()  # it took so long that the crew no longer needs this worker
            return
        self._notify(WorkerUp(self._dispatcher.name, self.handle.id))
        self._work()

    def on_receive(self, message: object) -> None:
        """Take jobs. The content of the message does not matter."""
        del message  # a wake, or a message of the user's
        self._work()

    def _work(self) -> None:
        """Take batches until there is none, or until there is a message to read first."""
        inbox, handle = self.actor_inbox, self.handle
        lane, connection = handle.lane, handle.connection
        assert lane is not None  # it was added before it was started
        connection.check()
        self._is_proven = True
        while (batch := lane.take(handle)) is not None:
            if batch.jobs[0].checkout is None:
                connection.run(batch)
            else:
                self._run_checkout(batch)
            batch.close()
            connection.refresh()
            if not inbox.empty():
                return
        if handle.state is WorkerState.RETIRED or handle.state is WorkerState.GONE:
            self.actor_stopped.set()

    # --- sessions, streams and backups ----------------------------------------------------

    def _run_checkout(self, batch: JobBatch) -> None:
        """Perform the steps that the caller of a job asks for, and answer the job at the end.

        Raises:
            ConnectionLost: the connection is of no more use.
        """
        job = batch.begin()
        if job is None or job.checkout is None:
            return
        checkout = job.checkout
        outcome: Any
        try:
            outcome = self._perform_steps(job, checkout)
        except ConnectionLost as lost:
            if not lost.begun and not self._has_opened:
                batch.give_back(job)
            raise
        except Exception as error:  # noqa: BLE001  # it goes to its caller
            outcome = Rejection(error)
        if outcome is not _GIVEN_UP:
            self._decided = (batch, job, outcome)
        self._close_steps()
        if outcome is _GIVEN_UP:
            message = f"the {checkout.what} was given up"
            outcome = Rejection(InterruptedError(message) if job.is_unwanted else checkout.closed())
        self._decided = None
        batch.complete(job, outcome)

    def _perform_steps(self, job: Job, checkout: "Checkout") -> Any:
        """Perform steps until the checkout is over; return the job's outcome.

        The outcome is `_GIVEN_UP` if the caller has given the checkout up.
        """
        checkout.travels = self.handle.connection.pid is not None
        self._has_opened = False
        while (call := self._next_call(checkout)) is not None:
            try:
                value = self._perform(call.step)
            except ConnectionLost:
                raise
            except Exception as error:
                # An aborted job ends for the reason of its abort, and not with an error of its last
                # step.
                if job.is_unwanted or checkout.ends_with_error_of(call.step):
                    raise
                note_request(error, self._dispatcher.name, call.about)
                if isinstance(error, ResultLost):
                    error.executed = None  # it takes effect if its transaction does
                checkout.reject(call, detached(error))
                del call  # its error refers to its caller
                continue
            is_first, self._has_opened = not self._has_opened, True
            if checkout.ends_with(call.step, value):
                checkout.last = value
                return checkout.outcome_of(value)
            if is_first:
                checkout.note_opened(job)
                if job.is_unwanted:
                    break  # its caller gets the reason of the interrupt
            checkout.answer(call, value)
            del call, value  # hold nothing
        return _GIVEN_UP

    def _close_steps(self) -> None:
        """Let the connection close the transaction or the statement that the steps have opened.

        Raises:
            ConnectionLost: the connection is of no more use.
        """
        try:
            self._perform(Close())
        except ConnectionLost:
            raise
        except _UNKNOWN:
            pass  # a connection that takes no steps knows no `Close`
        except Exception as error:
            if self._has_opened:
                message = "the connection could not be cleaned"
                raise ConnectionLost(message) from error

    def _next_call(self, checkout: "Checkout") -> "StepCall | None":
        if checkout.waits_for_caller:
            self._dispatcher.refuse_waits()
        return checkout.next()

    def _perform(self, step: Any) -> Any:
        connection = self.handle.connection
        return checked(connection.execute(step), step, connection)

    # --- the end --------------------------------------------------------------------------

    def on_end(self, cause: BaseException | None) -> None:
        """Settle the worker's jobs and close the connection.

        A job whose checkout is over gets its outcome, even if the worker is killed in that moment.
        The other orphans are rejected.
        """
        if self._decided is not None:
            batch, job, outcome = self._decided
            batch.complete_again(job, outcome)
            self._decided = None
        if isinstance(cause, ConnectionLost) and not cause.blames:
            self.handle.exonerate()
        orphans = self._dispatcher.remove_worker(self.handle)
        reason = _reason(cause)
        if reason is not None and len(orphans) > 1:  # the error may quote one caller's parameters to the others
            reason = rejections.without_text(reason)
        for orphan in orphans:
            died = rejections.died(self._dispatcher.name, self.handle.id, orphan, reason)
            executed = False if orphan.checkout is not None and orphan.checkout.takes_no_effect else None
            self._dispatcher.reject_orphan(orphan, died, executed=executed)
        if self._opened is not None:
            close(self._opened)  # not the handle's: a kill may have come before the handle had the connection
        # The orphans are rejected by now. Their callers keep the error, whose frames refer to this
        # worker.
        if self.handle.batch is not None:
            self.handle.batch.drop()

    def on_gone(self, cause: BaseException | None) -> None:
        """Tell the supervisor."""
        self._dispatcher.release(self.handle)
        was_idle = self._is_proven and isinstance(cause, ConnectionLost) and not cause.begun
        self._notify(WorkerDown(self.handle.id, _reason(cause), was_idle))
        this_thread.crew = None


def _reason(cause: BaseException | None) -> BaseException | None:
    """Return the cause of a worker's death. Behind a lost connection it is the driver's error."""
    if cause is None:
        return None
    detached(cause)
    return cause.__cause__ if isinstance(cause, ConnectionLost) and cause.__cause__ is not None else cause
