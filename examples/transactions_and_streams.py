"""Use SQLite well: writes that share a commit, transactions step by step, rows in chunks.

Many threads may write. One worker writes for all of them, and the other workers read meanwhile.
"""

import tempfile
from pathlib import Path

from supervisor import Backup, Query, Script, Status, Stream, Supervisor

SETUP = """
    CREATE TABLE accounts (name TEXT PRIMARY KEY, money INTEGER CHECK (money >= 0));
    INSERT INTO accounts VALUES ('Ann', 5), ('Eve', 9);
    CREATE TABLE events (id INTEGER PRIMARY KEY, note TEXT);
"""

with tempfile.TemporaryDirectory() as folder, Supervisor.start(Path(folder) / "bank.db", size=2) as db:
    db.ask(Script(SETUP))

    # A thousand writes at once. Writes that wait together are one transaction. Each write is
    # durable once it is answered.
    replies = [db.ask(Query("INSERT INTO events (note) VALUES (?)", (f"event {n}",)), block=False) for n in range(1000)]
    print([reply.get().lastrowid for reply in replies[-3:]])

    # Python between the statements of a transaction. If an exception leaves the block, the
    # transaction is rolled back.
    with db.transaction(timeout=5.0) as tx:
        money = tx.ask(Query("SELECT money FROM accounts WHERE name = 'Eve'")).scalar()
        tx.ask(Query("UPDATE accounts SET money = money - ? WHERE name = 'Eve'", (money // 2,)))
        tx.ask(Query("UPDATE accounts SET money = money + ? WHERE name = 'Ann'", (money // 2,)))
    print(db.ask(Query("SELECT name, money FROM accounts ORDER BY name")).rows)

    try:
        with db.transaction() as tx:
            tx.ask(Query("UPDATE accounts SET money = 0"))
            raise LookupError("changed my mind")  # noqa: TRY301  # this shows the effect
    except LookupError as error:
        print(error, db.ask(Query("SELECT sum(money) FROM accounts")).scalar())

    # Rows one by one. Only one chunk of rows is in memory at a time.
    long = 0
    for row in db.ask(Stream("SELECT id, note FROM events ORDER BY id", chunk=100, timeout=60.0)):
        long += len(row.note) > len("event 99")
    print(long, "long ones")

    # A copy of the live database.
    copied = db.ask(Backup(Path(folder) / "copy.db")).one()
    with Supervisor.start(Path(folder) / "copy.db", size=1) as copy:
        print(copied.bytes > 0, copy.ask(Query("SELECT count(*) FROM events")).scalar())

    print([worker.role for worker in db.ask(Status()).workers])
