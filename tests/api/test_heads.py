"""Time limits of requests and connections."""

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


class Impatient(BoundedHeads):
    request_seconds_max = 0.2


class Crowded(BoundedHeads):
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
    """Start a server with a protocol, and return its port."""
    server = uvicorn.Server(uvicorn.Config(echo, port=0, http=protocol, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(5):
        while not server.started:
            await asyncio.sleep(0.005)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def exchange(protocol: type[BoundedHeads], *parts: bytes, pause: float = 0.0) -> tuple[bytes, float]:
    """Send the parts with a pause before each. Return the responses and the duration of the connection."""
    async with serving(protocol) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = asyncio.get_running_loop().time()
        for part in parts:
            await asyncio.sleep(pause)
            writer.write(part)
        answer = await reader.read()
        took = asyncio.get_running_loop().time() - began
        writer.close()
    return answer, took


@pytest.mark.timing
async def test_a_silent_connection_is_closed_without_a_response() -> None:
    answer, took = await exchange(Impatient)
    assert answer == b""
    assert 0.15 < took < 1


@pytest.mark.timing
async def test_incomplete_requests_get_408() -> None:
    for half in (b"POST", HEAD, HEAD + b"\r\n", HEAD + b"\r\n{"):
        answer, took = await exchange(Impatient, half)
        assert problem_in(answer)["code"] == "request_timeout"
        assert 0.15 < took < 1, half


async def test_an_incomplete_request_behind_a_pending_one_gets_no_response() -> None:
    """Its response could be mistaken for that to the earlier request."""
    for begun in (HEAD, HEAD + b"\r\n{"):
        answer, _ = await exchange(Impatient, SLOW + b"\r\n{}" + begun)
        assert b"408" not in answer
        assert answer.count(b"HTTP/1.1") <= 1


async def test_a_connection_beyond_the_limit_is_rejected() -> None:
    answer, _ = await exchange(Crowded, HEAD + b"\r\n{}")
    assert problem_in(answer)["code"] == "unavailable"
    assert b"retry-after: 1\r\n" in answer.lower()


@pytest.mark.timing
async def test_the_limit_applies_after_a_complete_request() -> None:
    answer, took = await exchange(Impatient, HEAD + b"\r\n{}", HEAD)
    assert answer.count(b"HTTP/1.1 204") == 1
    assert problem_in(answer[answer.index(b"HTTP/1.1 408") :])["code"] == "request_timeout"
    assert took < 1


@pytest.mark.timing
async def test_requests_that_follow_each_other_keep_the_connection() -> None:
    last = HEAD + b"Connection: close\r\n\r\n{}"
    answer, took = await exchange(Impatient, *[HEAD + b"\r\n{}"] * 6, last, pause=0.1)
    assert answer.count(b"HTTP/1.1 204") == 7
    assert took > 0.6


def problem_in(answer: bytes) -> Any:
    """Return the problem of a complete error response."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"content-type: application/problem+json" in lines
    assert b"content-length: %d" % len(body) in lines
    assert b"connection: close" in lines
    problem = json.loads(body)
    assert answer.startswith(b"HTTP/1.1 %d " % problem["status"])
    return problem


async def test_endless_headers_are_rejected() -> None:
    filler = b"X-Filler: " + b"y" * 1000 + b"\r\n"
    answer, _ = await exchange(
        BoundedHeads, HEAD, *[filler * 10] * (REQUEST_HEADERS_BYTES_MAX // 10_000 + 1), pause=0.01
    )
    assert problem_in(answer)["code"] == "head_too_large"
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_invalid_http_is_rejected() -> None:
    for nonsense in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n", HEAD + b"no header\r\n\r\n"):
        answer, _ = await exchange(BoundedHeads, nonsense)
        assert problem_in(answer)["code"] == "malformed_request"


async def test_a_long_body_in_parts_does_not_count_as_headers() -> None:
    size = 4 * REQUEST_HEADERS_BYTES_MAX
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
    answer, _ = await exchange(BoundedHeads, head, *[b"x" * (size // 8)] * 8, pause=0.01)
    assert answer.startswith(b"HTTP/1.1 204 ")


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
GARBAGE = b"\x00\x01 garbage\r\n\r\n"


def statuses(answer: bytes) -> list[bytes]:
    """Return the status codes of the responses, in order."""
    return re.findall(rb"HTTP/1\.1 (\d{3})", answer)


@pytest.mark.parametrize("garbage", [GARBAGE, b"GET / HTTP/9.9\r\n\r\n", b"CONNECT :: HTTP/1.1\r\nHost: x\r\n\r\n"])
@pytest.mark.timing
async def test_complete_requests_get_their_responses_despite_the_garbage_behind_them(garbage: bytes) -> None:
    for before in (1, 3):
        answer, took = await exchange(BoundedHeads, (SLOW + b"\r\n{}") * before + garbage)
        assert statuses(answer) == [b"204"] * before
        assert answer.lower().count(b"connection: close") == 1
        assert took < 2 * before


async def test_a_malformed_body_behind_a_complete_request_is_rejected_in_its_turn() -> None:
    answer, _ = await exchange(BoundedHeads, SLOW + b"\r\n{}" + CHUNKED + b"zz\r\n")
    assert statuses(answer) == [b"204", b"400"]
    assert problem_in(answer[answer.index(b"HTTP/1.1 400") :])["code"] == "malformed_request"


async def test_a_malformed_body_is_rejected_once() -> None:
    for between in (b"", b"2\r\n{}\r\n"):
        answer, _ = await exchange(BoundedHeads, CHUNKED + between + b"zz\r\n", GARBAGE)
        assert problem_in(answer)["code"] == "malformed_request"


@pytest.mark.timing
async def test_a_body_that_takes_too_long_gets_408() -> None:
    class Brisk(BoundedHeads):
        body_seconds_max = 0.2

    for begun in (HEAD + b"\r\n", HEAD + b"\r\n{", CHUNKED + b"1\r\n{\r\n"):
        answer, took = await exchange(Brisk, HEAD + b"\r\n{}", begun, pause=0.1)
        assert statuses(answer) == [b"204", b"408"]
        assert 0.25 < took < 2


async def test_a_body_has_its_whole_time_after_an_earlier_one_took_some() -> None:
    class Brisk(BoundedHeads):
        body_seconds_max = 1.0

    last = HEAD + b"Connection: close\r\n\r\n"
    answer, _ = await exchange(Brisk, HEAD + b"\r\n{", b"}", last + b"{", b"}", pause=0.4)
    assert statuses(answer) == [b"204", b"204"]


@pytest.mark.parametrize("protocol", [BoundedHeads, Crowded])
async def test_a_response_reaches_a_client_that_sends_all_before_it_reads(protocol: type[BoundedHeads]) -> None:
    size = 8 * 1024 * 1024
    for path, status in ((b"/rejected", b"413"), (b"/", b"204")):
        head = b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (path, size)
        answer, _ = await exchange(protocol, head, *[b"x" * (size // 64)] * 64, pause=0.002)
        assert statuses(answer) == [b"503" if protocol is Crowded else status]


async def test_a_body_without_an_end_is_discarded_within_a_bound() -> None:
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


async def test_few_connections_linger_and_none_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_a_connection_that_lingers_does_not_delay_the_stop() -> None:
    head = b"POST /rejected HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100\r\n\r\n"
    async with serving(BoundedHeads) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        assert (await reader.read()).startswith(b"HTTP/1.1 413")
        assert BoundedHeads.lingering
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < LINGER_SECONDS_MAX / 2
    writer.close()
