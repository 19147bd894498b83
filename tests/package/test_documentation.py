"""Each Python block of the documentation runs as it stands, in an empty folder."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.common import environment

ROOT = Path(__file__).parents[2]


def blocks():
    """Return the Python blocks of all documents, by where they stand."""
    found = {}
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]:
        text = path.read_text("utf-8")
        for block in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            found[f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, block.start()) + 1}"] = block[1]
    return found


BLOCKS = blocks()


def test_the_readme_shows_how_it_is_used():
    assert any(place.startswith("README.md:") for place in BLOCKS)
    assert sum(place.startswith("docs") for place in BLOCKS) >= 5


@pytest.mark.parametrize("place", BLOCKS)
def test_a_block_runs_as_it_stands(tmp_path, place):
    program = tmp_path / "program.py"
    program.write_text(BLOCKS[place], "utf-8")
    command, given = [sys.executable, "-W", "error", program], {"cwd": tmp_path, "env": environment(), "timeout": 60}
    for _ in range(2):  # the second time, the files of the first are there
        done = subprocess.run(command, capture_output=True, text=True, check=False, **given)
        assert (done.returncode, done.stderr) == (0, "")
