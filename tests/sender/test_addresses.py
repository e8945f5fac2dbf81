"""The sender connects only to allowed addresses, despite hostile names, literals and changing DNS responses."""

import asyncio
import socket

import pytest

from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.http.exchange import Failure
from uplift_server.delivery.sending.http import Target

from .scripted import Connect, Listen, NameServer, Peer, serve_ok


class AllowOnly(AddressPolicy):
    """Allows only the given addresses. Records every check."""

    __slots__ = ("allowed", "checks")

    def __init__(self, *allowed: str) -> None:
        object.__setattr__(self, "allow_private_networks", False)
        object.__setattr__(self, "allowed", set(allowed))
        object.__setattr__(self, "checks", [])

    def check(self, address: str, *, encrypted: bool) -> str | None:
        self.checks.append((address, encrypted))
        return None if address in self.allowed else "address_not_allowed"


async def test_forbidden_addresses_are_blocked_by_default(listen: Listen, connect: Connect) -> None:
    receiver = await listen(serve_ok)
    client = await connect(private=False)
    for host in ("127.0.0.1", "localhost", "hooks.localhost", "localhost.", "LOCALHOST"):
        for encrypted in (False, True):
            exchange = await client.post(receiver.target(host, encrypted=encrypted))
            assert exchange.failure is Failure.BLOCKED
            assert exchange.error is not None
            assert "loopback" in exchange.error
            # Members see this text, and they cannot change settings.
            assert "UPLIFT_" not in exchange.error
            assert (exchange.remote_address, exchange.bytes_sent, exchange.connect_ms) == (None, False, None)
    assert receiver.accepted == 0


@pytest.mark.parametrize("host", ["127.1", "0x7f.1", "2130706433", "017700000001", "::ffff:127.0.0.1", "[::1]", "::1"])
async def test_literals_in_every_notation_are_checked(listen: Listen, connect: Connect, host: str) -> None:
    receiver = await listen(serve_ok)
    client = await connect(private=False)
    assert (await client.post(receiver.target(host))).failure is Failure.BLOCKED
    assert receiver.accepted == 0


@pytest.mark.parametrize("host", ["127.0.0.1.5", "[127.0.0.1]", "fe80::1%lo", "1.2.3.999"])
async def test_invalid_literals_fail(connect: Connect, host: str) -> None:
    client = await connect()
    assert (await client.post(Target(host, 80, False))).failure is Failure.DNS


@pytest.mark.parametrize("host", ["169.254.169.254", "0.0.0.0", "224.0.0.1", "fe80::1"])
async def test_some_addresses_cannot_be_allowed(connect: Connect, host: str) -> None:
    client = await connect(private=True)
    exchange = await client.post(Target(host, 80, False))
    assert exchange.failure is Failure.BLOCKED
    assert exchange.error is not None
    assert exchange.error.startswith(f"connections to {host} are not allowed: ")


async def test_plain_http_to_a_public_address_is_blocked(connect: Connect) -> None:
    client = await connect()
    exchange = await client.post(Target("8.8.8.8", 80, False))
    assert exchange.failure is Failure.BLOCKED
    assert exchange.error is not None
    assert "use https" in exchange.error


async def test_the_error_does_not_reveal_internal_addresses(connect: Connect, names: NameServer) -> None:
    names.zone["vault.internal.example"] = ["10.11.12.13"]
    client = await connect(private=False, nameservers=[names.address])
    exchange = await client.post(Target("vault.internal.example", 443, True))
    assert exchange.failure is Failure.BLOCKED
    assert exchange.error is not None
    assert "10.11.12.13" not in exchange.error


async def test_only_allowed_addresses_of_a_mixed_response_are_used(
    listen: Listen, connect: Connect, names: NameServer
) -> None:
    forbidden = await listen(serve_ok, "127.0.0.2")
    allowed = await listen(serve_ok, "127.0.0.3", port=forbidden.port)
    names.zone["mixed.example"] = ["127.0.0.2", "127.0.0.3", "10.0.0.1"]
    policy = AllowOnly("127.0.0.3")
    client = await connect(policy=policy, nameservers=[names.address])
    exchange = await client.post(allowed.target("mixed.example"))
    assert (exchange.failure, exchange.remote_address) == (None, f"127.0.0.3:{allowed.port}")
    assert forbidden.accepted == 0
    assert {address for address, _ in policy.checks} == {"127.0.0.2", "127.0.0.3", "10.0.0.1"}


