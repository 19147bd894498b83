"""The scripted database of a world.

A file of numbers, and connections that follow the fault plan.
"""

from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from actors.databases.base import Connection, NeedsWriter
from actors.databases.steps import (
    STEPS,
    Begin,
    Close,
    Commit,
    CopyPages,
    Deallocate,
    Declare,
    Execute,
    Fetch,
    KeepCopy,
    OpenBackup,
)
from actors.values.errors import ConnectionLost
from actors.values.rejection import Rejection
from actors.values.result import Result
from tests.worlds.fault_plan import ENDINGS, BadLuck, Interrupted, OpeningFailed, Scripted
from tests.worlds.requests import number_of, rows_of, writes
from tests.worlds.system import stage

if TYPE_CHECKING:
    from actors.databases.executor import Batch
    from tests.worlds.world import World

ROLES = ("reader", "writer")
_ALL = "all"


class WorldDatabase:
    """A file of the world, as one lane connects to it; or, without a role, as all do."""

    name = "world"
    max_size = None
    errors = (Exception,)
    world: "World"
    """The one world that there is: an object of this class may come out of a pickle."""

    def __init__(self, role: str = _ALL) -> None:
        self.role = role

    def __str__(self) -> str:
        return "WorldDatabase()"

    def lanes(self) -> tuple["WorldDatabase", ...]:
        return tuple(map(WorldDatabase, ROLES)) if self.world.has_writer else (self,)

    def connect(self) -> "WorldConnection":
        world, plan = self.world, self.world.plan
        stage().yield_now()
        if world.happens(plan.opening_hangs):
            stage().wait(lambda: world.calm, world.chance() * 2 * world.policy.start_timeout)
        if world.happens(plan.opening_fails):
            if world.chance() < 0.2:
                raise world.random.choice(ENDINGS)("scripted opening")
            message = "scripted opening"
            raise OpeningFailed(message)
        kind = {"reader": Reader, "writer": Writer}.get(self.role, WorldConnection)
        return kind(world)


class WorldConnection(Connection):
    """A connection that reads and writes, one job after the other."""

    plain_values = True

    def __init__(self, world: "World") -> None:
        self.world = world
        self.process = getattr(stage().current, "process", None)
        self.closed = False
        self._batch: Batch | None = None
        self._busy = False
        self._runs = 0
        self._interrupted = False
        # Numbers that are written and not committed.
        self.staged: list[int] = []
        self._in_session = False
        # By the number of the cursor: the rows that are left.
        self._cursors: dict[int, list[tuple[int, int]]] = {}
        world.connections.append(self)

    def run(self, batch: "Batch") -> None:
        self._batch = batch
        super().run(batch)

    def execute(self, request: Any) -> Any:
        self._interrupted = False
        if isinstance(request, STEPS):
            return self._step(request)
        value = self._statement(request)
        if not self._in_session:
            self._commit()
        return value

    # --- statements -----------------------------------------------------------------------

    def _statement(self, request: Any) -> Any:
        number = number_of(request)
        world, plan = self.world, self.world.plan
        if self._busy or self.closed:
            world.blame(f"{request} runs on a connection that is {'closed' if self.closed else 'busy'}")
        if self.reads_only and writes(request):
            raise NeedsWriter
        if world.happens(plan.connection_lost / 3) and not self.staged and not self._in_session:
            raise ConnectionLost(begun=False, blames=False) from BadLuck("before it began")
        entry = world.history.started(number, self)
        self._busy, self._runs = True, number
        try:
            self._last(entry)
        finally:
            self._busy = False
        if world.happens(plan.connection_lost):
            raise ConnectionLost(blames=world.chance() < 0.5) from BadLuck("scripted loss")
        if world.happens(plan.statement_kills):
            raise world.random.choice(ENDINGS)("scripted statement")
        if world.happens(plan.statement_fails):
            entry.failed = True
            raise world.random.choice((Scripted, MemoryError, TypeError))("scripted")
        if writes(request):
            self.staged.append(number)
        result = Result(("number",), [(number,)], 1)
        return [result] if type(request).__name__ == "Transaction" else result

    def _last(self, entry: Any) -> None:
        """Take some time, and end early if interrupted."""
        world, plan = self.world, self.world.plan
        seconds = world.chance() * 0.0005
        deaf = False
        if world.happens(plan.statement_lasts):
            seconds = world.random.choice((0.003, 0.02, 0.2, 2.0))
            deaf = world.happens(plan.statement_is_deaf)
        stage().wait(lambda: (self._interrupted and not deaf) or (world.calm and seconds > 0.1), seconds)
        if self._interrupted and not deaf:
            entry.interrupted = True
            message = "interrupted"
            raise Interrupted(message)

    def _commit(self) -> None:
        world = self.world
        stage().yield_now()
        if self.staged:
            if world.happens(world.plan.connection_lost):
                self.staged.clear()
                raise ConnectionLost from BadLuck("lost as it commits")
            world.file.update(self.staged)
            self.staged.clear()
            stage().yield_now()
            if world.happens(world.plan.connection_lost):
                raise ConnectionLost from BadLuck("lost behind its commit")

    # --- steps ----------------------------------------------------------------------------

    def _step(self, step: Any) -> Any:
        match step:
            case Begin():
                self.world.spend(0.001)
                self._in_session = True
            case Execute():
                return self._statement(step.request)
            case Commit():
                self._commit()
            case Declare():
                if not self._in_session:
                    self.world.history.started(number_of(step), self)
                self._cursors[step.cursor] = rows_of(number_of(step))
                return self._rows(step.cursor, step.rows)
            case Fetch():
                return self._rows(step.cursor, step.rows)
            case Deallocate():
                self._cursors.pop(step.cursor, None)
            case OpenBackup():
                return Result(("copied", "pages", "size"), [(0, 3, 1)], 1)
            case CopyPages() | KeepCopy():
                self.world.spend(0.001)
                return Result(("copied", "pages", "size"), [(3, 3, 1)], 1, None, self.world.happens(0.3))
            case Close():
                self._in_session = False
                self.staged.clear()
                self._cursors.clear()
        return Result()

    def _rows(self, cursor: int, most: int) -> Result:
        if self.world.happens(self.world.plan.statement_fails / 3):
            message = "scripted rows"
            raise Scripted(message)
        self.world.spend(0.0005)
        left = self._cursors.get(cursor, [])
        taken, left = left[:most], left[most:]
        self._cursors[cursor] = left
        return Result(("number", "row"), taken, len(taken), None, bool(left))

    # --- from any thread ------------------------------------------------------------------

    def cancel(self, task: Any) -> None:
        if self.process is None and not task.is_unwanted:
            self.world.blame(f"{task.request} was interrupted, and nobody wanted that")
        if self.process is None and self._busy and task.checkout is None and not self._is_running(task):
            # A job that has just ended is not among the running jobs. No other job runs before this
            # returns.
            self.world.blame(f"an interrupt of {task.request} hits request {self._runs}")
        self.interrupt()

    def _is_running(self, task: Any) -> bool:
        running = [] if self._batch is None else self._batch.running
        return self._runs == number_of(task.request) or any(task is each for each in running)

    def interrupt(self) -> None:
        self._interrupted = self._busy  # an interrupt before the first step is lost

    def close(self) -> None:
        self.staged.clear()
        self.closed = True


