"""The rows of one statement, which a driver's connection fetches in chunks."""

from actors.values.result import Result

__all__ = ["Rows"]


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