async def test_dns_rebinding_is_blocked(listen: Listen, connect: Connect, names: NameServer) -> None:
    """Open connections keep their checked address after a name changes. New connections are checked again."""
    inside = await listen(serve_ok, "127.0.0.2")

    async def script(peer: Peer) -> None:
        await peer.respond()
        await peer.respond(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    outside = await listen(script, "127.0.0.1", port=inside.port)
    names.zone["rebind.example"] = ["127.0.0.1"]
    client = await connect(policy=AllowOnly("127.0.0.1"), nameservers=[names.address], dns_ttl_ms_min=0)
    target = outside.target("rebind.example")
    assert (await client.post(target)).failure is None
    names.zone["rebind.example"] = ["127.0.0.2"]
    second = await client.post(target)
    assert (second.failure, second.reused, second.remote_address) == (None, True, f"127.0.0.1:{outside.port}")
    third = await client.post(target)
    assert third.failure is Failure.BLOCKED
    assert inside.accepted == 0
    assert len(names.queries) > 2


async def test_each_connection_resolves_the_name_once(listen: Listen, connect: Connect, names: NameServer) -> None:
    """The DNS response changes with every query. The sender connects to the checked address."""
    inside = await listen(serve_ok, "127.0.0.2")
    outside = await listen(serve_ok, "127.0.0.1", port=inside.port)
    policy = AllowOnly("127.0.0.1")
    client = await connect(policy=policy, nameservers=[names.address], dns_ttl_ms_min=0, idle_connections_max=0)
    outcomes = []
    for round_number in range(6):
        names.zone["flip.example"] = ["127.0.0.1" if round_number % 2 else "127.0.0.2"]
        exchange = await client.post(outside.target("flip.example"))
        outcomes.append(exchange.failure)
        if exchange.failure is None:
            assert policy.checks[-1] == ("127.0.0.1", False)
    assert outcomes == [Failure.BLOCKED, None] * 3
    assert inside.accepted == 0


async def test_the_next_address_is_tried(listen: Listen, connect: Connect, names: NameServer) -> None:
    receiver = await listen(serve_ok, "127.0.0.3")
    names.zone["several.example"] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    client = await connect(nameservers=[names.address])
    exchange = await client.post(receiver.target("several.example"))
    assert (exchange.failure, exchange.remote_address) == (None, f"127.0.0.3:{receiver.port}")


@pytest.mark.timing
async def test_a_silent_address_leaves_time_for_the_next(listen: Listen, connect: Connect, names: NameServer) -> None:
    receiver = await listen(serve_ok, "127.0.0.3")
    with socket.socket() as silent:
        silent.bind(("127.0.0.2", receiver.port))
        silent.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.2", receiver.port))
        names.zone["half.example"] = ["127.0.0.2", "127.0.0.3"]
        client = await connect(nameservers=[names.address], connect_timeout_ms=200)
        exchange = await client.post(receiver.target("half.example"))
        for sock in waiting:
            sock.close()
    assert (exchange.failure, exchange.remote_address) == (None, f"127.0.0.3:{receiver.port}")
    assert exchange.connect_ms is not None
    assert exchange.connect_ms < 200


async def test_many_unreachable_addresses_fail(connect: Connect, listen: Listen, names: NameServer) -> None:
    receiver = await listen(serve_ok)
    names.zone["many.example"] = [f"127.0.1.{number}" for number in range(1, 26)]
    client = await connect(nameservers=[names.address])
    exchange = await client.post(receiver.target("many.example"))
    assert exchange.failure is Failure.CONNECT


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="the kernel has no IPv6")


@needs_ipv6
@pytest.mark.parametrize("host", ["::1", "[::1]", "0:0:0:0:0:0:0:1"])
async def test_ipv6_addresses_are_reached(listen: Listen, connect: Connect, host: str) -> None:
    receiver = await listen(serve_ok, "::1")
    client = await connect()
    exchange = await client.post(receiver.target(host))
    assert (exchange.failure, exchange.remote_address) == (None, f"[::1]:{receiver.port}")


