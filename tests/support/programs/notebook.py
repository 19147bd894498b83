"""Run the notebook of the first argument in this folder, and print it with its new outputs."""

import os
import sys

import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
for cell in notebook.cells:
    if cell.cell_type == "code":
        cell.outputs = []
NotebookClient(notebook, timeout=60, resources={"metadata": {"path": os.getcwd()}}).execute()
sys.stdout.write(nbformat.writes(notebook))
