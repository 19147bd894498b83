"""A connection to PostgreSQL whose quick queries travel together."""

import time
from typing import Any, Final

import psycopg

from actors.databases.answers import checked
from actors.databases.executor import Batch, Task
from actors.databases.postgres.connection import PostgresConnection, lost
from actors.databases.postgres.prepared import Bound, Statement
from actors.databases.postgres.transactions import complete
from actors.values.errors import ConnectionLost
from actors.values.requests import Query

__all__ = ["BatchingConnection"]

_MOST: Final = 64  # queries in one message
_LONGEST: Final = 0.002  # seconds that one message should take; other workers may take the jobs behind it
_CANCELLED: Final = "57014"


class BatchingConnection(PostgresConnection):
    """Sends the quick queries of a batch in one message.

    Each query has a Sync of its own: its own transaction and its own error. With `group_commit` the
    queries share one Sync and one commit.

    A cancel ends the statement that the server runs at that moment. In a message with several
    queries this may be another one than the cancelled. That query did nothing, and runs again.
    """

    def run(self, batch: Batch) -> None:
        """Run the jobs of a batch; see `Connection.run`."""
        if len(batch) == 1:
            super().run(batch)
            return
        following: Task | None = batch.begin()
        while following is not None:
            group: list[Task] = []
            seconds = 0.0
            while following is not None and len(group) < _MOST and seconds < _LONGEST:
                statement = self._travelling(following.request)
                if statement is None:
                    break
                group.append(following)
                if not self.database.group_commit:
                    seconds += statement.seconds
                following = batch.begin()
            # A job that does not travel with the others was begun with them, and has done nothing.
            self._run_all(batch, group, behind=following)
            if not group:
                self._run_alone(batch, [following])
                following = batch.begin()

    def _travelling(self, request: Any) -> Statement | None:
        """Return the statement of a request that may share a message with others, else `None`."""
        if type(request) is not Query or request.many is not None or request.max_rows is not None:
            return None
        statement = self.prepared.statement(request.sql)
        return statement if statement.is_clean else None

    def _run_all(self, batch: Batch, group: list[Task], *, behind: Task | None) -> None:
        try:
            self._run_alone(batch, self._run_together(batch, group) if len(group) > 1 else group)
        except ConnectionLost:
            if behind is not None:
                batch.give_back(behind)
            raise

    def _run_alone(self, batch: Batch, group: list[Task]) -> None:
        """Run begun jobs one after the other."""
        for number, task in enumerate(group, 1):
            try:
                if task.is_unwanted:
                    batch.fail(task, InterruptedError("interrupted before it was started"))
                else:
                    self.alone = (task,)
                    self.run_one(batch, task)
            except ConnectionLost:
                batch.give_back(*group[number:])
                raise
            finally:
                self.alone = None

    def _run_together(self, batch: Batch, group: list[Task]) -> list[Task]:
        """Run queries in one message; return the queries that have no effect yet and must run.

        Raises:
            ConnectionLost: the connection is of no more use.
        """
        if self.wire.is_lost:
            batch.give_back(*group)
            raise lost(begun=False)
        sent, bounds = list[Task](), list[Bound]()
        for task in group:
            query: Any = task.request
            try:
                bounds.append(self.prepared.bind(query.sql, query.params))
            except Exception as error:  # noqa: BLE001  # the parameters do not fit
                batch.fail(task, error)
            else:
                sent.append(task)
        together = self.database.group_commit
        cancels = self.fence.sent
        began = time.perf_counter()
        self.fence.begin(sent)
        try:
            outcomes = self.wire.pipeline(bounds, together=together)
        except psycopg.Error as error:
            raise lost() from error
        finally:
            self.end_fence()
        seconds = (time.perf_counter() - began) / max(1, len(sent))
        if together and any(isinstance(outcome, psycopg.Error) for outcome in outcomes):
            return sent  # nothing of the shared transaction took effect
        again = list[Task]()
        for task, bound, outcome in zip(sent, bounds, outcomes, strict=True):
            if not isinstance(outcome, psycopg.Error):
                self._complete(batch, task, bound, outcome, seconds)
            elif bound.was_refused or (
                outcome.sqlstate == _CANCELLED and self.fence.sent != cancels and not task.is_unwanted
            ):
                again.append(task)
            else:
                batch.fail(task, outcome)
        return again

    def _complete(self, batch: Batch, task: Task, bound: Bound, outcome: Any, seconds: float) -> None:
        bound.statement.seconds = seconds
        try:
            value = checked(complete(bound, outcome, task.request), task.request, self)
        except Exception as error:  # noqa: BLE001  # Python has no such value
            batch.fail(task, error)
        else:
            batch.answer(task, value, seconds)
