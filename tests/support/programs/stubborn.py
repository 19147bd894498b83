"""A program that ends while a statement ignores its interrupt and a worker hangs in opening."""

import sys
import threading

from shared import eventually, say

from supervisor import Query, Status, Supervisor, SupervisorRef
from tests.support.fakes import FakeDatabase, Gate

crews = []  # kept to the end of the program: a crew that nobody holds would stop before


def started(database: FakeDatabase) -> SupervisorRef:
    crews.append(Supervisor.start(database, size=2))
    return crews[-1]


def main(how: str) -> None:
    never = threading.Event()
    gate, opening = Gate(), Gate()
    gate.opened = opening.opened = never
    database = FakeDatabase({"stubborn": gate})
    database.opening.extend([None, opening])
    db = started(database)
    reply = db.ask(Query("stubborn"), block=False)
    eventually(lambda: gate.entered.is_set() and opening.entered.is_set())
    if how == "many crews":
        for _ in range(20):
            started(FakeDatabase()).ask(Query("a"), timeout=20)
    if how == "callback":
        reply.add_done_callback(lambda _: never.wait())
    say(db.ask(Status()).running)


main(sys.argv[1])
