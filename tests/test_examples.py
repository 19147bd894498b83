"""Every example runs as a reader would run it, and prints what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

WANTED = {
    "quickstart.py": """\
name │ age
─────┼────
Ann  │ 31
Eve  │ 47
(2 rows)
Ann 31 ['Ann', 'Eve']
[1000000, 1000000, 1000000]
SQLError: no such column: nonsense
5 answered, 1 failed, 0 restarts
""",
    "in_asyncio.py": """\
counted: [2000000, 1000000, 10]
the event loop ran meanwhile: True
SQLError: no such table: nowhere
""",
    "in_an_actor_system.py": """\
searches under way: 1
the thickest book: Ulysses
searches under way: 0
""",
}


def test_every_example_has_a_test():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(WANTED)


@pytest.mark.parametrize("name", WANTED)
def test_an_example_prints_what_it_promises(name):
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / name],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (WANTED[name], "", 0)
