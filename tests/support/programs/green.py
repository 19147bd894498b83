"""A program whose threads gevent or eventlet has replaced: some crews are refused, others work."""

import sys

KIND = sys.argv[1]
if KIND == "gevent":
    import gevent
    from gevent import monkey

    monkey.patch_all()
    spawn, sleep = gevent.spawn, gevent.sleep
elif KIND == "gevent, threads left":
    from gevent import monkey

    monkey.patch_all(thread=False, queue=False)
else:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and says so
        import eventlet

        eventlet.monkey_patch(**({"thread": False, "select": False} if "left" in KIND else {}))

# Behind that: gevent replaces nothing in a module that is imported already.
from shared import say  # noqa: E402

from supervisor import ChildProcess, Query, QueryCancelled, QueryTimeout, Supervisor  # noqa: E402

PATH = sys.argv[2]
RUNAWAY = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
SOME = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n LIMIT 1000) SELECT count(*) FROM n"


def refused(database: object) -> None:
    try:
        Supervisor.start(database)
    except RuntimeError as error:
        say("refused", str(error).partition(":")[0])
    else:
        say("not refused")


def works(database: object) -> None:
    """Run a crew through a deadline, a cancel and four workers, and let it end with the program."""
    db = Supervisor.start(database, size=4)
    db.wait()
    try:
        db.ask(Query(RUNAWAY, timeout=0.1))
    except QueryTimeout as error:
        say("timed out", error.executed)
    reply = db.ask(Query(RUNAWAY), block=False)
    reply.cancel()
    say("cancelled", isinstance(reply.exception(20), QueryCancelled))
    replies = [db.ask(Query(SOME), block=False) for _ in range(20)]
    say("answered", sum(reply.get(timeout=20).scalar() for reply in replies))
    other = Supervisor.start(database, size=1)
    say("stopped", other.stop())


def goes_on(database: object) -> None:
    """Count the turns of another greenlet while a statement runs."""
    turns = []

    def count() -> None:
        while len(turns) < 1_000_000:
            turns.append(1)
            sleep(0)

    with Supervisor.start(database, size=1) as db:
        db.wait()
        greenlet = spawn(count)
        try:
            db.ask(Query(RUNAWAY, timeout=0.1))
        except QueryTimeout:
            say("others went on", len(turns) > 1)
        greenlet.kill()


if "left" in KIND:
    works(PATH)
elif KIND == "gevent":
    refused(PATH)
    refused(None)
    works(ChildProcess(PATH))
    goes_on(ChildProcess(PATH))
else:
    refused(PATH)
    refused(ChildProcess(PATH))
say("end")
