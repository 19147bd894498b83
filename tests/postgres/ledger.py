"""A ledger of writes under cancels, deadlines, ALTER TABLEs, terminations and restarts.

    python -m tests.postgres.ledger --seconds 60 --kind plain

Each write has a number of its own. At the end the rows must agree with the outcomes:

* an answer, or an error with `executed` true: exactly one row;
* an error with `executed` false, or an error of the driver: no row;
* `executed` unknown: at most one row.
"""

import argparse
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any

import psycopg

from supervisor import Call, PoisonQuery, Query, QuerycrewError, RestartPolicy, Script, Supervisor, Transaction
from tests.postgres.calls import insert_by_call
from tests.postgres.cancels import KINDS
from tests.postgres.server import Server

__all__ = ["Ledger"]

PATIENCE = 60.0
INSERT = "INSERT INTO ledger(number) VALUES (%s)"
# The rows of this statement change with the table.
RETURNING = INSERT + " RETURNING *"
SLOW = "INSERT INTO ledger(number) SELECT %s + 0 * length(pg_sleep(0.002)::text)"


class Ledger:
    """Callers that write, and a villain that disturbs them."""

    def __init__(self, server: Server, database: Any, uri: str, *, seed: int = 0, may_restart: bool = True) -> None:
        self.server = server
        self.uri = uri
        self.random = Random(seed)
        self.may_restart = may_restart
        self.told: dict[int, set[int]] = {}
        """For each number, how many rows it may have."""
        self.ends: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self.lock = threading.Lock()
        self.over = threading.Event()
        server.run("DROP TABLE IF EXISTS ledger", uri=uri)
        server.run("CREATE TABLE ledger(number bigint)", uri=uri)
        self.db = Supervisor.start(database, size=3, restart=RestartPolicy(backoff_max=0.1, grace=5))

    def run(self, writes: int, *, callers: int = 4) -> Counter[str]:
        """Let each caller write so many numbers; return how the writes ended.

        Raises:
            AssertionError: the rows disagree with the outcomes.
        """
        villain = threading.Thread(target=self._disturb)
        threads = [threading.Thread(target=self._write, args=(number + 1, writes)) for number in range(callers)]
        try:
            for thread in (villain, *threads):
                thread.start()
            for thread in threads:
                thread.join()
            self.over.set()
            villain.join()
        finally:
            self.over.set()
            self.db.shutdown(cancel_pending=True, timeout=10)
        for failure in self.failures:
            raise failure
        rows = Counter(number for (number,) in self._eventually("SELECT number FROM ledger"))
        wrong = {number: (rows[number], may) for number, may in self.told.items() if rows[number] not in may}
        assert wrong == {}, f"(rows, allowed): {wrong}"
        assert set(rows) <= set(self.told)
        assert not self.ends["PoisonQuery"]
        return self.ends

    def _eventually(self, sql: str) -> list[tuple[Any, ...]]:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self.server.run(sql, uri=self.uri)
            except psycopg.Error:
                if time.monotonic() > until:
                    raise

    # --- the callers ----------------------------------------------------------------------

    def _write(self, caller: int, writes: int) -> None:
        random, next_ = Random(self.random.random()), caller * 10_000_000
        last = next_ + writes
        while next_ < last:
            count = min(random.choice((1, 1, 10, 40)), last - next_)
            replies = []
            for number in range(next_, next_ + count):
                replies.append((number, self.db.ask(self._request(random, number), block=False)))
                if random.random() < 0.1:
                    random.choice(replies)[1].cancel()
            next_ += count
            try:
                for number, reply in replies:
                    self._note(number, reply.exception(PATIENCE))
            except BaseException as error:  # `run` raises it
                self.failures.append(error)
                return

    def _request(self, random: Random, number: int) -> Any:
        timeout = 0.02 if random.random() < 0.05 else None
        sql = random.choice((INSERT, RETURNING, RETURNING, SLOW))
        match random.randrange(12):
            case 0:
                return Transaction([Query("SELECT * FROM ledger LIMIT 1"), Query(sql, (number,))], timeout=timeout)
            case 1:
                return Call(insert_by_call, number, timeout=timeout)
            case 2:
                return Script(INSERT % number, timeout=timeout)
            case 3:
                return Query(INSERT, many=[(number,)], timeout=timeout)
            case 4:
                return Query(RETURNING, (number,), max_rows=1, timeout=timeout)
        return Query(sql, (number,), timeout=timeout)

    def _note(self, number: int, error: BaseException | None) -> None:
        if error is None:
            may = {1}
        elif isinstance(error, QuerycrewError):
            may = {True: {1}, False: {0}, None: {0, 1}}[error.executed]
        else:
            assert isinstance(error, psycopg.Error), repr(error)
            may = {0}
        with self.lock:
            self.told[number] = may
            name = "answered" if error is None else type(error).__name__
            self.ends[name if error is None else f"{name} {sorted(may)}"] += 1
            if isinstance(error, PoisonQuery):
                self.ends["PoisonQuery"] += 1

    # --- the villain ----------------------------------------------------------------------

    def _disturb(self) -> None:
        random, column, last_restart = Random(self.random.random()), 0, time.monotonic()
        terminate = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'querycrew' AND datname = current_database() ORDER BY random() LIMIT %s"
        )
        cancel = terminate.replace("terminate", "cancel")
        while not self.over.wait(random.random() * 0.05):
            with suppress(psycopg.Error):
                match random.randrange(10):
                    case 0 | 1 | 2 | 3:
                        column += 1
                        self.server.run(f"ALTER TABLE ledger ADD COLUMN c{column} integer DEFAULT 1", uri=self.uri)
                    case 4:
                        if column:
                            self.server.run(f"ALTER TABLE ledger DROP COLUMN IF EXISTS c{column}", uri=self.uri)
                    case 5 | 6:
                        self.server.run(terminate, random.choice((1, 3)), uri=self.uri)
                    case 7 | 8:
                        self.server.run(cancel, 1, uri=self.uri)
                    case 9:
                        if self.may_restart and time.monotonic() > last_restart + 2:
                            self.server.restart()
                            last_restart = time.monotonic()


def write(line: object) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Run ledgers as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--kind", choices=sorted(KINDS), default=None, help="all kinds without it")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    server = Server()
    try:
        until, seed, ends = time.monotonic() + arguments.seconds, arguments.seed, Counter[str]()
        while time.monotonic() < until:
            for kind in KINDS if arguments.kind is None else [arguments.kind]:
                uri = server.new_database()
                ends += Ledger(server, KINDS[kind](uri), uri, seed=seed).run(1000)
                write(f"seed {seed}, {kind}: the rows agree with the outcomes")
            seed += 1
        write(dict(ends))
    finally:
        server.close()


if __name__ == "__main__":
    main()
