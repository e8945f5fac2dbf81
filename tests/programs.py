"""Starts `uplift-server` in processes that do not import it again.

The import takes most of the time of a start. Therefore, the first start also starts a process that imports the program
and forks a child for each start. The child runs the function that the installed command runs.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

TEMPLATE = Path(__file__).with_name("program_template.py")


class Program:
    """A started process, with the methods of `subprocess.Popen` that the tests use."""

    def __init__(self, report: socket.socket, output: int) -> None:
        self._report = report
        self.pid = int(report.recv(64))
        self.returncode: int | None = None
        self.stdout: IO[str] = os.fdopen(output, encoding="utf-8", errors="replace")

    def poll(self) -> int | None:
        """Return the exit code, or None if the process is running."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            ready, _, _ = select.select([self._report], [], [], timeout)
            if not ready:
                assert timeout is not None
                raise subprocess.TimeoutExpired("uplift-server", timeout)
            with self._report:
                self.returncode = int(self._report.recv(64))
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal if the process is running."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process."""
        self.send_signal(signal.SIGKILL)


@cache
def _template() -> socket.socket:
    """Start the process that imports the program. It exits when the returned socket closes."""
    requests, own = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with own:
        process = subprocess.Popen(
            # -P: do not import modules from this directory.
            [sys.executable, "-P", str(TEMPLATE), str(own.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[own.fileno()],
        )

    def end() -> None:
        requests.close()
        process.wait()

    atexit.register(end)
    return requests


def can_start(environ: Mapping[str, str]) -> bool:
    """Return whether `start` supports an environment: only its settings may differ from the environment of the tests.

    Other variables may take effect when an interpreter starts. Coverage does not measure forks.
    """
    if "COVERAGE_PROCESS_CONFIG" in environ or "COVERAGE_PROCESS_START" in environ:
        return False
    return _without_settings(environ) == _without_settings(os.environ)


def _without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith("UPLIFT_")}


def start(command: Sequence[str], *, directory: Path, environ: Mapping[str, str]) -> Program:
    """Start the program with its command line. Its output and its errors share one pipe."""
    request = {"command": list(command), "directory": str(directory), "environ": dict(environ)}
    output, output_writer = os.pipe()
    report, report_writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with report_writer:
        try:
            socket.send_fds(_template(), [json.dumps(request).encode()], [output_writer, report_writer.fileno()])
        finally:
            os.close(output_writer)
    return Program(report, output)
