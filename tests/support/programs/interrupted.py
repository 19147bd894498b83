"""Ctrl-C in the main thread while it waits for an answer.

The job is cancelled, the crew goes on.
"""

import asyncio
import signal
import sys
import threading

from shared import eventually, say

from supervisor import Query, Status, Supervisor
from tests.support.fakes import FakeDatabase, Gate

RUNAWAY = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


class Ctrl:
    armed = False


def handler(number: int, frame: object) -> None:
    if Ctrl.armed:
        Ctrl.armed = False
        raise KeyboardInterrupt


def interrupted(action: object, condition: object) -> bool:
    """Run `action`, press Ctrl-C as soon as the condition holds, and say whether that ended it.

    The signal is sent until it is heard. CPython does not hear a signal just before a wait for a
    lock.
    """
    ended = threading.Event()

    def press() -> None:
        eventually(condition)
        while not ended.is_set():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            ended.wait(0.05)

    presser = threading.Thread(target=press)
    presser.start()
    try:
        return blocked(action)
    finally:
        Ctrl.armed = False
        ended.set()
        presser.join()


def blocked(action: object) -> bool:
    try:
        Ctrl.armed = True
        action()
    except KeyboardInterrupt:
        return True
    return False


def running(path: str) -> None:
    """Interrupt a caller whose statement runs."""
    with Supervisor.start(path, size=1) as db:
        for _ in range(20):
            say("interrupted", interrupted(lambda: db.ask(Query(RUNAWAY)), lambda: db.ask(Status()).running == 1))
            say("usable", db.ask(Query("SELECT 1"), timeout=20).scalar())
        say("restarts", db.ask(Status()).restarts)


def lost() -> None:
    """Interrupt a caller whose statement misses interrupts, as SQLite does early in a statement."""
    interrupts = []

    def statement() -> object:
        (connection,) = database.connections
        for _ in range(3):
            interrupts.append(connection.interrupted.wait(5))
            connection.interrupted.clear()
        raise InterruptedError

    database = FakeDatabase({"deaf": statement})
    with Supervisor.start(database, size=1) as db:
        say("interrupted", interrupted(lambda: db.ask(Query("deaf")), lambda: db.ask(Status()).running == 1))
        say("usable", db.ask(Query("next"), timeout=20).scalar())
        say("heard", *interrupts)


def queued() -> None:
    """Interrupt a caller whose statement waits."""
    gate = Gate()
    database = FakeDatabase({"slow": gate})
    with Supervisor.start(database, size=1) as db:
        slow = db.ask(Query("slow"), block=False)
        gate.entered.wait(20)
        for number in range(20):
            never = Query(f"never {number}")
            say("interrupted", interrupted(lambda never=never: db.ask(never), lambda: db.ask(Status()).queued == 1))
            say("queued", db.ask(Status()).queued)
        gate.opened.set()
        say("slow", slow.get(timeout=20).scalar())
        say("cancelled", db.ask(Status()).cancelled)
    say("ran", *database.ran)


def stopping() -> None:
    """Interrupt a caller that waits for the end."""
    gate = Gate()
    db = Supervisor.start(FakeDatabase({"slow": gate}), size=1)
    slow = db.ask(Query("slow"), block=False)
    gate.entered.wait(20)
    say("interrupted", interrupted(db.stop, lambda: db.ask(Status()).state == "stopping"))
    gate.opened.set()
    db.stop()
    say("slow", slow.get(timeout=20).scalar())


def prompt(path: str) -> None:
    """Stop a crew with endless queries, as at a prompt.

    Ctrl-C interrupts each way, which is tried again.
    """
    db = Supervisor.start(path, size=4)
    replies = [db.ask(Query(RUNAWAY), block=False) for _ in range(4)]
    eventually(lambda: db.ask(Status()).running == 4)
    ways = {"stop": db.stop, "shutdown": db.shutdown, "with": lambda: db.__exit__(None, None, None)}
    for how in ("stop", "stop", "shutdown", "shutdown", "with", "stop"):
        say(how, "interrupted", interrupted(ways[how], lambda: True))
    say("alive", db.is_alive())
    db.shutdown(timeout=0)
    say("ended", db.wait_until_ended(0))
    say("replies", *(type(reply.exception(0)).__name__ for reply in replies))


def leaving(path: str, how: str) -> None:
    """Press Ctrl-C in a block while endless queries run."""
    replies = []

    def ask(db: object) -> object:
        replies.extend(db.ask(Query(RUNAWAY), block=False) for _ in range(2))
        return replies[0]

    def block() -> None:
        with Supervisor.start(path, size=2) as db:
            ask(db).get()

    async def async_block() -> None:
        async with Supervisor.start(path, size=2) as db:
            await ask(db)

    run = block if how == "with" else lambda: asyncio.run(async_block())
    say("interrupted", interrupted(run, lambda: len(replies) == 2))
    say("ended", *(type(reply.exception(0)).__name__ for reply in replies))


def anywhere() -> None:
    """Interrupt a caller wherever it happens to be, a thousand times a second."""

    def handler(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, handler)
    hits = 0
    with Supervisor.start(FakeDatabase(), size=2) as db:
        for _ in range(300):
            hits += blocked(lambda: asking_until(db))
            assert db.ask(Query("after"), timeout=20).scalar() == "after"
        say("idle", eventually(lambda: db.ask(Status()).queued == 0))
        status = db.ask(Status())
    settled = status.answered + status.failed + status.died + status.rejected + status.cancelled + status.timed_out
    say("hits", hits)
    say("adds up", status.submitted - settled)


def asking_until(db: object) -> None:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        while True:
            db.ask(Query("a"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


signal.signal(signal.SIGINT, handler)
match sys.argv[1]:
    case "running":
        running(sys.argv[2])
    case "lost":
        lost()
    case "queued":
        queued()
    case "stopping":
        stopping()
    case "prompt":
        prompt(sys.argv[2])
    case "leaving with" | "leaving async with":
        leaving(sys.argv[2], sys.argv[1].removeprefix("leaving "))
    case "anywhere":
        anywhere()
