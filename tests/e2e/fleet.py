"""Several real processes on one PostgreSQL database."""

import base64
import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from .harness import PROGRAM, Api, Server, wait_for
from .receiving import Connection, Received, respond

SECRET_KEY = base64.b64encode(b"k" * 32).decode()
WITH_CLOCK_SKEW = (
    "import sys, time; real = time.time_ns; time.time_ns = lambda: real() + {ms} * 1_000_000;"
    " time.time = lambda: time.time_ns() / 1e9;"
    " sys.argv[0] = {program!r}; from uplift_server.cli.main import run; run()"
)
"""A program that starts a server whose clock is wrong."""


ROLES = ("api", "api", "worker", "worker")


class Fleet(AbstractContextManager["Fleet"]):
    """Processes on one database. The end of the block stops all of them."""

    def __init__(self, folder: Path, url: str, **environ: str) -> None:
        self.url = url
        self._folder = folder
        self._environ = {"UPLIFT_DATABASE_URL": url, "UPLIFT_SECRET_KEY": SECRET_KEY, **environ}
        self.servers: list[Server] = []

    def add(self, role: str, *, skew_ms: int = 0, **environ: str) -> Server:
        """Start another process."""
        server = Server(self._folder, "--role", role, **{**self._environ, **environ})
        if skew_ms:
            server._command = [
                sys.executable, "-c", WITH_CLOCK_SKEW.format(ms=skew_ms, program=PROGRAM), *server._command[1:],
            ]  # fmt: skip
        self.servers.append(server)
        return server.start()

    def add_all(self, *roles: str) -> None:
        """Start several processes concurrently."""
        added = [Server(self._folder, "--role", role, **self._environ) for role in roles]
        self.servers += added
        for server in added:
            server.launch()
        for server in added:
            server.ready()

    def launch(self, role: str, program: str, **environ: str) -> Server:
        """Start another process, and do not wait until it is ready. `program` replaces the command, as Python code."""
        server = Server(self._folder, "--role", role, program=program, **{**self._environ, **environ})
        self.servers.append(server)
        server.launch()
        return server

    @property
    def apis(self) -> list[Server]:
        return [each for each in self.servers if each._command[-1] != "worker"]

    @property
    def workers(self) -> list[Server]:
        return [each for each in self.servers if each._command[-1] != "api"]

    def __exit__(self, *failure: object) -> None:
        for server in self.servers:
            server.end()


@contextlib.contextmanager
def running(folder: Path, url: str, **environ: str) -> Iterator[Fleet]:
    """Run two API servers and two workers."""
    with Fleet(folder, url, **environ) as fleet:
        fleet.add_all(*ROLES)
        yield fleet


def send_all(apis: list[Api], numbers: range, accepted: set[int], threads: int = 4) -> list[threading.Thread]:
    """Start threads that send numbered events through several processes and fill `accepted`. Return the threads."""

    def send(own: range) -> None:
        for number in own:
            while True:
                status = apis[number % len(apis)].send(number, idempotency_key=f"n{number}").status
                if status == 202:
                    accepted.add(number)
                    break
                time.sleep(0.1)

    started = [threading.Thread(target=send, args=(numbers[at::threads],)) for at in range(threads)]
    for each in started:
        each.start()
    return started


class ConcurrencyCounter:
    """Response action that records how many requests are in flight."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self._seconds = seconds
        self._respond = respond()

    def __call__(self, connection: Connection, received: Received) -> bool:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(self._seconds)
        # Decrement before the response, because the next request may arrive immediately after it.
        with self._lock:
            self._now -= 1
        return self._respond(connection, received)


def account_of(fleet: Fleet) -> tuple[str, list[Api]]:
    account, _ = fleet.apis[0].account()
    apis = [server.api(account=account) for server in fleet.apis]
    for api in apis:
        wait_for(lambda api=api: api("GET", "/v1/endpoints").status == 200, "every process knows the account")
    return account, apis


def wait_for_propagation() -> None:
    """Wait until every process has seen a change, which takes at most a second."""
    time.sleep(1)
