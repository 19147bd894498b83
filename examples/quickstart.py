"""Ask and wait, ask and go on, and set a deadline."""

from supervisor import Query, QueryTimeout, Script, Supervisor

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

with Supervisor.start("app.db") as db:
    db.ask(Script("CREATE TABLE IF NOT EXISTS users(name, age); DELETE FROM users"))
    db.ask(Query("INSERT INTO users VALUES (?, ?)", many=[("Ann", 31), ("Bob", 22), ("Eve", 47)]))

    rows = db.ask(Query("SELECT name, age FROM users WHERE age > ?", (30,)))
    print(rows[0].name, rows[0]["age"], rows.column("name"), rows.dicts())

    reply = db.ask(Query("SELECT count(*) FROM users"), block=False)  # returns at once
    print(reply.get().scalar())  # in asyncio: await reply

    try:
        db.ask(Query(ENDLESS, timeout=0.1))
    except QueryTimeout as error:
        print("interrupted; executed:", error.executed)
