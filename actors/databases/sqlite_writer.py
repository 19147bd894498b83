"""The connection of a crew's writer: small writes that wait together are one transaction."""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import apsw

from actors.databases.base import Answer, Ticketed, Unrunnable, checked
from actors.databases.sqlite_connection import LOST, NO_ROWID, RELEASE, SAVEPOINT, WRITER, Role, SQLiteConnection
from actors.databases.sqlite_transactions import run_each
from actors.databases.steps import Step
from actors.errors import ConnectionLost
from actors.log import log
from actors.messages import Query, Request, Transaction
from actors.result import Result

if TYPE_CHECKING:
    from actors.databases.sqlite import SQLite

__all__ = ["SQLiteWriter"]

_MOST: Final = 128  # jobs that wait for the lock together
_LONGEST: Final = 0.005  # seconds after which nothing more joins a group: its first job is to be answered
_SELDOM: Final = 16  # calls after which there is a look at the log's size
_LOG: Final = 16 << 20  # bytes of the log from which it is to begin anew; SQLite writes it back every 4 MB
_PATIENCE: Final = 0.1  # seconds that upkeep may wait, or take
_MOST_PATIENCE: Final = 1.0  # the same for a log that has become very long
_DAY: Final = 24 * 3600.0
_KNOWN: Final = 512  # texts of which it is known whether they can share a transaction: more than APSW keeps prepared

_PLAIN_ACTIONS: Final = frozenset(
    {
        apsw.SQLITE_INSERT,
        apsw.SQLITE_UPDATE,
        apsw.SQLITE_DELETE,
        apsw.SQLITE_SELECT,
        apsw.SQLITE_READ,
        apsw.SQLITE_FUNCTION,
        apsw.SQLITE_RECURSIVE,
    }
)
"""What the authorizer is told of statements that can share a transaction with others; no other statement does."""


class _RunsAlone(Exception):
    """The statement cannot share a transaction. Nothing of it ran."""


