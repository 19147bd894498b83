"""The connection of a crew's writer: small writes that wait together are one transaction."""

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import apsw

from actors.databases.sqlite.connection import (
    RELEASE,
    SAVEPOINT,
    UNDO,
    WRITER,
    NothingRan,
    Role,
    SQLiteConnection,
    is_lost,
)
from actors.databases.sqlite.statement import Known, is_special
from actors.databases.sqlite.transactions import run_each
from actors.databases.sqlite.upkeep import Upkeep
from actors.system.log import log
from actors.values.errors import ConnectionLost
from actors.values.rejection import Rejection
from actors.values.requests import Query, Transaction
from actors.values.result import Result

if TYPE_CHECKING:
    from actors.databases.executor import Batch, Task
    from actors.databases.sqlite.database import SQLite

__all__ = ["SQLiteWriter"]

_LONGEST: Final = 0.005  # seconds after which nothing more joins a group: its first job is to be answered


class _RunsAlone(NothingRan):
    """It cannot share a transaction with statements of other callers."""


class SQLiteWriter(SQLiteConnection):
    """The connection that writes, with group commit.

    All jobs of a batch that can share a transaction are run in one, which is committed once. Only then is anybody
    answered. An error of a statement undoes that statement, as SQLite has it. What cannot be undone alone (an
    interrupt, a full disk, a deferred constraint) undoes the whole transaction. The culprit is answered. Nothing of the
    others has taken effect, and they are run in a new transaction.
    """

    def __init__(self, database: "SQLite", role: Role = WRITER, *, create: bool = True) -> None:
        # Jobs that were begun, and of which nothing has taken effect.
        self._waiting: deque[Task] = deque()
        # The tasks that were found out to need a transaction of their own.
        self._loners: list[Task] = []
        # Whether a statement is prepared that is refused if it cannot share the transaction that is open.
        self._judging = False
        # The connection's count of changes before the request that runs.
        self._changes_before = 0
        super().__init__(database, role, create=create)
        self._upkeep = Upkeep(self)
        self._settle_the_past()

    def _settle_the_past(self) -> None:
        """Commit, with nothing changed, so that a commit that a killed process has begun is either seen or gone.

        Such a process may have written its commit to the log, and not to the log's index: nobody sees it, until the
        index is made anew from the log. The next commit overwrites it.
        """
        if self.file is None:
            return
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            self.set_pragma("user_version", self.connection.pragma("user_version"))
            self.commit()
        except apsw.Error as error:
            # Another process has the lock, and will commit itself; or the file cannot be written, which jobs find out.
            log(__name__, "debug", "settling_failed", database=self._database, error=error)
            self.roll_back()

    def refresh(self) -> None:
        """Look after the connection and its file, behind a batch or a session; see `Connection`."""
        super().refresh()
        self._upkeep.now_and_then()

    def close(self) -> None:
        """Close; see `Connection`."""
        self._upkeep.last()
        super().close()

    # --- batches --------------------------------------------------------------------------

    def run(self, batch: "Batch") -> None:
        """Run the jobs of a batch, those together that can be; see `Connection`."""
        waiting = self._waiting
        waiting.clear()
        try:
            while (task := waiting.popleft() if waiting else batch.begin()) is not None:
                batch.tell()
                if task.is_unwanted or batch.is_over:
                    batch.fail(task, InterruptedError("interrupted before it was started"))
                elif self._may_share(task):
                    self._run_together(batch, task, waiting)
                else:
                    self.run_one(batch, task)
        except ConnectionLost:
            batch.give_back(*waiting)
            raise
        self._loners.clear()

    def cancel(self, task: Any) -> None:
        """End one job; see `Connection`. One that waits, while another one runs, is not begun any more."""
        if not any(task is each for each in tuple(self._waiting)):
            self.interrupt()

    def _may_share(self, task: "Task") -> bool:
        if self._loners and any(task is loner for loner in self._loners):
            return False
        request = task.request
        if type(request) is Query:
            return self._is_shareable(request.sql)
        if not isinstance(request, Transaction) or request.readonly:
            return False
        return all(self._is_shareable(query.sql) for query in request.queries)

    def _is_shareable(self, sql: str) -> bool:
        known = self._known.get(sql)
        return known is None or known.is_plain

    # --- together -------------------------------------------------------------------------

    def _run_together(self, batch: "Batch", first: "Task", waiting: "deque[Task]") -> None:
        """Run jobs in one transaction: the first, those that wait, and more of the batch.

        Those that cannot be in it, or that have to begin again, wait afterwards.

        Raises:
            ConnectionLost: nothing more can run here. Which of them took effect is unknown.
        """
        group = _Group(batch, first, waiting)
        try:
            if self._begin_for(batch, first, waiting) and self._run_group(group):
                self._commit_group(group)
        except apsw.Error as error:
            if is_lost(error):
                raise ConnectionLost(str(error)) from error
            raise
        finally:
            del first, group, waiting  # an error leads to this frame, if a function of the user's has raised it

    def _begin_for(self, batch: "Batch", first: "Task", waiting: "deque[Task]") -> bool:
        """Begin a transaction; say whether that has worked. If not, the jobs that need it have failed."""
        self._interrupted = self._is_committed = False
        self._busy_since = 0.0
        try:
            self._make_ready()
            self.admits = self._admit_shareable
            self.connection.execute("BEGIN IMMEDIATE")
        except ConnectionLost:
            raise
        except Exception as error:
            if is_lost(error):
                raise
            failed = [first]
            if isinstance(error, apsw.BusyError):
                self._tell_how_long(error)
                if not first.is_unwanted:  # the others have waited for the lock as long
                    failed += self._all_that_share(batch, waiting)
            for task in failed:
                batch.fail(task, _another(error))
            return False
        return True

    def _all_that_share(self, batch: "Batch", waiting: "deque[Task]") -> "list[Task]":
        tasks: list[Task] = []
        while (task := waiting.popleft() if waiting else batch.begin()) is not None:
            if not self._may_share(task):
                waiting.appendleft(task)
                break
            tasks.append(task)
        return tasks

    def _run_group(self, group: "_Group") -> bool:
        """Run jobs in the transaction that is open; say whether it is to be committed."""
        status = self.connection.status
        while (task := group.next()) is not None:
            if not self._may_share(task):
                group.waiting.appendleft(task)
                break
            try:
                if task.is_unwanted:
                    raise InterruptedError("interrupted before it was started")  # noqa: TRY301
                outcome = self._within(task.request)  # type: ignore[arg-type]  # only these may share
            except _RunsAlone:
                self._loners.append(task)
                group.waiting.appendleft(task)
                break
            except Exception as error:
                if is_lost(error):
                    raise
                self.close_cursor()
                self._explain(error, task.request)
                if not self._is_undone(error, group):
                    self._undo(group, task, error)
                    return False
                outcome = Rejection(error)
            group.ran.append((task, outcome))
            if status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0]:
                # It leaves a constraint broken that is looked at when it commits.
                self.roll_back()
                self._loners.append(task)
                group.begin_again()
                return False
        return True

    def _within(self, request: Query | Transaction) -> Any:
        """Run a request inside the transaction that there is."""
        self._changes_before = self.connection.total_changes()
        if isinstance(request, Query) and request.many is None:
            return self.seal(self._judged(request), request)
        return self._in_a_savepoint(request)

    def _in_a_savepoint(self, request: Query | Transaction) -> Any:
        connection = self.connection
        connection.execute(SAVEPOINT)
        try:
            if isinstance(request, Transaction):
                value: Any = self.seal(run_each(request, self._judged, None), request)
            else:
                value = self.seal(self._judged(request), request)
        except BaseException:
            self.close_cursor()
            if connection.in_transaction:
                connection.execute(UNDO)
                self._changes_before = connection.total_changes()  # nothing of them is left
            raise
        connection.execute(RELEASE)
        return value

    def _judged(self, query: Query) -> Result:
        """Run a query; refuse it before its first step if it cannot share the transaction that is open."""
        self._judging = query.sql not in self._known
        try:
            return self.run_query(query)
        finally:
            self._judging = False

    def _admit_shareable(self, known: Known) -> None:
        self._judging = False  # what a virtual table prepares as it runs is no statement of a caller
        if not known.is_plain:
            raise _RunsAlone

    def _authorize(
        self, action: int, first: str | None, second: str | None, schema: str | None, trigger: str | None
    ) -> int:
        if self._judging and is_special(action):
            raise _RunsAlone  # some pragmas take effect as they are prepared
        return super()._authorize(action, first, second, schema, trigger)

    # --- undoing, and committing ----------------------------------------------------------

    def _is_undone(self, error: Exception, group: "_Group") -> bool:
        """Say whether a statement that failed was undone, and nothing else."""
        if isinstance(error, apsw.InterruptError) or group.unwanted():
            return isinstance(error, InterruptedError)  # one that was not started
        if getattr(error, "extendedresult", 0) == apsw.SQLITE_CONSTRAINT_DATATYPE:
            return False  # in a transaction SQLite keeps the rows that it has changed before, and does not count them
        # Not one that fails behind its work, as for rows that cannot be read, nor one that keeps a part (OR FAIL).
        connection = self.connection
        return connection.in_transaction and connection.total_changes() == self._changes_before

    def _undo(self, group: "_Group", task: "Task", error: Exception) -> None:
        """Undo the whole transaction, in which a job has failed; let those begin again that are not to blame."""
        self.roll_back()
        unwanted = group.unwanted()
        if not unwanted and isinstance(error, apsw.InterruptError):
            unwanted = group.take_unwanted()  # it was for one that waits to begin again
        if unwanted and task not in unwanted:
            self._loners.append(task)  # a long one, which shall not begin again for every one that is interrupted
        if task not in [each for each, _ in group.ran]:
            group.ran.append((task, None))
        culprits = unwanted or [task]
        group.begin_again(culprits)
        for culprit in culprits:
            group.batch.fail(culprit, error if culprit is task else InterruptedError("interrupted"))

    def _commit_group(self, group: "_Group") -> None:
        unwanted = group.unwanted()
        if unwanted:
            self._undo(group, unwanted[0], InterruptedError("interrupted"))
            return
        try:
            self.commit()
        except Exception as failure:
            if is_lost(failure):
                raise
            self._could_not_commit(group, failure)
            return
        group.answer()

    def _could_not_commit(self, group: "_Group", failure: Exception) -> None:
        """Let all jobs fail that a commit has failed, or begin those again that are not to blame."""
        unwanted = group.unwanted()
        if unwanted:  # it hit one of them
            self._undo(group, unwanted[0], failure)
            return
        if isinstance(failure, apsw.BusyError):
            self._tell_how_long(failure)
        self.roll_back()
        group.fail(failure)


