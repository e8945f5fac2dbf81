"""A server on a real socket with its own database, and HTTP clients for it."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
import urllib3
import uvicorn
from tests.caches import endpoint_cache
from tests.engines import Engine, Place
from tests.rejected_events import rejected_event

from uplift_server.api.app import create_api
from uplift_server.api.guard import ANSWER_SECONDS_MAX
from uplift_server.core import ids
from uplift_server.core.cursors import Cursors
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.endpoint_settings import AttemptTimeouts
from uplift_server.core.events import envelope
from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.lifecycle import FailedReason, Status
from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.delivery.clock import SystemClock
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.health.outage_guard import Outage
from uplift_server.delivery.listening.audience import Audience, NoAnnouncer
from uplift_server.delivery.listening.relay import Relay
from uplift_server.delivery.scheduling.lanes import Load
from uplift_server.delivery.sending.commands import LocalCommands
from uplift_server.delivery.sending.test_deliveries import Busy
from uplift_server.delivery.shards import LocalShards
from uplift_server.observe.counters import EngineCounters
from uplift_server.service.context import ServiceContext
from uplift_server.service.dashboard_links import DashboardLinks
from uplift_server.service.engine_link import EngineLink
from uplift_server.service.metrics import MetricsSettings
from uplift_server.service.services import Services
from uplift_server.service.startup import ProcessKey, prepare
from uplift_server.store import rejected_events
from uplift_server.store.contract import Database
from uplift_server.store.encryption import Cipher
from uplift_server.store.hot_records import AttemptRow, LeasedDelivery, LeaseRequest, NewDelivery, NewEvent, Settlement
from uplift_server.store.processes import Process
from uplift_server.store.records import Endpoint, EndpointState
from uplift_server.store.replays import Replay

from .documented import undocumented

T = TypeVar("T")
METRICS_TOKEN = "metrics-token-of-tests"
PROCESS_KEY = ProcessKey(1, process_id=1)


@dataclass
class Response:
    """A response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The parsed JSON body."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error response."""
        assert self.headers["content-type"] == "application/problem+json", self.body
        assert self.json["status"] == self.status
        return str(self.json["code"])

    @property
    def problems(self) -> set[tuple[str, str]]:
        """The field and the code of each problem."""
        assert self.code == "validation_failed", self.body
        assert all(each["message"] for each in self.json["errors"])
        return {(each["field"], each["code"]) for each in self.json["errors"]}


@dataclass
class Client:
    """An HTTP client with one API key."""

    pool: urllib3.HTTPConnectionPool
    key: str | None
    account: str | None = None

    def call(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str) -> Response:
        """Send a request with a JSON `body` or with `raw` bytes."""
        sent_headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key is not None:
            sent_headers.setdefault("authorization", f"Bearer {self.key}")
        if self.account is not None:
            sent_headers.setdefault("uplift-account", self.account)
        if body is not None:
            raw = json.dumps(body).encode()
        if raw is not None:
            sent_headers.setdefault("content-type", "application/json")
        response = self.pool.request(method, path, body=raw, headers=sent_headers, redirect=False, retries=False)
        found = Response(response.status, {k.lower(): v for k, v in response.headers.items()}, response.data)
        gap = undocumented(method, path, found.status, found.headers, found.body)
        assert gap is None, gap
        return found

    def get(self, path: str, **headers: str) -> Response:
        """Send a GET request."""
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Response:
        """Send a POST request."""
        return self.call("POST", path, body, **headers)

    def patch(self, path: str, body: Any, **headers: str) -> Response:
        """Send a PATCH request."""
        return self.call("PATCH", path, body, **headers)

    def put(self, path: str, body: Any, **headers: str) -> Response:
        """Send a PUT request."""
        return self.call("PUT", path, body, **headers)

    def delete(self, path: str, **headers: str) -> Response:
        """Send a DELETE request."""
        return self.call("DELETE", path, **headers)


