"""The example notebook runs, and shows the outputs that are stored in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"


def shown(notebook):
    """Return the outputs of each cell, as text and as HTML."""
    return [
        [
            ("".join(output.get("text", "")), {kind: "".join(text) for kind, text in output.get("data", {}).items()})
            for output in cell["outputs"]
        ]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def test_the_notebook_shows_again_the_outputs_that_are_stored_in_it(tmp_path):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    ran = subprocess.run(
        [sys.executable, ROOT / "tests" / "support" / "programs" / "notebook.py", NOTEBOOK],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    outputs = shown(json.loads(ran.stdout))
    assert outputs == shown(json.loads(NOTEBOOK.read_text("utf-8")))
    tables = [data["text/html"] for cell in outputs for _, data in cell if "text/html" in data]
    assert len(tables) == 3


def test_the_notebook_holds_no_path_and_no_time_of_a_machine():
    text = NOTEBOOK.read_text("utf-8")
    for place in ("/home", "/root", "/tmp", "/Users", "site-packages", "iopub", str(ROOT)):
        assert place not in text
    assert json.loads(text)["metadata"].keys() == {"kernelspec", "language_info"}
