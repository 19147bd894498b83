"""RowStream: rows that are fetched as their caller takes them."""

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from actors.databases.steps import Deallocate, Declare, Fetch, Step
from actors.replies.checkout import Checkout, OpeningReply, StepCall
from actors.replies.owner import Crew
from actors.replies.reply import Reply
from actors.system.tracebacks import trim_to_caller
from actors.values.errors import SessionClosed
from actors.values.requests import Stream
from actors.values.result import Result, Row

__all__ = ["Chunks", "CursorCheckout", "RowStream", "StreamCheckout"]


class CursorCheckout(Checkout):
    """A checkout that can open cursors. Both kinds of streams come from here."""

    def opening_of(self, number: int, request: Stream, *, ahead: bool) -> StepCall:
        """Return the step call that opens a cursor. Its reply is the `RowStream`.

        Args:
            number: the cursor's number in this checkout.
            request: the statement and its parameters.
            ahead: whether the next chunk of rows may be fetched before the caller asks for it.
        """
        cursor = _Cursor(self, number, request, ahead=ahead)
        step = Declare(number, request.sql, request.params, request.chunk, ahead=ahead, arrow=request.arrow)
        reply: Reply[RowStream] = OpeningReply(self._crew, self.end, cursor.release)
        return StepCall(step, reply, lambda first: RowStream(cursor, first, request.chunk))

    def fetch(self, step: Fetch | Deallocate, request: Stream) -> Reply[Any]:
        """Ask for a step of the stream of `request`."""
        return self._step(step, request)

    def close_cursor(self, number: int, request: Stream) -> None:
        """Close a cursor that its caller does not need any more. Never waits."""
        raise NotImplementedError


class StreamCheckout(CursorCheckout):
    """The checkout of a stream that has a worker of its own."""

    what = "stream"

    def __init__(self, crew: Crew, request: Stream) -> None:
        super().__init__(crew)
        self._request = request

    def open(self) -> Reply["RowStream"]:
        """Ask for the first step, and return the reply with the `RowStream`. Called once."""
        return self._send(self.opening_of(1, self._request, ahead=True))

    def close_cursor(self, number: int, request: Stream) -> None:
        """Release the worker: the stream has no other cursor. Never waits."""
        del number, request
        self.release()

    def ends_with(self, step: Step, value: Any) -> bool:
        """Say whether there are no more rows."""
        del step
        return not value.truncated


class _Cursor:
    """The source of a stream's rows: one cursor of a checkout."""

    def __init__(self, checkout: CursorCheckout, number: int, request: Stream, *, ahead: bool) -> None:
        self._checkout = checkout
        self._number = number
        self._request = request
        self._ahead = ahead

    @property
    def is_read_ahead(self) -> bool:
        """Whether the stream asks for the next chunk before the caller needs it.

        That is of use if the rows come from another process, or if a driver makes columns, since
        neither needs the lock of Python's interpreter.
        """
        return self._ahead and (self._checkout.travels or self._request.arrow)

    def more(self, rows: int) -> Reply[Result]:
        """Ask for the next rows, at most this many."""
        return self._checkout.fetch(Fetch(self._number, rows, ahead=self._ahead), self._request)

    def release(self) -> None:
        """Close the cursor. Never waits. May be called again."""
        self._checkout.close_cursor(self._number, self._request)


