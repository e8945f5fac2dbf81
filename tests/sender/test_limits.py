"""A slow or hostile receiver affects only its own request, for a limited time and with limited memory."""

import asyncio
import errno
import time
import tracemalloc
from typing import Any

import pytest

from uplift_server.core.http.exchange import Failure
from uplift_server.delivery.sending.http import Target

from .scripted import OK, Connect, Listen, Peer, request_to, serve_ok

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
# Timeouts are checked at intervals of at most a tenth of a timeout. The remaining tolerance is for a busy machine.
TOLERANCE_SECONDS = 4


async def send_until_closed(peer: Peer, head: bytes, piece: bytes) -> None:
    """Send `head`, then `piece` until the client closes the connection."""
    await peer.request()
    await peer.send(head)
    while not peer.writer.is_closing():
        await peer.send(piece)


@pytest.mark.parametrize(
    "head",
    [HEAD + b"\r\n", HEAD + b"Content-Length: 10000000000\r\n\r\n", CHUNKED],
    ids=["no length", "length", "chunked"],
)
async def test_an_endless_body_is_truncated(listen: Listen, connect: Connect, head: bytes) -> None:
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n" if head is CHUNKED else b"x" * 65536
    receiver = await listen(lambda peer: send_until_closed(peer, head, piece))
    client = await connect()
    tracemalloc.start()
    try:
        exchange = await client.post(receiver.target())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (exchange.status_code, exchange.failure) == (200, None)
    assert exchange.body_truncated
    assert exchange.response_body == b"x" * 4096
    assert exchange.duration_us / 1e6 < TOLERANCE_SECONDS
    assert peak < 4_000_000
    await receiver.peers[0].wait_closed()
    assert client.sender.idle_connections == 0


@pytest.mark.parametrize(
    ("size", "truncated"),
    [(4096, False), (4097, True), (65536, True)],
)
async def test_read_and_stored_bytes_are_limited(listen: Listen, connect: Connect, size: int, truncated: bool) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.respond(HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)

    receiver = await listen(script)
    client = await connect()
    for _ in range(2):
        exchange = await client.post(receiver.target())
        assert (exchange.failure, exchange.body_truncated) == (None, truncated)
        assert exchange.response_body == b"x" * min(size, 4096)
    assert receiver.accepted == 1


