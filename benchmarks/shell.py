"""The command `querycrew DATABASE "SELECT …"` beside the shell of SQLite: a million rows as CSV."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import apsw

import supervisor
from benchmarks.figures import TIMES, Figure, at_least, at_most
from benchmarks.machine import folder_on_disk
from benchmarks.rounds import Effort, alternate, ratio

__all__ = ["run"]

_ROWS = 1_000_000
_SQL = "SELECT * FROM wide"
_OURS, _THEIRS = "querycrew --csv", "sqlite3 -csv"
_CREATE = """
CREATE TABLE wide AS WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows})
SELECT n AS id, 'user ' || n AS name, n % 90 AS age, n * 1.5 AS score, NULL AS note FROM numbers"""
_HIGHEST = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def run(effort: Effort) -> Iterator[Figure]:
    """Compare whole processes, their start included; both write to nowhere."""
    rows = effort.pick(quick=_ROWS // 4, full=_ROWS)
    with TemporaryDirectory(dir=folder_on_disk()) as folder:
        path = str(Path(folder) / "shell.db")
        connection = apsw.Connection(path)
        connection.execute(_CREATE.format(rows=rows))
        connection.close()
        ours = [sys.executable, "-m", "actors.console", "--csv", path]
        peak = (_memory([*ours, f"{_SQL} LIMIT 20000"]), _memory([*ours, _SQL]))
        name = f"{rows / 1e6:g} million rows of 5 columns"
        if shell := shutil.which("sqlite3"):
            theirs = [shell, "-csv", "-header", path]
            actions = {key: partial(_run, [*command, _SQL]) for key, command in ((_OURS, ours), (_THEIRS, theirs))}
            seconds = alternate(actions, effort.pick(quick=3, full=5))
            times = ratio(seconds[_THEIRS], seconds[_OURS])
            shown = f"{times:.2f} {TIMES} ({median(seconds[_OURS]):.2f} s against {median(seconds[_THEIRS]):.2f} s)"
            yield Figure(f"{_OURS}, {name}: {_THEIRS}", shown, times, at_least(0.5, TIMES))
        else:
            yield Figure(f"{_OURS}, {name}: {_THEIRS}", "the shell of SQLite is not installed")
        added = (peak[1] - peak[0]) / 1024
        yield Figure(f"{_OURS}, {name}: memory above that of 20,000 rows", f"{added:.1f} MB", added, at_most(10, "MB"))


def _run(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, env=_environment(), check=True)


def _memory(command: list[str]) -> int:
    """Return the most memory that a process has used, in KB."""
    measured = [sys.executable, "-c", _HIGHEST, *command]
    return int(subprocess.run(measured, capture_output=True, text=True, env=_environment(), check=True).stdout)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(supervisor.__file__).parent)}
