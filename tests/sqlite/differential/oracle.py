"""A plain connection, and the statements that the library refuses."""

from pathlib import Path

import apsw

from supervisor import TransactionBroken, TransactionLeftOpen
from tests.sqlite.differential import plain
from tests.sqlite.differential.statements import Answer, Statement, failed

BROKEN = Answer(error=f"{TransactionBroken.__module__}.TransactionBroken")
LEFT_OPEN = Answer(error=f"{TransactionLeftOpen.__module__}.TransactionLeftOpen")
REFUSED = Answer(error="builtins.ValueError")


class Oracle:
    """A plain database. Each request to a file has a new connection: crews promise a clean one."""

    def __init__(self, folder: Path, journal_mode: str) -> None:
        """Make an empty database: a file in a folder, or in memory if that is the journal mode."""
        self.in_memory = journal_mode == "memory"
        self._path = ":memory:" if self.in_memory else str(folder / "plain.db")
        self.connection = self._opened()
        self._kept_open: apsw.Connection | None = None
        if not self.in_memory:
            self.connection.pragma("journal_mode", journal_mode)
            # While this connection is open, closing another one does not write back the log.
            self._kept_open = self._opened()

    def _opened(self) -> apsw.Connection:
        connection = apsw.Connection(self._path)
        connection.pragma("synchronous", "off")
        connection.pragma("foreign_keys", True)
        return connection

    def refresh(self) -> None:
        """Open a new connection, except in memory."""
        if not self.in_memory:
            self.connection.close()
            self.connection = self._opened()

    def close(self) -> None:
        self.connection.close()
        if self._kept_open is not None:
            self._kept_open.close()


def answer(connection: apsw.Connection, statement: Statement) -> Answer:
    """Run a statement, unless the library refuses it."""
    if statement.several:
        error = prepared(connection, statement)[1]
        return REFUSED if error is None else error
    if statement.switches is not None and connection.in_transaction:
        is_on = connection.pragma("foreign_keys") == 1
        return REFUSED if is_on != statement.switches else Answer((), [], 0)
    return plain.answer(connection, statement)


def answer_within(connection: apsw.Connection, statement: Statement) -> Answer:
    """Run a statement in a transaction that only the library may end."""
    if statement.control == "commit" and not connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0]:
        connection.execute("ROLLBACK")
        return BROKEN
    found = answer(connection, statement)
    return BROKEN if found.error is None and not connection.in_transaction else found


def prepared(connection: apsw.Connection, statement: Statement) -> tuple[bool, Answer | None]:
    """Prepare a statement; return whether it only reads, and the error, if there is one."""
    only_reads = True

    def look(cursor: apsw.Cursor, *_: object) -> bool:
        nonlocal only_reads
        only_reads = cursor.is_readonly
        return False

    cursor = connection.cursor()
    cursor.exec_trace = look
    try:
        cursor.execute(statement.sql, statement.params, can_cache=False)
    except apsw.ExecTraceAbort:
        pass
    except Exception as error:
        return False, failed(error)
    finally:
        cursor.close(True)
    return only_reads, None
