"""A program that ends with children that are idle, at work, or deaf to interrupts.

The program prints the numbers of the children first.
"""

import os
import signal
import sys
import threading

from shared import end_as_any_program, eventually, say

from supervisor import ChildProcess, Query, Status, Supervisor, SupervisorRef
from tests.support.faulty_child_database import Elsewhere

RUNAWAY = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def keep_busy(db: SupervisorRef, how: str, pids: list[int]) -> None:
    sql = {"running": RUNAWAY, "deaf": "SELECT hang()"}.get(how)
    if sql is not None:
        for _ in pids:
            db.ask(Query(sql), block=False)
        eventually(lambda: db.ask(Status()).running == len(pids))
    if how == "stopped":
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)


def end(how: str) -> None:
    end_as_any_program(how)
    match how:
        case "kill":
            threading.Event().wait()
        case "kill, with a fork that lives on":
            if not (fork := os.fork()):
                threading.Event().wait()
            say("fork", fork)
            threading.Event().wait()


def main(path: str, work: str, how: str) -> None:
    db = Supervisor.start(ChildProcess(Elsewhere(path)), size=2)
    eventually(lambda: sum(worker.state != "starting" for worker in db.ask(Status()).workers) == 2)
    pids = [worker.pid for worker in db.ask(Status()).workers]
    keep_busy(db, work, pids)
    say("children", *pids)
    end(how)


main(*sys.argv[1:])
