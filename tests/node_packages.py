"""Public npm packages for tests, pinned by a lock file and installed once per checkout."""

import fcntl
import hashlib
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

INSTALLED = Path(__file__).parents[1] / ".tools"
INSTALL_SECONDS = 60
_NO_NETWORK = re.compile(r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH)\b")


@cache
def installed(lock_file: Path) -> Path | str:
    """Install the packages of a `package-lock.json`, and return their directory or the reason for a failure."""
    if shutil.which("npm") is None:
        return "npm is not installed"
    target = INSTALLED / f"node-{hashlib.sha256(lock_file.read_bytes()).hexdigest()[:12]}"
    target.parent.mkdir(exist_ok=True)
    # Parallel test processes must not install the packages at the same time.
    with (target.parent / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return target / "node_modules" if target.exists() else _install(lock_file, target)


def _install(lock_file: Path, target: Path) -> Path | str:
    fresh = target.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(lock_file.with_name(name), fresh)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=15000"]
    try:
        result = subprocess.run(
            command, cwd=fresh, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"the npm registry did not respond within {INSTALL_SECONDS} s"
    if result.returncode and (error := _NO_NETWORK.search(result.stderr)):
        return f"the npm registry does not respond: {error[0]}"
    assert result.returncode == 0, result.stderr
    fresh.rename(target)
    return target / "node_modules"
