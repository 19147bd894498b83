"""Each example runs as a program of its own, and prints the promised lines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WANTED = {
    "quickstart.py": """\
Ann 31 ['Ann', 'Eve'] [{'name': 'Ann', 'age': 31}, {'name': 'Eve', 'age': 47}]
3
interrupted; executed: False
""",
    "in_asyncio.py": """\
counted: [2000000, 1000000, 10]
the event loop ran meanwhile: True
too slow; the only worker is free for the next one: 10
cancelled: 1
SQLError: no such table: nowhere
""",
    "in_child_processes.py": """\
[1000000, 1000000, 1000000]
ChildProcessEnded, by SIGKILL: True, executed: None
NoMemError: no other caller has noticed
2 [('Ann', 9), ('Eve', 5)]
1 job died with its worker
""",
    "in_duckdb.py": """\
north 333334 4125008.25
south 333333 4124991.75
west 333333 4125000.0
1000000 rows, 25 MB of columns
12.375
1000000
333333
interrupted; executed: False
10 1000010
""",
    "own_database.py": """\
{'blue'} from 2 workers
interrupted; executed: False
StoreError unknown command
blue and 0 workers died
""",
    "transactions_and_streams.py": """\
[998, 999, 1000]
[('Ann', 9), ('Eve', 5)]
changed my mind 14
900 long ones
True 1000
['reader', 'reader', 'writer']
""",
    "in_an_actor_system.py": """\
the only worker is busy; under way: 1 workers: 1
the thickest book: Ulysses
crew 'library' is suspended: no worker can open the library's books (OSError: unplugged); \
it goes on trying and resumes by itself
postponed: 1
all pages: 1622
heard: WorkerUp WorkerLost Suspended WorkerUp Resumed
""",
}


ELSEWHERE = {"in_a_web_app.py", "in_postgres.py", "on_a_cluster.py"}
"""An example that runs until a user stops it, or that needs a server or a cluster.

Each of them has its own test file."""


def test_every_example_has_a_test():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(WANTED) | ELSEWHERE


@pytest.mark.parametrize("name", WANTED)
def test_an_example_prints_the_promised_lines(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (WANTED[name], "", 0)
