"""Five bad mornings, each with a real server, 20 accounts, 202 endpoints and one kind of fault.

All endpoints receive events before the fault, so each endpoint has earlier successes and a known start of its failures.
"""

import asyncio
import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trustme
from tests.e2e.harness import Api, Server, wait_for
from tests.e2e.receiving import Receiver, respond
from tests.sender.hostile_names import BROKEN, HostileNameServer, found

ACCOUNTS: Final = 20
ENDPOINTS: Final = 202
GOOD_EVENTS: Final = 3
BAD_EVENTS: Final = 4
HOT_EVENTS: Final = 400
"""More events than the limited endpoint can receive before the dashboard reports its deliveries as late."""
BREAKER_FAILURES: Final = 3
HOST: Final = "localhost"
"""The host name of receivers with a certificate."""

_DRIVER: Final = Path(__file__).parents[1] / "e2e" / "faulty_driver"
_WITH_NAME_SERVER: Final = """
from uplift_server.delivery.sending.http.resolver import Resolver
Resolver.__init__.__kwdefaults__["nameservers"] = ["{address}"]
from uplift_server.cli.main import run
run()
"""
_ENVIRON: Final = {
    "UPLIFT_BREAKER_FAILURES": str(BREAKER_FAILURES),
    "UPLIFT_BREAKER_PROBE_MAX": "1m",
    "UPLIFT_RETRY_SCHEDULE": "200ms,400ms,1h,1h",
}


class TlsReceiver(Receiver):
    """A receiver with a certificate, which can expire."""

    def __init__(self, authority: trustme.CA) -> None:
        self._authority = authority
        self._context = self._issue(expired=False)
        super().__init__()

    def tls_url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"https://{HOST}:{self.port}{path}"

    def expire(self) -> None:
        """Use an expired certificate for new connections, and close the others."""
        self._context = self._issue(expired=True)
        disconnect(self)

    def _issue(self, *, expired: bool) -> ssl.SSLContext:
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=-1 if expired else 30)
        leaf = self._authority.issue_cert(HOST, not_before=end - datetime.timedelta(days=60), not_after=end)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf.configure_cert(context)
        return context

    def _serve(self, sock: socket.socket, peer: str) -> None:
        try:
            secured = self._context.wrap_socket(sock, server_side=True)
        except OSError:  # The client rejected the certificate.
            sock.close()
            return
        super()._serve(secured, peer)


def disconnect(receiver: Receiver) -> None:
    """Close the connections of a receiver that keeps listening."""
    for sock in list(receiver._connections):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


