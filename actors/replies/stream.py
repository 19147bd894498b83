"""RowStream: rows that come as they are taken."""

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol, Self

from actors.databases.steps import Declare, Fetch, Step
from actors.replies.checkout import Checkout, OpeningReply, StepCall
from actors.replies.owner import Crew
from actors.replies.reply import Reply
from actors.values.errors import SessionClosed
from actors.values.requests import Stream
from actors.values.result import Result, Row

__all__ = ["Chunks", "RowStream", "StreamCheckout"]


class StreamCheckout(Checkout):
    """The checkout of a stream that has a worker of its own."""

    what = "stream"

    def __init__(self, crew: Crew, request: Stream) -> None:
        super().__init__(crew)
        self._request = request

    def open(self) -> Reply["RowStream"]:
        """Take the first call, once: its reply is the `RowStream`."""
        request = self._request
        step = Declare(1, request.sql, request.params, request.chunk, ahead=True)
        reply: Reply[RowStream] = OpeningReply(self._crew, self.end, self.release)
        return self._take(StepCall(step, reply, lambda first: RowStream(self, first, request.chunk)))

    def more(self, rows: int) -> Reply[Result]:
        """Ask for so many rows."""
        return self._step(Fetch(1, rows, ahead=True), self._request)

    def ends_with(self, step: Step, value: Any) -> bool:
        """Say whether there are no more rows."""
        del step
        return not value.truncated


class _Source(Protocol):
    """Where a stream has its rows from: a worker of its own, or a cursor of a transaction."""

    travels: bool

    def more(self, rows: int) -> Reply[Result]: ...
    def release(self) -> None: ...


class RowStream:
    """The rows that answer a `Stream`: an iterator, and an async iterator, of `Row`.

    No more than a few chunks of rows are ever in memory. Its worker serves nobody else until the last row is taken, the
    stream is closed or dropped, or its time is over. A stream of a transaction has no worker of its
    own: it reads on the transaction's connection, and sees its uncommitted rows. Whether it sees
    rows that were changed after it was opened is not defined. It ends with the transaction; only
    rows that were fetched before can still be taken.

    For one thread or task at a time. It never ends silently before the last row: an exception in
    the middle, such as the cancelling of a task that waits for rows, closes it.

    Raises, as it is iterated:
        QueryTimeout: its deadline has passed.
        WorkerDied: its worker died; what was taken before is true.
        SessionClosed: it was closed, or its transaction has ended.
        TransactionBroken: an error has rolled its transaction back.
        Exception: the driver's own error.
    """

    def __init__(self, source: _Source, first: Result, chunk: int) -> None:
        self.columns = first.columns
        """The names of the columns."""
        self._source = source
        self._size = chunk
        # What was fetched and not taken: as the driver gave it, and the same as rows.
        self._values: Iterator[tuple[Any, ...]] = iter(())
        self._rows: Iterator[Row] = iter(())
        self._more = True
        self._ended_early = False
        # Whether somebody waits for the next chunk.
        self._waiting = False
        # What was asked for early.
        self._asked: Reply[Result] | None = None
        self._accept(first)

    def _accept(self, chunk: Result) -> None:
        self._values = iter(chunk.rows)
        self._rows = chunk._as_rows(self._values)
        self._more = chunk.truncated
        self._asked = self._source.more(self._size) if self._more and self._source.travels else None

    def _ask(self) -> Reply[Result]:
        """Return the reply of the next chunk; no other caller may wait for one meanwhile."""
        self._waiting = True
        if self._asked is None:
            self._asked = self._source.more(self._size)
        return self._asked

    def _has_more(self) -> bool:
        """Say whether there may be more rows.

        Raises:
            SessionClosed: there may be, and the caller cannot have them.
        """
        if self._waiting:
            message = "this stream is read by another thread or task at this moment, and each would miss rows"
            raise _InUse(message)
        if self._ended_early:
            message = "the stream has ended early: it was closed, or has failed before"
            raise SessionClosed(message)
        return self._more

    def _advance(self) -> bool:
        """Fetch the next chunk, if there may be one; say whether there was."""
        if not self._has_more():
            return False
        self._accept(self._ask().get())
        self._waiting = False
        return True

    async def _advance_async(self) -> bool:
        if not self._has_more():
            return False
        self._accept(await self._ask())
        self._waiting = False
        return True

    def _cut_off(self) -> None:
        """End early after an exception while rows were taken: some may have been missed."""
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.cancel()  # if it is not answered: the caller does not take these rows
        self._fail()

    def _fail(self) -> None:
        """Let go of the source. May be called again, and is, where an exception has cut it off."""
        self._ended_early = self._ended_early or self._more
        self._waiting = False
        if self._more:
            self._source.release()
        self._more = False

    # Each of the methods that take rows has its own `try`, since an exception may come as any call
    # begins.

    def __iter__(self) -> Iterator[Row]:
        try:
            while True:
                yield from self._rows
                if not self._advance():
                    return
        except (GeneratorExit, _InUse):
            raise  # a loop over the rows was left; another one may go on
        except BaseException:
            self._cut_off()
            raise

    def __next__(self) -> Row:
        try:
            while True:
                for row in self._rows:
                    return row
                if not self._advance():
                    break
        except _InUse:
            raise
        except BaseException:
            self._cut_off()
            raise
        raise StopIteration

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Row:
        try:
            while True:
                for row in self._rows:
                    return row
                if not await self._advance_async():
                    break
        except _InUse:
            raise
        except BaseException:
            self._cut_off()
            raise
        raise StopAsyncIteration

    def chunks(self) -> "Chunks":
        """Return the rows that are left, as results of a chunk each: an iterator, and an async iterator.

        Their `rows` are plain tuples as the driver gave them, which take less time than `Row`.
        """
        return Chunks(self)

    def close(self) -> None:
        """Give its worker free, or close its cursor; never waits. May be called again."""
        try:
            self._end()
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        self._ended_early = self._ended_early or next(self._values, None) is not None
        self._values = self._rows = iter(())
        self._fail()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end()
        except BaseException:
            self._end()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end()
        except BaseException:
            self._end()
            raise

    def __del__(self) -> None:
        if getattr(self, "_more", False):
            self._source.release()

    def __repr__(self) -> str:
        state = "open" if self._more else "ended early" if self._ended_early else "over"
        return f"<RowStream {state}: {', '.join(self.columns)}>"


class _InUse(RuntimeError):
    """Another thread or task takes rows at this moment; nothing has happened to the stream."""


class Chunks:
    """The rows of a stream, a chunk at a time."""

    def __init__(self, stream: RowStream) -> None:
        self._stream = stream

    def _fetched(self) -> Result | None:
        rows = list(self._stream._values)
        return Result(self._stream.columns, rows, len(rows)) if rows else None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Result:
        try:
            while (chunk := self._fetched()) is None:
                if not self._stream._advance():
                    break
        except _InUse:
            raise
        except BaseException:
            self._stream._cut_off()
            raise
        if chunk is None:
            raise StopIteration
        return chunk

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        try:
            while (chunk := self._fetched()) is None:
                if not await self._stream._advance_async():
                    break
        except _InUse:
            raise
        except BaseException:
            self._stream._cut_off()
            raise
        if chunk is None:
            raise StopAsyncIteration
        return chunk
