"""Worker: one actor, one connection, one death notice."""

import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import pykka

from actors import refusals
from actors.actor import CrewActor
from actors.databases.answers import checked, completed, usable
from actors.databases.base import Answer, Connection, Database, NeedsWriter, token_of
from actors.databases.grouped import Grouped
from actors.databases.steps import Close
from actors.dispatcher import Dispatcher
from actors.errors import ConnectionLost, ResultLost, WouldDeadlock
from actors.events import WorkerUp
from actors.job import Job
from actors.log import log
from actors.member import Member, MemberState
from actors.messages import Query, Script, WorkerDown
from actors.pipeline import Pipeline
from actors.pykka_parts import Envelope
from actors.rejection import Rejection
from actors.result import Result
from actors.waiting import here

if TYPE_CHECKING:
    from types import TracebackType

    from actors.conversation import Conversation, Turn
    from actors.databases.base import Grouping, Pipelined
    from actors.databases.steps import Step

__all__ = ["Wake", "Worker"]

E = TypeVar("E", bound=BaseException)

# Modules whose frames at the head of a traceback are the worker's own machinery.
_OWN: Final = frozenset({__name__, "actors.actor"})


class Wake:
    """To a worker: there may be a job. It carries nothing, so a spurious one is harmless."""


_WAKE: Final = Envelope(Wake())


_HANDED_ON: Final = object()
"""What `_run` returns where nothing ran, since the job is one for the writer."""
_UNKNOWN: Final = (AttributeError, NotImplementedError, TypeError)
"""What a connection raises that does not know a step; an error of a driver is none of these."""
_GIVEN_UP: Final = object()
"""What `_take_turns` returns where no step has ended the job."""


