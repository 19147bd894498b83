"""A crew of some kind, and the plain connection beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import apsw

from supervisor import Query, Status, Supervisor, SupervisorRef
from tests.sqlite.differential.dump import dump
from tests.sqlite.differential.oracle import Oracle
from tests.support.common import PATIENCE
from tests.support.health import KINDS

JOURNALS = {"file": "wal", "rollback journal": "delete", "memory": "memory", "child": "wal"}
"""The kinds of crew, and the journal mode of each."""


class Pair:
    """A crew and an oracle, on databases that were made the same way."""

    def __init__(self, db: SupervisorRef, oracle: Oracle, look: apsw.Connection | None) -> None:
        self.db = db
        self.oracle = oracle
        # A connection to the crew's file, outside of the crew.
        self._look = look

    def dump(self) -> dict[str, Any]:
        """Return the whole content of the crew's database.

        A connection outside of the crew reads a file."""
        look = self._look
        if look is None:
            return dump(lambda sql: self.db.ask(Query(sql), timeout=PATIENCE).rows, connections_own=True)
        return dump(lambda sql: look.execute(sql, can_cache=False).fetchall(), connections_own=False)

    def right_dump(self) -> dict[str, Any]:
        """Return the content that the crew's database should have."""
        self.oracle.refresh()
        connection = self.oracle.connection
        return dump(lambda sql: connection.execute(sql).fetchall(), connections_own=self.oracle.in_memory)

    def restarts(self) -> int:
        return self.db.ask(Status()).restarts


@contextmanager
def pair_of(kind: str) -> Iterator[Pair]:
    """Start a crew on a new database, and stop it."""
    with TemporaryDirectory(prefix="differential-") as name:
        folder = Path(name)
        path = folder / "app.db"
        oracle = Oracle(folder, JOURNALS[kind])
        look: apsw.Connection | None = None
        db = Supervisor.start(KINDS[kind](path, synchronous="off", busy_timeout=0.2), size=1)
        try:
            if not oracle.in_memory:
                db.ask(Query("SELECT 1"))  # it makes the file
                look = apsw.Connection(str(path))
            yield Pair(db, oracle, look)
        finally:
            if look is not None:
                look.close()
            oracle.close()
            db.shutdown(cancel_pending=True, timeout=0)
