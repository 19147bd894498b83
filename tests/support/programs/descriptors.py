"""A process without free descriptors.

The crew refuses requests with the cause, and serves later ones.
"""

import os
import resource
import sys

from shared import eventually, say, serves

from supervisor import DatabaseUnavailable, Query, RestartPolicy, Status, Supervisor


def use_up() -> list[int]:
    taken = []
    while True:
        try:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            return taken


def main(path: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    taken = use_up()
    db = Supervisor.start(path, size=2, restart=RestartPolicy(backoff_initial=0.01, backoff_max=0.02))
    try:
        db.ask(Query("SELECT 1"), timeout=20)
    except DatabaseUnavailable as error:
        say(type(error.__cause__).__name__)
    for descriptor in taken:
        os.close(descriptor)
    say(eventually(lambda: serves(db)))
    say(db.ask(Status()).failed_starts > 0)
    db.stop()


main(sys.argv[1])
