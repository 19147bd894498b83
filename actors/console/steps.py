"""The steps of `querycrew tour`: a few sentences each, and lines for the prompt."""

from typing import Final, NamedTuple

__all__ = ["ENDLESS", "SETUP", "STEPS", "Step"]

ENDLESS: Final = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
"""A query that never ends."""

SETUP: Final = """\
CREATE TABLE books(id INTEGER PRIMARY KEY, title TEXT NOT NULL, pages INTEGER);
INSERT INTO books(title, pages) VALUES ('Moby Dick', 635), ('Emma', 474), ('Der Prozess', 304), ('雪国', 175);
CREATE TABLE numbers(n INTEGER PRIMARY KEY);
INSERT INTO numbers WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n LIMIT 100000) SELECT i FROM n;
CREATE TABLE events(n INTEGER)"""
"""The database of the tour."""


class Step(NamedTuple):
    """One step: some sentences, and the lines that show it."""

    title: str
    text: str
    lines: tuple[str, ...]


STEPS: Final = (
    Step(
        "Ask",
        "SQL just runs. In Python, `db` is the crew: it takes requests such as a Query.\n"
        "A worker of the crew runs the request, and you get the answer.",
        (
            "select * from books",
            'db.ask(Query("select title, pages from books where pages > 400"))',
        ),
    ),
    Step(
        "Results",
        "A Result is a sequence of rows. A Row is a tuple that also has names.",
        (
            'books = ask("select title, pages from books order by pages")',
            'books[0].title, books[0]["pages"], books.column("pages")',
            "books.dicts()[-1]",
        ),
    ),
    Step(
        "Parameters, and errors",
        "Parameters stand for the question marks. No log, error or status shows them.\n"
        "An error is the driver's own. It shows the place in the SQL.",
        (
            'ask("select title from books where pages between ? and ?", 200, 500)',
            'ask("select titel from books where pages > ?", 200)',
        ),
    ),
    Step(
        "Go on while it works",
        "With block=False you get a Reply at once, and the answer later.\n"
        "At this prompt, `&` behind a statement does the same.",
        (
            'reply = db.ask(Query("select sum(n) from numbers"), block=False)',
            "(await reply).scalar()",
            "select count(*) from numbers &",
            "fg 1",
        ),
    ),
    Step(
        "A deadline",
        "`endless` is a query that never ends. Its time holds in the queue, at a lock and\n"
        "while it runs. The worker lives on.",
        (
            "endless",
            "db.ask(Query(endless, timeout=0.5))",
        ),
    ),
    Step(
        "Cancel",
        "A reply can be cancelled, in the queue or in the middle of the statement.\nCtrl-C does it while you wait.",
        (
            "reply = db.ask(Query(endless), block=False)",
            "reply.cancel()",
            "reply.get()",
        ),
    ),
    Step(
        "A transaction",
        "Between begin and commit, your statements are one transaction. The prompt\n"
        "shows `*`. A Transaction sends several statements as one request.",
        (
            "begin",
            "update books set pages = 0",
            "rollback",
            'first = Query("delete from books where id = 1")',
            'db.ask(Transaction([first, Query("select * from books")]))[1]',
        ),
    ),
    Step(
        "More rows than fit into memory",
        "A Stream gives its rows as you take them, in constant memory.",
        (
            'stream = db.ask(Stream("select n from numbers"))',
            "next(stream).n, next(stream).n",
            "sum(row.n for row in stream)",
        ),
    ),
    Step(
        "Kill a worker",
        "Each worker of this crew has a child process. `busy()` is the worker that runs\n"
        "the query. After kill -9 its reply is an error, and another worker comes.",
        (
            "reply = db.ask(Query(endless, timeout=60), block=False)",
            "os.kill(busy().pid, signal.SIGKILL)",
            "reply.get()",
            "replaced()",
        ),
    ),
    Step(
        "A thousand writes in a few commits",
        "A commit takes longer than a small write. Writes that wait together share one.\n"
        "`commits()` counts the commits in the log of SQLite.",
        (
            'insert, before = "insert into events values (?)", commits()',
            "replies = [db.ask(Query(insert, (n,)), block=False) for n in range(1000)]",
            "sum(reply.get().rowcount for reply in replies), commits() - before",
        ),
    ),
    Step(
        "The state of the crew",
        "Each request was counted: answered, failed, cancelled, timed out, or died with\nits worker.",
        (
            "status",
            "db.ask(Status()).restarts",
        ),
    ),
)
