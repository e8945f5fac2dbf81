"""A connection that ends at any byte results in one exchange, at most one retry, and no retry after a response byte."""

import asyncio
import socket

import pytest

from uplift_server.core.http.exchange import Failure

from .scripted import OK, Client, Connect, Listen, Peer, serve_ok, until

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


@pytest.mark.parametrize("response", [OK, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("end", ["reset", "close"])
async def test_a_new_connection_that_ends_at_any_byte_fails(
    listen: Listen, client: Client, response: bytes, end: str
) -> None:
    cut = 0

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(response[:cut])
        if end == "reset":
            # Wait, because RST could overtake the bytes.
            await asyncio.sleep(0.001)
            peer.reset()

    receiver = await listen(script)
    status_known = response.index(b"\r\n") + 2
    for cut in range(len(response)):
        exchange = await client.post(receiver.target())
        assert exchange.failure is Failure.PROTOCOL, cut
        assert exchange.status_code == (200 if cut >= status_known else None), cut
        assert exchange.error is not None
        assert ("without responding" if cut == 0 else "in the middle of the response") in exchange.error
    assert receiver.accepted == len(response)


async def test_a_reset_in_a_body_without_length_is_a_failure(listen: Listen, client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\npart")
        await asyncio.sleep(0.005)
        peer.reset()

    exchange = await client.post((await listen(script)).target())
    assert (exchange.failure, exchange.status_code, exchange.response_body) == (Failure.PROTOCOL, 200, b"part")


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_a_stale_connection_is_retried_once_on_a_new_one(listen: Listen, client: Client, end: str) -> None:
    bodies = []

    async def script(peer: Peer) -> None:
        bodies.append((await peer.respond()).partition(b"\r\n\r\n")[2])
        if receiver.accepted == 1:
            await peer.request()
            if end == "reset":
                peer.reset()
            return
        await serve_ok(peer)

    receiver = await listen(script)
    await client.post(receiver.target(), b"one")
    exchange = await client.post(receiver.target(), b"two")
    assert (exchange.failure, exchange.status_code, exchange.reused) == (None, 200, False)
    assert exchange.connect_ms is not None
    assert bodies == [b"one", b"two"]
    assert receiver.accepted == 2
    # The receiver may have read both requests.
    assert exchange.repeated
    assert exchange.error


async def test_a_request_is_retried_only_once(listen: Listen, client: Client) -> None:
    async def script(peer: Peer) -> None:
        if receiver.accepted == 1:
            await peer.respond()
        await peer.request()

    receiver = await listen(script)
    await client.post(receiver.target())
    exchange = await client.post(receiver.target())
    assert (exchange.failure, exchange.reused, exchange.bytes_sent) == (Failure.PROTOCOL, False, True)
    assert exchange.repeated
    assert receiver.accepted == 2


async def test_no_retry_after_any_byte_of_a_response(listen: Listen, client: Client) -> None:
    for byte in range(1, len(OK)):

        async def script(peer: Peer, byte: int = byte) -> None:
            await peer.respond()
            await peer.respond(OK[:byte])

        receiver = await listen(script)
        await client.post(receiver.target())
        exchange = await client.post(receiver.target())
        assert (exchange.failure, exchange.reused) == (Failure.PROTOCOL, True)
        assert receiver.accepted == 1


async def test_no_retry_after_an_interim_response(listen: Listen, client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.respond()
        await peer.respond(b"HTTP/1.1 100 Continue\r\n\r\n")

    receiver = await listen(script)
    await client.post(receiver.target())
    exchange = await client.post(receiver.target())
    assert (exchange.failure, exchange.status_code) == (Failure.PROTOCOL, None)
    assert receiver.accepted == 1


@pytest.mark.timing
async def test_a_retry_has_only_the_remaining_timeout(listen: Listen, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        if receiver.accepted == 1:
            await peer.respond()
            await peer.request()
            await asyncio.sleep(0.7)
            return
        await asyncio.sleep(60)

    receiver = await listen(script)
    client = await connect(attempt_timeout_ms=1000)
    await client.post(receiver.target())
    exchange = await client.post(receiver.target())
    assert exchange.failure is Failure.TIMEOUT
    assert receiver.accepted == 2
    assert 1 <= exchange.duration_us / 1e6 < 1.7


async def test_a_failed_retry_reports_that_the_request_was_sent(listen: Listen, client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.respond()
        assert receiver.server is not None
        receiver.server.close()
        await peer.request()

    receiver = await listen(script)
    await client.post(receiver.target())
    exchange = await client.post(receiver.target())
    assert (exchange.failure, exchange.bytes_sent, exchange.repeated) == (Failure.CONNECT, True, False)
    assert exchange.error == f"could not connect to 127.0.0.1:{receiver.port}: connection refused"


async def test_an_idle_connection_that_ends_is_removed(listen: Listen, client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.respond()
        await asyncio.sleep(0.005)

    receiver = await listen(script)
    await client.post(receiver.target())
    assert client.sender.idle_connections == 1
    await until(lambda: client.sender.idle_connections == 0)
    exchange = await client.post(receiver.target())
    assert (exchange.failure, exchange.reused) == (None, False)


@pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"\r\n", b"x"])
async def test_unexpected_bytes_close_an_idle_connection(listen: Listen, client: Client, extra: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.respond()
        if receiver.accepted == 1:
            await asyncio.sleep(0.005)
            await peer.send(extra)
            await peer.wait_closed()

    receiver = await listen(script)
    await client.post(receiver.target())
    await until(lambda: client.sender.idle_connections == 0)
    assert (await client.post(receiver.target())).response_body == b"ok"
    assert receiver.accepted == 2


@pytest.mark.parametrize("extra", [OK, b"H", b"garbage", b"HTTP/1.1 500 No\r\n"])
async def test_bytes_after_the_response_close_the_connection(listen: Listen, client: Client, extra: bytes) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.respond(OK + extra)

    receiver = await listen(script)
    for _ in range(3):
        exchange = await client.post(receiver.target())
        assert (exchange.status_code, exchange.failure, exchange.response_body) == (200, None, b"ok")
        assert exchange.response_head == OK[:-2]
    assert receiver.accepted == 3


async def test_a_receiver_that_sends_first_is_rejected(listen: Listen, client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"220 mail.example ESMTP\r\n")
        await peer.wait_closed()

    exchange = await client.post((await listen(script)).target())
    assert exchange.failure is Failure.PROTOCOL


async def test_a_refused_connection_fails(client: Client, listen: Listen) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    receiver = await listen(serve_ok)
    receiver.port = port
    exchange = await client.post(receiver.target())
    assert exchange.failure is Failure.CONNECT
    assert (exchange.bytes_sent, exchange.first_byte_ms, exchange.status_code) == (False, None, None)
    assert exchange.remote_address == f"127.0.0.1:{port}"


async def test_a_receiver_that_does_not_accept_times_out(listen: Listen, connect: Connect) -> None:
    # The accept queue is full, so the kernel drops further SYNs.
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        waiting = []
        for _ in range(3):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            waiting.append(sock)
        receiver = await listen(serve_ok)
        receiver.port = port
        client = await connect(connect_timeout_ms=300)
        exchange = await client.post(receiver.target())
        assert exchange.failure is Failure.TIMEOUT
        assert exchange.error == f"127.0.0.1:{port} did not accept a connection within 0.3 s"
        assert not exchange.bytes_sent
        late = await connect(attempt_timeout_ms=300)
        exchange = await late.post(receiver.target())
        assert exchange.failure is Failure.TIMEOUT
        assert exchange.error == f"no complete response within 0.3 s: still connecting to 127.0.0.1:{port}"
        for sock in waiting:
            sock.close()
