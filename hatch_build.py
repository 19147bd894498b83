"""Build hooks: a stub for supervisor.py, and a README without relative links.

The wheel has supervisor.py a second time, as its own stub. A `py.typed` marker covers a package and
never a single module. Without the stub, a type checker would take each name of `supervisor` for
`Any`.
"""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE_LINK = re.compile(r"!?\[([^\]]*)\]\((?![a-z]+:|#)[^)]*\)")


class ReadmeHook(MetadataHookInterface):
    """Makes the long description from the README. A package index has no files beside it."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the readme, and replace each relative link by its text."""
        text = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": _RELATIVE_LINK.sub(r"\1", text)}


class StubHook(BuildHookInterface):  # type: ignore[misc, type-arg]
    """Adds `supervisor-stubs/__init__.pyi` to the wheel (PEP 561)."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Include a copy of the module, since hatchling moves a file that it includes by force."""
        del version
        self._folder = tempfile.TemporaryDirectory()
        copy = shutil.copy(Path(self.root) / "supervisor.py", self._folder.name)
        build_data["force_include"][str(copy)] = "supervisor-stubs/__init__.pyi"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the copy."""
        del version, build_data, artifact_path
        self._folder.cleanup()
