"""A connection to DuckDB: one for each worker, all of them on one instance."""

from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import duckdb

from actors.databases.answers import check_unbound
from actors.databases.driver import DriverConnection
from actors.databases.duckdb.opening import REPLACEMENTS, open_connection
from actors.databases.duckdb.results import ArrowRows, TupleRows, columns_of, table_of_relation
from actors.databases.duckdb.statement import Facts, Parser, facts_of
from actors.databases.rows import Rows
from actors.databases.steps import CopyPages, Declare, KeepCopy, OpenBackup, Step
from actors.values.errors import ConnectionLost, TransactionBroken
from actors.values.requests import Call, Query, Request, Script
from actors.values.result import Result

if TYPE_CHECKING:
    from actors.databases.duckdb.database import DuckDB

__all__ = ["DuckDBConnection"]

_LOST: Final = (duckdb.ConnectionException, duckdb.FatalException, duckdb.InternalException)
# Errors after which no connection to the same instance can do anything.
_OF_ALL: Final = (duckdb.FatalException, duckdb.InternalException)
_BOUND: Final = (duckdb.DuckDBPyConnection, duckdb.DuckDBPyRelation)
_ROLLBACKS: Final = 10  # tries of one rollback: an interrupt that was on its way may hit it
_LEAVE_OUT: Final = "leave out BEGIN, COMMIT and ROLLBACK"

# The open connections of this process, to tell all of them that their instance is of no more use.
_open: "set[DuckDBConnection]" = set()
_open_lock: Final = Lock()


