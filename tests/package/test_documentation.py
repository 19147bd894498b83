"""Each Python block of the documentation runs unchanged, in an empty folder."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.common import environment

ROOT = Path(__file__).parents[2]


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def blocks():
    """Return the Python blocks of all documents, by their place."""
    found = {}
    for path in DOCUMENTS:
        text = path.read_text("utf-8")
        for block in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            found[f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, block.start()) + 1}"] = block[1]
    return found


BLOCKS = blocks()


def test_the_readme_shows_how_it_is_used():
    assert any(place.startswith("README.md:") for place in BLOCKS)
    assert sum(place.startswith("docs") for place in BLOCKS) >= 5


def test_the_readme_shows_the_quick_start_word_for_word():
    shown = [block for place, block in BLOCKS.items() if place.startswith("README.md:")]
    assert shown == [(ROOT / "examples" / "quickstart.py").read_text("utf-8")]


def anchors_of(path):
    """Return the anchors of the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_each_link_to_another_document_leads_to_a_heading_or_a_file(path):
    for target, anchor in re.findall(r"\]\((?![a-z]+:)([^)#]*)#?([^)]*)\)", path.read_text("utf-8")):
        document = path.parent / target if target else path
        assert document.exists(), f"there is no {target}"
        assert not anchor or anchor in anchors_of(document), f"{target} has no heading {anchor}"


def test_the_picture_of_the_demo_stands_alone():
    picture = (ROOT / "docs" / "demo.svg").read_text("utf-8")
    assert len(picture) < 60_000
    assert re.findall(r"(?:href|src|url)\b|@import|/tmp/|/home/", picture) == []


@pytest.mark.parametrize("place", BLOCKS)
def test_a_block_runs_unchanged(tmp_path, place):
    program = tmp_path / "program.py"
    program.write_text(BLOCKS[place], "utf-8")
    command, given = [sys.executable, "-W", "error", program], {"cwd": tmp_path, "env": environment(), "timeout": 60}
    for _ in range(2):  # in the second run, the files of the first run exist
        done = subprocess.run(command, capture_output=True, text=True, check=False, **given)
        assert (done.returncode, done.stderr) == (0, "")
