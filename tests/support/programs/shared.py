"""Helpers of the programs.

Lines for the test that started the program, and waiting for a condition.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable

from supervisor import DatabaseUnavailable, Query, SupervisorRef


def say(*words: object) -> None:
    """Tell the test that started this program something, on a line of its own."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> bool:
    nothing = threading.Event()
    for _ in range(int(seconds / 0.005)):
        if condition():
            return True
        nothing.wait(0.005)
    return False


def end_as_any_program(how: str) -> None:
    """End this program in one of the ways in which programs end, or go on."""
    match how:
        case "exception":
            raise RuntimeError("the program's own")
        case "exit":
            sys.exit(3)
        case "SIGINT":
            signal.raise_signal(signal.SIGINT)
        case "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
        case "os._exit":
            os._exit(5)


def serves(db: SupervisorRef) -> bool:
    try:
        return db.ask(Query("SELECT 1"), timeout=20).scalar() == 1
    except DatabaseUnavailable:
        return False
