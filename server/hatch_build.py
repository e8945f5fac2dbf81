"""Puts the documents that the server serves at `/docs` into what is built.

In the repository they stand once, where people look for them: outside of this project.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

DOCUMENTS = ("docs", "receiver/README.md")
"""Folders and files of the repository."""


class DocumentsHook(BuildHookInterface[Any]):
    """A wheel has them in the package, a source distribution beside it.

    An installation for development has none: it reads the checkout's.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a build of that version of a target."""
        if version == "editable":
            return
        carried = Path(self.root, "documents")
        source = carried if carried.is_dir() else Path(self.root).parent
        target = "uplift_server/documents" if self.target_name == "wheel" else "documents"
        for path in DOCUMENTS:
            build_data["force_include"][str(source / path)] = f"{target}/{path}"
