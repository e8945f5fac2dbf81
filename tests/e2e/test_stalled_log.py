"""The log reader stalls: requests and deliveries continue, the server can stop, and dropped lines are counted."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import Server, wait_for
from .receiving import Receiver, respond

QUEUE_LINES = 60
SMALL_QUEUE = (
    "from uplift_server.observe import log_writer\n"
    f"log_writer.LINES_WAITING_MAX = {QUEUE_LINES}\n"
    "from uplift_server.cli.main import run\n"
    "run()"
)


class Stalled(Server):
    """A server whose log is a full pipe. With `output_too`, standard output is the same pipe."""

    def __init__(self, data: Path, *, output_too: bool, program: str | None = None) -> None:
        super().__init__(data, UPLIFT_LOG_FORMAT="json")
        if program is not None:
            self._command = [sys.executable, "-c", program, "serve", "--json"]
        self._output_too = output_too
        self._pipe, self._end = os.pipe()
        # A separate file description, so that the server's end stays in blocking mode.
        filler = os.open(f"/proc/self/fd/{self._end}", os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(filler, b"\n" * 4096)
        os.close(filler)

    def launch(self) -> None:
        output = self._end if self._output_too else subprocess.DEVNULL
        self.process = subprocess.Popen(
            self._command, cwd=self.data, env=self.environ, stdout=output, stderr=self._end, text=True
        )
        os.close(self._end)

    def read(self) -> None:
        """Start to read the pipe."""
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        self._readers.append(reader)

    def _read(self) -> None:
        with os.fdopen(self._pipe, encoding="utf-8") as lines:
            self.log.extend(line for line in lines if line != "\n")

    def garbage(self) -> None:
        """Send a malformed request, for which the HTTP library logs a warning."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as caller:
            caller.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
            caller.settimeout(10)
            assert caller.recv(100).startswith(b"HTTP/1.1 400")


@contextlib.contextmanager
def stalled(data: Path, *, output_too: bool, program: str | None = None) -> Iterator[Stalled]:
    data.mkdir()
    server = Stalled(data, output_too=output_too, program=program)
    try:
        server.start()
        yield server
    finally:
        server.end()


@pytest.mark.parametrize("output_too", [False, True], ids=["log", "log and output"])
def test_a_stalled_log_reader_does_not_stop_the_server(tmp_path: Path, receiver: Receiver, output_too: bool) -> None:
    with stalled(tmp_path / "data", output_too=output_too) as server:
        _, api = server.account()
        api.endpoint(receiver.url("/hook"))
        api.endpoint(receiver.url("/broken", respond(500)))
        server.garbage()
        for number in range(20):
            assert api.send(number).status == 202
        server.garbage()
        receiver.wait("/hook", 20)
        assert api("GET", "/healthz").status == 200
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10


def test_dropped_lines_are_counted_and_reported(tmp_path: Path, receiver: Receiver) -> None:
    with stalled(tmp_path / "data", output_too=False, program=SMALL_QUEUE) as server:
        _, api = server.account()
        api.endpoint(receiver.url("/hook"))
        for number in range(3 * QUEUE_LINES):
            assert api.send(number).status == 202
        receiver.wait("/hook", 3 * QUEUE_LINES)
        dropped = wait_for(lambda: _dropped(server), "log lines are dropped")
        server.read()
        notice = wait_for(
            lambda: [each for each in _lines(server) if each["message"] == "log lines dropped"],
            "the dropped lines are logged",
        )
        assert notice[0]["count"] >= dropped
        assert api.send(1000).status == 202
        receiver.wait("/hook", 3 * QUEUE_LINES + 1)
        assert server.stop() == 0
        lines = _lines(server)
        attempts = [each for each in lines if each["message"] == "attempt"]
        assert attempts[-1]["at"] >= notice[0]["at"]
        assert len(attempts) + sum(each["count"] for each in lines if each["message"] == "log lines dropped") >= (
            3 * QUEUE_LINES + 1
        )


def test_a_crash_still_reaches_standard_error(tmp_path: Path) -> None:
    program = (
        "from uplift_server.app import Application\n"
        "async def broken(self): raise KeyError('a defect')\n"
        "Application.wait_stopped = broken\n"
        "from uplift_server.cli.main import run\n"
        "run()"
    )
    server = Server(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-c", program, "serve", "--debug"],
        cwd=tmp_path,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "a defect" in ended.stderr
    assert "ready at" in ended.stdout


def _lines(server: Server) -> list[dict[str, object]]:
    return [json.loads(each) for each in server.log if each.startswith("{")]


def _dropped(server: Server) -> float:
    text = server.api()("GET", "/metrics").body.decode()
    [value] = [each.split()[1] for each in text.splitlines() if each.startswith("uplift_log_lines_dropped_total ")]
    return float(value)
