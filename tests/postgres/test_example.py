"""The example of PostgreSQL runs as a program of its own."""

import subprocess
import sys
from pathlib import Path

from tests.support.common import environment

EXAMPLE = Path(__file__).parents[2] / "examples" / "in_postgres.py"


def test_the_example_prints_the_promised_lines(uri, tmp_path):
    command = [sys.executable, "-W", "error", EXAMPLE, uri]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == (
        "moved: 70\nAnn 0\nBob 150\naccounts: 2\nsum: 5000050000\ninterrupted; executed: False\n",
        "",
    )
