"""Public npm packages for tests: pinned by a lock file, and installed once per checkout."""

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
    """Return the `node_modules` directory of a `package-lock.json`, or the reason why there is none."""
    if shutil.which("npm") is None:
        return "npm is not on this machine"
    home = INSTALLED / f"node-{hashlib.sha256(lock_file.read_bytes()).hexdigest()[:12]}"
    home.parent.mkdir(exist_ok=True)
    # Parallel test processes may install it at the same time.
    with (home.parent / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return home / "node_modules" if home.exists() else _install(lock_file, home)


def _install(lock_file: Path, home: Path) -> Path | str:
    fresh = home.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(lock_file.with_name(name), fresh)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=15000"]
    try:
        done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"the npm registry did not answer within {INSTALL_SECONDS} s"
    if done.returncode and (error := _NO_NETWORK.search(done.stderr)):
        return f"the npm registry does not answer: {error[0]}"
    assert done.returncode == 0, done.stderr
    fresh.rename(home)
    return home / "node_modules"
