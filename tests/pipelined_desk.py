"""A dispatcher on its own, with workers whose connections take jobs ahead, and children that do what a test says."""

from collections import deque
from types import SimpleNamespace
from typing import Any

from actors.databases.base import Answer, token_of
from actors.dispatcher import Dispatcher
from actors.errors import ConnectionLost, WorkerDied
from actors.job import Job
from actors.member import Member, MemberState
from actors.messages import Query, Request
from actors.pipeline import Pipeline
from actors.rejection import Rejection
from actors.reply import Reply
from actors.result import Result
from actors.worker import _endings, _settle
from supervisor import Supervisor
from tests.desk import Desk


class Child:
    """Both ends of a connection to a child process, as the pipes between them have it. Neither does anything by itself.

    The child's own steps are `begin`, `end` and `die`; the others are what `Pipelined` asks for.
    """

    groups = False

    def __init__(self, depth: int = 8) -> None:
        self.depth = depth
        self.groups = False
        self.pid = 4711
        self.alive = True
        self.tokens: deque[int] = deque()
        """One for each job that was offered; both sides draw them."""
        self.frames: deque[tuple[int, Request]] = deque()
        """Jobs that were sent, and which the child has not looked at."""
        self.drawn = b""
        """Tokens that were drawn back, by one who may have been cut off before it was done with them."""
        self.running: int | None = None
        """The ticket of the job that it has begun and not answered."""
        self.answers: deque[Answer] = deque()
        """What it has answered, and nobody has read."""
        self.interrupted: list[int | None] = []
        """Tickets, in the order of the interrupts."""
        self.sent: list[int] = []
        """The tickets of all that was ever sent."""

    # --- the parent's side ----------------------------------------------------------------

    def offer(self, tokens: bytes) -> None:
        self.tokens.extend(tokens)

    def send(self, jobs: Any) -> None:
        for ticket, request in jobs:
            self.sent.append(ticket)
            self.frames.append((ticket, request))
        if not self.alive:
            raise ConnectionLost("child")

    def receive(self) -> list[Answer]:
        if not self.answers and not self.alive:
            raise ConnectionLost("child")
        assert self.answers, "the worker's thread would wait here"
        answers = list(self.answers)
        self.answers.clear()
        return answers

    def recall(self, most: int) -> bytes:
        if not self.drawn:
            self.drawn = bytes(self.tokens.popleft() for _ in range(max(0, min(most, len(self.tokens)))))
        return self.drawn

    def recalled(self) -> None:
        self.drawn = b""

    def interrupt(self, ticket: int | None = None) -> None:
        self.interrupted.append(ticket)

    def abandon(self) -> None:
        self.die()

    def execute(self, request: Request) -> Result:
        raise NotImplementedError

    def close(self) -> None:
        self.die()

    # --- the child's side -----------------------------------------------------------------

    def begin(self) -> int | None:
        """Draw the next token; return the ticket of the job that is begun so, if there is one."""
        assert self.alive
        assert self.running is None
        if not self.frames:
            return None
        if not self.tokens:
            self.frames.clear()  # they were taken back
            return None
        token = self.tokens.popleft()
        while self.frames:
            ticket, _ = self.frames.popleft()
            if token_of(ticket) == token:
                self.running = ticket
                return ticket
        raise AssertionError("a token without a job")

    def end(self, outcome: Result | Exception) -> None:
        """Answer the job that is begun."""
        assert self.alive
        assert self.running is not None
        value, error = (None, outcome) if isinstance(outcome, Exception) else (outcome, None)
        self.answers.append(Answer(self.running, value, error, 0.5))
        self.running = None

    def die(self) -> None:
        self.alive = False
        self.running = None

    @property
    def has_anything_to_answer(self) -> bool:
        """Whether a thread that waits for an answer gets one, if the child goes on."""
        return bool(self.tokens or self.answers or self.running is not None)


