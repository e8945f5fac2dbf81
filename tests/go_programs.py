"""Programs that tests build from pinned Go modules, once per checkout."""

import fcntl
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

from tests.tools import LOCAL_TOOLS, missing

MODULES: Final = {
    "helm": ("helm.sh/helm/v4/cmd/helm", "v4.3.1"),
    "kubeconform": ("github.com/yannh/kubeconform/cmd/kubeconform", "v0.7.0"),
    "kube-score": ("github.com/zegl/kube-score/cmd/kube-score", "v1.20.0"),
}
"""The module and the version of each program. Go verifies them with its checksum database."""
BUILD_SECONDS: Final = 900
"""Time limit of a build. On two idle cores, Helm takes 2 minutes."""


def go_program(name: str) -> str:
    """Return the path of a program. If Go cannot build it, skip the test, or fail it in CI."""
    reason = _build(name)
    if reason is not None:
        missing(reason)
    return str(_directory(name) / name)


def _directory(name: str) -> Path:
    return LOCAL_TOOLS / f"{name}-{MODULES[name][1]}"


@cache
def _build(name: str) -> str | None:
    """Build a program unless it exists. Return the reason for a failure."""
    directory = _directory(name)
    directory.parent.mkdir(exist_ok=True)
    # Parallel test processes must not build the program at the same time.
    with (directory.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (directory / name).exists():
            return None
        if shutil.which("go") is None:
            return "go is not installed"
        fresh = directory.with_suffix(".new")
        environ = {**os.environ, "GOBIN": str(fresh), "CGO_ENABLED": "0"}
        # Disabling optimizations reduces the build time by 30%.
        flags = ("-trimpath", "-gcflags=all=-N -l", "-ldflags=-s -w")
        command = ["go", "install", *flags, "@".join(MODULES[name])]
        try:
            built = subprocess.run(
                command, env=environ, cwd="/", capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"Go did not build {name} within {BUILD_SECONDS} s"
        if built.returncode:
            return f"Go cannot build {name}: {built.stderr[-500:]}"
        fresh.rename(directory)
        return None
