"""What runs in a child process: one connection, jobs from a pipe, answers into another.

    parent ── jobs ────►  main thread: draw a token, run its job, write the answer, and again
           ◄── answers ──
           ── control ─►  a thread of its own: interrupts; its end is the end of the parent
           ── lifeline ►  nothing is ever written: at its end the kernel kills this process

**Whoever draws the token of a job has the job.** A token is one byte in a pipe that the parent, too, reads from: so the
kernel decides whether a job that was sent ahead is run here or was taken back, even while this process is stopped, or
dead. An answer is written before the next token is drawn: at most one job is ever in these hands.
"""

import fcntl
import gc
import marshal
import os
import select
import signal
import struct
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final, NoReturn, TypeVar, cast

from actors.databases.answers import checked, usable
from actors.databases.base import Answer, Connection, Database, Grouping, Ticketed, Unrunnable, token_of
from actors.databases.frames import (
    ERROR,
    FAILED,
    FEW,
    HEAD,
    LARGE,
    LOST,
    MAGIC,
    READY,
    TOO_LARGE,
    WAITS,
    Packed,
    answer_frame,
    answer_frames,
    error_frame,
    frame,
    load_request,
    write,
)
from actors.databases.steps import Declare, Fetch, Step
from actors.errors import ConnectionLost, ResultLost
from actors.messages import Request
from actors.result import Result

__all__ = ["OUT_OF_MEMORY", "TICKET", "WHATEVER_RUNS", "main"]

TICKET: Final = struct.Struct("<Q")
"""An interrupt on the control pipe: the ticket of the job that it is for."""
WHATEVER_RUNS: Final = 0
"""The ticket of an interrupt that is for whatever runs now. No job has it."""
OUT_OF_MEMORY: Final = 70
"""The exit code of a child that found no memory to say so."""

_CHUNK = 1 << 16  # bytes that are read at a time
# Seconds that the next job is awaited without sleeping: to wake a process takes longer than most jobs (64 outstanding:
# 72 thousand/s without, 101 with it; one after the other: 8 and 16).
_EAGER = 150e-6

T = TypeVar("T")


