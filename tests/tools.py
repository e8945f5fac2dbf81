"""Programs that some tests need. `scripts/test` installs most of them on Debian."""

import os
import shutil
from pathlib import Path
from typing import Final, NoReturn

import pytest

LOCAL_TOOLS: Final = Path(__file__).parents[1] / ".tools"
"""The directory of programs that `scripts/test` installs only for this checkout."""
NOT_IN_DEBIAN: Final = frozenset({"dotnet"})


def find(name: str) -> str | None:
    """Return the path of a program, or None."""
    return shutil.which(name) or shutil.which(name, path=str(LOCAL_TOOLS))


def tool(name: str) -> str:
    """Return the path of a program. If it is missing, skip the test, or fail it in CI if Debian packages it."""
    path = find(name)
    if path is None:
        missing(f"{name} is not installed", required=name not in NOT_IN_DEBIAN)
    return path


def missing(reason: str, *, required: bool = True) -> NoReturn:
    """Skip the test, or fail it in CI if the tool is required."""
    if required and os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
