"""In a system of Pykka actors: an actor that asks a crew never blocks, and gets the answer as a message.

The librarian asks with `block=False` and lets the reply send it a message. While a slow query runs,
it answers whatever else it is asked. A `reply.get()` in a handler would make every other message wait.
"""

from dataclasses import dataclass
from typing import Any

import pykka

from supervisor import Query, Reply, Result, Script, Supervisor, SupervisorRef

SETUP = """
CREATE TABLE books (title TEXT, pages INTEGER);
INSERT INTO books VALUES ('Emma', 474), ('Dracula', 418), ('Ulysses', 730);
"""
# Slow on purpose: it counts to three million for each book.
SLOW = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000)
SELECT title FROM books WHERE (SELECT count(*) FROM n WHERE i > pages) ORDER BY pages DESC LIMIT 1
"""


@dataclass(frozen=True)
class FindThickest:
    """To the librarian: tell `reader` which book is the thickest."""

    reader: pykka.ActorRef[Any]


@dataclass(frozen=True)
class HowManySearches:
    """To the librarian: how many searches are under way?"""


@dataclass(frozen=True)
class Found:
    """From a reply to the librarian: the database has answered, for `reader`."""

    reader: pykka.ActorRef[Any]
    reply: Reply[Result]


@dataclass(frozen=True)
class Book:
    """From the librarian to a reader."""

    title: str


@dataclass(frozen=True)
class NoBook:
    """From the librarian to a reader: the search failed."""

    why: str


class Librarian(pykka.ThreadingActor):
    """Answers questions about books; asks the crew, and never waits for it."""

    def __init__(self, db: SupervisorRef) -> None:
        super().__init__()
        self._db = db
        self._searches = 0

    def on_receive(self, message: object) -> object:
        match message:
            case FindThickest(reader):
                self._searches += 1
                reply = self._db.ask(Query(SLOW), block=False)
                # The callback runs in a worker's thread, so all it does is to send a message.
                reply.add_done_callback(lambda reply: self.actor_ref.tell(Found(reader, reply)))
            case Found(reader, reply):
                self._searches -= 1
                # It is settled, so neither call waits. An error that is raised here would end the librarian.
                error = reply.exception()
                reader.tell(NoBook(str(error)) if error else Book(reply.get().scalar()))
            case HowManySearches():
                return self._searches
        return None


class Reader(pykka.ThreadingActor):
    """Passes on what it was told."""

    def __init__(self, told: pykka.Future[str]) -> None:
        super().__init__()
        self._told = told

    def on_receive(self, message: Book | NoBook) -> None:
        match message:
            case Book(title):
                self._told.set(title)
            case NoBook(why):
                self._told.set(f"not found ({why})")


def main() -> None:
    told: pykka.Future[str] = pykka.ThreadingFuture()
    with Supervisor.start() as db:
        db.ask(Script(SETUP))
        librarian = Librarian.start(db)
        reader = Reader.start(told)
        librarian.tell(FindThickest(reader))
        print("searches under way:", librarian.ask(HowManySearches()))
        print("the thickest book:", told.get())
        print("searches under way:", librarian.ask(HowManySearches()))
        reader.stop()
        librarian.stop()


if __name__ == "__main__":
    main()
