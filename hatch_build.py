"""Build hook: ships supervisor.py a second time, as its own stub.

A `py.typed` marker covers a package and never a single module: without the stub, a user's type
checker would take everything that comes from `supervisor` for Any.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


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