class _Group:
    """The jobs of one transaction."""

    def __init__(self, batch: "Batch", first: "Task", waiting: "deque[Task]") -> None:
        self.batch = batch
        self.waiting = waiting
        """Jobs that were begun and are not in it yet, or not any more."""
        self.ran: list[tuple[Task, Any]] = []
        """The jobs that ran, each with its value or a `Rejection`: nobody is answered before the commit."""
        self._first: Task | None = first
        self._until = 0.0

    def next(self) -> "Task | None":
        """Return the next job, begun; `None` if there is none, or the first has waited long enough."""
        first, self._first = self._first, None
        if first is not None:
            self._until = time.perf_counter() + _LONGEST
            return first
        if time.perf_counter() > self._until:
            return None
        return self.waiting.popleft() if self.waiting else self.batch.begin()

    def unwanted(self) -> "list[Task]":
        """Return those that were interrupted, of all that run now."""
        return [task for task in self.batch.running if task.is_unwanted and task not in self.waiting]

    def take_unwanted(self) -> "list[Task]":
        """Take out those that were interrupted, of all that wait."""
        unwanted = [task for task in self.waiting if task.is_unwanted]
        for task in unwanted:
            self.waiting.remove(task)
        return unwanted

    def begin_again(self, culprits: "list[Task] | tuple[()]" = ()) -> None:
        """Let all jobs of it wait again, except for those that are to blame."""
        again = [task for task, _ in self.ran if task not in culprits]
        self.waiting.extendleft(reversed(again))
        self.ran.clear()

    def fail(self, error: Exception) -> None:
        """Answer all jobs with an error, or each with its own: they are undone."""
        for task, outcome in self.ran:
            self.batch.fail(task, outcome.error if type(outcome) is Rejection else _another(error))

    def answer(self) -> None:
        """Answer all jobs: they are committed."""
        for task, outcome in self.ran:
            if type(outcome) is Rejection:
                self.batch.fail(task, outcome.error)
            else:
                self.batch.answer(task, outcome)


def _another(error: Exception) -> Exception:
    """Return an error like this one, for another caller: each is told of its own statement."""
    try:
        other = type(error).__new__(type(error), *error.args)
        other.__dict__.update(error.__dict__)
        if hasattr(error, "__notes__"):
            other.__notes__ = list(error.__notes__)
    except Exception:  # noqa: BLE001  # a class of somebody's own, which is made in another way
        return error
    return other
