"""RowStream: rows that come as they are taken."""

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from actors.conversation import StreamTalk
from actors.errors import SessionClosed
from actors.reply import Reply
from actors.result import Result, Row

__all__ = ["Chunks", "RowStream"]


class RowStream:
    """The rows that answer a `Stream`: an iterator, and an async iterator, of `Row`.

    No more than a few chunks of rows are ever in memory. Its worker serves nobody else until the last row is taken, the
    stream is closed or dropped, or its time is over. For one thread or task at a time.

    It never ends silently before the last row.

    Raises, as it is iterated:
        QueryTimeout: its deadline has passed.
        WorkerDied: its worker died; what was taken before is true.
        SessionClosed: it was closed.
        Exception: the driver's own error.
    """

    def __init__(self, talk: StreamTalk, first: Result, chunk: int) -> None:
        self.columns = first.columns
        """The names of the columns."""
        self._talk = talk
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
        if self._more and self._talk.travels:
            self._asked = self._talk.more(self._size)

    def _ask(self) -> Reply[Result]:
        asked, self._asked = self._asked, None
        return self._talk.more(self._size) if asked is None else asked

    def _fail(self) -> None:
        """Give the worker free, after an error or an interrupt: nobody knows which rows were missed."""
        self._ended_early = self._ended_early or self._more
        self._more = False
        self._talk.hang_up()

    def _begin_waiting(self) -> bool:
        """Say whether there may be more rows, and let nobody else wait for them meanwhile."""
        if self._waiting:
            message = "this stream is read by another thread or task at this moment, and each would miss rows"
            raise RuntimeError(message)
        if self._ended_early:
            message = "the stream has ended early: it was closed, or has failed before"
            raise SessionClosed(message)
        self._waiting = self._more
        return self._more

    def _advance(self) -> bool:
        if not self._begin_waiting():
            return False
        try:
            self._accept(self._ask().get())
        except BaseException:
            self._fail()
            raise
        finally:
            self._waiting = False
        return True

    def __iter__(self) -> Iterator[Row]:
        while True:
            yield from self._rows
            if not self._advance():
                return

    def __next__(self) -> Row:
        while True:
            for row in self._rows:
                return row
            if not self._advance():
                raise StopIteration

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Row:
        while True:
            for row in self._rows:
                return row
            if not await self._advance_async():
                raise StopAsyncIteration

    async def _advance_async(self) -> bool:
        if not self._begin_waiting():
            return False
        try:
            self._accept(await self._ask())
        except BaseException:
            self._fail()
            raise
        finally:
            self._waiting = False
        return True

    def chunks(self) -> "Chunks":
        """Return the rows that are left, as results of a chunk each: an iterator, and an async iterator.

        Their `rows` are plain tuples as the driver gave them, which take less time than `Row`.
        """
        return Chunks(self)

    def close(self) -> None:
        """Give its worker free; there are no more rows. Never waits, may be called again."""
        self._ended_early = self._ended_early or next(self._values, None) is not None
        self._values = self._rows = iter(())
        self._fail()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        talk: Any = getattr(self, "_talk", None)
        if talk is not None:
            talk.hang_up()

    def __repr__(self) -> str:
        state = "open" if self._more else "ended early" if self._ended_early else "over"
        return f"<RowStream {state}: {', '.join(self.columns)}>"


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
        while (chunk := self._fetched()) is None:
            if not self._stream._advance():
                raise StopIteration
        return chunk

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        while (chunk := self._fetched()) is None:
            if not await self._stream._advance_async():
                raise StopAsyncIteration
        return chunk
