"""A crew without threads: the real supervisor, workers and dispatcher, driven one step at a time.

A statement does not end by itself. It leaves the worker's code by `Paused`, and when it is to end
that code is entered again: the dispatcher hands the worker the job that it had, and the connection
this time gives the outcome. So the code that runs is the real one, from `take` to the next `take`.
"""

from collections.abc import Callable
from typing import Any

from actors.dispatcher import Dispatcher
from actors.errors import QuerycrewError
from actors.inbox import Inbox
from actors.job import Job
from actors.member import Member, MemberState
from actors.messages import Request
from actors.pykka_parts import Envelope
from actors.restart import RestartPolicy
from actors.result import Result
from actors.waiting import here
from actors.worker import Worker
from supervisor import Supervisor
from tests.desk import Clock

CLOCK = Clock()
"""Of the one crew that is driven; each new one sets it back."""


class Paused(BaseException):
    """A statement runs, and goes on running until the test ends it."""


class SteppedDispatcher(Dispatcher):
    """Tells what it hands out, and hands a worker that was paused the job that it had."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.on_submit: Callable[[Job, QuerycrewError | None], object] = lambda job, refusal: None
        self.on_start: Callable[[Job], object] = lambda job: None
        self.on_interrupt: Callable[[Job], object] = lambda job: None
        self.paused: set[int] = set()

    def submit(self, job: Job) -> QuerycrewError | None:
        refusal = super().submit(job)
        self.on_submit(job, refusal)
        return refusal

    def take(self, member: Member) -> Job | None:
        if member.id in self.paused:
            self.paused.remove(member.id)
            return member.job
        return self._told(super().take(member))

    def finish(self, member: Member, ok: bool, more: bool) -> Job | None:
        return self._told(super().finish(member, ok, more))

    def _told(self, job: Job | None) -> Job | None:
        if job is not None:
            self.on_start(job)
        return job


class SteppedConnection:
    """Pauses at each statement until it is given its outcome."""

    def __init__(self, worker: "SteppedWorker") -> None:
        self.worker = worker
        self.outcome: Result | BaseException | None = None
        self.closed = False
        self.interrupts = 0

    def execute(self, request: Request) -> Result:
        assert not self.closed
        outcome, self.outcome = self.outcome, None
        if outcome is None:
            self.worker._dispatcher.paused.add(self.worker.member.id)  # type: ignore[attr-defined]
            raise Paused
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def interrupt(self) -> None:
        job = self.worker.member.job
        assert job is not None, "an interrupt hit a worker that runs nothing"
        assert self.worker.member.state is not MemberState.GONE, "an interrupt hit a worker that was given up"
        self.worker._dispatcher.on_interrupt(job)  # type: ignore[attr-defined]
        self.interrupts += 1

    def close(self) -> None:
        self.closed = True


class SteppedWorker(Worker):
    """A worker whose thread is the test."""

    opened = False
    ended = False

    @staticmethod
    def _create_actor_inbox() -> Inbox:
        return Inbox(CLOCK)

    def _start_actor_loop(self) -> None:
        assert isinstance(self._database, SteppedDatabase)
        self._database.launch(self)

    def _interrupt(self) -> None:
        if self._connection is not None:
            self._connection.interrupt()  # unguarded: what the scripted connection asserts is for the test

    @property
    def is_paused(self) -> bool:
        return self.member.id in self._dispatcher.paused  # type: ignore[attr-defined,no-any-return]

    @property
    def has_mail(self) -> bool:
        return not self.actor_inbox.empty()

    def open(self, error: BaseException | None = None) -> None:
        """Start as its thread would; the database cannot be opened if there is an `error`."""
        self.opened = True
        self._database.next_connection = error or SteppedConnection(self)  # type: ignore[attr-defined]
        self.run(self.on_start)

    def read(self) -> None:
        """Handle one message; an actor that was retired meanwhile sees it as it wakes up, and ends."""
        self.run(lambda: self.actor_stopped.is_set() or self.step(self.actor_inbox.get()))

    def end_job(self, outcome: Result | BaseException) -> None:
        self._connection.outcome = outcome  # type: ignore[union-attr]
        self.run(self._work)

    def die(self, cause: BaseException) -> None:
        def killed() -> None:
            raise cause

        self._dispatcher.paused.discard(self.member.id)  # type: ignore[attr-defined]
        self.run(killed)

    def run(self, step: Callable[[], object]) -> None:
        """Run one step, and what the actor's loop does around it."""
        here.crew = self._dispatcher
        try:
            cause = _raised_by(step)
            if isinstance(cause, Paused):
                return
            if cause is not None or self.actor_stopped.is_set():
                self._end(cause)
                self.ended = True
        finally:
            here.crew = None


def _raised_by(step: Callable[[], object]) -> BaseException | None:
    try:
        step()
    except AssertionError:
        raise  # a test's own
    except BaseException as error:
        return error
    return None


class SteppedDatabase:
    """A database whose workers are launched into a list, or not at all."""

    name = "stepped"
    max_size = None

    def __init__(self) -> None:
        self.workers: list[SteppedWorker] = []
        self.failing_launches = 0
        self.next_connection: SteppedConnection | BaseException | None = None

    def __str__(self) -> str:
        return "SteppedDatabase()"

    def launch(self, worker: SteppedWorker) -> None:
        if self.failing_launches:
            self.failing_launches -= 1
            message = "can't start new thread"
            raise RuntimeError(message)
        self.workers.append(worker)

    def connect(self) -> SteppedConnection:
        connection, self.next_connection = self.next_connection, None
        assert connection is not None
        if isinstance(connection, BaseException):
            raise connection
        return connection


class SteppedSupervisor(Supervisor):
    """A supervisor whose thread is the test."""

    worker_class = SteppedWorker
    dispatcher_class = SteppedDispatcher
    clock = staticmethod(CLOCK)

    def __init__(self, size: int, max_queue: int | None, policy: RestartPolicy, **options: float | None) -> None:
        CLOCK.now = 1000.0
        self.database = SteppedDatabase()
        self.ended = False
        super().__init__(self.database, size, max_queue, policy, "app", **options)

    @staticmethod
    def _create_actor_inbox() -> Inbox:
        return Inbox(CLOCK)

    def _start_actor_loop(self) -> None:
        return

    @property
    def dispatcher(self) -> SteppedDispatcher:
        assert isinstance(self._dispatcher, SteppedDispatcher)
        return self._dispatcher

    @property
    def has_mail(self) -> bool:
        """Whether its thread would go on: there is mail, or the alarm is due."""
        alarm = self.actor_inbox.alarm
        return not self.ended and (not self.actor_inbox.empty() or (alarm is not None and alarm <= CLOCK.now))

    def read(self) -> None:
        self.run(lambda: self.step(self.actor_inbox.get()))

    def run(self, step: Callable[[], object], *, may_spin: bool = False) -> None:
        """Run one step, which never raises, and what the actor's loop does around it."""
        here.crew = self._dispatcher
        try:
            step()
            if self.actor_stopped.is_set():
                self.end(None)
            alarm = self.actor_inbox.alarm
            due = not self.ended and alarm is not None and alarm <= CLOCK.now
            assert may_spin or not due, "it would look again and again, and never sleep"
        finally:
            here.crew = None

    def end(self, cause: BaseException | None) -> None:
        self._end(cause)
        self.ended = True

    def hear(self, message: object) -> None:
        """Put a message into the supervisor's mailbox, as a stranger may."""
        self.actor_inbox.put(Envelope(message))
