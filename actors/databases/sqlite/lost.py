"""Errors after which a connection is of no more use."""

from typing import Final

import apsw

__all__ = ["is_lost"]

_LOST: Final = (apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.ConnectionClosedError)


def is_lost(error: BaseException) -> bool:
    """Say whether nothing more can be trusted of a connection after an error."""
    # FTS5's integrity check may find that a virtual table is damaged. The database may be whole.
    return isinstance(error, _LOST) and getattr(error, "extendedresult", 0) != apsw.SQLITE_CORRUPT_VTAB
