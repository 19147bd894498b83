"""The wait of a program for the import and for the first answer, in a new process each time."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import supervisor
from benchmarks.data import create
from benchmarks.figures import TIMES, Figure, at_most
from benchmarks.rounds import Effort, ratio

__all__ = ["first_answer", "importing", "seconds_of"]

_TIMED = """
import sys, time
{before}
start = time.perf_counter()
{timed}
print(time.perf_counter() - start)
"""
_BEFORE = "from supervisor import Query, Supervisor"
_START = "db = Supervisor.start({path!r})\ndb.ask(Query('SELECT 1'))"


def first_answer(effort: Effort) -> Iterator[Figure]:
    """Measure from `Supervisor.start()` to the first answer, without the imports."""
    rounds = effort.pick(quick=7, full=25)
    with TemporaryDirectory() as folder:
        path = create(Path(folder) / "start.db")
        cases = {"a file": path, "memory": ":memory:", "a new file": None}
        seen: dict[str, list[float]] = {case: [] for case in cases}
        for turn in range(rounds):
            for case, file in cases.items():
                start = _START.format(path=file or str(Path(folder) / f"new{turn}.db"))
                seen[case].append(seconds_of(folder, _BEFORE, start) * 1000)
    for case, times in seen.items():
        value = median(times)
        yield Figure(f"start to first answer: {case}", f"{value:.1f} ms", value, at_most(20, "ms"))


def importing(effort: Effort) -> Iterator[Figure]:
    """Compare `import supervisor` with the import of its dependencies."""
    rounds = effort.pick(quick=9, full=41)
    statements = {"ours": "import supervisor", "theirs": "import pykka, apsw"}
    seen: dict[str, list[float]] = {name: [] for name in statements}
    with TemporaryDirectory() as folder:
        for statement in statements.values():
            seconds_of(folder, "", statement)  # compiles it
        for turn in range(rounds):
            for name in statements if turn % 2 == 0 else reversed(statements):
                seen[name].append(seconds_of(folder, "", statements[name]))
    times = ratio(seen["ours"], seen["theirs"])
    ours, theirs = (median(seen[name]) * 1000 for name in statements)
    text = f"{times:.2f} {TIMES} ({ours:.1f} ms against {theirs:.1f} ms)"
    yield Figure("import supervisor: import pykka, apsw", text, times, at_most(1.3, TIMES))


def seconds_of(folder: str, before: str, timed: str) -> float:
    """Return the seconds that a piece of code takes in a new process, by that process's clock."""
    home = str(Path(supervisor.__file__).parent)
    environment = {**os.environ, "PYTHONPATH": home, "PYTHONPYCACHEPREFIX": str(Path(folder) / "compiled")}
    # Python must keep its compiled files, with any settings of the user.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    code = _TIMED.format(before=before, timed=timed)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)
