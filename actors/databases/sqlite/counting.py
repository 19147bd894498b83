"""The rows that a request changes, and the last rowid that it inserts."""

from typing import Final
from weakref import ref

import apsw

from actors.databases.sqlite.statement import StatementFacts

__all__ = ["Counting"]

_NO_ROWID: Final = -0x5E1F_1D0E_5107_2B6D
"""A number that no row has, except by an accident of 1 in 2 ** 63."""


class Counting:
    """Counts the rows that statements change, and notes the last rowid that they insert.

    `last_insert_rowid()` does not tell an insert from an earlier one. So before an insert the
    number is set to `_NO_ROWID`. If nothing was inserted, the old number is set back. SQL never
    sees `_NO_ROWID`: the connection has a function with the name `last_insert_rowid`, which calls
    `last_rowid`.
    """

    __slots__ = ("__weakref__", "_connection", "_hidden", "_runs", "changed", "rowid")

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        # The statement that runs, if it writes.
        self._runs: StatementFacts | None = None
        # The connection's last rowid, while another number stands in its place.
        self._hidden: int | None = None
        self.reset()
        # The function is innocuous, like SQLite's own: triggers and views of an untrusted file may
        # call it. The reference is weak: a strong one would keep a connection alive that no one
        # closes.
        me = ref(self)
        connection.create_scalar_function(
            "last_insert_rowid", lambda *_: _last_rowid(me), 0, flags=apsw.SQLITE_INNOCUOUS
        )

    def reset(self) -> None:
        """Begin to count for a new request."""
        self.changed = 0
        """The number of changed rows. As in SQLite, changes by triggers and foreign keys do not
        count."""
        self.rowid: int | None = None
        """The rowid of the last row that was inserted, if any was."""

    def begin(self, facts: StatementFacts) -> None:
        """Look at the connection before the first step of a statement that writes."""
        self._runs = facts
        if facts.inserts:
            self._hidden = self._connection.last_insert_rowid()
            self._connection.set_last_insert_rowid(_NO_ROWID)

    def end(self) -> None:
        """Look at the connection after the statement that ran, if it writes."""
        facts, self._runs = self._runs, None
        if facts is None or not facts.counts:
            return
        self.changed += self._connection.changes()
        if facts.inserts and not self._show():
            self.rowid = self._connection.last_insert_rowid()

    def abandon(self) -> None:
        """Forget the statement that ran, since it has failed."""
        self._runs = None
        self._show()

    def last_rowid(self) -> int:
        """Return the value of `last_insert_rowid()` in SQL."""
        rowid = self._connection.last_insert_rowid()
        return self._hidden if self._hidden is not None and rowid == _NO_ROWID else rowid

    def _show(self) -> bool:
        """Set the hidden rowid back, unless a row was inserted; say whether it was set back."""
        hidden, self._hidden = self._hidden, None
        if hidden is None or self._connection.last_insert_rowid() != _NO_ROWID:
            return False
        self._connection.set_last_insert_rowid(hidden)
        return True


def _last_rowid(counting: "ref[Counting]") -> int:
    found = counting()
    assert found is not None  # it lives as long as its connection runs SQL
    return found.last_rowid()
