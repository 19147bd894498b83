"""The prose of the project is plain English, as far as a list of words can tell."""

import pytest

from tests.package.plain_english import ROOT, findings

TOP = ("supervisor.py", "hatch_build.py", "README.md", "CHANGELOG.md")
FOLDERS = ("actors", "benchmarks", "docs", "examples", "tests")

WITH_EXAMPLES = "tests/package/test_plain_english.py"
"""This file: it holds bad sentences as examples."""


def checked() -> list[str]:
    """Return the names of the files that are checked."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*") if path.suffix in (".py", ".md")]
    names = [*TOP, *sorted(path.relative_to(ROOT).as_posix() for path in found)]
    return [name for name in names if name != WITH_EXAMPLES]


@pytest.mark.parametrize("name", checked())
def test_a_file_is_in_plain_english(name):
    assert list(findings(ROOT / name)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"""Return what it holds."""\n', ["'what'"]),
        ("# Whoever asks is told.\n", ["'Whoever'", "'is told'"]),
        ("def test_what_is_asked(): ...\n", ["'what'"]),
        (f'"""Return {"many " * 20}words."""\n', ["longer than 100 characters"]),
        ("what = 'SELECT what FROM those'\n", []),
    ],
)
def test_the_check_finds_words_and_long_lines_in_prose_only(text, expected, tmp_path):
    path = tmp_path / "module.py"
    path.write_text(text, "utf-8")
    found = list(findings(path))
    assert [line.split(": ")[1] if "'" in line else line.partition(": ")[2] for line in found] == expected
