"""Every valid form of an HTTP/1.1 response is read correctly, and everything else is rejected."""

import asyncio

import pytest

from uplift_server.core.http.exchange import Failure

from .scripted import OK, Client, Listen, Peer, Receiver, serve_ok


async def listen_with(listen: Listen, response: bytes) -> Receiver:
    async def script(peer: Peer) -> None:
        await peer.respond(response)

    return await listen(script)


async def test_the_request_arrives_unchanged(listen: Listen, client: Client) -> None:
    requests = []

    async def script(peer: Peer) -> None:
        while True:
            requests.append(await peer.respond())

    receiver = await listen(script)
    bodies = [b"", b"x", b"y" * 1024, b"z" * 300_000]
    for body in bodies:
        exchange = await client.post(receiver.target(), body)
        assert (exchange.status_code, exchange.failure) == (200, None)
    assert [request.partition(b"\r\n\r\n")[2] for request in requests] == bodies
    assert requests[1] == b"POST /hook HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\nx"
    assert receiver.accepted == 1


async def test_an_exchange_is_reported_completely(listen: Listen, client: Client) -> None:
    receiver = await listen(serve_ok)
    first = await client.post(receiver.target())
    second = await client.post(receiver.target())
    for exchange in (first, second):
        assert exchange.started_at == 1764000000123
        assert exchange.failure is None
        assert exchange.error is None
        assert exchange.remote_address == f"127.0.0.1:{receiver.port}"
        assert exchange.response_head == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
        assert exchange.response_body == b"ok"
        assert not exchange.body_truncated
        assert exchange.bytes_sent
        assert exchange.first_byte_ms is not None
        assert 0 <= exchange.first_byte_ms <= exchange.duration_us / 1000 < 1000
    assert not first.reused
    assert second.reused
    assert isinstance(first.connect_ms, int)
    assert (first.dns_ms, first.tls_ms) == (None, None)
    assert (second.dns_ms, second.connect_ms, second.tls_ms) == (None, None, None)


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;name=value\r\none\r\n4\r\ntwo \r\n5\r\nthree\r\n0\r\nX-Trailer: 1\r\nRetry-After: 5\r\n\r\n"
)
INTERIM = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    b"HTTP/1.1 503 Busy\r\nretry-after:  120 \r\nContent-Length: 4\r\n\r\nbusy"
)


@pytest.mark.parametrize("response", [OK, CHUNKED, INTERIM], ids=["length", "chunked", "interim"])
async def test_a_response_split_at_every_byte_is_the_same(listen: Listen, client: Client, response: bytes) -> None:
    cut = 0

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(response[:cut], response[cut:])

    receiver = await listen(script)
    seen = set()
    for cut in range(1, len(response)):  # noqa: B007 - the script uses it
        exchange = await client.post(receiver.target())
        assert exchange.failure is None
        seen.add((exchange.status_code, exchange.response_head, exchange.response_body, exchange.retry_after))
    assert len(seen) == 1
    assert receiver.accepted == 1


async def test_a_response_in_single_bytes_is_read(listen: Listen, client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for byte in CHUNKED:
            await peer.send(bytes((byte,)))
            await asyncio.sleep(0)

    exchange = await client.post((await listen(script)).target())
    assert (exchange.failure, exchange.response_body) == (None, b"onetwo three")


async def test_interim_responses_are_skipped(listen: Listen, client: Client) -> None:
    exchange = await client.post((await listen_with(listen, INTERIM)).target())
    assert (exchange.status_code, exchange.failure) == (503, None)
    assert exchange.response_head.startswith(b"HTTP/1.1 503 Busy\r\n")
    assert exchange.response_head.endswith(b"4\r\n\r\n")
    assert exchange.retry_after == "120"


async def test_trailers_are_not_headers(listen: Listen, client: Client) -> None:
    exchange = await client.post((await listen_with(listen, CHUNKED.replace(b"200 OK", b"503 No"))).target())
    assert (exchange.status_code, exchange.retry_after) == (503, None)


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_body_end_with_the_headers(listen: Listen, client: Client, status: int) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.respond(b"HTTP/1.1 %d X\r\nContent-Length: 7\r\n\r\n" % status)

    receiver = await listen(script)
    for _ in range(2):
        exchange = await client.post(receiver.target())
        assert (exchange.status_code, exchange.failure, exchange.response_body) == (status, None, b"")
    assert receiver.accepted == 1


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
async def test_a_body_without_length_ends_with_the_connection(listen: Listen, client: Client, head: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head, b"until ", b"the end")

    receiver = await listen(script)
    for _ in range(2):
        exchange = await client.post(receiver.target())
        assert (exchange.failure, exchange.response_body, exchange.body_truncated) == (None, b"until the end", False)
    assert receiver.accepted == 2


@pytest.mark.parametrize(
    ("head", "connections"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n", 2),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n", 2),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n", 1),
    ],
)
async def test_the_receiver_can_close_the_connection(
    listen: Listen, client: Client, head: bytes, connections: int
) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.respond(head + b"ok")

    receiver = await listen(script)
    for _ in range(2):
        assert (await client.post(receiver.target())).response_body == b"ok"
    assert receiver.accepted == connections


BROKEN = {
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "status below 100": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a request": b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
    "empty lines first": b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "switching protocols": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "switching protocols without upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
    "chunked and length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "one length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "length too large": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
    "folded header": b"HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok",
    "space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "NUL": b"HTTP/1.1 200 OK\r\nX-A: \0\r\nContent-Length: 2\r\n\r\nok",
    "chunk size not a number": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n",
    "chunk longer than its size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("response", BROKEN.values(), ids=list(BROKEN))
async def test_invalid_responses_are_protocol_errors(listen: Listen, client: Client, response: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.respond(response)
        await peer.wait_closed()

    exchange = await client.post((await listen(script)).target())
    assert exchange.failure is Failure.PROTOCOL
    assert exchange.error
    assert "\n" not in exchange.error


async def test_the_status_is_kept_despite_an_invalid_header(listen: Listen, client: Client) -> None:
    exchange = await client.post((await listen_with(listen, BROKEN["negative length"])).target())
    assert (exchange.failure, exchange.status_code) == (Failure.PROTOCOL, 200)
    exchange = await client.post((await listen_with(listen, BROKEN["length and chunked"])).target())
    assert (exchange.failure, exchange.status_code) == (Failure.PROTOCOL, 200)


async def test_redirects_are_reported_and_not_followed(listen: Listen, client: Client) -> None:
    elsewhere = await listen(serve_ok)
    location = f"http://127.0.0.1:{elsewhere.port}/"
    response = f"HTTP/1.1 307 Go\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    exchange = await client.post((await listen_with(listen, response)).target())
    assert (exchange.status_code, exchange.failure, exchange.location) == (307, None, location)
    assert elsewhere.accepted == 0


async def test_header_values_are_limited(listen: Listen, client: Client) -> None:
    response = b"HTTP/1.1 429 Slow\r\nRetry-After: %b\r\nContent-Length: 0\r\n\r\n" % (b"1" * 20_000)
    exchange = await client.post((await listen_with(listen, response)).target())
    assert exchange.retry_after == "1" * 2048
    assert len(exchange.response_head) == 4096


async def test_a_response_before_the_whole_request_is_read(listen: Listen, client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await peer.wait_closed()

    receiver = await listen(script)
    for _ in range(2):
        exchange = await client.post(receiver.target(), b"x" * 20_000_000)
        assert (exchange.status_code, exchange.failure) == (413, None)
    assert receiver.accepted == 2