class NameServer:
    """A name server in a thread. It resolves all names to one address until `fail` is called."""

    def __init__(self, names: list[str]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._transport, self._server = asyncio.run_coroutine_threadsafe(
            self._loop.create_datagram_endpoint(HostileNameServer, local_addr=("127.0.0.1", 0)), self._loop
        ).result(10)
        self.names = names
        self._answer(found("127.0.0.1"))

    @property
    def address(self) -> str:
        """Address and port."""
        return self._server.address

    def fail(self) -> None:
        """Respond to all queries with SERVFAIL."""
        self._answer(BROKEN)

    def close(self) -> None:
        """Stop."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _close(self) -> None:
        self._transport.close()
        await asyncio.sleep(0)  # the transport closes its socket in the next turn of the loop

    def _answer(self, reply: Any) -> None:
        self._server.zone = dict.fromkeys(self.names, (reply,))


@dataclass
class World:
    """A running server with its accounts, endpoints and receivers."""

    server: Server
    apis: list[Api] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)
    endpoints: list[tuple[int, str]] = field(default_factory=list)
    """The index of the account and the ID of each endpoint."""
    broken: list[str] = field(default_factory=list)
    """The IDs of the endpoints that the morning breaks."""
    slow_down: Callable[[], object] = lambda: None
    """Makes deliveries so slow that a page and a recount after it can show the same numbers."""

    def add(self, account: int, url: str, **fields: Any) -> str:
        """Create an endpoint."""
        made: str = self.apis[account].endpoint(url, **fields)["id"]
        self.endpoints.append((account, made))
        return made

    def send(self, account: int, count: int) -> None:
        """Send events to all endpoints of an account."""
        for number in range(count):
            assert self.apis[account].send(number).status == 202

    def health(self) -> dict[str, Any]:
        """Return the health of all endpoints by ID."""
        return {each["id"]: each for each in self.server.api().list_all("/v1/endpoints")}

    def failing(self) -> int:
        """Count the failing endpoints."""
        return sum(each["health"]["failing_since"] is not None for each in self.health().values())

    def pending(self) -> int:
        """Count the pending deliveries."""
        return int(self.server.place.query("SELECT count(*) FROM deliveries WHERE status = 0")[0][0])


@dataclass(frozen=True)
class Expected:
    """The problem that the dashboard must show to an operator."""

    problem: str
    """The code of the problem."""
    severity: str
    cause: str | None
    """The code of the cause."""
    endpoints: int
    """The number of affected endpoints."""
    accounts: int


@dataclass(frozen=True)
class Morning:
    """A bad morning: its name, the expected problem, and the function that builds its world."""

    name: str
    expected: Expected
    build: Callable[[contextlib.ExitStack, Path], World]


def fleet_with_problem(world: World, expected: Expected) -> Any:
    """Wait until the fleet has the expected problem, and return the fleet."""

    def find() -> Any:
        fleet = world.server.api().ok("GET", "/v1/fleet")
        return fleet if expected.problem in {each["code"] for each in fleet["problems"]} else None

    # Deliveries of a limited endpoint are late after a minute.
    return wait_for(find, f"{expected.problem} is shown", 110 if expected.problem == "endpoints_at_limit" else 30, 0.5)


def _accounts(world: World) -> None:
    for number in range(ACCOUNTS):
        account, api = world.server.account(f"Club {number + 1:02}")
        world.accounts.append(account)
        world.apis.append(api)


def _start(stack: contextlib.ExitStack, data: Path, program: str | None = None, **environ: str) -> World:
    data.mkdir(parents=True, exist_ok=True)
    server = Server(data, program=program, **_ENVIRON, **environ)
    stack.callback(server.end)
    world = World(server.start())
    _accounts(world)
    return world


def _receiver(stack: contextlib.ExitStack) -> Receiver:
    receiver = Receiver()
    stack.callback(receiver.close)
    return receiver


def _fill(world: World, url: Callable[[int, int], str], count: int = ENDPOINTS) -> None:
    """Create the remaining endpoints, evenly over the accounts, up to this number in total."""
    while (number := len(world.endpoints)) < count:
        world.add(number % ACCOUNTS, url(number % ACCOUNTS, number))


def _deliver(world: World) -> None:
    """Send events to all endpoints, and wait until the receivers have accepted them."""
    for account in range(ACCOUNTS):
        world.send(account, GOOD_EVENTS)
    wait_for(lambda: not world.pending(), "all good events are delivered", 60, every=0.2)
    wait_for(lambda: all(each["health"]["last_success_at"] for each in world.health().values()), "all are healthy", 30)


def _break(world: World, accounts: Mapping[int, None] | range) -> None:
    """Send events to some accounts, and wait until all broken endpoints are failing."""
    for account in accounts:
        world.send(account, BAD_EVENTS)

    def all_failing() -> bool:
        health = world.health()
        return all(health[each]["health"]["failing_since"] is not None for each in world.broken)

    wait_for(all_failing, "the broken endpoints are failing", 60, every=0.3)


def dead_receiver(stack: contextlib.ExitStack, data: Path) -> World:
    """The server of 7 endpoints of one account is down."""
    world, good, dead = _start(stack, data), _receiver(stack), Receiver()
    world.broken = [world.add(3, dead.url(f"/hooks/{number}")) for number in range(7)]
    _fill(world, lambda account, number: good.url(f"/{account}/{number}"))
    _deliver(world)
    dead.close()
    _break(world, range(3, 4))
    return world


def expired_certificates(stack: contextlib.ExitStack, data: Path) -> World:
    """The certificates of 40 endpoints of 12 accounts expired."""
    authority = trustme.CA()
    data.mkdir(parents=True, exist_ok=True)
    authority.cert_pem.write_to_path(str(data / "authority.pem"))
    world = _start(stack, data, UPLIFT_EGRESS_CA_FILE=str(data / "authority.pem"))
    good, expiring = _receiver(stack), TlsReceiver(authority)
    stack.callback(expiring.close)
    world.broken = [world.add(number % 12, expiring.tls_url(f"/hooks/{number}")) for number in range(40)]
    _fill(world, lambda account, number: good.url(f"/{account}/{number}"))
    _deliver(world)
    expiring.expire()
    _break(world, range(12))
    return world


def dns_broken(stack: contextlib.ExitStack, data: Path) -> World:
    """The name server fails for all endpoints."""
    names = NameServer([f"hooks-{number}.clubs.example" for number in range(ACCOUNTS)])
    stack.callback(names.close)
    receiver = _receiver(stack)
    world = _start(stack, data, _WITH_NAME_SERVER.format(address=names.address))
    _fill(world, lambda account, number: f"http://hooks-{account}.clubs.example:{receiver.port}/{number}")
    world.broken = [endpoint for _, endpoint in world.endpoints]
    _deliver(world)
    names.fail()
    disconnect(receiver)
    # Until their records expire, names still resolve.
    wait_for(lambda: not _resolving(world, receiver), "no name resolves", 30, every=0.5)
    _break(world, range(ACCOUNTS))
    return world


def _resolving(world: World, receiver: Receiver) -> set[int]:
    """Send an event to each account with endpoints that are not failing yet. Return the indexes of these accounts."""
    health = world.health()
    accounts = {account for account, each in world.endpoints if health[each]["health"]["failing_since"] is None}
    for account in accounts:
        world.send(account, 1)
    # The attempts may have opened connections.
    disconnect(receiver)
    return accounts


def hot_endpoint(stack: contextlib.ExitStack, data: Path) -> World:
    """One endpoint is at its limit: it allows one request at a time, and responds after a second."""
    world, good = _start(stack, data), _receiver(stack)
    world.broken = [world.add(5, good.url("/hot"), max_in_flight=1)]
    _fill(world, lambda account, number: good.url(f"/{account}/{number}"))
    _deliver(world)
    good.url("/hot", respond(after=1.0))
    world.send(5, HOT_EVENTS)
    wait_for(lambda: world.pending() <= HOT_EVENTS, "only the limited endpoint has pending deliveries", 30)
    world.slow_down = lambda: good.url("/hot", respond(after=20))
    return world


def slow_database(stack: contextlib.ExitStack, data: Path) -> World:
    """Each commit takes 0.4 s."""
    data.mkdir(parents=True, exist_ok=True)
    fault = data / "fault"
    world = _start(stack, data, PYTHONPATH=str(_DRIVER), DRIVER_FAULT_FILE=str(fault))
    good = _receiver(stack)
    _fill(world, lambda account, number: good.url(f"/{account}/{number}"))
    _deliver(world)
    fault.write_text("slow")
    for account in range(ACCOUNTS):
        world.send(account, 1)
    return world


MORNINGS: Final = (
    Morning("dead-receiver", Expected("endpoints_failing", "attention", "connection_refused", 7, 1), dead_receiver),
    Morning(
        "expired-certificates",
        Expected("endpoints_failing", "critical", "tls_certificate_expired", 40, 12),
        expired_certificates,
    ),
    Morning("dns-broken", Expected("mass_failure", "critical", "dns", ENDPOINTS, ACCOUNTS), dns_broken),
    Morning("hot-endpoint", Expected("endpoints_at_limit", "attention", None, 1, 1), hot_endpoint),
    Morning("slow-database", Expected("database_slow", "attention", None, 0, 0), slow_database),
)


@contextlib.contextmanager
def bad_morning(morning: Morning, data: Path) -> Iterator[World]:
    """Build a morning, and keep it during the block."""
    with contextlib.ExitStack() as stack:
        yield morning.build(stack, data)
