"""A program that ends without stopping its crew.

It has stored rows, running jobs and queued jobs.
"""

import atexit
import collections
import os
import signal
import sys
import threading

RUNAWAY = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def report(crews: list, replies: list) -> None:
    """Tell, as the very last thing, how everything ended."""
    ends = collections.Counter(
        f"{type(reply.exception(0)).__name__}:{reply.exception(0).executed}" if reply.done() else "unanswered"
        for reply in replies
    )
    say("replies", *(f"{end}={count}" for end, count in sorted(ends.items())))
    late = crews[0].ask(Query("SELECT 1"), block=False)
    say("late", type(late.exception(1)).__name__)


def end(how: str, db: object) -> None:
    end_as_any_program(how)
    match how:
        case "SIGINT in ask":
            say("ready")
            db.ask(Query(RUNAWAY))
        case "SIGTERM handled":
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(4))
            os.kill(os.getpid(), signal.SIGTERM)
        case "asking thread":
            again = Supervisor.start(sys.argv[2], size=1)
            again.ask(Query("SELECT 1"), timeout=20)
            threading.Thread(target=ask_on, args=(again,)).start()
        case "stopped twice":
            db.shutdown(cancel_pending=True, timeout=0)
            db.stop()


def ask_on(again: object) -> None:
    """Go on asking while the main thread has ended already."""
    threading.main_thread().join()
    for _ in range(100):
        again.ask(Query("SELECT 1"), timeout=20)
    say("asked on")


def main(how: str, path: str) -> None:
    db = Supervisor.start(path, size=2)
    crews.append(db)
    db.ask(Script("CREATE TABLE t(x)"), timeout=20)
    for number in range(100):
        db.ask(Query("INSERT INTO t VALUES (?)", (number,)), timeout=20)
    replies.extend(db.ask(Query(sql), block=False) for sql in (RUNAWAY, RUNAWAY, f"INSERT INTO t SELECT ({RUNAWAY})"))
    eventually(lambda: db.ask(Status()).running == 3)
    replies.extend(db.ask(Query("INSERT INTO t VALUES (-1)"), block=False) for _ in range(100))
    say("acknowledged")
    end(how, db)


crews: list = []
replies: list = []
atexit.register(report, crews, replies)  # before the crew's own, so that it comes after it

from shared import end_as_any_program, eventually, say  # noqa: E402

from supervisor import Query, Script, Status, Supervisor  # noqa: E402

main(*sys.argv[1:])