class SQLiteWriter(SQLiteConnection):
    """The connection that writes, with group commit: see `Grouping`.

    A lone write is run as ever, in a transaction of its own. Where more wait, all that can share a transaction is run
    in one, which is committed once, and only then is anybody answered. An error of a statement undoes that statement,
    as SQLite has it. What cannot be undone alone (an interrupt, a full disk, a deferred constraint) undoes the whole
    transaction: its culprit is answered, and the others, of which nothing has taken effect, are run in a new one.
    """

    def __init__(self, database: "SQLite", role: Role = WRITER, *, create: bool = True) -> None:
        # Held while a job is interrupted, and while `_in_hand` is set: an interrupt is for a job, and hits no other.
        # This connection's own thread calls nothing with it: a finalizer that came in would wait for the dispatcher,
        # whose lock is held by whoever interrupts.
        self._guard = threading.RLock()
        # The tickets of what runs now, and of what was interrupted, begun or not.
        self._in_hand: set[int] = set()
        self._unwanted: set[int] = set()
        # The tickets of those that were found out to need a transaction of their own.
        self._loners: set[int] = set()
        self.held_over: deque[Ticketed] = deque()
        # Whether the statement that runs shares a transaction, and how it was prepared: with other actions than plain.
        self._sharing = False
        self._special = False
        # What is prepared, and whether it is to be refused if it cannot share.
        self._sql = ""
        self._judging = False
        # Text → whether it can share a transaction.
        self._shareable: dict[str, bool] = {}
        # Texts that can, and give no rows: these need no trace.
        self._silent: set[str] = set()
        self._until = 0.0
        # Whether a transaction was rolled back since this was last set to False.
        self._undone = False
        # Whether what runs now is none of the jobs.
        self._keeps_up = False
        # How often it was called, and when there is to be looked after what.
        self._calls = 0
        self._truncate_at = 0.0
        self._optimize_at = time.monotonic() + _DAY
        # The connection's count of changes before the request that runs.
        self._changes_before = 0
        super().__init__(database, role, create=create)

    def _open(self) -> None:
        super()._open()
        self._connection.set_rollback_hook(self._note_undoing)

    def _note_undoing(self) -> None:
        self._undone = True

    # --- Grouping -------------------------------------------------------------------------

    def execute_group(self, first: Ticketed, draw: Callable[[], Ticketed | None]) -> list[Answer]:
        """Run a job, and with it others that wait; see `Grouping`."""
        if self._unwanted and not self.held_over:  # nothing that came before it is in hand
            self._unwanted.difference_update([ticket for ticket in tuple(self._unwanted) if ticket < first[0]])
        self._keep_up()
        answers: dict[int, Answer] = {}
        while not answers:
            moved = self._file is not None and self._file.has_changed()
            second = self._draw(draw) if self._may_share(first) and not moved else None
            if second is None:
                answers[first[0]] = self._alone(first)
                break
            todo = [first, second]
            while len(todo) < _MOST and (another := self._draw(draw)) is not None:
                todo.append(another)  # at once: they wait for the lock together
            # Whoever is answered now is not to wait for those who have to begin again.
            self.held_over.extendleft(reversed(self._attempt(todo, draw, answers)))
            if not answers:
                first = self.held_over.popleft()
        self._unwanted.difference_update(answers)
        self._loners.difference_update(answers)
        return [answers[ticket] for ticket in sorted(answers)]

    def interrupt(self, ticket: int | None = None) -> None:
        """End a job, or whatever runs; see `Grouping`."""
        with self._guard:
            if ticket is None:
                self._unwanted |= self._in_hand
            else:
                self._unwanted.add(ticket)
            if ticket is None or ticket in self._in_hand or self._keeps_up:
                super().interrupt()

    def _draw(self, draw: Callable[[], Ticketed | None]) -> Ticketed | None:
        """Return the next job that can share a transaction, if that is the next one."""
        job = self.held_over.popleft() if self.held_over else draw()
        if job is not None and not self._may_share(job):
            self.held_over.appendleft(job)
            return None
        return job

    def _may_share(self, job: Ticketed) -> bool:
        ticket, request = job
        if self._loners and ticket in self._loners:
            return False
        if type(request) is Query:
            return self._shareable.get(request.sql, True)
        if not isinstance(request, Transaction) or request.readonly:
            return False
        return all(self._shareable.get(query.sql, True) for query in request.queries)

    # --- upkeep ---------------------------------------------------------------------------

    def _keep_up(self) -> None:
        """Now and then, between two groups: keep the log short, and the planner informed."""
        self._calls += 1
        if self._calls % _SELDOM or self._file is None or self._connection.in_transaction:
            return  # in a transaction: somebody's, whose statements come one by one
        now = time.monotonic()
        if now >= self._truncate_at and (size := self._file.log_size()) > _LOG:
            # It is written back all the time, but begins anew only once nobody reads from it. While new readers go on
            # as ever, this waits for the old ones: the longer, the longer it has become.
            patience = min(_PATIENCE * size / _LOG, _MOST_PATIENCE)
            done = self._try(lambda: self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE), patience)
            self._truncate_at = now if done else now + 3 * patience
        if now >= self._optimize_at:
            self._optimize_at = now + _DAY
            self._optimize()

    def _try(self, what: Callable[[], object], patience: float) -> bool:
        """Do something that need not be done now; say whether it was."""
        self._patience, self._busy_since, self._interrupted = patience, 0.0, False
        self._keeps_up = True
        try:
            what()
        except Exception as error:  # noqa: BLE001  # of a hook of the user's, too
            log(__name__, "debug", "upkeep_failed", database=self._database, error=error)
            return False
        finally:
            self._patience, self._keeps_up = float("inf"), False
        return True

    def _optimize(self) -> None:
        """Let SQLite look at the tables whose statistics are old, as it advises for all of them from time to time."""
        connection, until = self._connection, time.monotonic() + _PATIENCE
        connection.set_progress_handler(lambda: time.monotonic() > until, 1000)
        self._try(lambda: connection.execute("PRAGMA optimize = 0x10002").fetchall(), 0.0)
        connection.set_progress_handler(None)

    def close(self) -> None:
        """Close; see `Connection`."""
        with suppress(apsw.ConnectionClosedError):
            if self._connection.total_changes() and not self._connection.in_transaction:
                self._optimize()
        super().close()

    # --- alone ----------------------------------------------------------------------------

    def _alone(self, job: Ticketed) -> Answer:
        ticket, request = job
        began = time.perf_counter()
        value, error = None, None
        self._sharing = False
        self._take_in_hand({ticket})
        try:
            self._check_wanted(ticket)
            if isinstance(request, Unrunnable):
                raise request.error  # noqa: TRY301  # answered like any error
            value = checked(self.execute(request), request, self)
        except ConnectionLost:
            raise
        except Exception as failure:  # noqa: BLE001  # it goes to its caller
            error = failure
        self._take_in_hand(set())
        return Answer(ticket, value, error, time.perf_counter() - began)

    def _check_wanted(self, ticket: int) -> None:
        if ticket in self._unwanted:
            message = "interrupted before it was started"
            raise InterruptedError(message)

    # --- together -------------------------------------------------------------------------

    def _attempt(
        self, todo: list[Ticketed], draw: Callable[[], Ticketed | None], answers: dict[int, Answer]
    ) -> list[Ticketed]:
        """Run jobs in one transaction; return those of which nothing has taken effect, and that are to be tried again.

        None of them may have been answered: one was found out to need a transaction of its own, and is marked so.
        """
        began = time.perf_counter()
        self._interrupted = self._optimizes = self._may_move = False
        self._take_in_hand({ticket for ticket, _ in todo})
        try:
            return self._transaction_of(todo, draw, answers, began)
        except LOST as error:
            raise ConnectionLost(str(error)) from error
        finally:
            self._sharing = False
            self._take_in_hand(set())
            if self._stateful and not self._connection.in_transaction:
                self._renew()

    def _transaction_of(
        self, todo: list[Ticketed], draw: Callable[[], Ticketed | None], answers: dict[int, Answer], began: float
    ) -> list[Ticketed]:
        self._busy_since, connection = 0.0, self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
        except LOST:
            raise
        except apsw.Error as error:
            return self._could_not_begin(todo, error, answers, began)
        self._sharing = True
        self._until = time.perf_counter() + _LONGEST
        waiting, ran = deque(todo), list[tuple[Ticketed, Any]]()
        while (job := waiting.popleft() if waiting else self._next(draw)) is not None:
            ticket, request = job
            if len(ran) > 1 and waiting and time.perf_counter() > self._until:
                self.held_over.extendleft(reversed([job, *waiting]))
                self._take_in_hand(self._in_hand - {other for other, _ in self.held_over})
                break
            try:
                if ticket in self._unwanted:
                    self._check_wanted(ticket)
                known = type(request) is Query and request.sql in self._silent and request.many is None
                ran.append((job, self._silently(request) if known else self._within(request)))  # type: ignore[arg-type]
            except LOST:
                raise
            except _RunsAlone:
                self._note_shareable(can_share=False)
                self._loners.add(ticket)
                self.held_over.extendleft(reversed([job, *waiting]))
                self._take_in_hand(self._in_hand - {other for other, _ in self.held_over})
                break
            except Exception as error:  # noqa: BLE001  # it goes to its caller
                self.close_cursor()
                if not self._is_undone(error):
                    return self._undo(job, error, [*ran, *((other, None) for other in (job, *waiting))], answers, began)
                answers[ticket] = Answer(ticket, None, error, time.perf_counter() - began)
            if connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0]:
                # It leaves a constraint broken that is looked at when it commits.
                self._roll_back()
                self._loners.add(ticket)
                return [*(other for other, _ in ran), *waiting]
        return self._commit(ran, answers, began)

    def _next(self, draw: Callable[[], Ticketed | None]) -> Ticketed | None:
        if time.perf_counter() > self._until or (job := self._draw(draw)) is None:
            return None
        # Without the guard, which every write would pay for: whoever interrupts it writes that down first, and looks
        # here then, while this looks at what is written down afterwards.
        self._in_hand.add(job[0])
        return job

    def _take_in_hand(self, tickets: set[int]) -> None:
        with self._guard:
            self._in_hand = tickets

    def _could_not_begin(
        self, todo: list[Ticketed], error: apsw.Error, answers: dict[int, Answer], began: float
    ) -> list[Ticketed]:
        """Answer those for whom the lock cannot be had; return the others."""
        if isinstance(error, apsw.BusyError):
            self._tell_how_long(error)
        seconds = time.perf_counter() - began
        unwanted = [ticket for ticket, _ in todo if ticket in self._unwanted]
        for ticket in unwanted or [ticket for ticket, _ in todo]:
            answers[ticket] = Answer(ticket, None, _another(error), seconds)
        return [job for job in todo if job[0] not in answers]

    def _within(self, request: Request | Step | Unrunnable) -> Any:
        """Run a request inside the transaction that there is."""
        self._changes_before = self._connection.total_changes()
        try:
            if isinstance(request, Query) and request.many is None:
                return self._traced(request)
            return self._in_a_savepoint(request)  # type: ignore[arg-type]  # nothing else may share
        finally:
            self._judging = False

    def _in_a_savepoint(self, request: Query | Transaction) -> Any:
        connection = self._connection
        connection.execute(SAVEPOINT)
        try:
            if isinstance(request, Transaction):
                value: Any = run_each(connection, request, self._traced)
            else:
                value = self._traced(request)
        except BaseException:
            self._judging = False
            self.close_cursor()
            if connection.in_transaction:
                connection.execute(f"ROLLBACK TO querycrew; {RELEASE}")
            raise
        connection.execute(RELEASE)
        return value

    def _silently(self, query: Query) -> Result:
        """Run a statement that gives no rows, as is known from before: without the trace."""
        connection = self._connection
        self._changes_before = before = connection.total_changes()
        connection.set_last_insert_rowid(NO_ROWID)
        self._cursor.execute(query.sql, query.params)
        changed = connection.changes() if connection.total_changes() != before else 0
        rowid = connection.last_insert_rowid()
        return Result((), [], changed, None if rowid == NO_ROWID else rowid)

    def _traced(self, query: Query) -> Result:
        if query.many is not None:
            return self._many(query)
        result = self._query_traced(query)
        if not result.columns and self._shareable.get(query.sql):
            if len(self._silent) >= _KNOWN:
                self._silent = set()
            self._silent.add(query.sql)
        return result

    def _may_cache(self, sql: str) -> bool:
        self._prepared = self._special = False
        self._sql, self._judging = sql, self._sharing
        return sql in self._shareable

    def _note_shareable(self, *, can_share: bool) -> None:
        if len(self._shareable) >= _KNOWN:
            self._shareable, self._silent = {}, set()
        self._shareable[self._sql] = can_share

    def _object(self, sql: str, writes: bool) -> None:
        self._judging = False
        super()._object(sql, writes)
        if self._prepared:  # else it was known; a statement of which nothing was asked, such as VACUUM, was not
            self._note_shareable(can_share=not self._special)
        if self._sharing and not self._shareable.get(sql, False):
            raise _RunsAlone

    def _authorize(
        self, action: int, first: str | None, second: str | None, schema: str | None, trigger: str | None
    ) -> int:
        if action not in _PLAIN_ACTIONS:
            self._special = True
            if self._judging:
                raise _RunsAlone  # some pragmas take effect as they are prepared
        return super()._authorize(action, first, second, schema, trigger)

    # --- undoing --------------------------------------------------------------------------

    def _is_undone(self, error: Exception) -> bool:
        """Say whether a statement that failed was undone, and nothing else."""
        if isinstance(error, apsw.InterruptError) or self._in_hand & self._unwanted:
            return isinstance(error, InterruptedError)  # one that was not started
        # An error of Python's, as for rows that cannot be decoded, comes when the statement has done its work.
        connection = self._connection
        return connection.in_transaction and (
            isinstance(error, apsw.Error) or connection.total_changes() == self._changes_before
        )

    def _undo(
        self,
        job: Ticketed,
        error: Exception,
        jobs: list[tuple[Ticketed, Any]],
        answers: dict[int, Answer],
        began: float,
    ) -> list[Ticketed]:
        """Undo the whole transaction; answer those who are to blame for it, and return the others."""
        self._roll_back()
        unwanted = self._in_hand & self._unwanted
        if unwanted and job[0] not in unwanted:
            self._loners.add(job[0])  # a long one, which shall not begin again for every one that is interrupted
        seconds = time.perf_counter() - began
        for ticket in unwanted or {job[0]}:
            own = error if ticket == job[0] else InterruptedError("interrupted")
            answers[ticket] = Answer(ticket, None, own, seconds)
        return [other for other, _ in jobs if other[0] not in answers]

    def _commit(self, ran: list[tuple[Ticketed, Any]], answers: dict[int, Answer], began: float) -> list[Ticketed]:
        unwanted = [job for job, _ in ran if job[0] in self._unwanted]
        if unwanted:
            return self._undo(unwanted[0], InterruptedError("interrupted"), ran, answers, began)
        self._undone = False
        failure: Exception | None = None
        try:
            self._connection.execute("COMMIT")
        except LOST:
            raise
        except Exception as error:  # noqa: BLE001  # it goes to all of them
            failure = error
        if failure is None or not (self._undone or self._connection.in_transaction):
            if failure is not None:  # a hook of the user's, which is called when all is done
                log(__name__, "error", "commit_hook_failed", database=self._database, error=failure)
            seconds = time.perf_counter() - began
            for (ticket, _), value in ran:
                answers[ticket] = Answer(ticket, value, None, seconds)
            return []
        if self._in_hand & self._unwanted:  # it hit one of them
            return self._undo(ran[0][0], failure, ran, answers, began)
        if isinstance(failure, apsw.BusyError):
            self._tell_how_long(failure)
        self._roll_back()
        for (ticket, _), _ in ran:
            answers[ticket] = Answer(ticket, None, _another(failure), time.perf_counter() - began)
        return []

    def _roll_back(self) -> None:
        self.close_cursor()
        while self._connection.in_transaction:
            with suppress(apsw.InterruptError):  # it was meant for what is over
                self._connection.execute("ROLLBACK")


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
