"""A program whose main thread ends while another thread waits for an answer that never comes."""

import asyncio
import sys
import threading
from collections.abc import Callable

if "early" in sys.argv[1]:
    import concurrent.futures.thread  # noqa: F401  # before the crew's own modules

from shared import eventually, say

import supervisor
from actors.system import exit_and_fork
from supervisor import ChildProcess, Query, Script, Status, Stream, Supervisor

# A busy machine may need longer than these bounds to close all connections properly.
exit_and_fork._EXIT_BOUND = supervisor._GRACE = 30.0

RUNAWAY = Query("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")
ENDLESS = Stream("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT i FROM n")


def told(wait: Callable[[], object]) -> Callable[[], None]:
    """Return a function that waits and prints how the wait ended."""

    def run() -> None:
        try:
            wait()
        except Exception as error:
            say(type(error).__name__, getattr(error, "executed", "?"))
        else:
            say("returned")

    return run


async def value_of(reply: object) -> object:
    return await reply


def read_on() -> None:
    with db.ask(ENDLESS) as rows:
        for _ in rows:
            pass


def in_a_transaction() -> None:
    with db.transaction(timeout=None) as tx:
        tx.ask(Query("INSERT INTO t VALUES (1)"))
        tx.ask(RUNAWAY)


def by_callback() -> None:
    done = threading.Event()
    reply = db.ask(RUNAWAY, block=False)
    reply.add_done_callback(lambda _: done.set())
    done.wait()
    reply.get()


WAITS = {
    "ask": lambda: db.ask(RUNAWAY),
    "get": lambda: db.ask(RUNAWAY, block=False).map(len).get(),
    "as_future": lambda: db.ask(RUNAWAY, block=False).as_future().result(),
    "await": lambda: asyncio.run(value_of(db.ask(RUNAWAY, block=False))),
    "callback": by_callback,
    "stream": read_on,
    "transaction": in_a_transaction,
    "stop": lambda: (db.ask(RUNAWAY, block=False), db.stop()),
    "shutdown": lambda: (db.ask(RUNAWAY, block=False), db.shutdown()),
    "queued": lambda: (db.ask(RUNAWAY, block=False), db.ask(Query("SELECT 1"))),
}


def on_threads(wait: Callable[[], None]) -> None:
    threading.Thread(target=wait).start()


def on_an_executor(wait: Callable[[], None]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(1)
    for _ in range(3):  # the later ones begin after the main thread has ended
        executor.submit(wait)


def by_to_thread(wait: Callable[[], None]) -> None:
    loop = asyncio.new_event_loop()
    kept.append(loop.create_task(asyncio.to_thread(wait)))
    loop.run_until_complete(asyncio.sleep(0))


WHERE = {"thread": on_threads, "executor": on_an_executor, "early executor": on_an_executor, "to_thread": by_to_thread}

kept: list = []
where, what, kind, path = sys.argv[1:]
db = Supervisor.start(path if kind == "threads" else ChildProcess(path), size=1)
db.ask(Script("CREATE TABLE t(x)"))
WHERE[where](told(WAITS[what]))
eventually(lambda: db.ask(Status()).running)
eventually(lambda: what != "queued" or db.ask(Status()).queued)
say("the main thread ends")