class PipelinedDesk(Desk):
    """A desk whose workers take jobs ahead; each method is a step of a worker's thread, of a child or of a caller."""

    def __init__(self, *, dispatcher_class: type[Dispatcher] = Dispatcher, **options: Any) -> None:
        super().__init__(**options)
        self.dispatcher = dispatcher_class(
            *("app", "Database()", self.dispatcher.size, self.dispatcher.max_queue, self.clock)
        )
        self._pipelines: dict[int, Pipeline] = {}
        self._by_ticket: dict[tuple[int, int], Job] = {}

    def job(self, sql: str | None = None, *, timeout: float | None = None) -> Job:
        if sql is None and timeout is None:
            return super().job()
        query = Query(f"SELECT {next(self._ids)}" if sql is None else sql)
        deadline = None if timeout is None else self.clock() + timeout
        return Job(query, Reply[Any](self.dispatcher), self.clock(), deadline)

    def submit(self, sql: str | None = None, *, timeout: float | None = None) -> Job:
        job = self.job(sql, timeout=timeout)
        assert self.dispatcher.submit(job) is None
        return job

    def submit_many(self, number: int) -> list[Job]:
        return [self.submit() for _ in range(number)]

    def piped(self, depth: int = 8) -> Member:
        """Return a worker that takes jobs ahead, and that has not looked for one yet."""
        member = self.enlisted()
        member.pipeline = Child(depth)
        assert self.dispatcher.report(member)
        self._pipelines[member.id] = Pipeline(member.pipeline)
        return member

    # --- a worker's thread ----------------------------------------------------------------

    def turn(self, member: Member, *, more: bool = True) -> list[Job]:
        """Read what was answered, ask for jobs, send them, settle; return the jobs."""
        pipeline = self._pipelines[member.id]
        if child_of(member).answers:
            pipeline.receive()
        jobs = self.dispatcher.exchange(member, _endings(pipeline), more=more)
        self.send(member, jobs)
        self.settle(member)
        return [job for _, job in jobs]

    def send(self, member: Member, jobs: list[tuple[int, Job]]) -> None:
        for ticket, job in jobs:
            self._by_ticket[member.id, ticket] = job
        if jobs:
            self._pipelines[member.id].send(jobs)

    def settle(self, member: Member) -> None:
        landed = self._pipelines[member.id].landed
        while landed:
            job, answer = landed.popleft()
            _settle(job, answer.value if answer.error is None else Rejection(answer.error))
        self.reject_dropped(member)

    def reject_dropped(self, member: Member) -> list[Job]:
        dropped = [job for job, _ in member.dropped]
        for job, error in member.dropped:
            job.reply.reject(error)
        member.dropped.clear()
        return dropped

    def die(self, member: Member) -> list[Job]:
        """Kill the child, and do what its worker does then; return the orphans."""
        child_of(member).die()
        pipeline = self._pipelines[member.id]
        if child_of(member).answers and member.state is not MemberState.GONE:  # else its thread has stopped reading
            pipeline.receive()
        self.dispatcher.exchange(member, _endings(pipeline), more=False)
        orphans = self.dispatcher.bury(member)
        self.settle(member)
        for orphan in orphans:
            abort = orphan.abort
            orphan.reply.reject(WorkerDied("died") if abort is None else abort.error(None))
        return orphans

    # --- a child --------------------------------------------------------------------------

    def begin(self, member: Member) -> Job | None:
        """Let the child begin its next job, and return that."""
        ticket = child_of(member).begin()
        return None if ticket is None else self._by_ticket[member.id, ticket]

    def run(self, member: Member, outcome: Result | Exception | None = None) -> Job:
        """Let the child begin its next job, unless one is begun, and answer it; nobody reads that yet."""
        child = child_of(member)
        if child.running is None:
            assert child.begin() is not None
        job = self._by_ticket[member.id, child.running]
        child.end(Result() if outcome is None else outcome)
        return job

    # --- the supervisor -------------------------------------------------------------------

    def look(self) -> tuple[list[Job], list[Member]]:
        """Do what is due; return the jobs that were rejected, and the workers that were given up."""
        expired = self.dispatcher.expire(self.clock())
        for job, error in expired:
            job.reply.reject(error())
        self.dispatcher.forget_dropped()
        given_up = self.dispatcher.follow_up(self.clock())
        for member in given_up:
            self.leave(member)
        return [job for job, _ in expired], given_up

    def leave(self, member: Member) -> list[Job]:
        """As `Supervisor._leave`."""
        orphans = self.dispatcher.bury(member)
        for orphan in orphans:
            if orphan.abort is not None:
                orphan.reply.reject(orphan.abort.error(None))
        self.reject_dropped(member)
        child_of(member).abandon()
        return orphans

    def reject_queue(self, jobs: list[Job]) -> None:
        """Reject what was handed back, by the supervisor's own code."""
        Supervisor._reject(SimpleNamespace(_dispatcher=self.dispatcher), jobs, self.dispatcher.stopped)

    def waiting(self) -> list[Job]:
        return self.dispatcher._lane.waiting()


def child_of(member: Member) -> Child:
    assert isinstance(member.pipeline, Child)
    return member.pipeline


def is_idle(member: Member) -> bool:
    return member.state is MemberState.IDLE
