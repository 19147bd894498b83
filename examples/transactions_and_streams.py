"""SQLite as it wants to be used: writes that share a commit, transactions step by step, rows as they are taken.

Writing from many threads needs no care: one worker writes, and the others read meanwhile.
"""

import tempfile
from pathlib import Path

from supervisor import Backup, Query, Script, Status, Stream, Supervisor

SETUP = """
    CREATE TABLE accounts (name TEXT PRIMARY KEY, money INTEGER CHECK (money >= 0));
    INSERT INTO accounts VALUES ('Ann', 5), ('Eve', 9);
    CREATE TABLE events (id INTEGER PRIMARY KEY, what TEXT);
"""

with tempfile.TemporaryDirectory() as folder, Supervisor.start(Path(folder) / "bank.db", size=2) as db:
    db.ask(Script(SETUP))

    # A thousand writes at once: those that wait together are one transaction, and each is durable once it is answered.
    replies = [db.ask(Query("INSERT INTO events (what) VALUES (?)", (f"event {n}",)), block=False) for n in range(1000)]
    print([reply.get().lastrowid for reply in replies[-3:]])

    # Python between the statements of a transaction. On every other way out of the block it is rolled back.
    with db.transaction(timeout=5.0) as tx:
        money = tx.ask(Query("SELECT money FROM accounts WHERE name = 'Eve'")).scalar()
        tx.ask(Query("UPDATE accounts SET money = money - ? WHERE name = 'Eve'", (money // 2,)))
        tx.ask(Query("UPDATE accounts SET money = money + ? WHERE name = 'Ann'", (money // 2,)))
    print(db.ask(Query("SELECT name, money FROM accounts ORDER BY name")).rows)

    try:
        with db.transaction() as tx:
            tx.ask(Query("UPDATE accounts SET money = 0"))
            raise LookupError("changed my mind")  # noqa: TRY301  # what it is about
    except LookupError as error:
        print(error, db.ask(Query("SELECT sum(money) FROM accounts")).scalar())

    # Rows one by one, however many there are: only a chunk of them is ever in memory.
    long = 0
    for row in db.ask(Stream("SELECT id, what FROM events ORDER BY id", chunk=100, timeout=60.0)):
        long += len(row.what) > len("event 99")
    print(long, "long ones")

    # A copy of the live database.
    copied = db.ask(Backup(Path(folder) / "copy.db")).one()
    with Supervisor.start(Path(folder) / "copy.db", size=1) as copy:
        print(copied.bytes > 0, copy.ask(Query("SELECT count(*) FROM events")).scalar())

    print([worker.role for worker in db.ask(Status()).workers])