class RowStream:
    """The rows that answer a `Stream`: an iterator, and an async iterator, of `Row`.

    At most a few chunks of rows are in memory. The stream's worker serves no other caller until the
    last row is taken, the stream is closed or dropped, or its time is over.

    A stream of a transaction has no worker of its own. It reads on the transaction's connection and
    sees the transaction's uncommitted rows. It is not defined whether the stream sees a row that
    was changed after the stream was opened. The stream ends with the transaction. Rows that were
    fetched before can still be taken.

    Only one thread or task may use the stream at a time. The stream never ends silently before the
    last row. An exception in the middle, such as the cancellation of a task that waits for rows,
    closes the stream.

    Raises, during iteration:
        QueryTimeout: the deadline has passed.
        WorkerDied: the worker died. The rows that were taken before are correct.
        SessionClosed: the stream was closed, or its transaction has ended.
        TransactionBroken: an error has rolled its transaction back.
        Exception: the driver's own error.
    """

    def __init__(self, source: _Cursor, first: Result, chunk: int) -> None:
        self.columns = first.columns
        """The names of the columns."""
        self._source = source
        self._size = chunk
        # Rows that were fetched and not taken: the driver's tuples, and a `Row` of each of them.
        self._values: Iterator[tuple[Any, ...]] = iter(())
        self._rows: Iterator[Row] = iter(())
        self._more = True
        self._ended_early = False
        # Whether a thread or task waits for the next chunk.
        self._waiting = False
        # The reply of a chunk that was asked for early.
        self._asked: Reply[Result] | None = None
        self._accept(first)

    def _accept(self, chunk: Result) -> None:
        self._values = iter(chunk.rows) if chunk._columnar is None else _Untouched(chunk)
        self._rows = chunk._as_rows(self._values)
        self._more = chunk.truncated
        self._asked = self._source.more(self._size) if self._more and self._source.is_read_ahead else None

    def _ask(self) -> Reply[Result]:
        """Return the reply of the next chunk. No other caller may wait for a chunk meanwhile."""
        self._waiting = True
        if self._asked is None:
            self._asked = self._source.more(self._size)
        return self._asked

    def _has_more(self) -> bool:
        """Say whether there may be more rows.

        Raises:
            SessionClosed: there may be more rows, and the caller cannot get them.
        """
        if self._waiting:
            message = "this stream is read by another thread or task at this moment, and each would miss rows"
            raise _InUse(message)
        if self._ended_early:
            message = "the stream has ended early: it was closed, or has failed before"
            raise SessionClosed(message)
        return self._more

    def _advance(self) -> bool:
        """Fetch the next chunk, if there may be more rows. Say whether a chunk was fetched."""
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
        """End early after an exception while rows were taken, since rows may have been missed."""
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.cancel()  # the caller does not take these rows; does nothing if they have arrived
        self._fail()

    def _fail(self) -> None:
        """Release the cursor. Called again if an exception has cut this off."""
        self._ended_early = self._ended_early or self._more
        self._waiting = False
        if self._more:
            self._source.release()
        self._more = False

    # Each method that takes rows has its own `try`, since an exception may come at the beginning of
    # any call.

    def __iter__(self) -> Iterator[Row]:
        try:
            while True:
                yield from self._rows
                if not self._advance():
                    return
        except (GeneratorExit, _InUse):
            raise  # the caller left a loop over the rows; another loop may go on
        except BaseException as error:
            self._cut_off()
            trim_to_caller(error)
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
        except BaseException as error:
            self._cut_off()
            trim_to_caller(error)
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
        except BaseException as error:
            self._cut_off()
            trim_to_caller(error)
            raise
        raise StopAsyncIteration

    def chunks(self) -> "Chunks":
        """Return an iterator, and async iterator, of the rows that are left, a `Result` a chunk.

        The `rows` of these results are the driver's plain tuples, which cost less time than `Row`.
        The chunks of a `Stream` with `arrow=True` hold columns, if the database can make them.
        """
        return Chunks(self)

    def close(self) -> None:
        """Release the worker, or close the cursor. Never waits. May be called again."""
        try:
            self._end()
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        values = self._values
        left = values.is_left if type(values) is _Untouched else next(values, None) is not None
        self._ended_early = self._ended_early or left
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


class _Untouched(Iterator[tuple[Any, ...]]):
    """The rows of a chunk that holds columns. Tuples are made when the first of them is taken."""

    def __init__(self, chunk: Result) -> None:
        self._chunk: Result | None = chunk
        self._rows: Iterator[tuple[Any, ...]] = iter(())

    def __next__(self) -> tuple[Any, ...]:
        chunk, self._chunk = self._chunk, None
        if chunk is not None:
            self._rows = iter(chunk.rows)
        return next(self._rows)

    @property
    def is_left(self) -> bool:
        """Whether a row was not taken."""
        return bool(self._chunk) if self._chunk is not None else next(self._rows, None) is not None

    def whole(self) -> Result | None:
        """Take the whole chunk, if no row of it was taken, and if it has rows."""
        chunk, self._chunk = self._chunk, None
        return chunk or None


class _InUse(RuntimeError):
    """Another thread or task takes rows at this moment. The stream is unchanged."""


class Chunks:
    """The rows of a stream, one chunk at a time. See `RowStream.chunks`."""

    def __init__(self, stream: RowStream) -> None:
        self._stream = stream

    def _fetched(self) -> Result | None:
        values = self._stream._values
        if type(values) is _Untouched and (whole := values.whole()) is not None:
            return Result._holding(whole._columnar, whole.columns, None, None, False)  # type: ignore[arg-type]
        rows = list(values)
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
        except BaseException as error:
            self._stream._cut_off()
            trim_to_caller(error)
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
        except BaseException as error:
            self._stream._cut_off()
            trim_to_caller(error)
            raise
        if chunk is None:
            raise StopAsyncIteration
        return chunk
