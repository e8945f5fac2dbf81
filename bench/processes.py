"""Starts and stops child processes. With `setpriv` installed, a child process never outlives its parent."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
BIN: Final = Path(sys.executable).parent
_STOP_S: Final = 5.0
# If setpriv is installed, it ends a process with its parent, even after kill -9.
_END_WITH_PARENT: Final = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


def environment() -> dict[str, str]:
    """Return the environment of children, without variables that would change measurements."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("UPLIFT_", "COV_", "COVERAGE_", "PYTEST_"))}
    return kept | {"PYTHONUNBUFFERED": "1"}


def start(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] | None = None,
    niceness: int = 0,
) -> subprocess.Popen[bytes]:
    """Start a child in its own session, so that Ctrl-C reaches only the parent, which then stops the child."""
    nice = ["nice", "-n", str(niceness)] if niceness else []
    return subprocess.Popen(
        [*_END_WITH_PARENT, *nice, *(str(part) for part in command)],
        env=environment() | dict(env or {}),
        cwd=cwd or ROOT,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[Any], timeout_s: float = _STOP_S) -> None:
    """Terminate a process, then kill it."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@contextlib.contextmanager
def running(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process during the block."""
    process = start(command, **options)
    try:
        yield process
    finally:
        stop(process)