class Host:
    """The child's end of a connection; see the head of this file."""

    def __init__(self, jobs: int, answers: int, tokens: int, control: int) -> None:
        self._jobs, self._answers, self._tokens, self._control = jobs, answers, tokens, control
        self._more = select.poll()
        self._more.register(jobs, select.POLLIN)
        self._buffer = b""
        # Jobs that were read and not yet run, as ticket, kind, body; some of them may have been taken back.
        self._read: deque[tuple[int, int, bytes | bytearray]] = deque()
        self._connection: Connection | None = None
        # The same, if it runs jobs together that wait together.
        self._grouping: Grouping | None = None
        # Of what runs, and the interrupts of what will.
        self._lock = threading.Lock()
        self._running = 0
        self._interrupted: set[int] = set()
        # Whether what runs is what the next step of a stream asks for.
        self._is_ahead = False
        # The ticket of the job that runs, or of the first of a group.
        self._first = 0

    def serve(self, specification: bytes) -> None:
        """Open the connection, and run jobs until the parent sends no more."""
        threading.Thread(target=self._listen, name="querycrew-control", daemon=True).start()
        os.set_blocking(self._jobs, False)
        try:
            self._connection = usable(_database(specification).connect())
        except BaseException as error:  # noqa: BLE001  # the parent decides what it means
            write(self._answers, error_frame(FAILED, 0, error))
            return
        self._plain = plain = bool(getattr(self._connection, "plain_values", False))
        self._refresh = getattr(self._connection, "refresh", lambda: None)
        self._seals = hasattr(self._connection, "seal")
        if self._seals:
            self._connection.seal = lambda value, of: Packed(value, of, plain=plain)  # type: ignore[attr-defined]
        if hasattr(self._connection, "execute_group"):
            self._grouping = cast("Grouping", self._connection)
        if hasattr(self._connection, "on_wait"):
            self._connection.on_wait = lambda: write(self._answers, frame(WAITS, self._first, b""))
        warnings = getattr(self._connection, "warnings", ())
        write(self._answers, frame(READY, 0, marshal.dumps(tuple(warnings))))
        try:
            if self._grouping is not None:
                self._serve_groups(self._grouping)
            else:
                while (job := self._draw()) is not None:
                    self._run(*job)
                    del job  # while it waits for the next, it shall hold nothing of this one
                    self._make_ready()
        finally:
            self._connection.close()

    def _serve_groups(self, connection: Grouping) -> None:
        """Run what waits together together, until the parent sends no more."""
        while True:
            if connection.held_over:
                first: Ticketed | None = connection.held_over.popleft()
            else:
                drawn = self._draw()
                first = None if drawn is None else self._loaded(*drawn)
                del drawn
            if first is None:
                return
            self._first = first[0]
            try:
                answers = connection.execute_group(first, self._draw_now)
            except BaseException as error:  # noqa: BLE001  # nothing more can run here
                self._lose(first[0], error, 0.0)
            del first  # while it waits for the next, it shall hold nothing of this one
            self._tell(answers)
            del answers
            self._make_ready()

    def _make_ready(self) -> None:
        """Make the connection as new, if a job has changed it; a failure costs nothing that was answered."""
        try:
            self._refresh()
        except BaseException as error:  # noqa: BLE001  # nothing more can run here
            self._lose(self._first, error, 0.0)

    def _tell(self, answers: list[Answer]) -> None:
        """Write answers, as many as have room in one system call."""
        data = b""
        for ticket, value, error, seconds in answers:
            for part in self._frames(ticket, value, error, seconds):
                if len(data) + len(part) > LARGE:
                    write(self._answers, data)
                    data = b""
                if len(part) < LARGE:
                    data += part
                else:
                    write(self._answers, part)
        write(self._answers, data)

    def _frames(self, ticket: int, value: Any, error: BaseException | None, seconds: float) -> Iterator[bytes]:
        if error is None:
            try:
                yield from answer_frames(ticket, value, None, seconds, plain=self._plain)
            except Exception as failure:  # noqa: BLE001  # it goes to its caller
                # The answer of a job that has written was packed before the commit, so it was committed.
                error = ResultLost.of("the job", failure) if type(value) is Packed else failure
            else:
                return
        _tell_where(error)
        yield error_frame(ERROR, ticket, error, seconds)
        error.__traceback__ = None  # its frames hold a cursor, and that a lock

    def _loaded(self, ticket: int, kind: int, body: bytes | bytearray) -> Ticketed:
        try:
            return ticket, load_request(kind, body)
        except Exception as error:  # noqa: BLE001  # it goes to its caller
            return ticket, Unrunnable(error)

    def _draw_now(self) -> Ticketed | None:
        """Return the next job that has come and is this process's, if there is one."""
        if not self._read:
            with suppress(BlockingIOError):
                self._buffer += os.read(self._jobs, _CHUNK)
                self._parse()
            if not self._read:
                return None
        try:
            token = os.read(self._tokens, 1)
        except BlockingIOError:
            self._read.clear()  # these were taken back
            return None
        while token and (self._read or self._receive()):
            job = self._read.popleft()
            if token_of(job[0]) == token[0]:
                return self._loaded(*job)
        return None

    def _draw(self) -> tuple[int, int, bytes | bytearray] | None:
        """Return the next job that is this process's, or `None` if the parent sends no more."""
        read = self._read
        while True:
            if not read and not self._receive():
                return None
            try:
                token = os.read(self._tokens, 1)
            except BlockingIOError:
                read.clear()  # a job's token is there before the job is: these were taken back
                continue
            if not token:
                return None
            while read or self._receive():
                job = read.popleft()
                if token_of(job[0]) == token[0]:
                    return job
            return None

    def _receive(self) -> bool:
        """Read what was sent, waiting for it; say whether there was any more."""
        while True:
            self._parse()
            if self._read:
                return True
            if len(self._buffer) < HEAD.size or not self._receive_large():
                more = self._wait_for(lambda: os.read(self._jobs, _CHUNK))
                if not more:
                    return False
                self._buffer += more

    def _wait_for(self, read: Callable[[], T]) -> T:
        """Read what comes next, at first without sleeping."""
        eager_until = time.perf_counter() + _EAGER
        while True:
            try:
                return read()
            except BlockingIOError:
                if time.perf_counter() < eager_until:
                    os.sched_yield()
                else:
                    self._more.poll()

    def _parse(self) -> None:
        buffer, at = self._buffer, 0
        while len(buffer) - at >= HEAD.size:
            magic, length, ticket, kind, _ = HEAD.unpack_from(buffer, at)
            if magic != MAGIC:
                message = "the parent of this child process sent what is no request"
                raise ValueError(message)
            end = at + HEAD.size + length
            if end > len(buffer):
                break
            self._read.append((ticket, kind, buffer[at + HEAD.size : end]))
            at = end
        self._buffer = buffer[at:]

    def _receive_large(self) -> bool:
        """Read the rest of a frame that was begun, if it is a large one; say whether it was.

        One for which there is no memory is thrown away as it comes: it becomes the error of its job, and of no other.
        """
        _, length, ticket, kind, _ = HEAD.unpack_from(self._buffer)
        if length <= _CHUNK:
            return False
        begun, self._buffer = self._buffer[HEAD.size :], b""
        try:
            body = bytearray(length)
            body[: len(begun)] = begun
            place = memoryview(body)
        except MemoryError:
            kind, body, place = TOO_LARGE, bytearray(), memoryview(bytearray(_CHUNK))
        at = len(begun)
        while at < length:
            part = place[at:] if kind != TOO_LARGE else place[: length - at]
            got = self._wait_for(partial(os.readv, self._jobs, [part]))
            if not got:
                raise EOFError
            at += got
        self._read.append((ticket, kind, body))
        return True

    def _run(self, ticket: int, kind: int, body: bytes | bytearray) -> None:
        began = time.perf_counter()
        self._first = ticket
        with self._lock:
            self._running = ticket
            interrupted = self._interrupted and self._is_interrupted(ticket)
        lost = False
        cause: BaseException
        try:
            if interrupted:
                message = "interrupted before it was started"
                raise InterruptedError(message)  # noqa: TRY301  # answered like any error
            request, connection = load_request(kind, body), self._connection
            del body
            result = connection.execute(request)  # type: ignore[union-attr]  # open by now
            with self._lock:
                self._running = 0
            self._answer(ticket, result, request, time.perf_counter() - began)
            if isinstance(request, (Declare, Fetch)) and request.ahead and result.truncated:
                del result
                self._fetch_ahead(ticket)
        except ConnectionLost as error:
            lost, cause = True, error
        except Exception as error:  # noqa: BLE001  # the statement's own error goes to its caller
            cause = error
        except BaseException as error:  # noqa: BLE001  # as on a thread, it costs the worker
            lost, cause = True, error
        else:
            return
        with self._lock:
            self._running = 0
        if lost:
            self._lose(ticket, cause, time.perf_counter() - began)
        _tell_where(cause)
        write(self._answers, error_frame(ERROR, ticket, cause, time.perf_counter() - began))
        cause.__traceback__ = None  # its frames hold a cursor, and that a lock

    def _answer(self, ticket: int, value: Any, request: Request | Step, seconds: float) -> None:
        """Write what a job is answered by.

        Raises:
            TypeError: it is nothing that a connection may answer.
            ResultLost: it cannot be sent, and the job was done.
            Exception: the same of a job that has only read.
        """
        if type(value) is not Packed:
            assert self._connection is not None  # it was opened before any job
            value = checked(value, request, self._connection)
        try:
            if self._plain and type(value) is Result and len(value.rows) <= FEW:
                write(self._answers, answer_frame(ticket, value, seconds))
                return
            for data in answer_frames(ticket, value, request, seconds, plain=self._plain):
                write(self._answers, data)
        except Exception as error:
            if self._seals and type(value) is not Packed:
                raise  # what writes was packed before it was committed
            raise ResultLost.of(request, error) from error

    def _fetch_ahead(self, ticket: int) -> None:
        """Fetch what a stream will be asked for next, while the parent works on what it was given.

        The answered step counts as running meanwhile: an interrupt of it is for this, and one of the step that asks
        for it, which may have been sent.
        """
        ahead: Callable[[], object] | None = getattr(self._connection, "fetch_ahead", None)
        if ahead is not None:
            with self._lock:
                self._running, self._is_ahead = ticket, True
            ahead()
            with self._lock:
                self._running, self._is_ahead = 0, False

    def _lose(self, ticket: int, cause: BaseException, seconds: float) -> NoReturn:
        """Say why nothing more can run here, and end."""
        if isinstance(cause, ConnectionLost):
            cause = cause.__cause__ or cause
        _tell_where(cause)
        write(self._answers, error_frame(LOST, ticket, cause, seconds))
        _end(1)

    def _is_interrupted(self, ticket: int) -> bool:
        """Say whether an interrupt came before its job; forget those whose jobs were taken back."""
        interrupted = ticket in self._interrupted
        self._interrupted = {later for later in self._interrupted if later > ticket}
        return interrupted

    def _listen(self) -> NoReturn:
        """Interrupt what the parent wants interrupted; when it is gone, be gone."""
        while True:
            data = os.read(self._control, TICKET.size)
            if len(data) < TICKET.size:
                _end(1)
            (ticket,) = TICKET.unpack(data)
            if self._grouping is not None:
                self._grouping.interrupt(None if ticket == WHATEVER_RUNS else ticket)
                continue
            with self._lock:
                if self._running and (ticket in (WHATEVER_RUNS, self._running) or self._is_ahead):
                    # A database of somebody's own; the interrupt is repeated.
                    with suppress(Exception):
                        self._connection.interrupt()  # type: ignore[union-attr]  # open, since something runs
                if ticket > self._running:
                    self._interrupted.add(ticket)