@needs_ipv6
async def test_localhost_reaches_either_family(listen: Listen, connect: Connect) -> None:
    client = await connect()
    for address in ("::1", "127.0.0.1"):
        receiver = await listen(serve_ok, address)
        assert (await client.post(receiver.target("localhost"))).failure is None


# ---- egress IPs


async def test_receivers_see_the_egress_address(listen: Listen, connect: Connect) -> None:
    receiver = await listen(serve_ok)
    client = await connect(egress_addresses=("127.0.0.2",))
    assert (await client.post(receiver.target())).failure is None
    assert receiver.peer_names[0][0] == "127.0.0.2"


@needs_ipv6
async def test_each_family_uses_its_egress_address(listen: Listen, connect: Connect) -> None:
    client = await connect(egress_addresses=("127.0.0.2", "::1"))
    for host, seen in (("127.0.0.1", "127.0.0.2"), ("::1", "::1")):
        receiver = await listen(serve_ok, host)
        assert (await client.post(receiver.target())).failure is None
        assert receiver.peer_names[0][0] == seen


async def test_an_unavailable_egress_address_fails(listen: Listen, connect: Connect) -> None:
    receiver = await listen(serve_ok)
    client = await connect(egress_addresses=("192.0.2.1",))
    exchange = await client.post(receiver.target())
    assert exchange.failure is Failure.EGRESS
    assert exchange.error == "could not send from the egress IP 192.0.2.1: cannot assign requested address"
    assert receiver.accepted == 0


async def test_a_family_without_an_egress_address_is_blocked(connect: Connect) -> None:
    client = await connect(egress_addresses=("127.0.0.2",))
    exchange = await client.post(Target("::1", 9, False))
    assert (exchange.failure, exchange.error) == (Failure.BLOCKED, "there is no egress IP for IPv6")


@needs_ipv6
@pytest.mark.parametrize("source", ["127.0.0.2", "::1"])
async def test_the_family_with_an_egress_address_is_used(
    listen: Listen, connect: Connect, names: NameServer, source: str
) -> None:
    """The order of the addresses in the DNS response does not matter."""
    own, other = ("127.0.0.1", "::1") if "." in source else ("::1", "127.0.0.1")
    receiver = await listen(serve_ok, own)
    other_receiver = await listen(serve_ok, other, port=receiver.port)
    client = await connect(egress_addresses=(source,), nameservers=[names.address])
    for round_number, order in enumerate(([own, other], [other, own])):
        names.zone[f"both{round_number}.example"] = order
        exchange = await client.post(receiver.target(f"both{round_number}.example"))
        assert exchange.failure is None
    await receiver.close()
    for round_number in range(2):
        names.zone[f"down{round_number}.example"] = names.zone[f"both{round_number}.example"]
        exchange = await client.post(receiver.target(f"down{round_number}.example"))
        assert exchange.failure is Failure.CONNECT
        assert (exchange.error or "").endswith("connection refused")
    assert other_receiver.accepted == 0


@needs_ipv6
@pytest.mark.parametrize(("source", "address", "kind"), [("127.0.0.2", "::1", "IPv6"), ("::1", "127.1.0.1", "IPv4")])
async def test_a_name_of_the_other_family_is_blocked(
    connect: Connect, names: NameServer, source: str, address: str, kind: str
) -> None:
    names.zone["other.example"] = [address]
    client = await connect(egress_addresses=(source,), nameservers=[names.address])
    exchange = await client.post(Target("other.example", 9, False))
    assert (exchange.failure, exchange.error) == (Failure.BLOCKED, f"there is no egress IP for {kind}")
    assert exchange.remote_address is None


async def test_addresses_of_the_other_family_are_not_tried(listen: Listen, connect: Connect, names: NameServer) -> None:
    receiver = await listen(serve_ok, "127.0.0.3")
    names.zone["many.example"] = [*(f"fd12::{number}" for number in range(1, 9)), "127.0.0.3"]
    client = await connect(egress_addresses=("127.0.0.2",), nameservers=[names.address])
    assert (await client.post(receiver.target("many.example"))).failure is None


async def test_one_egress_address_supports_many_connections(listen: Listen, connect: Connect) -> None:
    receiver = await listen(serve_ok)
    client = await connect(egress_addresses=("127.0.0.2",))
    exchanges = await asyncio.gather(*(client.send(receiver.target()) for _ in range(50)))
    assert {exchange.failure for exchange in exchanges} == {None}
