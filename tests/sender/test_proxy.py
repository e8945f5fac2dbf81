"""With an egress proxy, every connection is a tunnel to a checked address."""

import asyncio
import base64

import pytest

from uplift_server.core.http.exchange import Failure
from uplift_server.delivery.sending.http import Target
from uplift_server.delivery.sending.http.proxy import Proxy

from .scripted import OK, Connect, Listen, NameServer, Peer, Receiver, serve_ok, until


class Tunnels:
    """The script of a working CONNECT proxy. Records the request headers."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        head = await peer.request()
        self.heads.append(head)
        host, _, port = head.split(b" ")[1].decode().rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        await peer.send(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
        try:
            back = asyncio.get_running_loop().create_task(_copy(reader, peer.writer))
            await _copy(peer.reader, writer)
            await back
        finally:
            back.cancel()
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def url(proxy: Receiver, user: str = "") -> str:
    return f"http://{user}127.0.0.1:{proxy.port}"


async def test_every_connection_is_a_tunnel(listen: Listen, connect: Connect, names: NameServer) -> None:
    tunnels = Tunnels()
    proxy = await listen(tunnels)
    receiver = await listen(serve_ok, "127.0.0.3")
    names.zone["hooks.example"] = ["127.0.0.3"]
    client = await connect(egress_proxy=url(proxy, "me:p%40ss@"), nameservers=[names.address])
    first = await client.post(receiver.target("hooks.example"))
    second = await client.post(receiver.target("hooks.example"))
    assert (first.failure, first.response_body) == (None, b"ok")
    assert first.remote_address == f"127.0.0.3:{receiver.port}"
    assert second.reused
    assert proxy.accepted == 1
    # The proxy gets the checked address, so that it does not resolve the name.
    credentials = base64.b64encode(b"me:p@ss").decode()
    assert tunnels.heads == [
        (
            f"CONNECT 127.0.0.3:{receiver.port} HTTP/1.1\r\nHost: 127.0.0.3:{receiver.port}\r\n"
            f"Proxy-Authorization: Basic {credentials}\r\n\r\n"
        ).encode()
    ]


async def test_the_proxy_gets_no_forbidden_addresses(listen: Listen, connect: Connect, names: NameServer) -> None:
    proxy = await listen(Tunnels())
    names.zone["inside.example"] = ["10.0.0.1"]
    client = await connect(private=False, egress_proxy=url(proxy), nameservers=[names.address])
    for host in ("inside.example", "127.0.0.1", "localhost"):
        assert (await client.post(Target(host, 443, True))).failure is Failure.BLOCKED
    assert proxy.accepted == 0


async def test_the_proxy_can_be_a_host_name(listen: Listen, connect: Connect, names: NameServer) -> None:
    proxy = await listen(Tunnels())
    receiver = await listen(serve_ok)
    names.zone["proxy.example"] = ["127.0.0.1"]
    client = await connect(egress_proxy=f"http://proxy.example:{proxy.port}", nameservers=[names.address])
    assert (await client.post(receiver.target())).failure is None
    names.zone["proxy.example"] = 2
    unresolved = await connect(egress_proxy="http://other.example:3128", nameservers=[names.address])
    exchange = await unresolved.post(receiver.target())
    assert exchange.failure is Failure.EGRESS
    assert exchange.error == "the egress proxy failed: other.example does not exist"


async def test_an_unreachable_proxy_is_an_egress_failure(listen: Listen, connect: Connect) -> None:
    proxy = await listen(serve_ok)
    await proxy.close()
    client = await connect(egress_proxy=url(proxy))
    exchange = await client.post(Target("127.0.0.1", 9, False))
    assert exchange.failure is Failure.EGRESS
    assert exchange.error is not None
    assert exchange.error.startswith("the egress proxy failed: could not connect to")


@pytest.mark.parametrize(
    ("response", "failure", "text"),
    [
        (b"HTTP/1.1 407 No\r\nContent-Length: 4\r\n\r\nbody", Failure.EGRESS, "rejected the credentials"),
        (b"HTTP/1.1 403 No\r\n\r\n", Failure.BLOCKED, "does not allow a tunnel to 127.0.0.1:9 (status 403)"),
        (b"HTTP/1.1 405 No\r\n\r\n", Failure.BLOCKED, "does not allow a tunnel to 127.0.0.1:9 (status 405)"),
        (b"HTTP/1.1 500 No\r\n\r\n", Failure.EGRESS, "rejected a tunnel to 127.0.0.1:9 (status 500)"),
        (b"HTTP/1.1 302 No\r\nLocation: http://127.0.0.1/\r\n\r\n", Failure.EGRESS, "rejected a tunnel to"),
        (b"HTTP/1.1 503 No\r\n\r\n", Failure.CONNECT, "could not reach 127.0.0.1:9 (status 503)"),
        (b"HTTP/1.1 502 No\r\n\r\n", Failure.CONNECT, "could not reach 127.0.0.1:9 (status 502)"),
        (b"HTTP/1.1 504 No\r\n\r\n", Failure.CONNECT, "could not reach 127.0.0.1:9 (status 504)"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Failure.EGRESS, "sent bytes before the tunnel was used"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Failure.EGRESS, "does not support HTTP/1.1"),
        (b"\0" * 20_000, Failure.EGRESS, "does not support HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n", Failure.EGRESS, "dropped the connection"),
        (b"", Failure.EGRESS, "dropped the connection"),
    ],
)
async def test_responses_of_the_proxy_are_classified(
    listen: Listen, connect: Connect, response: bytes, failure: Failure, text: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.respond(response)

    proxy = await listen(script)
    client = await connect(egress_proxy=url(proxy))
    exchange = await client.post(Target("127.0.0.1", 9, False))
    assert exchange.failure is failure
    assert exchange.error is not None
    assert text in exchange.error
    assert not exchange.bytes_sent
    await until(lambda: proxy.peers[0].is_closed)


async def test_a_proxy_response_in_single_bytes_is_read(listen: Listen, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*(bytes((byte,)) for byte in b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n"))
        await serve_ok(peer)

    proxy = await listen(script)
    client = await connect(egress_proxy=url(proxy))
    assert (await client.post(Target("127.0.0.1", 9, False))).failure is None


async def test_a_proxy_of_another_ip_version_is_an_egress_failure(listen: Listen, connect: Connect) -> None:
    proxy = await listen(Tunnels())
    client = await connect(egress_proxy=url(proxy), egress_addresses=("::1",))
    exchange = await client.post(Target("127.0.0.1", 9, False))
    assert exchange.failure is Failure.EGRESS
    assert exchange.error == "the egress proxy failed: there is no egress IP for IPv4"
    assert proxy.accepted == 0


async def test_a_proxy_reaches_receivers_of_both_ip_versions(listen: Listen, connect: Connect) -> None:
    tunnels = Tunnels()
    proxy = await listen(tunnels)
    receiver = await listen(serve_ok, "::1")
    client = await connect(egress_proxy=url(proxy), egress_addresses=("127.0.0.2",))
    assert (await client.post(receiver.target())).failure is None
    assert tunnels.heads[0].startswith(f"CONNECT [::1]:{receiver.port} HTTP/1.1\r\nHost: [::1]:".encode())


async def test_a_hanging_proxy_is_an_egress_failure_unless_it_serves_others(listen: Listen, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        head = await peer.request()
        if b"127.0.0.9" in head:
            await peer.wait_closed()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await peer.respond(OK)

    proxy = await listen(script)
    client = await connect(egress_proxy=url(proxy), connect_timeout_ms=800)
    alone = await client.post(Target("127.0.0.9", 9, False))
    assert alone.failure is Failure.EGRESS
    assert alone.error == "the egress proxy did not open a tunnel to 127.0.0.9:9 within 0.8 s"
    waiting = client.send(Target("127.0.0.9", 9, False))
    await until(lambda: proxy.accepted == 2)
    assert (await client.post(Target("127.0.0.1", 9, False))).failure is None
    assert (await waiting).failure is Failure.TIMEOUT


async def test_the_next_address_is_tried_after_a_proxy_error(
    listen: Listen, connect: Connect, names: NameServer
) -> None:
    heads = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.request())
        await peer.send(b"HTTP/1.1 502 No\r\n\r\n" if len(heads) == 1 else b"HTTP/1.1 200 OK\r\n\r\n")
        await serve_ok(peer)

    proxy = await listen(script)
    names.zone["two.example"] = ["127.0.0.5", "127.0.0.6"]
    client = await connect(egress_proxy=url(proxy), nameservers=[names.address])
    exchange = await client.post(Target("two.example", 9, False))
    assert exchange.failure is None
    assert proxy.accepted == 2


async def test_the_egress_address_is_used_for_the_proxy(listen: Listen, connect: Connect) -> None:
    proxy = await listen(Tunnels())
    receiver = await listen(serve_ok)
    client = await connect(egress_proxy=url(proxy), egress_addresses=("127.0.0.2",))
    assert (await client.post(receiver.target())).failure is None
    assert proxy.peer_names[0][0] == "127.0.0.2"


@pytest.mark.parametrize(
    "text", ["https://proxy:1", "socks5://proxy:1", "proxy:3128", "http://", "http://proxy/path", "http://proxy:99999"]
)
def test_invalid_proxy_urls_are_rejected(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message may change
        Proxy.parse(text)


def test_valid_proxy_urls_are_parsed() -> None:
    assert Proxy.parse("http://proxy") == Proxy("proxy", 80, None)
    assert Proxy.parse("http://[::1]:3128/") == Proxy("::1", 3128, None)
    assert Proxy.parse("http://u@proxy:1").authorization == "Basic " + base64.b64encode(b"u:").decode()
