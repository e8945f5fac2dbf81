"""Starts `uplift-server` and `uplift` in processes that do not import them again.

The import takes most of the time of a start. Therefore, the first start also starts a process that imports both
programs and forks a child for each start. The child runs the function that the installed command runs.
"""

import atexit
import contextlib
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

TEMPLATE: Final = Path(__file__).with_name("program_template.py")
_NOT_COMPARED: Final = ("UPLIFT_", "PYTEST_", "HOME", "XDG_CONFIG_HOME", "COLUMNS")
"""Prefixes of the environment variables that take effect only after the fork, or not at all in the program."""


class Program:
    """A started process, with the methods of `subprocess.Popen` that the tests use."""

    stdout: IO[str]
    """Its output and its errors, if `start` started it."""

    def __init__(self, command: Sequence[str], report: socket.socket) -> None:
        self._command = command
        self._report = report
        self.returncode: int | None = None
        try:
            self.pid = int(report.recv(64))
        except (OSError, ValueError):
            report.close()
            raise

    def poll(self) -> int | None:
        """Return the exit code, or None if the process is running."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            ready = select.poll()
            ready.register(self._report, select.POLLIN)
            if not ready.poll(None if timeout is None else math.ceil(timeout * 1000)):
                assert timeout is not None
                raise subprocess.TimeoutExpired(self._command, timeout)
            with self._report:
                code = self._report.recv(64)
            if not code:
                # The template has ended and cannot report the exit, so kill the process.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            self.returncode = int(code or -signal.SIGKILL)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal if the process is running."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process."""
        self.send_signal(signal.SIGKILL)


class _Template:
    """The process that imports the programs. It exits when its socket closes."""

    def __init__(self) -> None:
        self.environ = _compared(os.environ)
        self.requests, own = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with own:
            self._process = subprocess.Popen(
                # -P: do not import modules from this directory.
                [sys.executable, "-P", str(TEMPLATE), str(own.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[own.fileno()],
            )
        atexit.register(self.end)

    def is_running(self) -> bool:
        """Return whether the process can fork children."""
        return self._process.poll() is None

    def end(self) -> None:
        """End the process."""
        self.requests.close()
        self._process.wait()


_templates: Final[list[_Template]] = []


def _template() -> _Template:
    """Return the template of this test process. Start one if none is running."""
    if not _templates or not _templates[-1].is_running():
        _templates.append(_Template())
    return _templates[-1]


def _compared(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith(_NOT_COMPARED)}


def can_start(environ: Mapping[str, str]) -> bool:
    """Return whether `start` supports an environment.

    Only the settings in it may differ from the environment in which the programs were imported, because other variables
    may take effect when an interpreter starts. Runs with coverage are not supported: forks are not measured.
    """
    if "COVERAGE_PROCESS_CONFIG" in environ or "COVERAGE_PROCESS_START" in environ:
        return False
    return _compared(environ) == _template().environ


def start(command: Sequence[str], *, directory: Path, environ: Mapping[str, str]) -> Program:
    """Start a program with its command line. Its output and its errors share one pipe."""
    output, output_writer = os.pipe()
    with Path(os.devnull).open("rb") as nothing:
        try:
            program = _fork(command, directory, environ, [nothing.fileno(), output_writer, output_writer])
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(output_writer)
    program.stdout = os.fdopen(output, encoding="utf-8", errors="replace")
    return program


def start_in_session(
    command: Sequence[str], *, directory: Path, environ: Mapping[str, str], output: IO[bytes]
) -> Program:
    """Start a program in its own session. Its output and its errors go to the same file."""
    with Path(os.devnull).open("rb") as nothing:
        streams = [nothing.fileno(), output.fileno(), output.fileno()]
        return _fork(command, directory, environ, streams, has_own_session=True)


def run(
    command: Sequence[str], *, directory: Path, environ: Mapping[str, str], text: str = "", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a program with `text` as its input until it exits. After the timeout, kill it and raise TimeoutExpired."""
    if not can_start(environ):
        return subprocess.run(
            command,
            cwd=directory,
            env=environ,
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    with contextlib.ExitStack() as files:
        streams = [files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in range(3)]
        given, output, errors = streams
        given.write(text)
        given.seek(0)
        program = _fork(command, directory, environ, [each.fileno() for each in streams])
        try:
            code = program.wait(timeout)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
            raise
        finally:
            for each in (output, errors):
                each.seek(0)
            shown = output.read(), errors.read()
            print(*shown)  # pytest shows this output if the test fails
        return subprocess.CompletedProcess(command, code, *shown)


def _fork(
    command: Sequence[str],
    directory: Path,
    environ: Mapping[str, str],
    streams: Sequence[int],
    *,
    has_own_session: bool = False,
) -> Program:
    """Start a program with these file descriptors as its input, output and errors."""
    request = {
        "command": list(command), "directory": str(directory), "environ": dict(environ),
        "has_own_session": has_own_session,
    }  # fmt: skip
    report, report_writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with report_writer:
        try:
            socket.send_fds(_template().requests, [json.dumps(request).encode()], [*streams, report_writer.fileno()])
        except OSError:
            report.close()
            raise
    return Program(command, report)
