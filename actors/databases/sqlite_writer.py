"""The connection of a crew's writer: small writes that wait together are one transaction."""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import apsw

from actors.databases.base import Answer, Ticketed, Unrunnable
from actors.databases.sqlite_connection import (
    RELEASE,
    SAVEPOINT,
    UNDO,
    WRITER,
    NothingRan,
    Role,
    SQLiteConnection,
    is_lost,
)
from actors.databases.sqlite_statement import Known, is_special
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


class _RunsAlone(NothingRan):
    """It cannot share a transaction with statements of other callers."""


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
        # Whether a statement is prepared that is refused if it cannot share the transaction that is open.
        self._judging = False
        self._until = 0.0
        # Whether what runs now is none of the jobs.
        self._keeps_up = False
        # How often it was called, and when there is to be looked after what.
        self._calls = 0
        self._truncate_at = 0.0
        self._optimize_at = time.monotonic() + _DAY
        # The connection's count of changes before the request that runs.
        self._changes_before = 0
        super().__init__(database, role, create=create)
        self._settle_the_past()

    def _settle_the_past(self) -> None:
        """Commit, with nothing changed, so that a commit that a killed process has begun is either seen or gone.

        Such a process may have written its commit to the log, and not to the log's index: nobody sees it, until the
        index is made anew from the log. The next commit overwrites it.
        """
        if self._file is None:
            return
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            self.set_pragma("user_version", self.connection.pragma("user_version"))
            self.commit()
        except apsw.Error as error:
            # Another process has the lock, and will commit itself; or the file cannot be written, which jobs find out.
            log(__name__, "debug", "settling_failed", database=self._database, error=error)
            self.roll_back()

    # --- Grouping -------------------------------------------------------------------------

    def execute_group(self, first: Ticketed, draw: Callable[[], Ticketed | None]) -> list[Answer]:
        """Run a job, and with it others that wait; see `Grouping`."""
        if self._unwanted and not self.held_over:  # nothing that came before it is in hand
            self._unwanted.difference_update([ticket for ticket in tuple(self._unwanted) if ticket < first[0]])
        self._keep_up()
        answers: dict[int, Answer] = {}
        while not answers:
            changed = self.is_stale or (self._file is not None and self._file.has_changed())
            second = self._draw(draw) if self._may_share(first) and not changed else None
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
            return self._is_shareable(request.sql)
        if not isinstance(request, Transaction) or request.readonly:
            return False
        return all(self._is_shareable(query.sql) for query in request.queries)

    def _is_shareable(self, sql: str) -> bool:
        known = self._known.get(sql)
        return known is None or known.is_plain

    # --- upkeep ---------------------------------------------------------------------------

    def _keep_up(self) -> None:
        """Now and then, between two groups: keep the log short, and the planner informed."""
        self._calls += 1
        if self._calls % _SELDOM or self._file is None or self.connection.in_transaction:
            return  # in a transaction: somebody's, whose statements come one by one
        now = time.monotonic()
        if now >= self._truncate_at and (size := self._file.log_size()) > _LOG:
            # It is written back all the time, but begins anew only once nobody reads from it. While new readers go on
            # as ever, this waits for the old ones: the longer, the longer it has become.
            patience = min(_PATIENCE * size / _LOG, _MOST_PATIENCE)
            done = self._try(lambda: self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE), patience)
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
        connection, until = self.connection, time.monotonic() + _PATIENCE
        connection.set_progress_handler(lambda: time.monotonic() > until, 1000)
        self._try(lambda: connection.execute("PRAGMA optimize = 0x10002").fetchall(), 0.0)
        connection.set_progress_handler(None)

    def close(self) -> None:
        """Close; see `Connection`."""
        with suppress(apsw.ConnectionClosedError):
            if self.connection.total_changes() and not self.connection.in_transaction:
                self._optimize()
        super().close()

    # --- alone ----------------------------------------------------------------------------

    def _alone(self, job: Ticketed) -> Answer:
        ticket, request = job
        began = time.perf_counter()
        value, error = None, None
        self._take_in_hand({ticket})
        try:
            self._check_wanted(ticket)
            if isinstance(request, Unrunnable):
                raise request.error  # noqa: TRY301  # answered like any error
            value = self.execute(request)
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
        self._interrupted = False
        self.admits = self._admit_shareable
        self._take_in_hand({ticket for ticket, _ in todo})
        try:
            return self._transaction_of(todo, draw, answers, began)
        except apsw.Error as error:
            if is_lost(error):
                raise ConnectionLost(str(error)) from error
            raise
        finally:
            self._take_in_hand(set())

    def _transaction_of(
        self, todo: list[Ticketed], draw: Callable[[], Ticketed | None], answers: dict[int, Answer], began: float
    ) -> list[Ticketed]:
        self._busy_since, connection = 0.0, self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            if is_lost(error):
                raise
            return self._could_not_begin(todo, error, answers, began)
        self._until = time.perf_counter() + _LONGEST
        waiting, ran = deque(todo), list[tuple[Ticketed, Any]]()
        while (job := waiting.popleft() if waiting else self._next(draw)) is not None:
            ticket, request = job
            if len(ran) > 1 and waiting and time.perf_counter() > self._until:
                self._hold_over([job, *waiting])
                break
            try:
                if ticket in self._unwanted:
                    self._check_wanted(ticket)
                ran.append((job, self._within(request)))
            except _RunsAlone:
                self._loners.add(ticket)
                self._hold_over([job, *waiting])
                break
            except Exception as error:
                if is_lost(error):
                    raise
                self.close_cursor()
                self._explain(error, request)  # type: ignore[arg-type]  # what did not arrive has no such error
                if not self._is_undone(error):
                    return self._undo(job, error, [*ran, *((other, None) for other in (job, *waiting))], answers, began)
                answers[ticket] = Answer(ticket, None, error, time.perf_counter() - began)
            if connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0]:
                # It leaves a constraint broken that is looked at when it commits.
                self.roll_back()
                self._loners.add(ticket)
                return [*(other for other, _ in ran), *waiting]
        return self._commit(ran, answers, began)

    def _hold_over(self, jobs: list[Ticketed]) -> None:
        """Let jobs, of which nothing ran, be the first ones of the next group."""
        self.held_over.extendleft(reversed(jobs))
        self._take_in_hand(self._in_hand - {ticket for ticket, _ in self.held_over})

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
        self._changes_before = self.connection.total_changes()
        if isinstance(request, Query) and request.many is None:
            return self.seal(self._judged(request), request)
        return self._in_a_savepoint(request)  # type: ignore[arg-type]  # nothing else may share

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
            return self.run(query)
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

    # --- undoing --------------------------------------------------------------------------

    def _is_undone(self, error: Exception) -> bool:
        """Say whether a statement that failed was undone, and nothing else."""
        if isinstance(error, apsw.InterruptError) or self._in_hand & self._unwanted:
            return isinstance(error, InterruptedError)  # one that was not started
        if getattr(error, "extendedresult", 0) == apsw.SQLITE_CONSTRAINT_DATATYPE:
            return False  # in a transaction SQLite keeps the rows that it has changed before, and does not count them
        # Not one that fails behind its work, as for rows that cannot be read, nor one that keeps a part (OR FAIL).
        connection = self.connection
        return connection.in_transaction and connection.total_changes() == self._changes_before

    def _undo(
        self,
        job: Ticketed,
        error: Exception,
        jobs: list[tuple[Ticketed, Any]],
        answers: dict[int, Answer],
        began: float,
    ) -> list[Ticketed]:
        """Undo the whole transaction; answer those who are to blame for it, and return the others."""
        self.roll_back()
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
        try:
            self.commit()
        except Exception as failure:
            if is_lost(failure):
                raise
            return self._could_not_commit(ran, failure, answers, began)
        seconds = time.perf_counter() - began
        for (ticket, _), value in ran:
            answers[ticket] = Answer(ticket, value, None, seconds)
        return []

    def _could_not_commit(
        self, ran: list[tuple[Ticketed, Any]], failure: Exception, answers: dict[int, Answer], began: float
    ) -> list[Ticketed]:
        """Answer those of whom nothing has taken effect; return the others."""
        if self._in_hand & self._unwanted:  # it hit one of them
            return self._undo(ran[0][0], failure, ran, answers, began)
        if isinstance(failure, apsw.BusyError):
            self._tell_how_long(failure)
        self.roll_back()
        for (ticket, _), _ in ran:
            answers[ticket] = Answer(ticket, None, _another(failure), time.perf_counter() - began)
        return []


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
