"""`uplift` in a separate process whose standard output and error are recorded, and a network that can fail."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests import programs

from .harness import Api, Server, wait_for
from .receiving import Receiver

PROGRAM = str(Path(sys.executable).with_name("uplift"))
PATH = "/webhook"
"""The path of the local receiver for forwarded events."""


def environment(server: Server, key: str, url: str | None = None) -> dict[str, str]:
    """Return the environment of `uplift`. `HOME` has no profiles."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("UPLIFT_")}
    home = {"HOME": str(server.data), "XDG_CONFIG_HOME": str(server.data), "COLUMNS": "200"}
    return {**inherited, **home, "UPLIFT_API_URL": url or server.url, "UPLIFT_API_KEY": key}


def developer_environment(server: Server, account: str) -> tuple[Api, dict[str, str]]:
    """Create an API key. Return a client that uses the key, and the environment of a developer who has the key."""
    made = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "ana"})
    return server.api(made["key"]), environment(server, made["key"])


def uplift(environ: dict[str, str], *arguments: str, within: float = 30) -> "subprocess.CompletedProcess[str]":
    """Run a command until it exits."""
    return programs.run([PROGRAM, *arguments], directory=Path.cwd(), environ=environ, timeout=within)


@contextmanager
def on_terminal(environ: dict[str, str], *arguments: str) -> Iterator[tuple["subprocess.Popen[bytes]", bytearray]]:
    """Run a command in a terminal of 80 columns during the block. Yield its process, and its output so far."""
    terminal_fd, terminal = pty.openpty()
    shown = bytearray()
    process = subprocess.Popen(
        [PROGRAM, *arguments], env={**environ, "COLUMNS": "80"}, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)

    def read() -> None:
        # On Linux, a read returns EIO after the other side is closed.
        with suppress(OSError):
            while data := os.read(terminal_fd, 65_536):
                shown.extend(data)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield process, shown
    finally:
        process.kill()
        process.wait(10)
        reader.join(5)
        os.close(terminal_fd)


class Listening:
    """A running `uplift listen`."""

    def __init__(self, environ: dict[str, str], *arguments: str) -> None:
        self.out: list[str] = []
        self.err: list[str] = []
        self.process = subprocess.Popen(
            [PROGRAM, "listen", *arguments], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._threads = [
            threading.Thread(target=_drain, args=each, daemon=True)
            for each in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for thread in self._threads:
            thread.start()

    def wait_for_line(self, prefix: str, within: float = 20) -> str:
        """Wait for a status line with this prefix."""
        return wait_for(
            lambda: next((line for line in list(self.err) if line.startswith(prefix)), None),
            f"{prefix!r} in {self.err}",
            within,
        )

    def ready(self) -> "Listening":
        """Wait until it reports that it is ready."""
        self.wait_for_line("Ready")
        return self

    def count(self, prefix: str) -> int:
        """Count the status lines with this prefix."""
        return sum(line.startswith(prefix) for line in list(self.err))

    def printed(self, kind: str) -> list[dict[str, Any]]:
        """Return the printed objects of a kind."""
        found = [json.loads(line) for line in list(self.out)]
        return [each for each in found if each["kind"] == kind]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it. Return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self, within: float = 20) -> int:
        """Wait until it exits. Return its exit code."""
        code = self.process.wait(within)
        for thread in self._threads:
            thread.join(5)
        return code

    def close(self) -> None:
        """End the process, and clean up."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait()


def _drain(stream: Any, lines: list[str]) -> None:
    with stream:
        lines.extend(iter(stream.readline, ""))


class Network:
    """A proxy to a local port that can close, silence or reject connections."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.connections = 0
        """The number of connections so far."""
        self._down = False
        self._silent = threading.Event()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._closing = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close all connections. Reject new ones."""
        self._down = True
        for pair in list(self._pairs):
            for each in pair:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def silence(self) -> None:
        """Forward nothing, and close nothing, like an unplugged cable."""
        self._silent.set()

    def restore(self) -> None:
        """Forward new connections again. Silenced connections stay silent."""
        self._down = False
        self._silent = threading.Event()

    def close(self) -> None:
        """Close all connections, and clean up."""
        self._closing = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while not self._closing:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._down:
                    raise ConnectionError
                far = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self.connections += 1
            threading.Thread(target=self._serve, args=(near, far, self._silent), daemon=True).start()

    def _serve(self, near: socket.socket, far: socket.socket, silent: threading.Event) -> None:
        with near, far:
            self._pairs.add((near, far))
            back = threading.Thread(target=_forward, args=(far, near, silent), daemon=True)
            back.start()
            _forward(near, far, silent)
            back.join()
            self._pairs.discard((near, far))


def _forward(one: socket.socket, other: socket.socket, silent: threading.Event) -> None:
    with suppress(OSError):
        while data := one.recv(65_536):
            if not silent.is_set():
                other.sendall(data)
    for each in (one, other):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def send_batch(server: Server, account: str, numbers: range) -> None:
    """Send numbered events in order."""
    for start in range(numbers.start, numbers.stop, 500):
        events = [
            {"type": "test.numbered", "data": {"number": number}, "account": account}
            for number in range(start, min(start + 500, numbers.stop))
        ]
        server.api().ok("POST", "/v1/events/batch", {"events": events})


def numbers(receiver: Receiver, *, redelivered: bool = False) -> list[int]:
    """Return the numbers of the received events in order: only forwarded duplicates, or only the other events."""
    return [
        request.json["data"]["number"]
        for request in receiver.on(PATH)
        if ("x-uplift-redelivered" in request.headers) is redelivered
    ]
