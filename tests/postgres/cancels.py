"""A storm of cancels and deadlines against short queries: no innocent query is hit.

    python -m tests.postgres.cancels --cancels 10000 --kind plain

Each query has a number. A query that nobody cancelled must give its number back. A cancelled
query gives `QueryCancelled`, or its number. Each insert leaves one row if its caller got an answer,
and at most one row otherwise.
"""

import argparse
import sys
import threading
from collections import Counter
from random import Random
from typing import Any

from supervisor import (
    ChildProcess,
    PostgreSQL,
    Query,
    QueryCancelled,
    RestartPolicy,
    Script,
    Status,
    Supervisor,
    SupervisorRef,
)
from tests.postgres.server import Server

__all__ = ["KINDS", "PATIENT", "storm"]

PATIENCE = 60.0
PATIENT = RestartPolicy(grace=PATIENCE)  # on a busy machine no worker is given up for being slow

KINDS: dict[str, Any] = {
    "plain": PostgreSQL,
    "group commit": lambda uri: PostgreSQL(uri, group_commit=True),
    "child": lambda uri: ChildProcess(PostgreSQL(uri)),
    "group commit in a child": lambda uri: ChildProcess(PostgreSQL(uri, group_commit=True)),
    "without prepared statements": lambda uri: PostgreSQL(uri, prepare_threshold=None),
}

SHORT = "SELECT %s::bigint"
LONGER = "SELECT %s::bigint + 0 * count(*) FROM generate_series(1, 3000)"
WRITE = "INSERT INTO written VALUES (%s) RETURNING number"
SLOW_WRITE = "INSERT INTO written SELECT %s::bigint + 0 * count(*) FROM generate_series(1, 3000) RETURNING number"
SLEEP = "SELECT %s::bigint + 0 * length(pg_sleep(0.002)::text)"


class _Storm:
    def __init__(self, db: SupervisorRef, cancels: int) -> None:
        self.db = db
        self.left = cancels
        self.lock = threading.Lock()
        self.wrong: list[str] = []
        self.ends: Counter[str] = Counter()
        self.written: dict[int, bool] = {}
        """Whether each insert was answered."""

    def run(self, seed: int) -> None:
        random, first = Random(seed), seed * 10_000_000
        while True:
            with self.lock:
                if self.left <= 0:
                    return
            number = first
            jobs = []
            for number in range(first, first + random.choice((1, 5, 30, 100))):
                sql = random.choice((SHORT, LONGER, WRITE, SLOW_WRITE, SLEEP))
                jobs.append((number, sql, self.db.ask(Query(sql, (number,)), block=False)))
            first = number + 1
            cancelled = set()
            for place in sorted(random.sample(range(len(jobs)), len(jobs) // 3 + 1)):
                if place and random.random() < 0.8:
                    jobs[place - 1][2].exception(PATIENCE)  # so that the next one probably runs
                jobs[place][2].cancel()
                cancelled.add(jobs[place][0])
            with self.lock:
                self.left -= len(cancelled)
            for number, sql, reply in jobs:
                self.look(number, sql, reply, was_cancelled=number in cancelled)

    def look(self, number: int, sql: str, reply: Any, *, was_cancelled: bool) -> None:
        try:
            error = reply.exception(PATIENCE)
        except QueryCancelled as cancelled:
            error = cancelled
        kind = "answered" if error is None else type(error).__name__
        if error is not None and "while it ran" in str(error):
            kind += " while it ran"
        with self.lock:
            self.ends[kind] += 1
            if sql in (WRITE, SLOW_WRITE):
                self.written[number] = error is None
            if error is None:
                if reply.get().scalar() != number:
                    self.wrong.append(f"{number} got {reply.get().scalar()}")
            elif not (was_cancelled and isinstance(error, QueryCancelled)):
                self.wrong.append(f"{number} ({sql}), {'' if was_cancelled else 'not '}cancelled: {error!r}")


def storm(database: Any, cancels: int, *, callers: int = 4, seed: int = 0) -> Counter[str]:
    """Run a storm; return how the queries ended.

    Raises:
        AssertionError: an innocent query was hit, or a row is missing or there twice.
    """
    db = Supervisor.start(database, size=3, restart=PATIENT)
    try:
        db.ask(Script("CREATE TABLE written(number bigint)"))
        found = _Storm(db, cancels)
        threads = [threading.Thread(target=found.run, args=(seed * 100 + number + 1,)) for number in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rows = Counter(db.ask(Query("SELECT number FROM written"), timeout=PATIENCE).column("number"))
        status = db.ask(Status())
    finally:
        db.shutdown(cancel_pending=True, timeout=10)
    assert found.wrong == [], found.wrong[:5]
    assert status.restarts == 0
    assert [number for number, count in rows.items() if count > 1] == [], "an insert ran twice"
    assert [number for number, answered in found.written.items() if answered and not rows[number]] == []
    return found.ends


def write(line: object) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Run storms as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cancels", type=int, default=10_000)
    parser.add_argument("--kind", choices=sorted(KINDS), default=None, help="all kinds without it")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    server = Server()
    try:
        for kind in KINDS if arguments.kind is None else [arguments.kind]:
            ends = storm(KINDS[kind](server.new_database()), arguments.cancels, seed=arguments.seed)
            write(f"{kind}: no innocent query was hit; {dict(ends)}")
    finally:
        server.close()


if __name__ == "__main__":
    main()
