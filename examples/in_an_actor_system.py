"""In a system of Pykka actors: two actors use a crew by messages, and neither ever waits for it.

The program uses the reporter through its proxy. The reporter asks with `block=False`, and the
answer comes as a message. While a slow query runs, the reporter handles other messages. A
`reply.get()` in the reporter would delay all of them. The monitor receives the events of the crew.
When the database is back, the monitor lets the reporter ask again.
"""

import logging
import tempfile
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pykka

from supervisor import (
    Connection,
    DatabaseUnavailable,
    Outcome,
    Query,
    RestartPolicy,
    Resumed,
    Script,
    SQLite,
    Status,
    Subscribe,
    Supervisor,
    SupervisorRef,
    Suspended,
    WorkerLost,
    WorkerUp,
)

SETUP = """
CREATE TABLE books (title TEXT, pages INTEGER);
INSERT INTO books VALUES ('Emma', 474), ('Dracula', 418), ('Ulysses', 730);
"""
# Slow on purpose: it counts to three million for each book.
THICKEST = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000)
SELECT title FROM books WHERE (SELECT count(*) FROM n WHERE i > pages) ORDER BY pages DESC LIMIT 1
"""
PAGES = "SELECT sum(pages) FROM books"


@dataclass(frozen=True)
class Found:
    """The message from a reply to the reporter that asked."""

    sql: str
    promise: pykka.Future[Any]
    outcome: Outcome


class Reporter(pykka.ThreadingActor):
    """Finds single values. It postpones a question while no worker can open the database."""

    def __init__(self, db: SupervisorRef) -> None:
        super().__init__()
        self._db = db
        # The SQL of each question, and the future of its answer.
        self._postponed: list[tuple[str, pykka.Future[Any]]] = []
        self.under_way = 0
        self.postponed = 0

    def find(self, sql: str) -> pykka.Future[Any]:
        """Return at once, with a future of the single value that `sql` selects."""
        promise: pykka.Future[Any] = pykka.ThreadingFuture()
        self._ask(sql, promise)
        return promise

    def ask_again(self) -> None:
        postponed, self._postponed, self.postponed = self._postponed, [], 0
        for sql, promise in postponed:
            self._ask(sql, promise)

    def _ask(self, sql: str, promise: pykka.Future[Any]) -> None:
        self.under_way += 1
        reply = self._db.ask(Query(sql, timeout=30), block=False)
        # `wrap` runs on a worker's thread, so it only makes the message.
        reply.pipe_to(self.actor_ref, wrap=partial(Found, sql, promise))

    def on_receive(self, message: Found) -> None:
        self.under_way -= 1
        match message:
            case Found(sql, promise, Outcome(error=DatabaseUnavailable())):
                # The database may be back already: the monitor's message may have come before this
                # message. `Status` is answered at once.
                if self._db.ask(Status()).state == "suspended":
                    self._postponed.append((sql, promise))
                    self.postponed += 1
                else:
                    self._ask(sql, promise)
            case Found(_, promise, Outcome(value, None)):
                promise.set(value.scalar())
            case Found(_, promise, Outcome(error=BaseException() as error)):
                # The error belongs to the caller who waits. Raised here, it would end the reporter.
                promise.set_exception((type(error), error, None))


class Monitor(pykka.ThreadingActor):
    """Knows the workers, and lets the reporter ask again when the database is back."""

    def __init__(self, reporter: pykka.ActorProxy[Reporter]) -> None:
        super().__init__()
        self._reporter = reporter
        self.workers: frozenset[int] = frozenset()
        self.history: tuple[str, ...] = ()

    def on_receive(self, event: WorkerUp | WorkerLost | Suspended | Resumed) -> None:
        self.history += (type(event).__name__,)
        match event:
            case WorkerUp(worker_id=worker_id):
                self.workers |= {worker_id}
            case WorkerLost(worker_id=worker_id):
                self.workers -= {worker_id}
            case Resumed():
                self._reporter.ask_again.defer()  # does not wait for the reporter


class Unpluggable:
    """A database that this program can take away, to show the effect."""

    name = "library"
    max_size = None

    def __init__(self, path: Path) -> None:
        self.plugged = threading.Event()
        self._file = SQLite(path)

    def __str__(self) -> str:
        return "the library's books"

    def connect(self) -> Connection:
        if not self.plugged.is_set():
            raise OSError("unplugged")
        return self._file.connect()


def main(path: Path) -> None:
    books = Unpluggable(path)
    books.plugged.set()
    restart = RestartPolicy(backoff_initial=0.05, backoff_max=0.05)
    with Supervisor.start(books, size=1, restart=restart) as db:
        db.ask(Script(SETUP))
        reporter = Reporter.start(db).proxy()
        monitor = Monitor.start(reporter).proxy()
        db.ask(Subscribe(monitor.actor_ref))  # the monitor receives the present workers at once

        thickest = reporter.find(THICKEST).get()
        print("the only worker is busy; under way:", reporter.under_way.get(), "workers:", *monitor.workers.get())
        print("the thickest book:", thickest.get())

        books.plugged.clear()
        pykka.ActorRegistry.get_by_class_name("Worker")[0].stop()
        try:
            db.ask(Query(PAGES))  # this thread belongs to no actor, so it may wait
        except DatabaseUnavailable as error:
            print(error)
        pages = reporter.find(PAGES).get()
        print("postponed:", reporter.postponed.get())

        books.plugged.set()
        print("all pages:", pages.get())
        print("heard:", *monitor.history.get())


if __name__ == "__main__":
    logging.disable()  # this program prints the same events
    with tempfile.TemporaryDirectory() as folder:
        try:
            main(Path(folder) / "books.db")
        finally:
            pykka.ActorRegistry.stop_all()
