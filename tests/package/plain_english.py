"""Check for plain English: a list of pronouns and idioms to avoid, and the longest line of prose.

    python tests/package/plain_english.py [FILE …]

Prints each place, and exits with 1 if there is any. `test_plain_english.py` calls it for the
whole project.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 100
"""Characters in a line of prose."""

WORDS = re.compile(
    r"""\b(?:
    who(?:m)?ever | whatever | whichever | what | that\ which | those\ (?:that|which|who|of) | ones?\ that
    | (?:is|are|was|were|be|been|being)\ told | (?:is|are|was|were)\ to\ be | has\ to\ be | have\ to\ be | shall
    | of\ late | as\ ever | the\ asking | for\ nobody | nobody\ else | anybody | somebody(?:'s)? | at\ one\ go
    | worth\ the\ while | (?:make|makes|made|making)\ good | (?:turn|turns|turned)\ out | all\ the\ same
    | be\ rid\ of | has\ (?:just|but)\ one | let\ go\ of\ all | so\ many\ at\ most | no\ matter
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)
_SQL = re.compile(r"\b(?:SELECT|INSERT|UPDATE|DELETE|CREATE|PRAGMA|WITH RECURSIVE|BEGIN|ATTACH)\b")
_MARKDOWN_CODE = re.compile(r"`[^`]*`")


def prose_of_python(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line of a comment, a docstring or a sentence in a string, with its number.

    The list of words is a string of this file. It is not a sentence.
    """
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not re.match(r"#\s*(?:noqa|type:|!|pragma)", token.string):
            yield token.start[0], re.sub(r"#\s*(?:noqa|type:)[^#]*", "", token.string)
    tree = ast.parse(text)
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            is_the_list = node.value == WORDS.pattern
            is_sentence = len(node.value.split()) > 3 and not _SQL.search(node.value) and not is_the_list
            if id(node) in docstrings or is_sentence:
                for number, line in enumerate(node.value.split("\n")):
                    yield node.lineno + number, line
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")


def long_lines_of_python(text: str) -> Iterator[int]:
    """Yield the numbers of the lines of comments and docstrings that are too long."""
    lines = text.splitlines()
    prose = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not lines[token.start[0] - 1][: token.start[1]].strip():
            prose.add(token.start[0])
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            prose.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    for number in sorted(prose):
        if len(lines[number - 1]) > LONGEST and "://" not in lines[number - 1]:
            yield number


def prose_of_markdown(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line outside of code blocks, with its number and without inline code."""
    in_code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code:
            yield number, _MARKDOWN_CODE.sub("", line)


def long_lines_of_markdown(text: str) -> Iterator[int]:
    """Yield the numbers of the lines that are too long. Tables and links cannot be broken."""
    in_code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif len(line) > LONGEST and not in_code and not line.startswith("|") and "](" not in line:
            yield number


def findings(path: Path) -> Iterator[str]:
    """Yield each place in a file that the check refuses."""
    text = path.read_text("utf-8")
    is_python = path.suffix == ".py"
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    for number, line in prose_of_python(text) if is_python else prose_of_markdown(text):
        for found in WORDS.finditer(line):
            yield f"{name}:{number}: {found.group()!r}: {line.strip()[:90]}"
    for number in long_lines_of_python(text) if is_python else long_lines_of_markdown(text):
        yield f"{name}:{number}: longer than {LONGEST} characters"


def files() -> list[Path]:
    """Return the files of the project that contain prose.

    Without the test of this check, which holds bad sentences as examples.
    """
    command = ["git", "-C", str(ROOT), "ls-files", "*.py", "*.md"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return [ROOT / name for name in listed if not name.endswith("/test_plain_english.py")]


if __name__ == "__main__":
    told = [line for path in (list(map(Path, sys.argv[1:])) or files()) for line in findings(path.resolve())]
    sys.stdout.write("".join(f"{line}\n" for line in told))
    sys.exit(bool(told))
