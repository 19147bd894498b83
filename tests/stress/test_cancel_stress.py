"""A storm of cancels against short jobs: only cancelled jobs are hit, and errors tell the truth.

    python -m tests.stress.test_cancel_stress --cancels 1000000 --database sqlite
    python -m tests.stress.test_cancel_stress --cancels 1000000 --database fake
    python -m tests.stress.test_cancel_stress --deadlines 10000 --database sqlite

Every job has a number. A job that was not cancelled has to give its number back, in spite of its
neighbours. A cancelled job gives `QueryCancelled`, or its number if `cancel` has returned False.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from supervisor import (
    ChildProcess,
    Query,
    QueryCancelled,
    QueryTimeout,
    Reply,
    RestartPolicy,
    Result,
    SQLite,
    Status,
    Supervisor,
    SupervisorRef,
)
from tests.support.common import switching_often
from tests.support.fakes import FakeConnection, FakeDatabase

PATIENCE = 60.0  # seconds after which an answer counts as missing
PATIENT = RestartPolicy(grace=PATIENCE)  # on a busy machine no worker is given up for being slow

SHORT = "SELECT ?"
LONGER = (
    "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "
    "SELECT ? FROM (SELECT max(i) AS largest FROM n) WHERE largest > 0"
)
WRITE = "INSERT INTO written VALUES (?) RETURNING number"
RUNAWAY = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n WHERE i < ?"


class Interrupted(Exception):
    """A statement has heeded its interrupt."""


class HeedfulConnection(FakeConnection):
    """Runs short statements that can be interrupted; like SQLite's, not before their first step."""

    def execute(self, request: Query) -> Result:
        self.interrupted.clear()
        if request.sql == RUNAWAY:
            self.interrupted.wait(PATIENCE)
        for _ in range(1 if request.sql == SHORT else 300):
            if self.interrupted.is_set():
                raise Interrupted
        return Result(("number",), [request.params], 1)


class HeedfulDatabase(FakeDatabase):
    """A database whose statements heed their interrupts."""

    def connect(self) -> HeedfulConnection:
        return HeedfulConnection(self)


