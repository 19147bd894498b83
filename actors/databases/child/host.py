"""The program of a child process: one connection, jobs from a pipe, answers into another pipe.

    parent ── jobs ────►  main thread: draw a token, run its job, and again; then write the answers
           ◄── answers ──
           ── control ─►  a thread of its own: interrupts; its end is the end of the parent
           ── lifeline ►  nothing is ever written: at its end the kernel kills this process

The child claims a job by the token of the job; see `claims`. An answer leaves the child by itself
if it is large, and else in one frame with other answers (`Host.flush`).
"""

import marshal
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NoReturn

from actors.databases.base import Connection
from actors.databases.child.claims import Claims
from actors.databases.child.frames import (
    ANSWERS,
    DONE,
    ERROR,
    FAILED,
    FEW,
    FLUSH,
    LARGE,
    READY,
    RESULT,
    RUNNING_JOB,
    STEP,
    TICKET,
    WAITS,
    frame,
    write,
)
from actors.databases.child.requests import Requests
from actors.databases.child.requests_codec import Item, load_request
from actors.databases.child.results_codec import Packed, answer_frames, error_frame, lost_frame
from actors.databases.executor import Batch
from actors.databases.steps import Close, Declare, Fetch
from actors.values.errors import ConnectionLost, ResultLost
from actors.values.result import Result

__all__ = ["Host", "end"]

_LONGEST_KEPT: Final = 0.001  # seconds; the answers of jobs that ran this long together are sent
_NO_MEMORY: Final = "a child process has no memory for these parameters; see ChildProcess(memory_limit=…)"


class _Task:
    """A job as the connection in a child knows it."""

    __slots__ = ("_unwanted", "began", "request", "ticket")

    def __init__(self, ticket: int, unwanted: set[int], began: float) -> None:
        self.ticket = ticket
        self.request: Any = None
        self.began = began
        # The tickets of all interrupted jobs; shared with the host.
        self._unwanted = unwanted

    @property
    def is_unwanted(self) -> bool:
        """Whether it was interrupted. `Close` runs in every case: it cleans the connection."""
        return self.ticket in self._unwanted and type(self.request) is not Close


class RemoteBatch(Batch):
    """The jobs of one frame, or a step; see `Batch`."""

    __slots__ = ("_count", "_first", "_host", "_items")

    def __init__(self, host: "Host", connection: Connection, ticket: int, count: int, items: list[Item] | None) -> None:
        """Take the jobs of a frame.

        Args:
            host: whose they are.
            connection: the connection that runs them.
            ticket: that of the first.
            count: how many there are.
            items: their requests; `None` if there was no memory for them.
        """
        super().__init__(connection)
        self._host = host
        self._first = ticket
        self._count = count
        self._items = items

    def __len__(self) -> int:
        return self._count

    def begin(self) -> _Task | None:
        """Draw the next token, and return its job; see `Batch`."""
        host, first, claims = self._host, self._first, self._host.claims
        while (number := claims.draw(first, self._count)) is not None:
            if host.tells_first:
                self.tell()
            task = _Task(first + number, host.unwanted, time.perf_counter())
            self.running.append(task)
            try:
                if self._items is None:
                    raise MemoryError(_NO_MEMORY)  # noqa: TRY301
                task.request = load_request(self._items[number])
                if task.is_unwanted:
                    raise InterruptedError("interrupted before it was started")  # noqa: TRY301
            except Exception as error:  # noqa: BLE001  # it goes to its caller
                self.fail(task, error)
                continue
            return task
        return None

    def tell(self) -> None:
        """Send the answers that are there; see `Batch`."""
        if self._host.has_answers:
            self._host.flush()

    def answer(self, task: _Task, value: Any, seconds: float | None = None) -> None:
        """Send an answer, now or together with others; see `Batch`."""
        self._leave(task)
        self._host.answer(task, value, time.perf_counter() - task.began if seconds is None else seconds)

    def fail(self, task: _Task, error: BaseException, seconds: float | None = None) -> None:
        """Send an error; see `Batch`."""
        self._leave(task)
        self._host.fail(task, error, time.perf_counter() - task.began if seconds is None else seconds)

    def reroute(self, task: _Task) -> None:
        """Let the parent hand the job to the writer; see `Batch`."""
        self._leave(task)
        self._host.reroute(task)

    def give_back(self, *tasks: _Task) -> None:
        """Do nothing more: the connection is lost, and that tells the parent; see `Batch`."""
        for task in tasks:
            self._leave(task)