class _Failed:
    """What `_run` returns instead of a value: a function of a caller's may return an exception as its value."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class WorkerRef(pykka.ActorRef["Worker"]):
    """A reference to a worker, on which no thread of its own crew can wait for itself."""

    def __init__(self, worker: "Worker", crew: Dispatcher) -> None:
        super().__init__(worker)
        self._crew = crew

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """Ask as any actor is asked; see `pykka.ActorRef.ask`.

        Raises:
            WouldDeadlock: called with `block=True` from one of the crew's own threads.
        """
        self._check(block)
        return super().ask(message, block=block, timeout=timeout)

    def tell(self, message: Any) -> None:
        """Wake the worker. Raises nothing if it has ended: a broadcast must reach the other actors."""
        with suppress(pykka.ActorDeadError):
            super().tell(message)

    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        """Stop the worker after its job; another takes its place. See `pykka.ActorRef.stop`.

        Raises:
            WouldDeadlock: called with `block=True` from one of the crew's own threads.
        """
        self._check(block)
        return super().stop(block=block, timeout=timeout)

    def _check(self, block: bool) -> None:
        if block and here.crew is self._crew:
            message = f"this thread belongs to crew {self._crew.name!r}, and would wait for itself; use block=False"
            raise WouldDeadlock(message)


class Worker(CrewActor):
    """Takes jobs from the dispatcher and runs them on its own connection, one at a time.

    Its life, all of it in its own thread:

    1. `on_start` opens the connection, reports to the dispatcher and tells `WorkerUp`.
    2. Every message, whatever it says, makes it take jobs until there are none or there is mail.
    3. It ends when it is stopped, when it retires (the dispatcher has no more jobs to give), when its
       connection is lost, or when anything else is raised. `on_end` settles what it holds, rejects
       its orphan with `WorkerDied`, and closes the connection; then it tells `WorkerDown`.
    """

    def __init__(
        self, worker_id: int, database: Database, dispatcher: Dispatcher, notify: Callable[[object], object]
    ) -> None:
        super().__init__()
        self.own_ref = WorkerRef(self, dispatcher)
        self._database = database
        self._dispatcher = dispatcher
        # Tells the supervisor; raises nothing.
        self._notify = notify
        self._connection: Connection | None = None
        # The answer that is about to be given: a death between two steps must not lose it.
        self._unsettled: tuple[Job, Any] | None = None
        # Whether a step of the job that runs has succeeded, so that there may be something to
        # close.
        self._has_opened = False
        # Where the connection takes jobs ahead.
        self._pipeline: Pipeline | None = None
        # Makes a connection as new that a job has changed.
        self._refresh: Callable[[], object] | None = None
        self.member = Member(worker_id, self._wake, self._interrupt)

    @property
    def thread_name(self) -> str:
        """The name of the worker's thread."""
        return f"querycrew-{self._dispatcher.name}-worker-{self.member.id}"

    # --- from any thread ------------------------------------------------------------------

    def _wake(self) -> None:
        try:
            self.actor_inbox.put(_WAKE)
        except Exception as error:  # noqa: BLE001  # it has just died: the dispatcher will hear of that
            log(__name__, "debug", "wake_missed", worker=self.member.id, error=error)

    def _on_connection_end(self) -> None:
        """Notice that the other end of the connection is gone, also while nothing is asked of it."""
        self._wake()
        job = self.member.job
        if job is not None and job.talk is not None:
            job.talk.interrupt()

    def _interrupt(self) -> None:
        connection = self._connection
        if connection is not None:
            try:
                connection.interrupt()
            except Exception as error:  # noqa: BLE001  # a database of somebody else's; here the lock is held
                log(__name__, "error", "interrupt_failed", worker=self.member.id, error=error)

    def abandon(self) -> None:
        """Let nobody wait for this worker: what it runs elsewhere is ended by force. From any thread; never raises."""
        if self.member.pipeline is not None:
            self.member.pipeline.abandon()

    def forget_the_parent(self) -> None:
        """In the child of a fork: leave the parent's connection alone, for ever.

        Closing it here could harm the parent's database, and so could its garbage collection.
        """
        super().forget_the_parent()
        if self._connection is not None:
            import ctypes  # only the child of a fork needs it

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))

    # --- in the worker's thread -----------------------------------------------------------

    def on_start(self) -> None:
        """Open the connection, say so, and take the first jobs."""
        here.crew = self._dispatcher
        self._connection = self._database.connect()  # first: a kill must not lose it
        self._connection = connection = usable(self._connection)
        self._refresh = getattr(connection, "refresh", None)
        self.member.warnings = tuple(getattr(connection, "warnings", ()))
        for warning in self.member.warnings:
            log(__name__, "warning", "database_warning", crew=self._dispatcher.name, warning=warning)
        if hasattr(connection, "execute_group"):
            self._connection = connection = Grouped(cast("Grouping", connection))
        if hasattr(connection, "waits_for_lock"):
            self.member.waits_for_lock = connection.waits_for_lock
        if hasattr(connection, "offer"):
            self.member.pipeline = cast("Pipelined", connection)
            self.member.pid = self.member.pipeline.pid
            self._pipeline = Pipeline(self.member.pipeline)
            self.member.pipeline.on_end = self._on_connection_end
        if not self._dispatcher.report(self.member):
            self.actor_stopped.set()  # it took so long that nobody waits for it any more
            return
        self._notify(WorkerUp(self._dispatcher.name, self.member.id))
        self._work()

    def on_receive(self, message: object) -> None:
        """Take jobs, whatever the message says."""
        del message  # a wake, or a stranger's
        self._work()

    def _work(self) -> None:
        """Take jobs until there are none, or there is mail to read first."""
        if self._pipeline is None:
            self._work_one_by_one()
        else:
            self._work_ahead(self._pipeline)
        if self.member.state is MemberState.RETIRED or self.member.state is MemberState.GONE:
            self.actor_stopped.set()

    def _work_one_by_one(self) -> None:
        inbox, dispatcher, member = self.actor_inbox, self._dispatcher, self.member
        job = dispatcher.take(member)
        if member.dropped:
            self._reject_dropped()
        while job is not None:
            outcome: Any = self._run(job)
            if type(outcome) is _Failed:
                outcome = Rejection(_detached(outcome.error))
            elif outcome is _HANDED_ON:
                job = dispatcher.finish(member, None, inbox.empty())
                if member.dropped:
                    self._reject_dropped()
                continue
            self._unsettled = (job, outcome)
            # Done before it is answered: whoever asks again at once meets an idle worker. Not so
            # where a callback runs first, which might keep this thread from its next job.
            stale = self._refresh is not None and self._connection.is_stale  # type: ignore[union-attr]
            done, quick = job, job.reply.callbacks is None and not stale
            job = dispatcher.finish(member, type(outcome) is not Rejection, quick and inbox.empty())
            if done.abort is None:
                done.reply.settle(outcome)
            else:
                _settle(done, outcome)
            self._unsettled = done = outcome = None  # type: ignore[assignment]  # hold nothing
            if member.dropped:
                self._reject_dropped()
            if not quick and self._refresh is not None:
                self._refresh()
            if not quick and inbox.empty():
                job = dispatcher.take(member)
                if member.dropped:
                    self._reject_dropped()

    def _work_ahead(self, pipeline: Pipeline) -> None:
        """Send jobs, the next ones while the connection still works on the last, and settle what comes back."""
        inbox, dispatcher, member, landed = self.actor_inbox, self._dispatcher, self.member, pipeline.landed
        pipeline.check()
        jobs = dispatcher.exchange(member, (), more=True)
        while True:
            if member.dropped:
                self._reject_dropped()
            talking = jobs[0][1] if jobs and jobs[0][1].talk is not None else None
            if talking is not None:
                landed.append((talking, self._conversed(talking)))
                talking = None
            else:
                if jobs:
                    pipeline.send(jobs)
                # Not by its job, which another thread may take back at this moment, to give it the next one.
                if member.state is not MemberState.BUSY:
                    pipeline.forget()
                    return
                jobs = None  # type: ignore[assignment]  # hold nothing
                pipeline.receive()
            # As one by one: done before it is answered, unless a callback runs first, or the connection is opened anew.
            # If that fails, another worker takes the next job.
            stale = self._refresh is not None and self._connection.is_stale  # type: ignore[union-attr]
            quick = not stale and all(job.reply.callbacks is None for job, _ in landed)
            jobs = dispatcher.exchange(member, _endings(pipeline), quick and inbox.empty())
            self._settle_landed(pipeline)
            if self._refresh is not None:
                self._refresh()
            if not quick and inbox.empty():
                jobs = dispatcher.exchange(member, (), more=True)

    def _settle_landed(self, pipeline: Pipeline) -> None:
        landed = pipeline.landed
        while landed:
            job, (_, value, error, _) = landed[0]
            if isinstance(error, NeedsWriter):
                pass  # it waits for the writer, or has been answered
            elif error is not None:
                self._note_where(error, job)
                _settle(job, Rejection(_detached(error)))
            elif job.abort is None:
                job.reply.settle(value)
            else:
                _settle(job, value)
            landed.popleft()
            del job, value, error  # hold nothing

    def _reject_dropped(self) -> None:
        dropped = self.member.dropped
        while dropped:
            job, error = dropped[-1]
            job.reply.reject(error)
            dropped.pop()

    def _run(self, job: Job) -> Any:
        """Run one job to what it is answered by, to a `_Failed` with its statement's error, or to `_HANDED_ON`.

        Raises:
            ConnectionLost: the connection is of no more use.
            BaseException: somebody wants this thread to end.
        """
        try:
            if job.talk is not None:
                return self._converse(job, job.talk)
            request, connection = job.request, self._connection
            result = connection.execute(request)  # type: ignore[union-attr]  # open since on_start
            if type(result) is not Result or (type(request) is Query and request.max_rows is not None):
                result = checked(result, request, connection)  # type: ignore[arg-type]
        except ConnectionLost:
            raise
        except NeedsWriter:
            return _HANDED_ON
        except Exception as error:  # noqa: BLE001  # the statement's own error goes to its caller
            self._note_where(error, job)
            return _Failed(error)
        return result

    def _conversed(self, job: Job) -> Answer:
        """Run a job whose caller takes turns, on a connection that takes jobs ahead."""
        assert job.talk is not None
        began, value, error = time.perf_counter(), None, None
        try:
            value = self._converse(job, job.talk)
        except ConnectionLost:
            raise
        except Exception as failure:  # noqa: BLE001  # it goes to its caller
            error = failure
        return Answer(job.ticket, value, error, time.perf_counter() - began)

    def _converse(self, job: Job, talk: "Conversation") -> Any:
        """Perform what the caller of a job asks for, step by step; return what the job is answered by.

        Raises:
            ConnectionLost: the connection is of no more use.
            Exception: the error of a step that is its end, or why the job was given up.
        """
        try:
            value = self._take_turns(job, talk)
        except ConnectionLost:
            raise
        except Exception as error:
            self._close_steps((job, Rejection(_detached(error))))
            raise
        if value is not _GIVEN_UP:
            self._close_steps((job, value))
            return value
        self._close_steps(None)
        message = f"the {talk.what} was given up"
        raise InterruptedError(message) if job.abort is not None else talk.closed()

    def _take_turns(self, job: Job, talk: "Conversation") -> Any:
        talk.travels = self.member.pid is not None
        self._has_opened = False
        while (turn := self._next_turn(talk)) is not None:
            try:
                value = self._perform(turn.step, job)
            except ConnectionLost:
                raise
            except Exception as error:
                # An aborted job is over for the reason of its abort: an error of its last step is
                # not told.
                if job.abort is not None or talk.ends_with_error_of(turn.step):
                    raise
                error.add_note(f"querycrew: crew {self._dispatcher.name!r}, {turn.about}")
                if isinstance(error, ResultLost):
                    error.executed = None  # it takes effect if its transaction does
                talk.reject(turn, _detached(error))
                del turn  # through its error it leads to its caller
                continue
            is_first, self._has_opened = not self._has_opened, True
            if talk.ends_with(turn.step, value):
                talk.last = value
                return talk.outcome_of(value)
            if is_first:
                talk.note_opened(job)
                if job.abort is not None:
                    break  # its caller gets the reason instead of what was opened
            talk.answer(turn, value)
            del turn, value  # hold nothing
        return _GIVEN_UP

    def _close_steps(self, answer: tuple[Job, Any] | None) -> None:
        """Let the connection close what the steps of a job have opened.

        Args:
            answer: the job, and what its last step has decided that it is answered by, even if the
                connection is lost.

        Raises:
            ConnectionLost: it is of no more use.
        """
        self._unsettled = answer
        try:
            self._perform(Close(), None)
        except ConnectionLost:
            raise
        except _UNKNOWN:
            pass  # a connection that takes no steps knows no `Close`
        except Exception as error:
            if self._has_opened:
                message = "the connection could not be cleaned"
                raise ConnectionLost(message) from error
        self._unsettled = None

    def _next_turn(self, talk: "Conversation") -> "Turn | None":
        if talk.waits_for_caller:
            self._dispatcher.rest(self.member)
            self._reject_dropped()
        return talk.next()

    def _perform(self, step: "Step", job: Job | None) -> Any:
        """Let the connection perform a step; of one without a job, which is the last, no interrupt is known."""
        pipeline, connection = self.member.pipeline, self._connection
        assert connection is not None  # since on_start
        if pipeline is None:
            return checked(connection.execute(step), step, connection)
        self.member.tickets += 1  # no other thread gives this member tickets
        ticket = self.member.tickets
        if job is not None:
            job.ticket = ticket
        pipeline.offer(bytes([token_of(ticket)]))
        pipeline.send([(ticket, step)])
        [answer] = pipeline.receive()
        if answer.error is not None:
            raise answer.error
        return answer.value

    def _note_where(self, error: BaseException, job: Job) -> None:
        error.add_note(f"querycrew: crew {self._dispatcher.name!r}, {job.request}")

    def on_end(self, cause: BaseException | None) -> None:
        """Settle what this worker holds, reject its orphan, close the connection."""
        if self._unsettled is not None:
            _settle(*self._unsettled)
            self._unsettled = None
        if self._pipeline is not None:
            self._dispatcher.exchange(self.member, _endings(self._pipeline), more=False)
            self._settle_landed(self._pipeline)
            self._pipeline.forget()
        orphans = self._dispatcher.bury(self.member)
        self._reject_dropped()
        reason = _reason(cause)
        if reason is not None and len(orphans) > 1:  # one caller's error may quote its parameters to the others
            reason = refusals.without_text(reason)
        for orphan in orphans:
            orphan.reply.reject(self._death(orphan, reason))
        if self._connection is not None:
            completed(self._connection).close()  # it may have been killed before it was completed
        # They are rejected by now; through its frames the error that their callers keep leads to this worker.
        self.member.job = None
        self.member.ahead.clear()

    def on_gone(self, cause: BaseException | None) -> None:
        """Tell the supervisor."""
        self._notify(WorkerDown(self.member.id, _reason(cause)))
        here.crew = None

    def _death(self, orphan: Job, reason: BaseException | None) -> BaseException:
        if orphan.abort is not None:
            return orphan.abort.error(False if orphan.talk is not None and orphan.talk.takes_no_effect else None)
        return refusals.died(self._dispatcher.name, self.member.id, orphan, reason)


