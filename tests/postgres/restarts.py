"""A server that restarts while callers ask: who waits, and for how long.

python -m tests.postgres.restarts --rounds 5
"""

import argparse
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from supervisor import PoisonQuery, Query, Supervisor
from tests.postgres.server import Server

__all__ = ["Restart", "restart_under_callers"]


@dataclass
class Restart:
    """The outcomes of the callers."""

    errors: Counter[str] = field(default_factory=Counter)
    poisoned: int = 0
    longest: float = 0.0
    """Seconds of the longest call."""
    answers_after: int = 0
    """Answers after the restart."""
    first_answer: float = float("inf")
    """Seconds from the moment at which the server accepts connections to the first answer."""


def restart_under_callers(server: Server, database: Any, *, callers: int) -> Restart:
    """Restart a server at once while callers ask one query after the other."""
    found, lock, over = Restart(), threading.Lock(), threading.Event()
    ready_at = float("inf")
    db = Supervisor.start(database, size=4)

    def call() -> None:
        while not over.is_set():
            began = time.monotonic()
            error = db.ask(Query("SELECT 1"), block=False).exception(60)
            now = time.monotonic()
            with lock:
                found.longest = max(found.longest, now - began)
                if error is not None:
                    found.errors[type(error).__name__] += 1
                    found.poisoned += isinstance(error, PoisonQuery)
                elif now > ready_at:
                    found.answers_after += 1
                    found.first_answer = min(found.first_answer, now - ready_at)
            if error is not None:
                over.wait(0.001)

    def look() -> None:
        nonlocal ready_at
        while not over.is_set():
            try:
                server.run("SELECT 1")
            except Exception:  # it is not up yet
                continue
            ready_at = time.monotonic()
            return

    try:
        db.ask(Query("SELECT 1"))
        threads = [threading.Thread(target=call) for _ in range(callers)]
        for thread in threads:
            thread.start()
        server.stop()
        looking = threading.Thread(target=look)
        looking.start()
        server.start()
        looking.join(60)
        deadline = time.monotonic() + 60
        while found.answers_after < 100 and time.monotonic() < deadline:
            over.wait(0.01)
        over.set()
        for thread in threads:
            thread.join()
    finally:
        over.set()
        db.shutdown(cancel_pending=True, timeout=10)
    return found


def write(line: object) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Restart a server some times, and print the outcomes of the callers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    from supervisor import PostgreSQL

    server = Server()
    try:
        for _ in range(rounds):
            found = restart_under_callers(server, PostgreSQL(server.uri), callers=8)
            write(
                f"longest call {found.longest:.3f} s, first answer {found.first_answer:.3f} s after the server, "
                f"{found.poisoned} PoisonQuery, errors {dict(found.errors)}",
                flush=True,
            )
    finally:
        server.close()


if __name__ == "__main__":
    main()
