"""Programs that tests build from pinned Go modules, once per checkout."""

import fcntl
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

from tests.tools import LOCAL_TOOLS, missing

MODULES: Final = {
    "helm": ("helm.sh/helm/v4/cmd/helm", "v4.3.1"),
    "kube-score": ("github.com/zegl/kube-score/cmd/kube-score", "v1.20.0"),
}
"""The module and the version of each program. Go checks them with its database of checksums."""
BUILD_SECONDS: Final = 900
"""Time limit of a build. On two idle cores, Helm takes 2 minutes."""
_NO_NETWORK: Final = re.compile(r"no such host|connection refused|i/o timeout|network is unreachable|requires go >=")


@cache
def go_program(name: str) -> str:
    """Return the path of a program. If it cannot be built, skip the test, or fail it in CI."""
    module, version = MODULES[name]
    directory = LOCAL_TOOLS / f"{name}-{version}"
    directory.parent.mkdir(exist_ok=True)
    # Parallel test processes may build it at the same time.
    with (directory.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / name).exists():
            _build(f"{module}@{version}", directory)
    return str(directory / name)


def _build(module: str, directory: Path) -> None:
    if shutil.which("go") is None:
        missing("go is not installed")
    fresh = directory.with_suffix(".new")
    environ = {**os.environ, "GOBIN": str(fresh), "CGO_ENABLED": "0"}
    command = ["go", "install", "-trimpath", "-ldflags=-s -w", module]
    try:
        built = subprocess.run(
            command, env=environ, cwd="/", capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        missing(f"Go did not build {module} within {BUILD_SECONDS} s")
    if built.returncode and (error := _NO_NETWORK.search(built.stderr)):
        missing(f"Go cannot build {module}: {error[0]}")
    assert built.returncode == 0, built.stderr
    fresh.rename(directory)