class Storm:
    """The jobs of several callers, their cancels and their answers."""

    def __init__(self, ref: SupervisorRef, seed: int) -> None:
        self.ref = ref
        self.seed = seed
        self.numbers = count()
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        # For each number of a write: the answer to its caller.
        self.written: dict[int, bool | None] = {}
        self._lock = threading.Lock()

    def run(self, caller: Callable[[int, Random], None], number: int, *, callers: int = 3) -> "Storm":
        """Let each caller do its part of `number`."""

        def work(index: int) -> None:
            try:
                caller(-(-number // callers), Random(self.seed * 1000 + index))
            except Exception as error:
                self.wrong.append(f"a caller got {error!r}")

        threads = [threading.Thread(target=work, args=(index,)) for index in range(callers)]
        with switching_often():  # otherwise a caller has cancelled before any worker has begun
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return self

    def ask(self, sql: str, timeout: float | None = None) -> tuple[int, str, Reply[Result]]:
        number = next(self.numbers)
        return number, sql, self.ref.ask(Query(sql, (number,), timeout), block=False)

    # --- cancels --------------------------------------------------------------------------

    def cancel(self, cancels: int, chance: Random) -> None:
        """Cancel so many jobs of a stream of short ones, at any moment of their lives."""
        tally: Counter[str] = Counter()
        while tally["cancels"] < cancels:
            asked = [self.ask(self.some_statement(chance)) for _ in range(chance.randrange(2, 9))]
            if chance.random() < 0.7:  # some have run by then, and one or other is running
                _, _, first = asked[chance.randrange(2)]
                first.exception(PATIENCE)
            doomed = chance.sample(asked, chance.randrange(1, len(asked)))
            said = {number: reply.cancel() for number, _, reply in doomed}
            tally["cancels"] += len(said)
            for number, sql, reply in asked:
                tally[self.check(number, sql, reply, said.get(number))] += 1
        with self._lock:
            self.counts += tally

    def some_statement(self, chance: Random) -> str:
        return chance.choice((SHORT, SHORT, LONGER, LONGER, LONGER, WRITE))

    def check(self, number: int, sql: str, reply: Reply[Result], said: bool | None) -> str:
        """Check the answer to one job, and return its kind.

        `said` is the result of its cancel, if any.
        """
        error = reply.exception(PATIENCE)
        executed = True
        if error is None:
            if reply.get().rows != [(number,)]:
                self.wrong.append(f"{number} got the answer {reply.get().rows}")
            if said:
                self.wrong.append(f"cancelling {number} said True, and it was answered")
            what = "answered" if said is None else "answered, cancelled too late"
        elif not said or not isinstance(error, QueryCancelled):
            self.wrong.append(f"cancelling {number} said {said}, and it got {error!r}")
            what = "wrong"
        else:
            executed = error.executed
            where = "while it ran" if "while it ran" in str(error) else "in the queue"
            what = f"cancelled {where}, executed={executed}"
        if sql == WRITE:
            self.written[number] = executed
        return what

    def check_written(self) -> None:
        """Each write that was reported is in the file, and no other."""
        there = {number for (number,) in self.ref.ask(Query("SELECT number FROM written")).rows}
        told = {number for number, executed in self.written.items() if executed}
        unknown = {number for number, executed in self.written.items() if executed is None}
        if unknown:
            self.wrong.append(f"nobody knows of {len(unknown)} writes whether they took effect")
        if there != told:
            self.wrong.append(f"told as written and not there: {told - there}; the reverse: {there - told}")

    # --- deadlines ------------------------------------------------------------------------

    def time_out(self, interrupts: int, chance: Random) -> None:
        """Let so many statements run into their deadlines. The job behind each must not be hurt."""
        tally: Counter[str] = Counter()
        for _ in range(interrupts):
            late, *unhurt = self.ask(RUNAWAY, 0.001 + 0.01 * chance.random()), self.ask(SHORT), self.ask(LONGER)
            number, _, reply = late
            error = reply.exception(PATIENCE)
            if not isinstance(error, QueryTimeout) or error.executed is not False:
                self.wrong.append(f"{number} was to time out, and got {error!r}")
            tally["interrupted" if "while it ran" in str(error) else "too late to be started"] += 1
            for number, sql, reply in unhurt:
                tally[self.check(number, sql, reply, None)] += 1
        with self._lock:
            self.counts += tally

    def check_crew(self) -> "Storm":
        """The crew is as before, and has counted right."""
        status = self.ref.ask(Status())
        if status.restarts or status.stuck or status.failed or status.died or status.queued:
            self.wrong.append(str(status))
        if status.submitted != status.answered + status.cancelled + status.timed_out:
            self.wrong.append(str(status))
        return self


def start_storm(ref: SupervisorRef, seed: int = 1) -> Storm:
    with suppress(Exception):  # the scripted database has no tables
        ref.ask(Query("CREATE TABLE IF NOT EXISTS written(number INTEGER)"))
    return Storm(ref, seed)


def crew_on(database: str, folder: Path, size: int) -> SupervisorRef:
    file = SQLite(folder / "storm.db", synchronous="off")
    where: Any = {"fake": HeedfulDatabase, "sqlite": lambda: file, "children": lambda: ChildProcess(file)}[database]()
    return Supervisor.start(where, size=size, restart=PATIENT)


# --- tests ----------------------------------------------------------------------------------


def test_a_storm_of_cancels_hits_no_wrong_job_on_a_sqlite_file(start, path):
    storm = start_storm(start(SQLite(path, synchronous="off"), size=2, restart=PATIENT))
    storm.run(storm.cancel, 10_000)
    storm.check_written()
    assert not storm.check_crew().wrong
    assert storm.counts["answered"] > 3000


def test_a_storm_of_cancels_hits_no_wrong_job_in_child_processes(start, path):
    storm = start_storm(start(ChildProcess(SQLite(path, synchronous="off")), size=2, restart=PATIENT))
    storm.run(storm.cancel, 5000)
    storm.check_written()
    assert not storm.check_crew().wrong
    assert storm.counts["answered"] > 1500


def test_a_storm_of_cancels_hits_no_wrong_job_on_the_scripted_database(start):
    storm = start_storm(start(HeedfulDatabase(), size=2, restart=PATIENT))
    assert not storm.run(storm.cancel, 10_000).check_crew().wrong
    assert storm.counts["answered"] > 3000


@pytest.mark.parametrize("database", ["fake", "sqlite", "children"])
def test_a_statement_that_is_interrupted_at_its_deadline_leaves_the_next_on_its_worker_unhurt(start, path, database):
    where = {"fake": HeedfulDatabase, "sqlite": SQLite, "children": ChildProcess}[database]
    storm = start_storm(start(where() if database == "fake" else where(path), size=1, restart=PATIENT))
    assert not storm.run(storm.time_out, 60, callers=1).check_crew().wrong
    assert storm.counts["interrupted"] > 10


class HurtfulConnection(HeedfulConnection):
    """Is interrupted once more at the beginning of every hundredth statement."""

    statements = 0

    def execute(self, request: Query) -> Result:
        self.statements += 1
        if self.statements % 100 == 0:
            raise Interrupted
        return super().execute(request)


def test_a_wrong_job_that_is_interrupted_would_be_found(start):
    database = HeedfulDatabase()
    object.__setattr__(database, "connect", lambda: HurtfulConnection(database))
    storm = start_storm(start(database, size=2))
    assert storm.run(storm.cancel, 500).wrong


# --- as a program ---------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress.test_cancel_stress", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--cancels", type=int, default=0, help="how many jobs to cancel")
    parser.add_argument("--deadlines", type=int, default=0, help="how many statements to let run into a deadline")
    parser.add_argument("--database", choices=("sqlite", "fake", "children"), default="sqlite")
    parser.add_argument("--size", type=int, default=2, help="of the crew that is cancelled; deadlines have one of 1")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began, wrong = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        for number, size in ((options.cancels, options.size), (options.deadlines, 1)):
            if not number:
                continue
            ref = crew_on(options.database, Path(folder), size)
            with ref:
                storm = start_storm(ref, options.seed)
                deed, callers = (storm.cancel, 3) if number is options.cancels else (storm.time_out, 1)
                storm.run(deed, number, callers=callers).check_crew()
                if options.database != "fake" and number is options.cancels:
                    storm.check_written()
                sys.stdout.write(f"{ref.ask(Status())}\n")
            lines = [f"{what:<45} {many:>10,}" for what, many in storm.counts.most_common()]
            sys.stdout.write("\n".join([*lines, f"{'wrong':<45} {len(storm.wrong):>10,}", *storm.wrong[:10], ""]))
            wrong += storm.wrong
    sys.stdout.write(f"{time.perf_counter() - began:.1f} s\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
