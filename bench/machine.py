"""Describes the machine and the versions of its software, for the results of benchmarks."""

import os
import platform
import sqlite3
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

from bench.processes import ROOT


@cache
def machine() -> dict[str, str]:
    """Return the processor, memory and kernel."""
    info = Path("/proc/cpuinfo").read_text()
    names = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
    }


def filesystem(path: Path) -> str:
    """Return the file system type of a path."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, found, *_ = line.split()
        inside = path == Path(point) or Path(point) in path.parents
        if inside and len(point) > len(best):
            best, kind = point, found
    return kind


@cache
def versions() -> dict[str, str]:
    """Return the versions of the software."""
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "uvloop": version("uvloop"),
        "httptools": version("httptools"),
        "uvicorn": version("uvicorn"),
        "uplift": revision(),
    }


def revision() -> str:
    """Return the git revision, with `+` after it if there are uncommitted changes."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--", "server", "receiver") else "")
    except (OSError, subprocess.CalledProcessError):
        return version("uplift-webhooks-server")


def now() -> str:
    """Return the current UTC time as ISO 8601, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.strip()
