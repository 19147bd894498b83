"""The connection of a crew's writer: small writes that wait together are one transaction."""

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import apsw

from actors.databases.sqlite.connection import WRITER, Role, SQLiteConnection
from actors.databases.sqlite.lost import is_lost
from actors.databases.sqlite.statement import RunsAlone, StatementFacts
from actors.databases.sqlite.transactions import OwnTransaction, run_each
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

_LONGEST: Final = 0.005  # seconds after which no job joins a group, since the first job waits


class SQLiteWriter(SQLiteConnection):
    """The connection that writes, with group commit.

    All jobs of a batch that can share a transaction run in one transaction. It is committed once,
    and all its callers are answered after the commit.

    An error of a statement undoes that statement, as in SQLite. Some errors cannot be undone alone:
    an interrupt, a full disk, a deferred constraint. They undo the whole transaction. The job that
    is to blame gets the error. Nothing of the other jobs has taken effect, and they run again in a
    new transaction. A commit that fails, and a lock that does not come, are errors of all the jobs.
    """

    def __init__(self, database: "SQLite", role: Role = WRITER, *, create: bool = True) -> None:
        # Jobs that were begun, and of which nothing has taken effect.
        self._waiting: deque[Task] = deque()
        # The tasks that need a transaction of their own, as their run has shown.
        self._loners: list[Task] = []
        # The connection's count of changes before the request that runs.
        self._changes_before = 0
        super().__init__(database, role, create=create)
        self._upkeep = Upkeep(self._wait)
        self._settle_the_past()

    def _settle_the_past(self) -> None:
        """Settle a commit that a killed process has begun: make it visible, or undo it.

        Such a process may have written its commit to the log, and not to the log's index. No
        connection sees that commit until the index is made anew from the log. The next commit
        overwrites it. So this commits a transaction that changes nothing.
        """
        if self.file is None:
            return
        try:
            with OwnTransaction(self._transactions, readonly=False) as own:
                self._settings.set("user_version", self.connection.pragma("user_version"))
                own.commit()
        except apsw.Error as error:
            # Another process has the lock, and will commit itself. Or the file cannot be written,
            # and the first job that writes gets the error.
            log(__name__, "debug", "settling_failed", database=self._database, error=error)

    def refresh(self) -> None:
        """Make the connection as new, and look after its file; see `Connection`."""
        super().refresh()
        self._upkeep.now_and_then(self.connection, self.file)

    def close(self) -> None:
        """Close; see `Connection`."""
        self._upkeep.last(self.connection, self.file)
        super().close()

    # --- batches --------------------------------------------------------------------------

    def run(self, batch: "Batch") -> None:
        """Run the jobs of a batch, in shared transactions where possible; see `Connection`."""
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
        """End one job; see `Connection`.

        A job that waits, while another job runs, is not begun any more. Only the running job is
        interrupted.
        """
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
        facts = self._known.get(sql)
        return facts is None or facts.is_plain

    # --- together -------------------------------------------------------------------------

    def _run_together(self, batch: "Batch", first: "Task", waiting: "deque[Task]") -> None:
        """Run jobs in one transaction: the first job, the waiting jobs, and more of the batch.

        A job that cannot be in this transaction, or must begin again, waits afterwards.

        Raises:
            ConnectionLost: nothing more can run here. It is unknown which jobs took effect.
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
            del first, group, waiting  # the error of a user's function leads to this frame

    def _begin_for(self, batch: "Batch", first: "Task", waiting: "deque[Task]") -> bool:
        """Begin a transaction; say whether it has begun. If not, the jobs that need it fail.

        If the lock cannot be had, all jobs that would share the transaction fail at once: they have
        waited for the lock as long as the first.
        """
        self._wait.begin_job()
        self._transactions.is_committed = False
        try:
            self._make_ready()
            self._runner.statement.admits = self._admit_shareable
            self._transactions.begin()
        except ConnectionLost:
            raise
        except Exception as error:
            if is_lost(error):
                raise
            failed = [first]
            if isinstance(error, apsw.BusyError):
                self._wait.explain(error, has_read=False)
                if not first.is_unwanted:
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
        """Run jobs in the open transaction; say whether to commit it."""
        status = self.connection.status
        while (task := group.next()) is not None:
            if not self._may_share(task):
                group.waiting.appendleft(task)
                break
            try:
                if task.is_unwanted:
                    raise InterruptedError("interrupted before it was started")  # noqa: TRY301
                outcome = self._within(task.request)  # type: ignore[arg-type]  # only these may share
            except RunsAlone:
                self._loners.append(task)
                group.waiting.appendleft(task)
                break
            except Exception as error:
                if is_lost(error):
                    raise
                self._runner.close_cursor()
                self._explain(error, task.request)
                if not self._is_undone(error, group):
                    self._undo(group, task, error)
                    return False
                outcome = Rejection(error)
            group.ran.append((task, outcome))
            if status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0]:
                # The job leaves a deferred constraint broken, which SQLite checks at the commit.
                self._transactions.roll_back()
                self._loners.append(task)
                group.begin_again()
                return False
        return True

    def _within(self, request: Query | Transaction) -> Any:
        """Run a request in the open transaction."""
        self._changes_before = self.connection.total_changes()
        if isinstance(request, Query) and request.many is None:
            return self.seal(self._judged(request), request)
        try:
            return self._transactions.undone_alone(self._several, request)
        except BaseException:
            self._changes_before = self.connection.total_changes()  # nothing of the request is left
            raise

    def _several(self, request: Query | Transaction) -> Any:
        """Run a request whose statements are more than one."""
        if isinstance(request, Transaction):
            return self.seal(run_each(request, self._judged, None), request)
        return self.seal(self._judged(request), request)

    def _judged(self, query: Query) -> Result:
        """Run a query; refuse it before its first step if it cannot share the open transaction."""
        statement = self._runner.statement
        statement.must_share = query.sql not in self._known
        try:
            return self._runner.run_query(query)
        finally:
            statement.must_share = False

    def _admit_shareable(self, facts: StatementFacts) -> None:
        # A virtual table may prepare statements while it runs. They are no caller's statements.
        self._runner.statement.must_share = False
        if not facts.is_plain:
            raise RunsAlone

    # --- undoing, and committing ----------------------------------------------------------

    def _is_undone(self, error: Exception, group: "_Group") -> bool:
        """Say whether SQLite has undone the statement that failed, and nothing else."""
        if isinstance(error, apsw.InterruptError) or group.unwanted():
            return isinstance(error, InterruptedError)  # the job was not started
        if getattr(error, "extendedresult", 0) == apsw.SQLITE_CONSTRAINT_DATATYPE:
            return False  # SQLite keeps rows that the statement has changed, and does not count them
        # A statement may fail after its work, when its rows cannot be read. Or it keeps a part of
        # its work (OR FAIL). The count of changes shows both.
        connection = self.connection
        return connection.in_transaction and connection.total_changes() == self._changes_before

    def _undo(self, group: "_Group", task: "Task", error: Exception) -> None:
        """Undo the whole transaction, in which a job has failed.

        The jobs that are to blame fail. All other jobs begin again.
        """
        self._transactions.roll_back()
        unwanted = group.unwanted()
        if not unwanted and isinstance(error, apsw.InterruptError):
            unwanted = group.take_unwanted()  # the interrupt was for a job that waits to begin again
        if unwanted and task not in unwanted:
            # The job is long. Alone it does not begin again at each interrupt of another job.
            self._loners.append(task)
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
            self._transactions.commit()
        except Exception as failure:
            if is_lost(failure):
                raise
            self._could_not_commit(group, failure)
            return
        group.answer()

    def _could_not_commit(self, group: "_Group", failure: Exception) -> None:
        """Handle a commit that has failed.

        If it was interrupted, the interrupted jobs fail and the others begin again. Else all jobs
        fail.
        """
        unwanted = group.unwanted()
        if unwanted:  # the interrupt was for one of them
            self._undo(group, unwanted[0], failure)
            return
        if isinstance(failure, apsw.BusyError):
            self._wait.explain(failure, has_read=False)
        self._transactions.roll_back()
        group.fail(failure)


class _Group:
    """The jobs of one transaction."""

    def __init__(self, batch: "Batch", first: "Task", waiting: "deque[Task]") -> None:
        self.batch = batch
        self.waiting = waiting
        """Jobs that were begun and are not in the transaction yet, or not any more."""
        self.ran: list[tuple[Task, Any]] = []
        """The jobs that ran, each with its value or a `Rejection`. They are answered after the
        commit."""
        self._first: Task | None = first
        self._until = 0.0

    def next(self) -> "Task | None":
        """Begin the next job; `None` if there is none, or the first has waited long enough."""
        first, self._first = self._first, None
        if first is not None:
            self._until = time.perf_counter() + _LONGEST
            return first
        if time.perf_counter() > self._until:
            return None
        return self.waiting.popleft() if self.waiting else self.batch.begin()

    def unwanted(self) -> "list[Task]":
        """Return the jobs of this transaction that were interrupted."""
        return [task for task in self.batch.running if task.is_unwanted and task not in self.waiting]

    def take_unwanted(self) -> "list[Task]":
        """Remove the interrupted jobs from the waiting jobs, and return them."""
        unwanted = [task for task in self.waiting if task.is_unwanted]
        for task in unwanted:
            self.waiting.remove(task)
        return unwanted

    def begin_again(self, culprits: "list[Task] | tuple[()]" = ()) -> None:
        """Let all jobs of the transaction wait again, except for the culprits."""
        again = [task for task, _ in self.ran if task not in culprits]
        self.waiting.extendleft(reversed(again))
        self.ran.clear()

    def fail(self, error: Exception) -> None:
        """Answer each job with its own error, or else with this one: all jobs are undone."""
        for task, outcome in self.ran:
            self.batch.fail(task, outcome.error if type(outcome) is Rejection else _another(error))

    def answer(self) -> None:
        """Answer all jobs, which are committed."""
        for task, outcome in self.ran:
            if type(outcome) is Rejection:
                self.batch.fail(task, outcome.error)
            else:
                self.batch.answer(task, outcome)


def _another(error: Exception) -> Exception:
    """Return an error like this one, since each caller gets an error of its own."""
    try:
        other = type(error).__new__(type(error), *error.args)
        other.__dict__.update(error.__dict__)
        if hasattr(error, "__notes__"):
            other.__notes__ = list(error.__notes__)
    except Exception:  # noqa: BLE001  # a user's class, which is made in another way
        return error
    return other