def _reason(cause: BaseException | None) -> BaseException | None:
    """Return what a worker really died of: a lost connection is the driver's error behind it."""
    if cause is None:
        return None
    _detached(cause)
    return cause.__cause__ if isinstance(cause, ConnectionLost) and cause.__cause__ is not None else cause


def _endings(pipeline: Pipeline) -> list[tuple[Job, bool | None, float]]:
    return [
        (job, None if isinstance(answer.error, NeedsWriter) else answer.error is None, answer.seconds)
        for job, answer in pipeline.landed
    ]


def _settle(job: Job, outcome: Any) -> None:
    """Answer a job that the dispatcher holds to be done, by a value or a `Rejection`: nobody can abort it any more."""
    abort = job.abort
    if abort is not None:
        if type(outcome) is Rejection:
            # The statements of a script that came before the interrupted one stay done, and so does a job that was
            # interrupted too late, and whose result is lost. A transaction is undone with its requests.
            is_done = isinstance(outcome.error, ResultLost) and job.talk is None
            executed = is_done or (None if isinstance(job.request, Script) else False)
            outcome = Rejection(_caused(abort.error(executed), outcome.error))
        elif abort.wins:
            outcome = Rejection(abort.error(True))
    job.reply.settle(outcome)
    job.abort = None  # which holds the job


def _caused(error: BaseException, cause: BaseException | None) -> BaseException:
    error.__cause__ = cause
    return error


def _detached(error: E) -> E:
    """Free an error of all that it would keep alive through its traceback.

    The frames hold the cursor, and through it a lock on the database; the first of them are the
    worker's own, which hold the job. Where the error was raised stays readable.
    """
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        link = todo.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        link.__traceback__ = _without_own(link.__traceback__)
        traceback.clear_frames(link.__traceback__)
        todo += [link.__cause__, link.__context__]
    return error


def _without_own(trace: "TracebackType | None") -> "TracebackType | None":
    while trace is not None and trace.tb_frame.f_globals.get("__name__") in _OWN:
        with suppress(RuntimeError):  # it is still running
            trace.tb_frame.clear()
        trace = trace.tb_next
    return trace
