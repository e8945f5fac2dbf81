"""No URL, name, redirect or proxy makes the server send a SYN to a forbidden address.

An audit hook sees every `connect` of this process, and sockets listen at forbidden addresses.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from uplift_server.core.deliveries.outcomes import classify, is_own_fault
from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.http.urls import parse_endpoint_url
from uplift_server.core.problems import Problem
from uplift_server.delivery.sending.http import Target
from uplift_server.delivery.targets import to_ascii
from uplift_server.service.registration import UrlChecker

from .hostile import BLOCKED, CASES, GOOD, INSIDE, LOST, REACHED, BenchPolicy, Case
from .hostile_names import HostileNameServer, found
from .scripted import OK, Client, Connect, Listen, Peer, Receiver, serve_ok, until

_connects: list[Any] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _connects is not None:
        _connects.append(arguments[1])


# An audit hook cannot be removed. It records nothing outside these tests.
sys.addaudithook(_audit)


@pytest.fixture
def connects() -> Iterator[list[Any]]:
    """Return the list to which the audit hook adds the address of each `connect` call."""
    global _connects  # noqa: PLW0603 - the hook has no access to the test
    _connects = recorded = []
    yield recorded
    _connects = None


@pytest.fixture
async def hostile() -> AsyncIterator[HostileNameServer]:
    """Start a hostile name server."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(HostileNameServer, local_addr=("127.0.0.1", 0))
    yield server
    transport.close()
    await asyncio.sleep(0)


class Bench:
    """A receiver at GOOD, sockets with the same port at every forbidden address, and a sender."""

    def __init__(
        self, good: Receiver, inside: list[Receiver], names: HostileNameServer, authority: str, connect: Connect
    ) -> None:
        self.authority = authority
        self.good = good
        self.inside = inside
        self.names = names
        self._connect = connect

    async def client(self, policy: AddressPolicy | None = None, **settings: Any) -> Client:
        """Create a sender that uses the hostile name server and the shortest cache times."""
        settings = {"dns_ttl_ms_min": 0, "dns_negative_ttl_ms": 0} | settings
        # Loading the system's certificate authorities takes longer than the rest of a case.
        settings["ca_file"] = self.authority
        chosen = policy or BenchPolicy(False)
        return await self._connect(policy=chosen, nameservers=[self.names.address], **settings)

    async def advance_replies(self, client: Client) -> None:
        """Switch the name server to its next replies, and clear the cache of the client."""
        self.names.reply_index = 1
        channel, client.resolver._channel = client.resolver._channel, None
        if channel is not None:
            await channel.close()

    def forbidden_connections(self) -> int:
        """Return the number of connections to forbidden addresses."""
        return sum(receiver.accepted for receiver in self.inside)


