"""The rows of statements, which a driver's connection fetches in chunks."""

from actors.databases.steps import Declare, Fetch
from actors.values.errors import SessionClosed
from actors.values.result import Result

__all__ = ["OpenRows", "Rows"]


class Rows:
    """Rows that stay open between two steps. A driver's class derives from this one.

    All methods run in the thread of the connection.
    """

    def __init__(self) -> None:
        # The number of rows in a chunk.
        self._most = 0
        # A chunk that was fetched ahead, or the error of fetching it.
        self._fetched: Result | BaseException | None = None

    # --- written by a driver's class ------------------------------------------------------

    def next_chunk(self, most: int) -> Result:
        """Return the next rows, `most` at most; `truncated` says whether more may come."""
        raise NotImplementedError

    def keep(self) -> None:
        """Read all rows that are left into memory: the driver's connection is needed now."""
        raise NotImplementedError

    def close(self) -> None:
        """Free the cursor. May be called again."""
        raise NotImplementedError

    # --- used by a connection -------------------------------------------------------------

    def fetch(self, most: int) -> Result:
        """Return the next rows, as `next_chunk`."""
        self._most = most
        self.fetch_ahead()
        fetched, self._fetched = self._fetched, None
        if not isinstance(fetched, Result):
            assert fetched is not None
            raise fetched
        return fetched

    def fetch_ahead(self) -> None:
        """Fetch the next rows, unless that was done. `fetch` raises an error of it."""
        if self._fetched is not None:
            return
        try:
            self._fetched = self.next_chunk(self._most)
        except BaseException as error:  # noqa: BLE001  # the caller who fetches these rows gets it
            self._fetched = error


class OpenRows:
    """The rows of a connection that stay open between two steps, by the numbers of their cursors.

    All methods run in the thread of the connection.
    """

    def __init__(self) -> None:
        self._rows: dict[int, Rows] = {}
        # The rows of the last step, if its caller will probably fetch the next chunk of them.
        self._likely: Rows | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def open(self, cursor: int, rows: Rows) -> None:
        """Keep rows under the number of a new cursor."""
        self._rows[cursor] = rows

    def check(self, cursor: int) -> None:
        """Raise `SessionClosed` if a cursor is not open."""
        if cursor not in self._rows:
            message = "the stream is over"
            raise SessionClosed(message)

    def fetch(self, step: Declare | Fetch) -> Result:
        """Return the next rows of an open cursor. The last rows, and every error, close it."""
        rows = self._rows[step.cursor]
        try:
            result = rows.fetch(step.rows)
        except BaseException:
            self.close(step.cursor)
            raise
        if not result.truncated:
            self.close(step.cursor)
        elif step.ahead:
            self._likely = rows
        return result

    def fetch_ahead(self) -> None:
        """Fetch the rows that are likely to be wanted next. `fetch` raises an error of it."""
        if self._likely is not None:
            self._likely.fetch_ahead()

    def keep(self) -> None:
        """Read all rows that are left into memory, if the driver runs one statement at a time."""
        for rows in self._rows.values():
            rows.keep()

    def close(self, cursor: int) -> None:
        """Close a cursor. May be called again."""
        rows = self._rows.pop(cursor, None)
        self._likely = None
        if rows is not None:
            rows.close()

    def close_all(self) -> None:
        """Close all cursors."""
        for cursor in list(self._rows):
            self.close(cursor)
