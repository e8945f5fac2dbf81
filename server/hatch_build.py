"""Build hook: add the documents of `/docs` and the library's wheel of `/packages/simple/` to the server's package."""

import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.builders.wheel import WheelBuilder

DOCUMENTS = ("docs", "receiver/README.md")
"""Files and folders of the repository that the server serves at `/docs`."""
LIBRARY = ("receiver/pyproject.toml", "receiver/src")
"""Files and folders of the repository from which the library's wheel is built, besides its README."""


class RepositoryHook(BuildHookInterface[Any]):
    """Adds files from outside of this project: a wheel gets the results, a source distribution gets the sources.

    An editable installation gets nothing. It reads the files of the checkout.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files before the build of a target."""
        if version == "editable":
            return
        carried = Path(self.root, "repository")
        source = carried if carried.is_dir() else Path(self.root).parent
        added: dict[str, str] = build_data["force_include"]
        if self.target_name == "sdist":
            added.update({str(source / path): f"repository/{path}" for path in (*DOCUMENTS, *LIBRARY)})
            return
        added.update({str(source / path): f"uplift_server/documents/{path}" for path in DOCUMENTS})
        self._scratch = tempfile.TemporaryDirectory()
        for wheel in WheelBuilder(str(source / "receiver")).build(directory=self._scratch.name, versions=["standard"]):
            added[wheel] = f"uplift_server/wheels/{Path(wheel).name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - the interface
        """Remove the library's wheel after it was added."""
        if hasattr(self, "_scratch"):
            self._scratch.cleanup()
