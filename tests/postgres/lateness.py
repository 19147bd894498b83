"""How late a running `pg_sleep` ends after its deadline.

python -m tests.postgres.lateness --times 200
"""

import argparse
import statistics
import sys
import time

from supervisor import ChildProcess, PostgreSQL, Query, QueryTimeout, Supervisor, SupervisorRef
from tests.postgres.server import Server


def lateness(db: SupervisorRef, times: int) -> list[float]:
    """Return how many seconds after its deadline each query ended."""
    db.ask(Query("SELECT 1"))
    found = []
    for number in range(times):
        timeout = 0.03 + 0.0005 * (number % 40)
        began = time.monotonic()
        error = db.ask(Query("SELECT pg_sleep(1000)", timeout=timeout), block=False).exception(60)
        found.append(time.monotonic() - began - timeout)
        if not isinstance(error, QueryTimeout):
            raise TypeError(error)
    return found


def write(line: object) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Measure with workers in threads and in children, and print milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200)
    times = parser.parse_args().times
    server = Server()
    try:
        plain = PostgreSQL(server.uri)
        for name, database in (("threads", plain), ("children", ChildProcess(plain))):
            db = Supervisor.start(database, size=1)
            found = [1000 * seconds for seconds in lateness(db, times)]
            db.shutdown()
            write(f"{name}: median {statistics.median(found):.1f} ms, longest {max(found):.1f} ms")
    finally:
        server.close()


if __name__ == "__main__":
    main()
