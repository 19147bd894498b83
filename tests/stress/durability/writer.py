"""The program that is killed: its crew writes numbered rows, its journal has the answers.

python -m tests.stress.durability.writer FILE JOURNAL FIRST SEED WORKERS PAUSE
"""

import logging
import os
import signal
import sys
import threading
from random import Random
from typing import Any

from supervisor import (
    ChildProcess,
    Query,
    QuerycrewError,
    RestartPolicy,
    Script,
    Status,
    Supervisor,
    SupervisorRef,
    Transaction,
)

CALLERS = 4
PATIENCE = 60.0
POLICY = RestartPolicy(
    max_restarts=10**6, backoff_initial=0.001, backoff_max=0.01, quiet_period=0.0, grace=0.5, poison_after=0
)


class Journal:
    """Lines that outlive a kill -9 of this process: each is one write to the system."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def say(self, *words: object) -> None:
        os.write(self._descriptor, (" ".join(map(str, words)) + "\n").encode())

    def tell(self, number: int, error: BaseException | None) -> None:
        """Write down how a number has ended."""
        if error is None:
            self.say("acknowledged", number)
        elif isinstance(error, QuerycrewError):
            self.say({True: "acknowledged", False: "denied", None: "unknown"}[error.executed], number)
        else:
            # An error of the driver: another child held a lock for too long, and the statement is
            # undone.
            self.say("unknown" if kind(number) == "script" else "denied", number)


KINDS = ("script", "row", "row", "many", "row", "transaction", "row", "session", "row", "row")
"""How a number is written, by its last digit.

As a row, or in one of several ways as a pair of rows.
"""

_INSERT = "INSERT INTO written VALUES (?, ?)"


def kind(number: int) -> str:
    """Return the rows that are written for a number."""
    return KINDS[number % len(KINDS)]


def request(number: int, timeout: float | None) -> Query | Script | Transaction:
    pair = ((number, 0), (number, 1))
    match kind(number):
        case "script":
            values = ", ".join(map(str, pair[0])), ", ".join(map(str, pair[1]))
            inserts = "; ".join(f"INSERT INTO written VALUES ({each})" for each in values)
            return Script(f"BEGIN IMMEDIATE; {inserts}; COMMIT", timeout)
        case "many":
            return Query(_INSERT, timeout=timeout, many=pair)
        case "transaction":
            return Transaction([Query(_INSERT, each) for each in pair], timeout=timeout)
        case _:
            return Query(_INSERT, pair[0], timeout)


def in_a_session(db: SupervisorRef, number: int, timeout: float | None) -> BaseException | None:
    try:
        with db.transaction(timeout=PATIENCE if timeout is None else timeout) as tx:
            tx.ask(Query(_INSERT, (number, 0)))
            tx.ask(Query(_INSERT, (number, 1)))
    except Exception as error:  # told to the journal
        return error
    return None


def ask_on(db: SupervisorRef, journal: Journal, numbers: range, chance: Random) -> None:
    """Ask a few at a time, or very many, and write down the answer of each reply."""
    numbers = iter(numbers)
    while True:
        window = [next(numbers) for _ in range(chance.choice([1, 3, 8, 60]))]
        asked: list[tuple[int, Any]] = []
        for number in window:
            timeout = chance.choice([None, None, None, 0.02, 0.3])
            journal.say("asked", number)
            if kind(number) == "session":
                if chance.random() < 0.2:
                    journal.tell(number, in_a_session(db, number, timeout))
                continue
            asked.append((number, db.ask(request(number, timeout), block=False)))
        for number, reply in asked:
            if chance.random() < 0.05:
                reply.cancel()
            journal.tell(number, reply.exception(PATIENCE))


def kill_on(db: SupervisorRef, journal: Journal, chance: Random, pause: float) -> None:
    """Kill a child at a random moment, and again."""
    never = threading.Event()
    while True:
        never.wait(chance.expovariate(1 / pause))
        workers = [worker for worker in db.ask(Status()).workers if worker.pid is not None]
        if workers:
            writers = [worker for worker in workers if worker.role == "writer"]
            pid = chance.choice(writers if writers and chance.random() < 0.8 else workers).pid
            journal.say("killing", pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            journal.say("killed", pid)


def main(arguments: list[str]) -> None:
    file, path, first, seed, workers, pause = arguments
    logging.disable()  # the log would be full of deaths
    journal = Journal(path)
    db = Supervisor.start(ChildProcess(file), size=int(workers), restart=POLICY)
    threads = [
        threading.Thread(
            target=ask_on,
            args=(db, journal, range(int(first) + caller, sys.maxsize, CALLERS), Random(f"{seed} {caller}")),
            daemon=True,
        )
        for caller in range(CALLERS)
    ]
    for thread in threads:
        thread.start()
    kill_on(db, journal, Random(f"{seed} killer"), float(pause))


if __name__ == "__main__":
    main(sys.argv[1:])