class DuckDBConnection(DriverConnection):
    """One DuckDB connection, which every job finds clean.

    A job may change a setting, attach a database, prepare a statement or create a temporary table.
    DuckDB's parser tells the kind of each statement. Behind such a job the connection is opened
    anew, which takes less time than a query. Settings of the whole instance stay as they are.

    DuckDB has no savepoints: an error inside a transaction rolls back all of it.
    """

    def __init__(self, database: "DuckDB") -> None:
        super().__init__()
        self._database = database
        self._finds_variables = dict(database.config).get(REPLACEMENTS)
        self._parser = Parser()
        self._is_changed = False
        # Whether the open transaction is the crew's own.
        self._is_own = False
        # Whether the script that ran has begun or ended a transaction.
        self._has_controlled = False
        # Whether another connection has met an error that makes the instance useless.
        self._is_invalid = False
        # Whether a rollback runs, which nothing should end.
        self._is_rolling_back = False
        self._driver: Any = open_connection(database)
        with _open_lock:
            _open.add(self)

    # --- the life of the connection --------------------------------------------------------

    def interrupt(self) -> None:
        """End the query that runs; see `Connection`. DuckDB's own call takes some microseconds."""
        if not self._is_rolling_back:
            with suppress(duckdb.Error):  # the connection may be closed meanwhile
                self._driver.interrupt()

    def close(self) -> None:
        """Close the connection, and roll back an open transaction; see `Connection`."""
        with _open_lock:
            _open.discard(self)
        with suppress(Exception):  # nothing more can be done about it
            self.open_cursors.close_all()
        with suppress(Exception):
            self._driver.close()

    def check(self) -> None:
        """Raise `ConnectionLost` if the whole instance is of no more use; see `Connection`."""
        if self._is_invalid:
            message = f"another connection has met a fatal error of {self._database}"
            raise ConnectionLost(message, begun=False, blames=False)

    def refresh(self) -> None:
        """Open the connection anew if a job has changed it; see `Connection`."""
        if not self._is_changed or self.is_open:
            return
        try:
            driver = open_connection(self._database)  # first: memory must not be without a connection
        except Exception as error:
            raise ConnectionLost(str(error), blames=False) from error
        self._driver, old = driver, self._driver
        self._is_changed = False
        with suppress(duckdb.Error):
            old.close()

    def lost(self, error: Exception) -> ConnectionLost | None:
        """Return the error to raise if the connection, or the instance, is of no more use."""
        if not isinstance(error, _LOST):
            return None
        blames = not self._is_invalid
        if isinstance(error, _OF_ALL):
            self._tell_others()
        return ConnectionLost(str(error), blames=blames)

    def _tell_others(self) -> None:
        """Let the other workers of the instance give up their connections, also the idle ones.

        Only after the last of them is closed, DuckDB opens the database anew.
        """
        with _open_lock:
            others = [each for each in _open if each._database.instance == self._database.instance]
        for other in others:
            other._is_invalid = True
        for other in others:
            if other is not self:
                other.on_end()

    # --- transactions ----------------------------------------------------------------------

    def begin(self, *, readonly: bool, isolation: str | None) -> None:
        """Begin a transaction, which sees one state of the database; see `DriverConnection`."""
        if isolation not in (None, "snapshot"):
            message = f"isolation={isolation!r}: every transaction of DuckDB has snapshot isolation"
            raise ValueError(message)
        self._driver.execute("BEGIN TRANSACTION READ ONLY" if readonly else "BEGIN TRANSACTION")
        self._is_own = True

    def check_own(self, how: str) -> None:
        """Do nothing: no statement can end the crew's transaction, and `call` looks itself."""

    def commit(self) -> None:
        """Commit; an error of another transaction that came first rolls all back."""
        self._is_own = False
        self._driver.execute("COMMIT")

    def roll_back(self) -> bool:
        """Roll back, and free an open result; say whether a transaction was open."""
        self._is_own = False
        self._is_rolling_back = True
        try:
            for _ in range(_ROLLBACKS):
                try:
                    self._driver.rollback()
                except duckdb.InterruptException:  # it came for the statement before
                    continue
                except duckdb.TransactionException:  # no transaction is open
                    return False
                return True
        finally:
            self._is_rolling_back = False
        message = "the rollback was interrupted"
        raise ConnectionLost(message, blames=False)

    def may_be_open(self, request: Query | Script) -> bool:
        """Say whether a request has begun or ended a transaction."""
        if isinstance(request, Query):
            return self._parser.facts(request.sql, self._driver).is_transaction
        return self._has_controlled

    # --- statements ------------------------------------------------------------------------

    def execute(self, request: Request | Step) -> Any:
        """Run a request, or perform a step; see `Connection`."""
        if isinstance(request, (OpenBackup, CopyPages, KeepCopy)):
            message = (
                "DuckDB makes no backups step by step: run EXPORT DATABASE 'folder', or in a Script "
                "ATTACH 'copy.db' AS copy; COPY FROM DATABASE name TO copy; DETACH copy"
            )
            raise TypeError(message)
        return super().execute(request)

    def _facts(self, sql: str) -> Facts:
        facts = self._parser.facts(sql, self._driver)
        self._note(facts, sql)
        return facts

    def _note(self, facts: Facts, sql: str) -> None:
        """Note a change of the connection; refuse to end the crew's transaction."""
        if facts.is_transaction and self._is_own:
            words = " ".join(sql.split()[:2]).rstrip(";")
            message = f"a transaction of the crew cannot be ended from inside by {words!r}: {_LEAVE_OUT}"
            raise TransactionBroken(message)
        if facts.changes_connection:
            self._is_changed = True

    def run_query(self, query: Query) -> Result:
        """Run one statement; see `DriverConnection`."""
        facts, driver, params = self._facts(query.sql), self._driver, query.params or None
        if query.arrow and facts.reads:
            return table_of_relation(driver.sql(query.sql, params=params), query.max_rows)
        driver.execute(query.sql, params)
        changed: int = driver.rowcount
        if changed >= 0 or not facts.has_rows:
            driver.complete()
            return Result((), [], max(changed, 0))
        columns = columns_of(driver)
        if query.max_rows is None or not facts.reads:
            rows = driver.fetchall()
            return Result(columns, rows, len(rows))
        rows = driver.fetchmany(query.max_rows + 1)
        driver.abort()
        return Result(columns, rows, len(rows))._limited(query.max_rows)

    def run_many(self, query: Query) -> Result:
        """Run one statement with each set of parameters; see `DriverConnection`."""
        self._facts(query.sql)
        changed = 0
        if query.many:
            self._driver.executemany(query.sql, list(query.many))
            changed = max(self._driver.rowcount, 0)
        return Result((), [], changed)

    def run_script(self, script: Script) -> Result:
        """Run the statements of a script; an error of its syntax is one before the first."""
        self._has_controlled, changed = False, 0
        for statement in self._driver.extract_statements(script.sql):
            facts = facts_of(statement)
            self._has_controlled = self._has_controlled or facts.is_transaction
            self._note(facts, statement.query)
            self._driver.execute(statement)
            changed += max(self._driver.rowcount, 0)
            self._driver.complete()
        return Result((), [], changed)

    def open_rows(self, step: Declare) -> Rows:
        """Begin to read the rows of a query; see `DriverConnection`."""
        facts = self._facts(step.sql)
        if not facts.only_reads:
            message = "a Stream only reads: ask for a statement that writes by a Query"
            raise ValueError(message)
        params = step.params or None
        if step.arrow and facts.reads:
            return ArrowRows(self._driver.sql(step.sql, params=params), step.rows)
        self._driver.execute(step.sql, params)
        return TupleRows(self._driver)

    # --- functions -------------------------------------------------------------------------

    def call(self, request: Call[Any]) -> Any:
        """Call a function with the DuckDB connection, in the open transaction.

        The function may use its own variables as tables, as in DuckDB. If it ends the transaction,
        its work up to then has taken effect, and the call fails.
        """
        self._is_changed = True
        before = self._transaction_id()
        if self._finds_variables is None:
            self._driver.execute(f"SET {REPLACEMENTS} = true")
        value = request.function(self._driver, *request.args)
        try:
            after = self._transaction_id()
        except duckdb.TransactionException as error:
            message = f"{request} has gone on after an error, which has rolled its transaction back"
            raise TransactionBroken(message) from error
        if before != after:
            message = f"{request} is one transaction, and the function ended it: {_LEAVE_OUT}"
            broken = TransactionBroken(message)
            broken.executed = None  # the work that was committed stays
            raise broken
        if self._finds_variables is None:
            self._driver.execute(f"SET {REPLACEMENTS} = false")
        check_unbound(value, request, lambda part: isinstance(part, _BOUND))
        return value

    def _transaction_id(self) -> int:
        return int(self._driver.execute("SELECT txid_current()").fetchall()[0][0])
