"""The program that is killed: its crew writes numbered rows, its journal says what was told of each.

python -m tests.durability.writer FILE JOURNAL FIRST SEED WORKERS PAUSE
"""

import logging
import os
import signal
import sys
import threading
from random import Random

from supervisor import ChildProcess, Query, QuerycrewError, RestartPolicy, Script, Status, Supervisor, SupervisorRef

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


def kind(number: int) -> str:
    """Return what is written under a number: a row, or a pair in a transaction."""
    return "pair" if number % 5 == 0 else "row"


def request(number: int, timeout: float | None) -> Query | Script:
    if kind(number) == "pair":
        return Script(
            f"BEGIN IMMEDIATE; INSERT INTO written VALUES ({number}, 0); "
            f"INSERT INTO written VALUES ({number}, 1); COMMIT",
            timeout,
        )
    return Query("INSERT INTO written VALUES (?, 0)", (number,), timeout)


def ask_on(db: SupervisorRef, journal: Journal, numbers: range, chance: Random) -> None:
    """Ask a few at a time, and write down what each reply tells."""
    numbers = iter(numbers)
    while True:
        window = [next(numbers) for _ in range(chance.randrange(1, 9))]
        asked = []
        for number in window:
            journal.say("asked", number)
            timeout = chance.choice([None, None, None, 0.02, 0.3])
            asked.append((number, db.ask(request(number, timeout), block=False)))
        for number, reply in asked:
            if chance.random() < 0.05:
                reply.cancel()
            error = reply.exception(PATIENCE)
            if error is None:
                journal.say("acknowledged", number)
            elif isinstance(error, QuerycrewError):
                journal.say({True: "acknowledged", False: "denied", None: "unknown"}[error.executed], number)
            else:
                # The driver's own, such as a lock that another child held too long: the statement is undone.
                journal.say("unknown" if kind(number) == "pair" else "denied", number)


def kill_on(db: SupervisorRef, journal: Journal, chance: Random, pause: float) -> None:
    """Kill a child at a random moment, and again."""
    never = threading.Event()
    while True:
        never.wait(chance.expovariate(1 / pause))
        pids = [worker.pid for worker in db.ask(Status()).workers if worker.pid is not None]
        if pids:
            pid = chance.choice(pids)
            journal.say("killing", pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            journal.say("killed", pid)


def main(arguments: list[str]) -> None:
    file, path, first, seed, workers, pause = arguments
    logging.disable()  # of deaths, which are what this is about
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