class Host:
    """The child's end of a connection; see the head of this file."""

    def __init__(self, requests: Requests, answers: int, tokens: int, control: int) -> None:
        self._requests = requests
        self._answers, self._control = answers, control
        self.claims = Claims(tokens)
        """Claims the jobs that the parent has sent."""
        # Held by the thread that writes answers.
        self._writing = threading.Lock()
        self._connection = Connection()
        self._plain = self._seals = False
        self.tells_first = True
        """Whether all answers are sent before the next job is begun. Then a death costs only the
        running job. A writer needs that: no write is begun again, so no answer may be lost."""
        self._batch: RemoteBatch | None = None
        self.unwanted: set[int] = set()
        """The tickets of jobs that were interrupted, begun or not."""
        # Answers that were not sent yet: small results and whole frames. `_seconds` is how long the
        # jobs of these results ran. A large value takes long to make, so the limit of time also
        # bounds the memory of the answers that are kept.
        self._results: list[tuple[int, float, Any]] = []
        self._frames: list[bytes] = []
        self._seconds = 0.0
        # Gets the large buffers that travel beside the frames; `None` if they travel in the frames.
        self._beside: list[Any] | None = None
        # The step after which the connection fetches the rows of the next step.
        self._ahead: _Task | None = None

    def serve(self, connect: Callable[[], Connection]) -> None:
        """Open the connection, and run jobs until the parent sends no more."""
        threading.Thread(target=self._listen, name="querycrew-control", daemon=True).start()
        try:
            connection = connect()
        except BaseException as error:  # noqa: BLE001  # the parent decides what it means
            self._put(error_frame(FAILED, 0, error))
            return
        self._put(frame(READY, 0, self._use(connection)))
        connection.on_wait = self._tell_wait
        self.tells_first = not connection.reads_only
        try:
            while (sent := self._requests.next()) is not None:
                self._serve_batch(*sent)
                del sent  # an idle child holds nothing of its last frame
        finally:
            connection.close()

    def _use(self, connection: Connection) -> bytes:
        """Run all jobs on this connection; return the body of `READY`."""
        self._connection = connection
        self._plain = plain = bool(connection.plain_values)
        self._seals = connection.seal_with(lambda value, of: Packed(value, of, plain=plain))
        return marshal.dumps((tuple(connection.warnings), bool(connection.reads_only)))

    def _serve_batch(self, ticket: int, count: int, kind: int, body: bytes | bytearray | None) -> None:
        try:
            items = None if body is None else marshal.loads(body)
        except MemoryError:
            items = None
        if kind == STEP:
            self.claims.grant(ticket)
        self._run(ticket, count, items)

    def _run(self, ticket: int, count: int, items: "list[Item] | None") -> None:
        """Run the jobs of a frame whose claims can be drawn."""
        self._batch = batch = RemoteBatch(self, self._connection, ticket, count, items)
        try:
            self._connection.check()
            self._connection.run(batch)
            self.flush(DONE)
            if self._ahead is not None:
                self._fetch_ahead(batch, self._ahead)
            self._connection.refresh()
        except BaseException as error:  # noqa: BLE001  # nothing more can run here
            self._lose(error)
        self._batch = None
        if self.unwanted:
            self.unwanted.difference_update([each for each in tuple(self.unwanted) if each < ticket + count])

    def _fetch_ahead(self, batch: RemoteBatch, task: _Task) -> None:
        """Fetch the next rows of a stream, while the parent works on the last ones.

        The answered step counts as running meanwhile: an interrupt of it is for this, and one of
        the step that asks for it, which may have been sent.
        """
        batch.running.append(task)
        self._connection.fetch_ahead()
        batch._leave(task)
        self._ahead = None

    # --- answers --------------------------------------------------------------------------

    def _put(self, data: bytes) -> None:
        """Send a frame, or a part of it."""
        write(self._answers, data)

    def _end(self, last: bytes) -> NoReturn:
        """Send the last frame, and end: nothing more can run here."""
        self._put(last)
        end(1)

    @property
    def has_answers(self) -> bool:
        """Whether there are answers that were not sent yet."""
        return bool(self._results or self._frames)

    def answer(self, task: _Task, value: Any, seconds: float) -> None:
        """Send the answer of a job, together with other answers if it is small."""
        if self._plain and type(value) is Result and len(value.rows) <= FEW:
            if value.truncated:
                self._note_ahead(task)
            result = (value.columns, value.rows, value.rowcount, value.lastrowid, value.truncated)
            self._results.append((task.ticket, seconds, result))
            self._seconds += seconds
            if self._seconds > _LONGEST_KEPT:
                self.flush()
            return
        if type(value) is Packed:
            kind, body = value.parts[0]
            if len(value.parts) == 1 and kind == RESULT and len(body) < LARGE:
                self._results.append((task.ticket, seconds, body))
                return
        elif type(value) is Result and value.truncated:
            self._note_ahead(task)
        self._send(task, value, seconds)

    def _note_ahead(self, task: _Task) -> None:
        """Note that more rows of a stream can be fetched, if that was asked for."""
        if isinstance(task.request, (Declare, Fetch)) and task.request.ahead:
            self._ahead = task

    def _send(self, task: _Task, value: Any, seconds: float) -> None:
        """Send an answer by itself, now."""
        self.flush()
        try:
            frames = answer_frames(task.ticket, value, task.request, seconds, plain=self._plain, beside=self._beside)
            for parts in frames:
                with self._writing:
                    for part in parts:
                        self._put(part)
        except Exception as error:  # noqa: BLE001  # it goes to its caller
            self.fail(task, self._unsent(error, task.request, is_packed=type(value) is Packed), seconds)

    def _unsent(self, error: Exception, request: object, *, is_packed: bool) -> Exception:
        """Return the error of a job whose answer cannot be sent.

        A connection that seals its answers packs the answer of every job that writes before the
        commit. So a job with an unpacked answer has changed nothing there, and gets its own error.
        The effect of every other job may stay: its error is `ResultLost`.
        """
        return error if self._seals and not is_packed else ResultLost.of(request, error)

    def fail(self, task: _Task, error: BaseException, seconds: float) -> None:
        """Send the error of a job, together with other answers."""
        _tell_where(error)
        self._frames.append(error_frame(ERROR, task.ticket, error, seconds))
        error.__traceback__ = None  # the frames of the traceback hold a cursor, and the cursor holds a lock

    def reroute(self, task: _Task) -> None:
        """Say that a job is one for the writer."""
        self._results.append((task.ticket, 0.0, None))

    def flush(self, kind: int = ANSWERS) -> None:
        """Write all answers that are there. From any thread."""
        with self._writing:
            # Another thread may append to these lists meanwhile.
            frames, results = self._frames[:], self._results[:]
            del self._frames[: len(frames)], self._results[: len(results)]
            self._seconds = 0.0
            if results or kind == DONE:
                try:
                    frames.append(frame(kind, 0, marshal.dumps(results)))
                except Exception:  # noqa: BLE001  # there is no memory for all, or one of them cannot be sent
                    frames += [*map(self._alone, results), frame(kind, 0, marshal.dumps([]))]
            if frames:
                self._put(b"".join(frames) if len(frames) > 1 else frames[0])

    def _alone(self, result: tuple[int, float, Any]) -> bytes:
        """Return a frame with one small result, or with the error that it cannot be sent."""
        ticket, seconds, _ = result
        try:
            return frame(ANSWERS, 0, marshal.dumps([result]))
        except Exception as error:  # noqa: BLE001  # it goes to its caller
            unsent = self._unsent(error, "the job", is_packed=type(result[2]) is bytes)
            return error_frame(ERROR, ticket, unsent, seconds)

    def _tell_wait(self) -> None:
        with self._writing:
            self._put(frame(WAITS, 0, b""))

    def _lose(self, cause: BaseException) -> NoReturn:
        """Say why nothing more can run here, and end."""
        lost = cause if isinstance(cause, ConnectionLost) else ConnectionLost()
        if lost is not cause:
            lost.__cause__ = cause
        _tell_where(lost.__cause__ or lost)
        self.flush()
        self._end(lost_frame(lost))

    # --- interrupts, in a thread of its own -----------------------------------------------

    def _listen(self) -> NoReturn:
        """Interrupt the jobs that the parent names. End this process when the parent is gone."""
        while True:
            data = os.read(self._control, TICKET.size)
            if len(data) < TICKET.size:
                end(1)
            (ticket,) = TICKET.unpack(data)
            # The `interrupt` of a user's own database raised; the parent repeats it.
            with suppress(Exception):
                if ticket == FLUSH:
                    self._flush_now()
                else:
                    self._interrupt(ticket)

    def _flush_now(self) -> None:
        if not self._writing.locked():  # else the other thread sends them now
            self.flush()

    def _interrupt(self, ticket: int) -> None:
        if ticket != RUNNING_JOB:
            self.unwanted.add(ticket)  # before the look at the batch: a job that is about to begin sees it
        batch, ahead = self._batch, self._ahead
        for task in () if batch is None else tuple(batch.running):
            if ticket in (RUNNING_JOB, task.ticket) or task is ahead:
                batch.interrupt(task)  # type: ignore[union-attr]  # there is one, since it has tasks


def _tell_where(error: BaseException) -> None:
    """Add to an error of a user's function where it came from: a traceback does not travel."""
    frames = [
        summary
        for summary, (frame, _) in zip(
            traceback.extract_tb(error.__traceback__), traceback.walk_tb(error.__traceback__), strict=True
        )
        # Without our own frames, and without the frames that APSW makes up for its C code.
        if not str(frame.f_globals.get("__name__")).startswith("actors.") and not summary.filename.endswith(".c")
    ]
    if frames:
        with suppress(Exception):
            error.add_note("in the process of the connection:\n" + "".join(traceback.format_list(frames)).rstrip())


def end(code: int) -> NoReturn:
    """End this process now."""
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
