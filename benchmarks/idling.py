"""An idle crew: does it use any CPU?"""

import time
from collections.abc import Iterator

from benchmarks.cheap import CheapDatabase
from benchmarks.figures import Figure, at_most
from benchmarks.rounds import Effort
from supervisor import Query, Supervisor

__all__ = ["run"]

_WORKERS = 8
_NOTHING = 1.0  # ms: the resolution of the clock, and the workers that go to sleep


def run(effort: Effort) -> Iterator[Figure]:
    """Measure the CPU time of a process whose crew has nothing to do."""
    seconds = effort.pick(quick=1, full=2)
    with Supervisor.start(CheapDatabase(), size=_WORKERS) as ref:
        for reply in [ref.ask(Query("SELECT 1"), block=False) for _ in range(1000)]:
            reply.get()
        time.sleep(0.1)  # the last workers go to sleep
        start = time.process_time()
        time.sleep(seconds)
        used = (time.process_time() - start) * 1000
    yield Figure(f"CPU time of an idle crew in {seconds} s", f"{used:.2f} ms", used, at_most(_NOTHING, "ms"))
