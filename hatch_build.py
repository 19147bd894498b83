"""Build hooks: supervisor.py is shipped a second time, as its own stub, and the README without relative links.

A `py.typed` marker covers a package and never a single module: without the stub, a user's type
checker would take everything that comes from `supervisor` for Any.
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
    """Makes the long description of the README, in which a link to a file beside it leads nowhere."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the readme, with the text of each relative link in its place."""
        text = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": _RELATIVE_LINK.sub(r"\1", text)}


class StubHook(BuildHookInterface):  # type: ignore[misc, type-arg]
    """Adds `supervisor-stubs/__init__.pyi` to the wheel (PEP 561)."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Copy the module, since hatchling moves a file that it includes by force, and include the copy."""
        del version
        self._folder = tempfile.TemporaryDirectory()
        copy = shutil.copy(Path(self.root) / "supervisor.py", self._folder.name)
        build_data["force_include"][str(copy)] = "supervisor-stubs/__init__.pyi"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the copy."""
        del version, build_data, artifact_path
        self._folder.cleanup()
