"""The whole of it in one page: ask, be answered, ask without waiting, set a deadline, look at the crew."""

import tempfile
from pathlib import Path

from supervisor import Query, QueryTimeout, Script, Status, Supervisor

SETUP = """
CREATE TABLE users (name TEXT, age INTEGER);
INSERT INTO users VALUES ('Ann', 31), ('Bob', 22), ('Eve', 47);
"""
COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT count(*) FROM n"

with tempfile.TemporaryDirectory() as folder, Supervisor.start(Path(folder) / "app.db") as db:
    db.ask(Script(SETUP))

    # Ask and wait for the answer.
    rows = db.ask(Query("SELECT name, age FROM users WHERE age > ? ORDER BY name", (30,)))
    print(rows)
    print(rows[0].name, rows[0]["age"], rows.column("name"))

    # Ask and go on; several questions run side by side.
    replies = [db.ask(Query(COUNT, (1_000_000,)), block=False) for _ in range(3)]
    print([reply.get().scalar() for reply in replies])

    # Whatever takes longer than its deadline is interrupted, and its worker goes on with the next.
    try:
        db.ask(Query(COUNT, (10**15,), timeout=0.1))
    except QueryTimeout as error:
        print(f"QueryTimeout, executed: {error.executed}")

    # An error of a statement comes to the one who asked, and harms nobody else.
    try:
        db.ask(Query("SELECT nonsense FROM users"))
    except Exception as error:  # noqa: BLE001  # the driver's own class, here apsw.SQLError
        print(f"{type(error).__name__}: {error}")

    status = db.ask(Status())
    print(
        f"{status.answered} answered, {status.failed} failed, {status.timed_out} timed out, {status.restarts} restarts"
    )