@dataclass
class Server:
    """A running server with its services, and helpers that act as the engine."""

    pool: urllib3.HTTPConnectionPool
    loop: asyncio.AbstractEventLoop
    services: Services
    place: Place
    database: Database
    operator_key: str
    resolved_names: dict[str, list[str]]
    due: list[int] = field(default_factory=list)
    deleted_endpoints: list[int] = field(default_factory=list)

    def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine in the event loop of the server, and return its result."""

        async def run() -> T:
            return await call()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def client(self, key: str | None, account: str | None = None) -> Client:
        """Return a client with a key."""
        return Client(self.pool, key, account)

    @property
    def operator(self) -> Client:
        """A client with the operator key."""
        return self.client(self.operator_key)

    def account(self, name: str = "Riverside") -> str:
        """Create an account, and return its ID."""
        return str(self.operator.post("/v1/accounts", {"name": name}).json["id"])

    def owner(self, account: str, scopes: list[str] | None = None) -> Client:
        """Create a key of an account, and return a client with it."""
        body = {"name": "test"} if scopes is None else {"name": "test", "scopes": scopes}
        return self.client(self.operator.post(f"/v1/accounts/{account}/keys", body).json["key"])

    def event(
        self,
        account: str,
        endpoints: Mapping[str, Status] | None = None,
        *,
        type_name: str = "movement.analytics.created",
        created_at: int | None = None,
        event_id: bytes | None = None,
        expires_at: int | None = None,
        idempotency_key: str | None = None,
        object_id: str | None = None,
        data: bytes = b'{"object":{"n":1.0}}',
        order_group: int | None = None,
    ) -> str:
        """Store an event with a delivery in the given status for each endpoint, and return its ID."""
        cache = self.services.context.cache
        account_seq = cache.accounts_by_id[parse(ids.ACCOUNT, account)].seq
        now = self.services.context.now() if created_at is None else created_at
        number = event_id or self.services.context.new_id()
        body = envelope.build(ids.uuid_text(number), type_name, "01/01/2022", now, data)
        deliveries = [
            NewDelivery(cache.endpoints_by_id[parse(ids.ENDPOINT, endpoint)].seq, status, now, order_group=order_group)
            for endpoint, status in (endpoints or {}).items()
        ]
        type_seq = cache.event_types[type_name].seq
        event = NewEvent(
            number, account_seq, type_seq, now, expires_at, body, deliveries, idempotency_key, data=data,
            object_id=object_id,
        )  # fmt: skip
        self.run(lambda: self.database.append([[event]]))
        return ids.uuid_text(number)

    def reject(self, account: str | None, **fields: Any) -> str:
        """Store a rejected event of an account, or of an unknown account if `account` is None. Return its ID."""
        found = None if account is None else self.services.context.cache.find_account(account)
        rejected = rejected_event(found and found.seq, at=self.services.context.now(), **fields)
        self.run(lambda: self.database.write(lambda c: rejected_events.add(c, rejected)))
        return ids.prefixed(ids.REJECTED_EVENT, rejected.id)

    def lease(self, endpoint: str) -> list[Any]:
        """Lease the due deliveries of an endpoint."""
        seq = self.services.context.cache.endpoints_by_id[parse(ids.ENDPOINT, endpoint)].seq
        now = self.services.context.now()

        return self.run(
            lambda: self.database.lease_due(
                [LeaseRequest(seq, 100)], now=now, lease_until=now + 30_000, process_id=1, body_bytes_max=1 << 20
            )
        )

    def settle(self, leased: Any, outcome: Outcome, status: Status, due_at: int | None = None) -> None:
        """Settle a leased delivery after one more attempt."""
        settlement = self.settlement(leased, outcome, status, due_at)
        self.run(lambda: self.database.settle([settlement]))

    def settlement(self, leased: Any, outcome: Outcome, status: Status, due_at: int | None = None) -> Settlement:
        """Return the settlement of a leased delivery after one more attempt."""
        now = self.services.context.now()
        row = AttemptRow(
            leased.event_seq, leased.endpoint_seq, leased.attempts_made + 1, leased.trigger, now, 12_345, None, 1, 2, 3,
            None if outcome is Outcome.TIMEOUT else 200 if outcome is Outcome.DELIVERED else 500, outcome,
            None, None, "192.0.2.1:443",
            b"POST / HTTP/1.1\r\nhost: a\r\nX-Twice: 1\r\nx-twice: 2\r\n\r\n",
            b"" if outcome is Outcome.TIMEOUT else b"HTTP/1.1 500 Oops\r\nServer: nginx\r\n\r\n", b"oh no \xff", True,
        )  # fmt: skip
        reason = FailedReason.EXHAUSTED if status is Status.FAILED else None
        done = None if status is Status.PENDING else now

        return Settlement(
            leased.event_seq, leased.endpoint_seq, leased.fence, status, due_at, leased.attempts_made + 1, 1, outcome,
            reason, done, row,
        )  # fmt: skip


def parse(prefix: str, text: str) -> bytes:
    """Return the bytes of an ID."""
    value = ids.parse_prefixed(prefix, text)
    assert value is not None
    return value


@pytest.fixture(scope="module")
def server(
    request: pytest.FixtureRequest, engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Start a server for one module. Each test creates its own accounts.

    A module can set ANSWER_SECONDS_MAX, the time limit of responses.
    """
    seconds_max = getattr(request.module, "ANSWER_SECONDS_MAX", ANSWER_SECONDS_MAX)
    folder = tmp_path_factory.mktemp("server")
    place = engine.place(folder)
    ready: list[Any] = []
    started, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(place, seconds_max, ready, started, stop)), daemon=True)
    thread.start()
    assert started.wait(10)
    port, loop, services, database, key, resolved_names, due, deleted_endpoints = ready
    pool = urllib3.HTTPConnectionPool("127.0.0.1", port, timeout=60, maxsize=8)
    yield Server(pool, loop, services, place, database, key, resolved_names, due, deleted_endpoints)
    pool.close()
    stop.set()
    thread.join(10)
    engine.clear(folder)


