"""Programs that some tests need. `scripts/test` installs most of them on Debian."""

import os
import shutil
from pathlib import Path
from typing import Final, NoReturn

import pytest

BESIDE: Final = Path(__file__).parents[1] / ".tools"
"""The directory for programs that `scripts/test` does not install system-wide."""
NOT_IN_DEBIAN: Final = frozenset({"dotnet"})


def tool(name: str) -> str:
    """The path of a program. Skips the test if it is missing; in CI, the test fails unless Debian has no package."""
    path = shutil.which(name) or shutil.which(name, path=str(BESIDE))
    if path is None:
        missing(f"{name} is not installed", required=name not in NOT_IN_DEBIAN)
    return path


def missing(what: str, *, required: bool = True) -> NoReturn:
    """Skip the test with the name of the missing tool; in CI, fail it."""
    if required and os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)
