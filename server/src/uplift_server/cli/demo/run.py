"""Runs the demo: starts a server and its receivers, sends events, and waits until all events are verified."""

import asyncio
import os
import secrets
import signal
import socket
import time
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count, cycle
from pathlib import Path
from typing import Any, Final, TypeVar

from uplift_server.app import Application
from uplift_server.cli.advice import ADVICE
from uplift_server.cli.demo.receiver import DOWN, SHAKY, STEADY, Arrival, Receivers
from uplift_server.cli.demo.screen import Screen
from uplift_server.cli.demo.tally import Summary, Tally
from uplift_server.cli.reach import new_operator_key
from uplift_server.config import Config, load
from uplift_server.core.events.samples import sample_data
from uplift_server.core.ids import RANDOM_BYTES, uuid7, uuid_text
from uplift_server.observe.logs import configure_logs
from uplift_webhooks.cli.kit.calls import Calls

RETRY_SCHEDULE: Final = "1s,2s,5s,15s,1m,5m,10m"
"""The retry schedule of the demo's server.

The first retries occur within seconds. The last retries occur after the outage of the receiver `down` has ended.
"""
PROBE_MAX: Final = "30s"
"""Longest interval between probes of an unavailable receiver, short enough to detect its recovery soon."""
ACCOUNT: Final = "Rapids Academy"
DESCRIPTIONS: Final = {
    STEADY: "Responds immediately",
    SHAKY: "Fails at first",
    DOWN: "Fails for minutes at a time",
}
TIMEOUT_SECONDS: Final = 30.0
"""How long, in seconds, the demo waits for unfinished deliveries after it has sent the last event."""
STOP_TIMEOUT_SECONDS: Final = 8.0
"""How long, in seconds, the demo waits for unfinished deliveries after Ctrl-C."""
SETTLING_SECONDS: Final = 5.0
# Most events are `movement.analytics.created`.
EVENT_TYPES: Final = (
    "movement.analytics.created",
    "movement.analytics.created",
    "athlete.created",
    "movement.analytics.created",
    "capture.processing.failed",
    "movement.analytics.created",
    "athlete.updated",
    "movement.analytics.created",
    "export.completed",
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """Options of a demo run. A run without `events` continues until Ctrl-C."""

    directory: Path
    events: int | None
    rate_per_second: float
    port: int


def demo_config(plan: Plan) -> Config:
    """Return the settings of the demo server. They do not depend on the environment."""
    return load(
        {
            "UPLIFT_DATABASE_URL": f"sqlite:///{plan.directory.absolute()}/uplift.db",
            "UPLIFT_PORT": str(plan.port),
            "UPLIFT_ALLOW_PRIVATE_NETWORKS": "true",
            "UPLIFT_RETRY_SCHEDULE": RETRY_SCHEDULE,
            "UPLIFT_BREAKER_PROBE_MAX": PROBE_MAX,
            # Disable the log, because the demo prints each attempt when a receiver gets the request.
            "UPLIFT_LOG_FORMAT": "none",
        }
    )


def free_port(wanted: int) -> int:
    """Return the requested port if it is free. Otherwise, return 0, which selects any free port."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted


class Demo:
    """A run of the demo: its server, receivers and counts."""

    def __init__(self, plan: Plan, screen: Screen) -> None:
        self.plan = plan
        self._screen = screen
        self._tally = Tally()
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        # A run with a fixed number of events ends when all events have arrived, so omit the receiver that is down.
        self._names = (STEADY, SHAKY, DOWN) if plan.events is None else (STEADY, SHAKY)
        self._counted: list[str] = []
        # The API client blocks, so it runs in a thread. A single thread keeps the order of events.
        self._pool = ThreadPoolExecutor(1, "demo-client")

    async def run(self) -> Summary:
        """Run the demo and return a summary. Raises the server's startup errors."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupted)
        tokens = {name: f"whsec_{b64encode(os.urandom(32)).decode()}" for name in self._names}
        receivers = Receivers(tokens, self._arrived)
        operator_key = new_operator_key()
        config = demo_config(self.plan)
        configure_logs(config.log_format)
        application = Application(config, operator_key=operator_key)
        await receivers.start()
        try:
            await application.start()
            try:
                return await self._with_client(receivers, tokens, application.address[1], operator_key)
            finally:
                await application.stop()
        finally:
            await receivers.stop()

    async def _with_client(self, receivers: Receivers, tokens: dict[str, str], port: int, operator_key: str) -> Summary:
        client = Calls(f"http://127.0.0.1:{port}", operator_key, ADVICE)
        try:
            account = await self._call(lambda: self._prepare(client, receivers, tokens))
            return await self._flow(client, account)
        finally:
            receivers.remove_links()
            await self._call(client.close)
            self._pool.shutdown(wait=False)

    def _interrupted(self) -> None:
        self._stop.set()

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _prepare(self, client: Calls, receivers: Receivers, tokens: dict[str, str]) -> str:
        """Create an account with its endpoints, and print how to use the demo. Return the account's ID."""
        account = _account(client)
        key = client.post(f"/v1/accounts/{account}/keys", {"name": "demo"})["key"]
        # Print this before the endpoints exist, because their registration events arrive immediately.
        self._screen.say(f"The server is running at {client.api_url}. Its data is in {self.plan.directory}", "bold")
        urls = [receivers.url(name) for name in self._names]
        self._screen.say(f"Account {account} has {len(urls)} endpoints: {', '.join(urls[:-1])} and {urls[-1]}")
        owner = {"email": "data@rapids.example", "role": "owner"}
        self._screen.links(
            receivers.add_link("owner", lambda: self._new_url(client, f"/v1/accounts/{account}/portal-links", owner)),
            receivers.add_link("operator", lambda: self._new_url(client, "/v1/sign-in-links")),
        )
        if self.plan.events is None:
            self._screen.say("Call the API from another terminal. To stop the demo, press Ctrl-C:")
            for path in ("deliveries?limit=5", "deliveries?status=pending", "endpoints", "event-types"):
                self._screen.say(f"  curl -H 'Authorization: Bearer {key}' '{client.api_url}/v1/{path}'")
        self._screen.say("")
        self._screen.heading()
        for name in self._names:
            endpoint: dict[str, Any] = {
                "url": receivers.url(name),
                "description": DESCRIPTIONS[name],
                "secret": tokens[name],
            }
            if name == DOWN:
                endpoint["event_types"] = ["movement.analytics.created"]
            made = client.post("/v1/endpoints", endpoint, account=account)
            if name != DOWN:
                self._counted.append(made["id"])
        return account

    async def _new_url(self, client: Calls, path: str, body: dict[str, Any] | None = None) -> str:
        return str((await self._call(lambda: client.post(path, body)))["url"])

    async def _flow(self, client: Calls, account: str) -> Summary:
        began = time.perf_counter()
        await self._send(client, account)
        timeout = STOP_TIMEOUT_SECONDS if self._stop.is_set() else TIMEOUT_SECONDS
        await self._settled(time.perf_counter() + timeout)
        seconds = time.perf_counter() - began
        unfinished = await self._unfinished(client, account)
        return self._tally.summary(unfinished=unfinished, seconds=seconds, planned=self.plan.events)

    async def _send(self, client: Calls, account: str) -> None:
        began = time.perf_counter()
        types = cycle(EVENT_TYPES)
        for number in count() if self.plan.events is None else range(self.plan.events):
            await self._pause(began + number / self.plan.rate_per_second)
            if self._stop.is_set():
                return
            name = next(types)
            now_ms = time.time_ns() // 1_000_000
            # Set the ID here, because an event can arrive before the API responds.
            event = uuid_text(uuid7(now_ms, secrets.token_bytes(RANDOM_BYTES)))
            data = sample_data(name, now_ms, secrets.token_bytes(RANDOM_BYTES))
            self._tally.handed_over(event, time.perf_counter())
            body: dict[str, Any] = {"type": name, "id": event, "data": data}
            await self._call(partial(client.post, "/v1/events", body, account=account))

    async def _pause(self, until: float) -> None:
        """Wait until the demo stops or `time.perf_counter()` reaches `until`."""
        wait = until - time.perf_counter()
        if wait > 0:
            try:
                await asyncio.wait_for(self._stop.wait(), wait)
            except TimeoutError:
                return

    async def _settled(self, until: float) -> None:
        """Wait until the receivers have accepted every event or `time.perf_counter()` reaches `until`."""
        while self._tally.outstanding() and (left := until - time.perf_counter()) > 0:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                return

    async def _unfinished(self, client: Calls, account: str) -> int:
        """Return the number of this run's deliveries whose status is not `delivered`.

        Wait up to SETTLING_SECONDS for the server to store the last outcomes.
        """
        until = time.perf_counter() + SETTLING_SECONDS
        while True:
            unfinished = await self._call(lambda: _not_delivered(client, account, self._counted))
            if not unfinished or self._tally.outstanding() or time.perf_counter() > until:
                return unfinished
            await asyncio.sleep(0.05)

    def _arrived(self, arrival: Arrival) -> None:
        self._tally.arrived(arrival)
        latency = self._tally.latency_ms(arrival)
        self._screen.arrival(arrival, latency)
        self._screen.delivered(self._tally.delivered(STEADY) + self._tally.delivered(SHAKY))
        self._changed.set()


def _account(client: Calls) -> str:
    """Return the demo's account. Delete the endpoints of earlier runs, because their receivers no longer exist."""
    for account in client.items("/v1/accounts", limit=100):
        if account["name"] == ACCOUNT:
            found = str(account["id"])
            for endpoint in client.items("/v1/endpoints", limit=100, account=found):
                if endpoint["description"] in DESCRIPTIONS.values():
                    client.delete(f"/v1/endpoints/{endpoint['id']}", account=found)
            return found
    return str(client.post("/v1/accounts", {"name": ACCOUNT, "contact_emails": ["data@rapids.example"]})["id"])


def _not_delivered(client: Calls, account: str, endpoints: list[str]) -> int:
    return sum(
        1
        for endpoint in endpoints
        for status in ("pending", "failed", "held", "cancelled")
        for _ in client.items("/v1/deliveries", limit=1000, account=account, endpoint=endpoint, status=status)
    )