@dataclass
class RecordingEngine:
    """An engine that only records the calls of the services."""

    due: list[int]
    deleted_endpoints: list[int]
    relay: Relay
    resent: list[LeasedDelivery] = field(default_factory=list)
    replays: list[Replay] = field(default_factory=list)
    state_changes: list[tuple[str, int]] = field(default_factory=list)
    waiting: list[LeasedDelivery] = field(default_factory=list)
    """Deliveries that wait in memory."""
    released: list[LeasedDelivery] = field(default_factory=list)
    current_outage: Outage | None = None
    """The current mass failure."""
    probes: dict[int, int] = field(default_factory=dict)
    """The time of the next probe of each endpoint with an open circuit breaker (Unix ms)."""
    owned_by_others: set[int] = field(default_factory=set)
    """Numbers of endpoints that another process owns."""
    owner = 1
    holding: set[int] = field(default_factory=set)
    """Numbers of endpoints for which `finish_holding` returns False: not all pending deliveries are held yet."""
    hold_requests: list[tuple[int, list[tuple[str, int]]]] = field(default_factory=list)
    """Calls of `finish_holding`: the endpoint, and the latest state change before the call, if any."""
    counters: EngineCounters = field(default_factory=EngineCounters)
    delay_causes: dict[int, HeldUpBy] = field(default_factory=dict)
    """The cause of late deliveries, by endpoint. For all other endpoints, the cause is `HeldUpBy.SERVER`."""
    heartbeat_age: int | None = None
    """The age in ms of the last heartbeat of the process."""
    live_processes: list[Process] | None = None
    """The processes that use the database, or None if the database supports only one process."""
    busy: Busy | None = None
    """The reason why the engine rejects tests, or None if it accepts them."""
    sent_tests: list[LeasedDelivery] = field(default_factory=list)
    abandoned: list[int] = field(default_factory=list)
    on_test: Callable[[LeasedDelivery], Awaitable[None]] | None = None
    """A function that settles the delivery of a test, or None if no test finishes in time."""

    def processes(self) -> list[Process] | None:
        return self.live_processes

    def heartbeat_age_ms(self) -> int | None:
        return self.heartbeat_age

    def note_due(self, endpoint_seq: int) -> None:
        self.due.append(endpoint_seq)

    def deleted(self, endpoint_seq: int) -> None:
        self.deleted_endpoints.append(endpoint_seq)

    async def finish_holding(self, endpoint_seq: int, within_ms: int) -> bool:
        self.hold_requests.append((endpoint_seq, self.state_changes[-1:]))
        return endpoint_seq not in self.holding

    def apply(self, record: Endpoint) -> None:
        live = self.relay.cache.endpoints.get(record.seq)
        before = record if live is None else live.record
        self.relay.cache.put_endpoint(record)
        if before.state_since != record.state_since:
            change = "on" if record.state is EndpointState.ENABLED else "off"
            self.state_changes.append((change, record.seq))
        elif (before.held_action, before.held_through) != (record.held_action, record.held_through):
            self.state_changes.append(("held", record.seq))

    def wake(self) -> None:
        """Do nothing: in tests of the API, no job executes erasures."""

    def link(self) -> EngineLink:
        """Return an engine link whose calls are recorded here."""
        parts: Any = self
        return EngineLink(self.relay, self.counters, parts, self.commands, parts, parts, parts)

    def owns(self, endpoint_seq: int) -> bool:
        return endpoint_seq not in self.owned_by_others

    @property
    def commands(self) -> LocalCommands:
        """The real commands. They use this engine's deliveries in memory."""
        database, cache, clock = self.relay.database, self.relay.cache, self.relay.clock
        memory: Any = self
        shards = LocalShards()
        return LocalCommands(database, cache, shards, memory, memory, memory, clock, self.counters, lease_ms=30_000)

    def withdraw(self, endpoint_seq: int, event_seq: int) -> LeasedDelivery | None:
        for delivery in self.waiting:
            if (delivery.event_seq, delivery.endpoint_seq) == (event_seq, endpoint_seq):
                self.waiting.remove(delivery)
                return delivery
        return None

    def release_lease(self, delivery: LeasedDelivery) -> None:
        self.released.append(delivery)

    def of(self, endpoint: LiveEndpoint) -> int:
        return endpoint.seq

    def start_now(self, lane: int, delivery: LeasedDelivery) -> bool:
        self.resent.append(delivery)
        return True

    def take_slot(self, endpoint_seq: int) -> Busy | None:
        return self.busy

    def abandon(self, endpoint_seq: int) -> None:
        self.abandoned.append(endpoint_seq)

    def send(self, delivery: LeasedDelivery) -> None:
        self.sent_tests.append(delivery)

    async def wait(self, endpoint_seq: int, within_ms: int) -> None:
        assert within_ms < ANSWER_SECONDS_MAX * 1000
        if self.on_test is None:
            await asyncio.sleep(within_ms / 1000)
        else:
            await self.on_test(self.sent_tests[-1])

    def put(self, replay: Replay) -> None:
        self.replays.append(replay)

    def waiting_events(self, endpoint_seq: int) -> set[int] | None:
        if endpoint_seq in self.owned_by_others:
            return None
        return {each.event_seq for each in self.waiting if each.endpoint_seq == endpoint_seq}

    def next_probe_at(self, endpoint_seq: int) -> int | None:
        return self.probes.get(endpoint_seq)

    def disable_at(self, endpoint_seq: int) -> int | None:
        return None

    def load(self) -> Load:
        return Load(3, 1000, len(self.waiting), self.probes, stopped=False)

    own_load = load

    def sends(self) -> bool:
        return True

    def in_flight_max_of(self, endpoint: LiveEndpoint) -> int:
        return endpoint.record.settings.max_in_flight or 16

    def held_up_by(self, endpoint_seq: int) -> HeldUpBy:
        return self.delay_causes.get(endpoint_seq, HeldUpBy.SERVER)

    @property
    def outage(self) -> Outage | None:
        return self.current_outage

    def warn_at(self, endpoint_seq: int) -> int | None:
        return None


