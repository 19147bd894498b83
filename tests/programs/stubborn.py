"""A program that ends while a statement runs that ignores its interrupt, and another worker hangs opening."""

import sys
import threading

from shared import eventually, say

from supervisor import Query, Status, Supervisor
from tests.fakes import FakeDatabase, Gate


def main(how: str) -> None:
    never = threading.Event()
    gate, opening = Gate(), Gate()
    gate.opened = opening.opened = never
    database = FakeDatabase({"stubborn": gate})
    database.opening.extend([None, opening])
    db = Supervisor.start(database, size=2)
    reply = db.ask(Query("stubborn"), block=False)
    eventually(lambda: gate.entered.is_set() and opening.entered.is_set())
    if how == "many crews":
        for _ in range(20):
            Supervisor.start(FakeDatabase(), size=2).ask(Query("a"), timeout=20)
    if how == "callback":
        reply.add_done_callback(lambda _: never.wait())
    say(db.ask(Status()).running)


main(sys.argv[1])
