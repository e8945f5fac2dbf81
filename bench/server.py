"""Controls the server under test through its public interfaces only: command, environment variables and HTTP."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Final

from tests import programs

from bench.options import Options
from bench.processes import BIN, environment, start

KEY: Final = "op_bench_0123456789abcdef0123456789abcdef"
READY_WITHIN_S: Final = 120.0
_POLL_S: Final = 0.005
_STOP_S: Final = 5.0


class ServerFailed(Exception):
    """Raised if the server fails or does not respond as expected."""


class Server:
    """`uplift-server serve` with a SQLite file in `directory`. The file survives restarts."""

    def __init__(
        self,
        directory: Path,
        options: Options,
        settings: dict[str, str] | None = None,
        role: str = "all",
    ) -> None:
        self.directory = directory
        self.role = role
        """The value of `--role`: `all`, `api` or `worker`."""
        self.port = free_port()
        self.database = directory / "uplift.db"
        self.log = directory / "server.log"
        self._command = (*options.prefix, options.server or BIN / "uplift-server")
        self._is_forked = options.smoke and options.server is None and not options.prefix
        """Whether the server is a fork of a process that has imported it. Imports take most time of a smoke run."""
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | programs.Program | None = None

    @property
    def settings(self) -> dict[str, str]:
        """Environment variables of the server. Other settings have their defaults."""
        return {
            "UPLIFT_DATABASE_URL": f"sqlite:///{self.database}",
            "UPLIFT_PORT": str(self.port),
            "UPLIFT_OPERATOR_KEY": KEY,
            "UPLIFT_ALLOW_PRIVATE_NETWORKS": "true",
            "UPLIFT_LOG_FORMAT": "json",
        } | self._settings

    @property
    def _serve(self) -> list[str | Path]:
        # Older builds have no roles.
        return [*self._command, "serve", *(() if self.role == "all" else ("--role", self.role))]

    @property
    def pid(self) -> int:
        """The process ID of the parent of all processes of the server."""
        assert self._process is not None, "the server runs"
        return self._process.pid

    def start(self) -> float:
        """Start the server, wait until it is ready, and return the elapsed seconds."""
        began = time.monotonic()
        with self.log.open("ab") as log:
            if self._is_forked:
                command, environ = [str(part) for part in self._serve], environment() | self.settings
                self._process = programs.start_in_session(
                    command, directory=self.directory, environ=environ, output=log
                )
            else:
                self._process = start(self._serve, env=self.settings, cwd=self.directory, stdout=log, stderr=log)
        while time.monotonic() < began + READY_WITHIN_S:
            if self._process.poll() is not None:
                raise ServerFailed(f"the server exited with code {self._process.returncode}:\n{self.last_lines()}")
            if self._ready():
                return time.monotonic() - began
            time.sleep(_POLL_S)
        raise ServerFailed(f"the server was not ready within {READY_WITHIN_S:g} s:\n{self.last_lines()}")

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """Stop the server with SIGTERM, or kill it after some seconds."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
            self._process = None
        self.kill()

    def kill(self) -> None:
        """Kill all processes of the server."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def last_lines(self, count: int = 12) -> str:
        """Return the end of the log."""
        lines = self.log.read_bytes()[-8192:].decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-count:])

    def warnings(self) -> list[str]:
        """Return the log lines above `info`. A run without problems has none."""
        return [
            line
            for line in self.log.read_text("utf-8", "replace").splitlines()
            if '"level":"warning"' in line.replace(" ", "") or '"level":"error"' in line.replace(" ", "")
        ]

    def add_endpoints(self, urls: list[str]) -> list[str]:
        """Create accounts with one endpoint for each URL. Return the account IDs in order."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        accounts = []
        try:
            for number, url in enumerate(urls):
                account = _post(connection, "/v1/accounts", {"name": f"Bench {number}", "contact_emails": []})["id"]
                _post(connection, "/v1/endpoints", {"url": url}, account)
                accounts.append(account)
        finally:
            connection.close()
        return accounts

    def text(self, path: str) -> str:
        """Send a GET request with the operator key, and return the response body. Raises ServerFailed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers={"authorization": f"Bearer {KEY}"})
            answer = connection.getresponse()
            body = answer.read().decode()
        finally:
            connection.close()
        if answer.status != 200:
            raise ServerFailed(f"GET {path} returned {answer.status}: {body[:500]}")
        return body

    def call(self, method: str, path: str, value: object = None, account: str = "") -> dict[str, Any]:
        """Return the response to an API call, optionally for an account. Raises ServerFailed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        if account:
            headers["uplift-account"] = account
        try:
            connection.request(method, path, None if value is None else json.dumps(value), headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            raise ServerFailed(f"{method} {path} returned {answer.status}: {body.decode('utf-8', 'replace')[:500]}")
        found: dict[str, Any] = json.loads(body)
        return found


def _post(connection: http.client.HTTPConnection, path: str, value: object, account: str = "") -> dict[str, Any]:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    if account:
        headers["uplift-account"] = account
    connection.request("POST", path, json.dumps(value), headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 201:
        raise ServerFailed(f"POST {path} returned {answer.status}: {body.decode('utf-8', 'replace')[:500]}")
    found: dict[str, Any] = json.loads(body)
    return found


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