async def _serve(
    place: Place, answer_seconds_max: float, ready: list[Any], started: threading.Event, stop: threading.Event
) -> None:
    place.prepare()
    database = place.database()
    await database.open()
    due: list[int] = []
    deleted_endpoints: list[int] = []
    resolved_names: dict[str, list[str]] = {}
    cipher = Cipher(bytes(32))
    memory_cache, clock = endpoint_cache(cipher), SystemClock()
    relay = Relay(database, memory_cache, Audience(), NoAnnouncer(), clock)
    context = ServiceContext(
        database,
        memory_cache,
        clock,
        RecordingEngine(due, deleted_endpoints, relay).link(),
        Cursors(bytes(32)),
    )
    key = await prepare(context, PROCESS_KEY, None)

    async def resolve(host: str) -> list[str]:
        if host == "hangs.example.com":
            await asyncio.sleep(60)
        return resolved_names[host]

    services = Services.build(
        context,
        cipher=cipher,
        policy=AddressPolicy(allow_private_networks=False),
        resolve=resolve,
        source_ips=["54.245.28.22", "192.0.2.7@2999-01-01T00:00:00Z", "192.0.2.8@2020-01-01T00:00:00Z"],
        listen_key=bytes(32),
        erasure_key=bytes(32),
        links=DashboardLinks(bytes(32), "https://hooks.example.com", sends_email=True),
        timeouts=AttemptTimeouts(15_000, 30_000),
        metrics=MetricsSettings(METRICS_TOKEN, place.file),
    )
    api = create_api(services, answer_seconds_max=answer_seconds_max)
    config = uvicorn.Config(api, port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    ready.extend((port, asyncio.get_running_loop(), services, database, key, resolved_names, due, deleted_endpoints))
    started.set()
    while not stop.is_set():
        await asyncio.sleep(0.02)
    server.should_exit = True
    await task
    await context.finish()
    await database.close()
