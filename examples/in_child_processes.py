"""Workers in child processes: a worker is killed, another has no memory left, the crew goes on.

There is no `if __name__ == "__main__":` here, and none is needed.
"""

import logging
import os
import signal
import tempfile
import time
from pathlib import Path

import apsw

from supervisor import ChildProcess, Query, Script, Status, Supervisor, Transaction, WorkerDied

logging.disable()  # of the deaths, since this program causes them

SETUP = "CREATE TABLE accounts (name TEXT, money INTEGER); INSERT INTO accounts VALUES ('Ann', 5), ('Eve', 9)"
COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT count(*) FROM n"
FOREVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

with tempfile.TemporaryDirectory() as folder:
    database = ChildProcess(Path(folder) / "bank.db", memory_limit=200_000_000)
    with Supervisor.start(database, size=2) as db:
        db.ask(Script(SETUP))

        # Queries run side by side, on all cores, also while this program computes.
        replies = [db.ask(Query(COUNT, (1_000_000,)), block=False) for _ in range(3)]
        print([reply.get().scalar() for reply in replies])

        # A worker is killed while it runs a query. Only the caller of that query gets an error.
        lost = db.ask(Query(FOREVER), block=False)
        while not lost.done():  # if the worker had not begun the query, another worker runs it
            for worker in db.ask(Status()).workers:
                if worker.job and worker.pid:
                    os.kill(worker.pid, signal.SIGKILL)
            time.sleep(0.05)
        try:
            lost.get()
        except WorkerDied as error:
            print(
                f"{type(error.__cause__).__name__}, by SIGKILL: {'SIGKILL' in str(error)}, executed: {error.executed}"
            )

        # A query needs more memory than a child may have.
        try:
            db.ask(Query("SELECT zeroblob(400000000)"))
        except apsw.NoMemError as error:
            print(f"{type(error).__name__}: no other caller has noticed")

        # All or nothing, in a child as in this process.
        move = Query("UPDATE accounts SET money = money + ? WHERE name = ?", many=[(-4, "Eve"), (4, "Ann")])
        moved, accounts = db.ask(Transaction([move, Query("SELECT * FROM accounts ORDER BY name")]))
        print(moved.rowcount, accounts.rows)

        print(db.ask(Status()).died, "job died with its worker")