Script = Callable[[Peer], Awaitable[None]]
CreateBench = Callable[..., Awaitable[Bench]]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of a CA file. The CA has issued no certificate."""
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
async def make_bench(listen: Listen, connect: Connect, hostile: HostileNameServer, authority: str) -> CreateBench:
    """Return a function that creates a bench whose receiver runs a script."""

    async def create(script: Script = serve_ok) -> Bench:
        while True:
            good = await listen(script, GOOD)
            # The port may be in use at one of the other addresses.
            with suppress(OSError):
                inside = [await listen(serve_ok, address, port=good.port) for address in INSIDE]
                return Bench(good, inside, hostile, authority, connect)

    return create


class AllowAll(BenchPolicy):
    """A policy that allows everything."""

    __slots__ = ()

    def check(self, address: str, *, encrypted: bool) -> str | None:
        return None


def target_of(case: Case, port: int) -> Target:
    """Return the target of a case without any check. If the server rejects the URL, the standard library parses it."""
    text = case.url_at(port)
    url = parse_endpoint_url(text, AllowAll(True), to_ascii=to_ascii)
    if not isinstance(url, Problem):
        return Target(url.host, port, url.encrypted and url.is_literal)
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    # Even an endpoint that bypassed registration must not lead to a forbidden address.
    return Target(host or text.partition("://")[2].split("/")[0], port, True)


def check(case: Case, exchange: Exchange) -> None:
    """Check that an attempt ended as the case expects."""
    if case.sent == REACHED:
        assert exchange.failure is None, exchange.error
    elif case.sent == BLOCKED:
        assert exchange.failure is Failure.BLOCKED, exchange.error
        assert classify(exchange).text == "blocked"
        assert is_own_fault(exchange)
        assert "are not allowed" in (exchange.error or "")
    else:
        assert case.sent == LOST
        assert exchange.failure is not None
    if case.sent != REACHED:
        assert (exchange.remote_address, exchange.bytes_sent) == (None, False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_registration_and_connection_reject_hostile_addresses(
    make_bench: CreateBench, connects: list[Any], case: Case
) -> None:
    bench = await make_bench()
    bench.names.zone = case.zone
    client = await bench.client(BenchPolicy(case.private), dns_timeout_ms=case.dns_timeout_ms)
    registrar = UrlChecker(BenchPolicy(case.private), client.resolver.resolve)

    problem = await registrar.check(case.url_at(bench.good.port))
    assert (problem and problem.code) == case.registered
    if problem is not None:
        assert problem.field == "url"
        # The message contains the cause and the fix as separate sentences.
        assert len(problem.message.removesuffix(".").split(". ")) >= 2
    assert connects == []
    await bench.advance_replies(client)

    check(case, await client.post(target_of(case, bench.good.port)))
    assert {address[0] for address in connects} == ({GOOD} if case.sent == REACHED else set())
    assert bench.forbidden_connections() == 0
    assert bench.good.accepted == (case.sent == REACHED)


@pytest.mark.parametrize("case", [case for case in CASES if case.zone], ids=lambda case: case.name)
async def test_a_proxy_gets_no_hostile_addresses(
    make_bench: CreateBench, listen: Listen, connects: list[Any], case: Case
) -> None:
    """The proxy gets only checked addresses, and no names."""
    heads = []

    async def tunnel(peer: Peer) -> None:
        heads.append((await peer.request()).split(b"\r\n"))
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await serve_ok(peer)

    proxy = await listen(tunnel)
    bench = await make_bench()
    bench.names.zone = case.zone
    client = await bench.client(
        BenchPolicy(case.private),
        dns_timeout_ms=case.dns_timeout_ms,
        egress_proxy=f"http://user:pw@127.0.0.1:{proxy.port}",
    )
    # Registration uses the first DNS response. Later responses may differ.
    await UrlChecker(BenchPolicy(case.private), client.resolver.resolve).check(case.url_at(bench.good.port))
    await bench.advance_replies(client)
    exchange = await client.post(target_of(case, bench.good.port))

    check(case, exchange)
    place = f"{GOOD}:{bench.good.port}".encode()
    expected = [[b"CONNECT " + place + b" HTTP/1.1", b"Host: " + place]] if case.sent == REACHED else []
    assert [head[:2] for head in heads] == expected
    assert set(connects) <= {("127.0.0.1", proxy.port)}
    assert bench.forbidden_connections() == 0


def test_the_cases_are_numerous_and_unique() -> None:
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)
    attacks = {(case.url, repr(case.zone), case.private) for case in CASES}
    assert len(attacks) == len(CASES), "two cases are the same"
    assert {case.sent for case in CASES} == {BLOCKED, LOST, REACHED}
    assert {case.registered for case in CASES} == {
        None,
        "url_invalid",
        "url_scheme",
        "url_userinfo",
        "url_fragment",
        "url_port",
        "url_host",
        "https_required",
        "address_not_allowed",
    }


# ---- responses of the receiver


def _responses() -> dict[str, bytes]:
    """Return, by name, responses that could make a client connect to another address."""
    places = {
        "metadata": "http://169.254.169.254/latest/meta-data/",
        "loopback": "http://127.0.0.2:{port}/",
        "loopback-6": "http://[::1]:{port}/",
        "scheme-relative": "//127.0.0.2:{port}/",
        "localhost": "https://localhost:{port}/",
        "decimal": "http://2130706434:{port}/",
    }
    responses = {
        f"{status}-to-{name}": f"HTTP/1.1 {status} X\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
        for status in (300, 301, 302, 303, 305, 307, 308)
        for name, place in places.items()
    }
    place = places["loopback"]
    for name, header in {
        "refresh": f"Refresh: 0; url={place}",
        "alt-svc": 'Alt-Svc: http/1.1="127.0.0.2:{port}"; ma=86400; persist=1',
        "alt-svc-other-protocol": 'Alt-Svc: h2="127.0.0.2:{port}", h3=":{port}"',
        "link-preconnect": f"Link: <{place}>; rel=preconnect",
        "link-preload": f"Link: <{place}>; rel=preload",
        "content-location": f"Content-Location: {place}",
        "location-of-created": f"Location: {place}",
        "report-to": 'Report-To: {"endpoints":[{"url":"' + place + '"}]}',
        "proxy-authenticate": "Proxy-Authenticate: Basic",
        "upgrade": "Upgrade: h2c\r\nConnection: upgrade",
        "strict-transport-security": "Strict-Transport-Security: max-age=31536000",
    }.items():
        responses[f"200-{name}"] = f"HTTP/1.1 200 OK\r\n{header}\r\nContent-Length: 0\r\n\r\n"
    responses["early-hints"] = (
        f"HTTP/1.1 103 Early Hints\r\nLink: <{place}>; rel=preconnect\r\n\r\n"
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    )
    responses["401-elsewhere"] = (
        f"HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer realm={place}\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
    )
    responses["503-elsewhere"] = f"HTTP/1.1 503 X\r\nRetry-After: 0\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
    return {name: response.encode() for name, response in responses.items()}


RESPONSES = _responses()


@pytest.mark.parametrize("name", RESPONSES)
async def test_no_response_redirects_the_sender(make_bench: CreateBench, connects: list[Any], name: str) -> None:
    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.respond(RESPONSES[name].replace(b"{port}", b"%d" % bench.good.port))

    bench = await make_bench(script)
    bench.names.zone = {"hooks.example": [found(GOOD)]}
    client = await bench.client()
    # The second request detects effects of the first response that the sender keeps.
    for _ in range(2):
        exchange = await client.post(bench.good.target("hooks.example"))
        assert exchange.failure is None
    assert {address[0] for address in connects} == {GOOD}
    assert bench.forbidden_connections() == 0


# ---- kept connections while the DNS response changes


async def test_an_open_connection_keeps_its_checked_address(make_bench: CreateBench, connects: list[Any]) -> None:
    bench = await make_bench()
    bench.names.zone = {"hooks.example": [found(GOOD), found("127.0.0.2")]}
    client = await bench.client()
    exchanges = []
    for bench.names.reply_index in range(5):
        exchanges.append(await client.post(bench.good.target("hooks.example")))
    assert {(exchange.failure, exchange.remote_address) for exchange in exchanges} == {
        (None, f"{GOOD}:{bench.good.port}")
    }
    assert len(connects) == 1
    assert bench.forbidden_connections() == 0


@pytest.mark.parametrize(
    "last", [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"]
)
async def test_each_new_connection_is_checked(make_bench: CreateBench, connects: list[Any], last: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.respond(last)

    bench = await make_bench(script)
    bench.names.zone = {"hooks.example": [found(GOOD), found("127.0.0.2")]}
    client = await bench.client()
    assert (await client.post(bench.good.target("hooks.example"))).failure is None
    await bench.advance_replies(client)
    assert (await client.post(bench.good.target("hooks.example"))).failure is Failure.BLOCKED
    assert {address[0] for address in connects} == {GOOD}
    assert bench.forbidden_connections() == 0


async def test_a_stale_connection_is_replaced_by_a_checked_one(make_bench: CreateBench, connects: list[Any]) -> None:
    """The receiver resets a reused connection after its name has changed to an internal address."""

    async def script(peer: Peer) -> None:
        await peer.respond()
        await peer.request()
        peer.reset()

    bench = await make_bench(script)
    bench.names.zone = {"hooks.example": [found(GOOD), found("127.0.0.2")]}
    client = await bench.client()
    assert (await client.post(bench.good.target("hooks.example"))).failure is None
    await bench.advance_replies(client)
    second = await client.post(bench.good.target("hooks.example"))
    assert second.failure is not None
    assert {address[0] for address in connects} == {GOOD}
    assert bench.forbidden_connections() == 0


async def test_a_closed_idle_connection_is_replaced_by_a_checked_one(
    make_bench: CreateBench, connects: list[Any]
) -> None:
    async def script(peer: Peer) -> None:
        await peer.respond()
        peer.reset()

    bench = await make_bench(script)
    bench.names.zone = {"hooks.example": [found(GOOD), found("127.0.0.2")]}
    client = await bench.client()
    assert (await client.post(bench.good.target("hooks.example"))).failure is None
    await bench.advance_replies(client)
    await until(lambda: client.sender.idle_connections == 0)
    assert (await client.post(bench.good.target("hooks.example"))).failure is Failure.BLOCKED
    assert {address[0] for address in connects} == {GOOD}
    assert bench.forbidden_connections() == 0


async def test_an_old_connection_is_not_reused(make_bench: CreateBench, connects: list[Any]) -> None:
    bench = await make_bench()
    bench.names.zone = {"hooks.example": [found(GOOD), found("127.0.0.2")]}
    client = await bench.client(connection_age_ms_max=0)
    assert (await client.post(bench.good.target("hooks.example"))).failure is None
    await bench.advance_replies(client)
    assert (await client.post(bench.good.target("hooks.example"))).failure is Failure.BLOCKED
    assert {address[0] for address in connects} == {GOOD}


async def test_a_name_does_not_reuse_the_connection_of_another_name(
    make_bench: CreateBench, connects: list[Any]
) -> None:
    bench = await make_bench()
    bench.names.zone = {"hooks.example": [found(GOOD)], "inside.example": [found("127.0.0.2")]}
    client = await bench.client()
    assert (await client.post(bench.good.target("hooks.example"))).failure is None
    await bench.advance_replies(client)
    assert (await client.post(bench.good.target("inside.example"))).failure is Failure.BLOCKED
    assert {address[0] for address in connects} == {GOOD}
    assert bench.forbidden_connections() == 0


async def test_a_name_with_changing_addresses_never_reaches_a_forbidden_one(
    make_bench: CreateBench, connects: list[Any]
) -> None:
    async def script(peer: Peer) -> None:
        await peer.respond(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    bench = await make_bench(script)
    bench.names.zone = {"hooks.example": [found(GOOD), found("127.0.0.2"), found("127.0.0.1", "::1")] * 40}
    bench.names.reply_index = None
    client = await bench.client()
    for _ in range(10):
        await asyncio.gather(*(client.send(bench.good.target("hooks.example")) for _ in range(10)))
    assert {address[0] for address in connects} <= {GOOD}
    assert bench.forbidden_connections() == 0
    assert bench.good.accepted == len(connects) > 0


async def test_the_cases_detect_a_missing_check(make_bench: CreateBench, connects: list[Any]) -> None:
    """Without address checks, the sender reaches a forbidden address, and both assertions detect it."""
    bench = await make_bench()
    bench.names.zone = {"hooks.example": [found("127.0.0.2")]}
    client = await bench.client(AllowAll(False))
    assert (await client.post(bench.good.target("hooks.example"))).failure is None
    assert [address[0] for address in connects] == ["127.0.0.2"]
    assert bench.forbidden_connections() == 1