def main(jobs: int, answers: int, tokens: int, control: int, lifeline: int) -> NoReturn:
    """Serve until the parent ends, or wants no more. In the main thread of a child process."""
    for descriptor in (jobs, answers, tokens, control, lifeline):
        os.set_inheritable(descriptor, False)
    os.register_at_fork(after_in_child=lambda: _let_go(jobs, answers, tokens, control, lifeline))
    _tie(lifeline)
    # Rows are no garbage: looking for cycles among them again and again takes a sixth of the time that fetching takes.
    gc.set_threshold(50_000, 10, 10)
    host = Host(jobs, answers, tokens, control)
    code = 0
    try:
        host.serve(_specification(jobs))
    except MemoryError:
        code = OUT_OF_MEMORY
    except (BrokenPipeError, EOFError):
        code = 1  # nobody is there any more
    except BaseException:  # noqa: BLE001  # a fault of ours: for whoever looks at standard error
        code = 1
        with suppress(BaseException):
            traceback.print_exc()
    _end(code)


def _tie(lifeline: int) -> None:
    """See to it that this process ends with its parent, and not before it because of the terminal.

    At the end of the lifeline's other side the kernel sends SIGKILL (or SIGIO, where only that can be had, which ends
    a process as well), whatever this one does then: no thread of it needs to run for that, and none could while a
    function keeps the interpreter to itself, or while the process is stopped.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # It is no process of the terminal's foreground, which with "stty tostop" must not even print.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        over = not os.read(lifeline, 1)
    except BlockingIOError:
        over = False
    if over:  # it ended before the kernel was asked to tell
        _end(1)


def _specification(jobs: int) -> bytes:
    _, length, _, _, _ = HEAD.unpack(_read_exactly(jobs, HEAD.size))
    return _read_exactly(jobs, length)


def _database(specification: bytes) -> Database:
    """Return the database that the children of this parent connect to, and keep to its limit of memory."""
    import pickle

    database, memory_limit = pickle.loads(specification)  # from our own parent
    _limit(memory_limit)
    return database  # type: ignore[no-any-return]


def _let_go(*descriptors: int) -> None:
    """In a fork that a function of the user's makes: it shall keep nobody waiting for the end of these pipes."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


def _read_exactly(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(descriptor, size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _limit(memory_limit: int | None) -> None:
    if memory_limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, memory_limit))


def _tell_where(error: BaseException) -> None:
    """Add to an error of a user's function where it came from: a traceback does not travel."""
    frames = [
        summary
        for summary, (frame, _) in zip(
            traceback.extract_tb(error.__traceback__), traceback.walk_tb(error.__traceback__), strict=True
        )
        # Neither ours nor those that APSW makes up for its own C code.
        if not str(frame.f_globals.get("__name__")).startswith("actors.") and not summary.filename.endswith(".c")
    ]
    if frames:
        with suppress(Exception):
            error.add_note("in the child process:\n" + "".join(traceback.format_list(frames)).rstrip())


def _end(code: int) -> NoReturn:
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