class Reader(WorldConnection):
    """A connection that refuses to write. Jobs that wait together see one state of the file."""

    reads_only = True

    def run(self, batch: "Batch") -> None:
        self._batch = batch
        version = None
        while (task := batch.begin()) is not None:
            version = self.world.file.total() if version is None else version
            if not isinstance(task.request, STEPS):
                self.world.history.saw(number_of(task.request), version, self.world)
            self.run_one(batch, task)


class Writer(WorldConnection):
    """A connection that writes, and commits jobs that wait together at once."""

    def run(self, batch: "Batch") -> None:
        self._batch = batch
        waiting: deque[Any] = deque()
        most = self.world.random.choice((1, 3, 10))
        while (task := waiting.popleft() if waiting else batch.begin()) is not None:
            self._run_group(batch, task, waiting, most)

    def _run_group(self, batch: "Batch", task: Any, waiting: deque[Any], most: int) -> None:
        if isinstance(task.request, STEPS):
            self.run_one(batch, task)
            return
        ran: list[tuple[Any, Any]] = []
        while task is not None:
            try:
                self._interrupted = False
                if task.is_unwanted:
                    message = "interrupted before it was started"
                    raise InterruptedError(message)  # noqa: TRY301
                outcome = self._statement(task.request)
            except Interrupted:
                self._undo(batch, [*(each for each, _ in ran), task], waiting)
                return
            except ConnectionLost as lost:
                if not lost.begun:  # and the jobs before have read, or failed
                    _answer(batch, ran)
                    batch.give_back(task)
                raise
            except Exception as error:
                outcome = Rejection(error)
            ran.append((task, outcome))
            task = None
            if len(ran) < most:
                task = waiting.popleft() if waiting else batch.begin()
        if any(each.is_unwanted for each, outcome in ran if type(outcome) is not Rejection):
            self._undo(batch, [each for each, _ in ran], waiting)
            return
        self._commit()
        _answer(batch, ran)

    def _undo(self, batch: "Batch", tasks: list[Any], waiting: deque[Any]) -> None:
        """Undo the transaction: the interrupted jobs have failed, and the others begin again."""
        self.staged.clear()
        self.world.history.undone([number_of(task.request) for task in tasks], self)
        culprits = [task for task in tasks if task.is_unwanted]
        if not culprits:  # the interrupt was for a job that waits to begin again
            culprits = [task for task in waiting if task.is_unwanted]
            for task in culprits:
                waiting.remove(task)
        if not culprits and self.process is None:  # a child is interrupted, too, as its parent closes it
            self.world.blame("an interrupt hit a transaction in which nobody wanted one")
        culprits = culprits or tasks[-1:]
        waiting.extendleft(reversed([task for task in tasks if task not in culprits]))
        for task in culprits:
            batch.fail(task, Interrupted("interrupted"))


def _answer(batch: "Batch", ran: list[tuple[Any, Any]]) -> None:
    for task, outcome in ran:
        if type(outcome) is Rejection:
            batch.fail(task, outcome.error)
        else:
            batch.answer(task, outcome)


class File:
    """Numbers that are committed."""

    def __init__(self) -> None:
        self._numbers: Counter[int] = Counter()

    def update(self, numbers: list[int]) -> None:
        self._numbers.update(numbers)

    def total(self) -> int:
        return self._numbers.total()

    def __getitem__(self, number: int) -> int:
        return self._numbers[number]