@pytest.mark.parametrize(
    "piece",
    [b"1;" + b"x" * 60_000 + b"\r\na\r\n", b"0\r\n" + b"X-Trailer: x\r\n" * 5000],
    ids=["chunk extensions", "trailers"],
)
async def test_endless_chunk_framing_is_truncated(listen: Listen, connect: Connect, piece: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + piece)
        while not peer.writer.is_closing():
            await peer.send(b"X-Trailer: x\r\n" * 5000 if piece[:1] == b"0" else piece)

    exchange = await (await connect()).post((await listen(script)).target())
    assert (exchange.status_code, exchange.failure, exchange.body_truncated) == (200, None, True)
    assert exchange.duration_us / 1e6 < TOLERANCE_SECONDS


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X: " + b"a" * 33_000 + b"\r\n\r\n",
        HEAD + b"X: 1\r\n" * 6_000 + b"\r\n",
        b"HTTP/1.1 200 " + b"a" * 40_000,
    ],
    ids=["one long header", "many headers", "reason"],
)
async def test_long_response_headers_fail(listen: Listen, connect: Connect, head: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.respond(head)
        await peer.wait_closed()

    exchange = await (await connect()).post((await listen(script)).target())
    assert exchange.failure is Failure.PROTOCOL
    assert exchange.error == "the response is not valid HTTP/1.1: its headers are longer than 32768 bytes"
    assert len(exchange.response_head) <= 4096


async def test_endless_interim_responses_fail(listen: Listen, connect: Connect) -> None:
    receiver = await listen(lambda peer: send_until_closed(peer, b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100))
    exchange = await (await connect()).post(receiver.target())
    assert (exchange.failure, exchange.status_code) == (Failure.PROTOCOL, None)


@pytest.mark.parametrize(
    ("start", "piece", "stage", "status"),
    [
        (b"", b"", "waiting for the response", None),
        (b"HTTP/1.1 200 OK\r\nX: ", b"a", "receiving the response headers", 200),
        (HEAD + b"Content-Length: 100000\r\n\r\n", b"a", "receiving the response body", 200),
        (HEAD + b"\r\n", b"a", "receiving the response body", 200),
        (CHUNKED, b"1\r\na\r\n", "receiving the response body", 200),
    ],
    ids=["no response", "headers", "body", "body without length", "chunks"],
)
async def test_slow_bytes_do_not_extend_the_timeout(
    listen: Listen, connect: Connect, start: bytes, piece: bytes, stage: str, status: int | None
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(start)
        while not peer.writer.is_closing():
            await peer.send(piece)
            await asyncio.sleep(0.005)

    receiver = await listen(script)
    client = await connect(attempt_timeout_ms=400)
    exchange = await client.post(receiver.target())
    assert (exchange.failure, exchange.status_code) == (Failure.TIMEOUT, status)
    assert exchange.error == f"no complete response within 0.4 s: still {stage}"
    assert 0.4 <= exchange.duration_us / 1e6 < 0.4 + TOLERANCE_SECONDS
    assert exchange.bytes_sent
    await receiver.peers[0].wait_closed()


async def test_a_receiver_that_never_reads_blocks_only_its_request(listen: Listen, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(60)

    receiver = await listen(script)
    client = await connect(attempt_timeout_ms=150)
    body = b"x" * 20_000_000
    tracemalloc.start()
    try:
        exchange = await client.post(receiver.target(), body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert exchange.failure is Failure.TIMEOUT
    assert exchange.duration_us / 1e6 < TOLERANCE_SECONDS
    assert peak < 3 * len(body)


@pytest.mark.timing
async def test_slow_requests_time_out_despite_fast_ones(listen: Listen, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.endswith(b"slow"):
                await asyncio.sleep(60)
            await peer.send(OK)

    receiver = await listen(script)
    client = await connect(attempt_timeout_ms=100)
    started = time.monotonic()
    slow = []
    for _ in range(5):
        slow.append(client.send(receiver.target(), b"slow"))
        for _ in range(10):
            assert (await client.post(receiver.target(), b"fast")).failure is None
    exchanges = await asyncio.gather(*slow)
    assert {exchange.failure for exchange in exchanges} == {Failure.TIMEOUT}
    assert all(0.1 <= exchange.duration_us / 1e6 < 0.35 for exchange in exchanges)
    assert time.monotonic() - started < 1
    assert client.sender.in_flight == 0


async def test_an_error_in_done_does_not_affect_other_requests(listen: Listen, connect: Connect) -> None:
    errors = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["message"]))

    async def script(peer: Peer) -> None:
        while True:
            await peer.respond()

    receiver = await listen(script)
    client = await connect()

    def fail(*_: object) -> None:
        raise ValueError("a caller's fault")

    client.sender.send(request_to(receiver.target()), fail)
    while client.sender.in_flight:
        await asyncio.sleep(0.001)
    assert errors == ["request callback failed"]
    exchange = await client.post(receiver.target())
    assert (exchange.failure, exchange.reused) == (None, True)


async def test_a_defect_in_the_sender_ends_the_attempt(connect: Connect, monkeypatch: Any) -> None:
    errors = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["message"]))
    client = await connect()

    async def fail(_: str) -> tuple[str, ...]:
        raise RuntimeError("a fault")

    monkeypatch.setattr(client.resolver, "resolve", fail)
    exchange = await client.post(Target("hooks.example", 443, True))
    assert (exchange.failure, exchange.error) == (Failure.EGRESS, "internal error: RuntimeError")
    assert errors == ["connection not opened"]


async def test_missing_file_descriptors_are_an_egress_failure(
    listen: Listen, connect: Connect, monkeypatch: Any
) -> None:
    receiver = await listen(serve_ok)
    client = await connect()

    def exhausted(*_: object) -> None:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr("uplift_server.delivery.sending.http.connector.socket.socket", exhausted)
    exchange = await client.post(receiver.target())
    monkeypatch.undo()
    assert exchange.failure is Failure.EGRESS
    assert exchange.error is not None
    assert exchange.error.endswith("too many open files")


async def test_requests_have_their_own_timeouts(listen: Listen, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(60)

    receiver = await listen(script)
    client = await connect(attempt_timeout_ms=1500)
    started = {timeout_ms: client.send(receiver.target(), timeout_ms=timeout_ms) for timeout_ms in (2500, None, 400)}
    for timeout_ms, sent in reversed(started.items()):
        exchange = await sent
        limit_s = (timeout_ms or 1500) / 1000
        assert exchange.failure is Failure.TIMEOUT
        assert exchange.error == f"no complete response within {limit_s:g} s: still waiting for the response"
        # Each attempt ends after its own timeout and before the next longer one.
        assert limit_s <= exchange.duration_us / 1e6 < limit_s + 1
    assert client.sender.in_flight == 0
