"""Limits on the duration and size of requests, and on the number and duration of connections."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn

from uplift_server.api.heads import BoundedHeads
from uplift_server.core.limits import DISCARDED_BODY_BYTES_MAX, LINGER_SECONDS_MAX, REQUEST_HEADERS_BYTES_MAX

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
SLOW = HEAD.replace(b"/ ", b"/slow ")


class ShortRequestTime(BoundedHeads):
    request_seconds_max = 0.2


class NoConnections(BoundedHeads):
    connections_max = 0


async def echo(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    status = 204
    if scope["path"] == "/rejected":
        status = 413
    else:
        while (await receive()).get("more_body"):
            pass
    if scope["path"] == "/slow":
        await asyncio.sleep(0.6)
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body"})


@asynccontextmanager
async def serving(protocol: type[BoundedHeads]) -> AsyncIterator[int]:
    """Start a server with an HTTP protocol class, and yield its port."""
    server = uvicorn.Server(uvicorn.Config(echo, port=0, http=protocol, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(5):
        while not server.started:
            await asyncio.sleep(0.005)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def exchange(protocol: type[BoundedHeads], *parts: bytes, pause: float = 0.0) -> tuple[bytes, float]:
    """Send each part after a pause, and return the response bytes and the duration of the connection."""
    async with serving(protocol) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = asyncio.get_running_loop().time()
        for part in parts:
            await asyncio.sleep(pause)
            writer.write(part)
        response = await reader.read()
        duration = asyncio.get_running_loop().time() - began
        writer.close()
    return response, duration


@pytest.mark.timing
async def test_a_silent_connection_is_closed_without_a_response() -> None:
    response, duration = await exchange(ShortRequestTime)
    assert response == b""
    assert 0.15 < duration < 1


@pytest.mark.timing
async def test_incomplete_requests_get_408() -> None:
    for partial in (b"POST", HEAD, HEAD + b"\r\n", HEAD + b"\r\n{"):
        response, duration = await exchange(ShortRequestTime, partial)
        assert problem_in(response)["code"] == "request_timeout"
        assert 0.15 < duration < 1, partial


async def test_an_incomplete_request_after_a_pending_one_gets_no_response() -> None:
    """A client could mistake the response for the response to the earlier request."""
    for partial in (HEAD, HEAD + b"\r\n{"):
        response, _ = await exchange(ShortRequestTime, SLOW + b"\r\n{}" + partial)
        assert b"408" not in response
        assert response.count(b"HTTP/1.1") <= 1


async def test_a_connection_beyond_the_limit_is_rejected() -> None:
    response, _ = await exchange(NoConnections, HEAD + b"\r\n{}")
    assert problem_in(response)["code"] == "unavailable"
    assert b"retry-after: 1\r\n" in response.lower()


@pytest.mark.timing
async def test_the_limit_applies_after_a_complete_request() -> None:
    response, duration = await exchange(ShortRequestTime, HEAD + b"\r\n{}", HEAD)
    assert response.count(b"HTTP/1.1 204") == 1
    assert problem_in(response[response.index(b"HTTP/1.1 408") :])["code"] == "request_timeout"
    assert duration < 1


@pytest.mark.timing
async def test_sequential_requests_keep_the_connection() -> None:
    last = HEAD + b"Connection: close\r\n\r\n{}"
    response, duration = await exchange(ShortRequestTime, *[HEAD + b"\r\n{}"] * 6, last, pause=0.1)
    assert response.count(b"HTTP/1.1 204") == 7
    assert duration > 0.6


def problem_in(response: bytes) -> Any:
    """Return the problem in a complete error response."""
    head, _, body = response.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"content-type: application/problem+json" in lines
    assert b"content-length: %d" % len(body) in lines
    assert b"connection: close" in lines
    problem = json.loads(body)
    assert response.startswith(b"HTTP/1.1 %d " % problem["status"])
    return problem


async def test_endless_headers_are_rejected() -> None:
    filler = b"X-Filler: " + b"y" * 1000 + b"\r\n"
    response, _ = await exchange(
        BoundedHeads, HEAD, *[filler * 10] * (REQUEST_HEADERS_BYTES_MAX // 10_000 + 1), pause=0.01
    )
    assert problem_in(response)["code"] == "head_too_large"
    assert response.startswith(b"HTTP/1.1 431 ")


async def test_invalid_http_is_rejected() -> None:
    for invalid in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n", HEAD + b"no header\r\n\r\n"):
        response, _ = await exchange(BoundedHeads, invalid)
        assert problem_in(response)["code"] == "malformed_request"


async def test_a_long_body_in_parts_does_not_count_as_headers() -> None:
    size = 4 * REQUEST_HEADERS_BYTES_MAX
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
    response, _ = await exchange(BoundedHeads, head, *[b"x" * (size // 8)] * 8, pause=0.01)
    assert response.startswith(b"HTTP/1.1 204 ")


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
GARBAGE = b"\x00\x01 garbage\r\n\r\n"


def statuses(response: bytes) -> list[bytes]:
    """Return the status codes of the responses, in order."""
    return re.findall(rb"HTTP/1\.1 (\d{3})", response)


@pytest.mark.parametrize("garbage", [GARBAGE, b"GET / HTTP/9.9\r\n\r\n", b"CONNECT :: HTTP/1.1\r\nHost: x\r\n\r\n"])
@pytest.mark.timing
async def test_complete_requests_before_garbage_get_responses(garbage: bytes) -> None:
    for before in (1, 3):
        response, duration = await exchange(BoundedHeads, (SLOW + b"\r\n{}") * before + garbage)
        assert statuses(response) == [b"204"] * before
        assert response.lower().count(b"connection: close") == 1
        assert duration < 2 * before


async def test_a_malformed_body_after_a_complete_request_is_rejected() -> None:
    response, _ = await exchange(BoundedHeads, SLOW + b"\r\n{}" + CHUNKED + b"zz\r\n")
    assert statuses(response) == [b"204", b"400"]
    assert problem_in(response[response.index(b"HTTP/1.1 400") :])["code"] == "malformed_request"


async def test_a_malformed_body_is_rejected_once() -> None:
    for between in (b"", b"2\r\n{}\r\n"):
        response, _ = await exchange(BoundedHeads, CHUNKED + between + b"zz\r\n", GARBAGE)
        assert problem_in(response)["code"] == "malformed_request"


@pytest.mark.timing
async def test_a_body_that_takes_too_long_gets_408() -> None:
    class ShortBodyTime(BoundedHeads):
        body_seconds_max = 0.2

    for partial in (HEAD + b"\r\n", HEAD + b"\r\n{", CHUNKED + b"1\r\n{\r\n"):
        response, duration = await exchange(ShortBodyTime, HEAD + b"\r\n{}", partial, pause=0.1)
        assert statuses(response) == [b"204", b"408"]
        assert 0.25 < duration < 2


async def test_each_body_has_its_own_time_limit() -> None:
    class ShortBodyTime(BoundedHeads):
        body_seconds_max = 1.0

    last = HEAD + b"Connection: close\r\n\r\n"
    response, _ = await exchange(ShortBodyTime, HEAD + b"\r\n{", b"}", last + b"{", b"}", pause=0.4)
    assert statuses(response) == [b"204", b"204"]


@pytest.mark.parametrize("protocol", [BoundedHeads, NoConnections])
async def test_a_response_reaches_a_client_that_sends_its_whole_body_first(protocol: type[BoundedHeads]) -> None:
    size = 8 * 1024 * 1024
    for path, status in ((b"/rejected", b"413"), (b"/", b"204")):
        head = b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (path, size)
        response, _ = await exchange(protocol, head, *[b"x" * (size // 64)] * 64, pause=0.002)
        assert statuses(response) == [b"503" if protocol is NoConnections else status]


async def test_an_endless_body_is_discarded_up_to_a_limit() -> None:
    head = b"POST /rejected HTTP/1.1\r\nHost: x\r\n%bTransfer-Encoding: chunked\r\n\r\n"
    for connection in (b"", b"Connection: close\r\n"):
        async with serving(BoundedHeads) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head % connection)
            assert (await reader.readline()).startswith(b"HTTP/1.1 413")
            sent = 0
            with suppress(ConnectionError):
                while sent < 2 * DISCARDED_BODY_BYTES_MAX:
                    writer.write(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
                    await writer.drain()
                    sent += 0x100000
        assert sent < 2 * DISCARDED_BODY_BYTES_MAX


async def test_lingering_connections_are_limited_in_number_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uplift_server.api.heads.LINGERING_CONNECTIONS_MAX", 2)
    monkeypatch.setattr("uplift_server.api.heads.LINGER_SECONDS_MAX", 1)
    head = b"POST /rejected HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100\r\n\r\n"
    async with serving(BoundedHeads) as port:
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        for _, writer in connections:
            writer.write(head)
        for reader, _ in connections:
            assert (await reader.read()).startswith(b"HTTP/1.1 413")
        assert len(BoundedHeads.lingering) == 2
        async with asyncio.timeout(5):
            while BoundedHeads.lingering:
                await asyncio.sleep(0.02)
        for _, writer in connections:
            writer.close()


async def test_a_lingering_connection_does_not_delay_the_stop() -> None:
    head = b"POST /rejected HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100\r\n\r\n"
    async with serving(BoundedHeads) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        assert (await reader.read()).startswith(b"HTTP/1.1 413")
        assert BoundedHeads.lingering
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < LINGER_SECONDS_MAX / 2
    writer.close()
