"""A real server process on its own port. Tests can kill it and restart it on the same data."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from tests import engines, programs
from tests.engines import PostgresPlace
from tests.ports import free_port
from tests.programs import Program

T = TypeVar("T")

PROGRAM = str(Path(sys.executable).with_name("uplift-server"))
AUTHORITY = Path(__file__).parent.with_name("authority.pem")
OPERATOR_KEY = "op_end-to-end-tests-know-this-one"
READY_WITHIN_S = 60
TYPE = "test.numbered"
"""An event type without a schema, created with the first account."""


def wait_for(condition: Callable[[], T], what: str, within: float = 20, every: float | None = None) -> T:
    """Poll until the condition holds, and return its value. Fail with `what` after a timeout.

    Without `every`, the pauses grow from 20 ms to 0.2 s: most conditions send a request, which takes CPU time.
    """
    deadline = time.monotonic() + within
    pause = every or 0.02
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(pause)
        pause = every or min(1.2 * pause, 0.2)


@dataclass
class ApiResponse:
    """A response of the API, and its duration."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


class Api:
    """Calls the HTTP API with one key. If the connection is refused, the response has the status 0."""

    def __init__(self, url: str, key: str, account: str | None = None) -> None:
        self._url = url
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        if account is not None:
            self._headers["uplift-account"] = account
        self._http = urllib3.PoolManager(
            maxsize=64, retries=False, timeout=urllib3.Timeout(connect=5, read=15), block=False
        )

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> ApiResponse:
        """Send one request without retries."""
        began = time.monotonic()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            got = self._http.request(method, self._url + path, body=content, headers={**self._headers, **named})
        except urllib3.exceptions.HTTPError as error:
            return ApiResponse(0, {}, str(error).encode(), time.monotonic() - began)
        return ApiResponse(got.status, got.headers, got.data, time.monotonic() - began)

    def ok(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send a request that must succeed. Return its JSON."""
        response = self(method, path, body, **headers)
        assert 200 <= response.status < 300, (method, path, response)
        return response.json if response.body else None

    def close(self) -> None:
        """Close all connections."""
        self._http.clear()

    def send(self, number: int, **fields: Any) -> ApiResponse:
        """Send an event with a number."""
        return self("POST", "/v1/events", {"type": TYPE, "data": {"number": number}, **fields})

    def endpoint(self, url: str, **fields: Any) -> Any:
        """Create an endpoint."""
        return self.ok("POST", "/v1/endpoints", {"url": url, **fields})

    def list_all(self, path: str) -> list[Any]:
        """Return all items of a list."""
        found: list[Any] = []
        cursor = ""
        separator = "&" if "?" in path else "?"
        while True:
            page = self.ok("GET", f"{path}{separator}limit=500{cursor}")
            found += page["data"]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"


class Server:
    """A process of `uplift-server serve` with its data directory."""

    def __init__(self, data: Path, *arguments: str, program: str | None = None, **environ: str) -> None:
        """`program` is Python code that replaces the command."""
        self.data = data
        elsewhere = environ.get("UPLIFT_DATABASE_URL")
        self.place = engines.chosen().place(data) if elsewhere is None else PostgresPlace(elsewhere, elsewhere)
        """The location of its database."""
        command = [PROGRAM] if program is None else [sys.executable, "-c", program]
        self._command = [*command, "serve", "--json", *arguments]
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | Program | None = None
        self.log: list[str] = []
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("UPLIFT_")}
        self.environ = {
            **inherited,
            **self.place.environ,
            "UPLIFT_PORT": str(self.port),
            "UPLIFT_OPERATOR_KEY": OPERATOR_KEY,
            "UPLIFT_ALLOW_PRIVATE_NETWORKS": "true",
            "UPLIFT_EGRESS_CA_FILE": str(AUTHORITY),
            "UPLIFT_LOG_FORMAT": "none",
            "UPLIFT_RETRY_SCHEDULE": "300ms,300ms,300ms,300ms",
            **environ,
        }
        self._readers: list[threading.Thread] = []
        self._apis: list[Api] = []

    @property
    def pid(self) -> int:
        """The process ID."""
        assert self.process is not None
        return self.process.pid

    def launch(self) -> None:
        """Start the process, and do not wait until it is ready."""
        if self._command[0] == PROGRAM and programs.can_start(self.environ):
            self.process = programs.start(self._command, directory=self.data, environ=self.environ)
        else:
            self.process = subprocess.Popen(
                self._command,
                cwd=self.data,
                env=self.environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        reader = threading.Thread(target=self._drain, args=(self.process,), daemon=True)
        reader.start()
        self._readers.append(reader)

    def start(self) -> "Server":
        """Start the process, and wait until it is ready."""
        self.launch()
        return self.ready()

    def ready(self) -> "Server":
        """Wait until it is ready."""
        wait_for(self._ready, f"the server is ready: {self.log}", READY_WITHIN_S)
        return self

    def kill(self) -> None:
        """Send `kill -9`."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> None:
        """Send SIGTERM, and do not wait for the exit."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Stop it. Return its exit code."""
        assert self.process is not None
        self.terminate()
        code = self.process.wait(25)
        for reader in self._readers:
            reader.join(5)
        return code

    def end(self) -> None:
        """End the process if it is running, and clean up."""
        for api in self._apis:
            api.close()
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
        for reader in self._readers:
            reader.join(5)
        print("".join(self.log))  # pytest shows this output if the test fails

    def run(self, *arguments: str, text: str = "", **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run an `uplift-server` command with the settings of this server until the command exits."""
        command = [PROGRAM, *arguments]
        return programs.run(command, directory=self.data, environ=self.environ | environ, text=text)

    def api(self, key: str = OPERATOR_KEY, account: str | None = None) -> Api:
        """Return a client. Without a key, it uses the operator key."""
        api = Api(self.url, key, account)
        self._apis.append(api)
        return api

    def account(self, name: str = "Rapids Academy") -> tuple[str, Api]:
        """Create an account. Return its ID, and an operator's client for the account."""
        self.api().ok("PUT", f"/v1/event-types/{TYPE}", {"description": "Has a number."})
        made = self.api().ok("POST", "/v1/accounts", {"name": name, "contact_emails": ["data@rapids.example"]})
        return made["id"], self.api(account=made["id"])

    def resident_mib(self) -> float:
        """Return its resident memory in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.log}"
        try:
            return urllib3.request("GET", self.url + "/readyz", retries=False, timeout=5).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def _drain(self, process: "subprocess.Popen[str] | Program") -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            self.log.extend(lines)


@contextlib.contextmanager
def serving(data: Path, **environ: str) -> Iterator[Server]:
    """Run a server during the block."""
    data.mkdir(parents=True, exist_ok=True)
    server = Server(data, **environ)
    try:
        yield server.start()
    finally:
        server.end()


@contextlib.contextmanager
def sending(api: Api) -> Iterator[list[int]]:
    """Send events during the block. Yield a list, which contains the numbers of the events accepted so far."""
    accepted: list[int] = []
    enough = threading.Event()

    def send() -> None:
        number = 0
        # Limit the rate: at full speed, the backlog would delay commands and the start of the next server.
        while not enough.wait(0.005):
            if api.send(number).status == 202:
                accepted.append(number)
            number += 1

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield accepted
    finally:
        enough.set()
        sender.join(10)


def settled(api: Api, delivery: str, within: float = 20) -> Any:
    """Wait until the delivery is completed, and return it."""

    def completed() -> Any:
        found = api.ok("GET", f"/v1/deliveries/{delivery}")
        return found if found["status"] not in {"pending", "held"} else None

    return wait_for(completed, f"delivery {delivery} is completed", within)


def deliveries_of(api: Api, event: str) -> list[Any]:
    """Return the deliveries of an event."""
    found: list[Any] = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
    return found
