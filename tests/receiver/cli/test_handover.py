"""Forwarding to local servers over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from uplift_webhooks import Webhook
from uplift_webhooks.cli.listening.frames import EventFrame, LocalResponse
from uplift_webhooks.cli.listening.handover import LOST_MAX, Handing, Handover
from uplift_webhooks.cli.listening.local_server import ConnectionLost, LocalServer
from uplift_webhooks.cli.listening.target import read_target

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BODY = b'{"id":"e1","type":"test.numbered","data":{}}'
EVENT = EventFrame("p1", "e1", "test.numbered", "2026-01-01T00:00:00.000Z", "dlv_1", False, BODY)


@dataclass
class ScriptedServer:
    """A server that sends the given responses in order. None closes the connection."""

    responses: list[bytes | None]
    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    then_close: bool = False

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._respond(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        self.heads.append(head)
        self.bodies.append(await reader.readexactly(length))
        raw = self.responses.pop(0) if self.responses else OK
        if raw is None:
            return False
        writer.write(raw)
        await writer.drain()
        return not self.then_close

    def header(self, name: str, number: int = -1) -> str | None:
        for line in self.heads[number].decode().split("\r\n"):
            if line.lower().startswith(f"{name}: "):
                return line.partition(": ")[2]
        return None

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator["ScriptedServer"]:
        server = await asyncio.start_server(self.handle, "127.0.0.1", port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()


@dataclass
class ProgressRecorder:
    lines: list[str] = field(default_factory=list)

    def local_away(self, reason: str) -> None:
        self.lines.append(f"away: {reason}")

    def local_back(self) -> None:
        self.lines.append("back")


def server_of(local: ScriptedServer, *, seconds: float = 5) -> LocalServer:
    return LocalServer(read_target(f"127.0.0.1:{local.port}/hook?x=1"), timeout_seconds=seconds)


def new_handover(local: ScriptedServer, progress: ProgressRecorder, *, unreachable_seconds: float = 5) -> Handover:
    return Handover(
        server_of(local), SECRET, progress, docs_url="https://api.example/docs", unreachable_seconds=unreachable_seconds
    )


async def test_a_forwarded_request_has_uplift_headers_and_a_new_signature() -> None:
    progress = ProgressRecorder()
    async with ScriptedServer([]).serving() as local:
        handover = new_handover(local, progress)
        handing = Handing(EVENT)
        response = await handover.take(handing)
        assert (response.status_code, response.body, handing.times, progress.lines) == (200, "ok", 1, [])
        assert local.heads[0].startswith(b"POST /hook?x=1 HTTP/1.1\r\nhost: 127.0.0.1:")
        headers = dict(line.split(": ", 1) for line in local.heads[0].decode().split("\r\n")[1:-2])
        Webhook(SECRET).verify(local.bodies[0], headers)
        assert headers["webhook-id"] == "e1"
        assert headers["x-uplift-event"] == "test.numbered"
        assert headers["x-uplift-delivery"] == "dlv_1"
        assert headers["x-uplift-attempt"] == "1"
        assert headers["user-agent"].endswith("(+https://api.example/docs)")
        assert "x-uplift-redelivered" not in headers
        assert local.bodies[0] == BODY
        # A repeat has the header `x-uplift-redelivered`, and uses the same connection.
        await handover.take(handing)
        assert (local.header("x-uplift-redelivered"), local.header("x-uplift-attempt")) == ("true", "2")
        assert local.connections == 1
        handover.close()


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, 200, "ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=1\r\nok\r\n0\r\nTrailer: x\r\n\r\n", 200, "ok"),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", 500, ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000, 200, "x" * 1024),
        (b"HTTP/1.1 404\r\nContent-Length: 1\r\n\r\n\xff", 404, "\ufffd"),
    ],
)
async def test_responses_that_keep_the_connection_open(raw: bytes, status: int, body: str) -> None:
    async with ScriptedServer([raw, raw]).serving() as local:
        server = server_of(local)
        for _ in range(2):
            response = await server.post({}, b"{}")
            assert (response.status_code, response.body, response.error) == (status, body, None)
        assert local.connections == 1
        server.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
    ],
)
async def test_responses_that_close_the_connection(raw: bytes) -> None:
    async with ScriptedServer([raw, raw], then_close=True).serving() as local:
        server = server_of(local)
        for _ in range(2):
            response = await server.post({}, b"{}")
            assert (response.status_code, response.body) == (200, "ok")
        assert local.connections == 2


async def test_a_long_response_body_is_truncated() -> None:
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 5_000_000
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b"x" * 65_536 + b"\r\n") * 80
    async with ScriptedServer([long, endless]).serving() as local:
        server = server_of(local)
        for _ in range(2):
            response = await server.post({}, b"{}")
            assert (response.status_code, len(response.body)) == (200, 1024)
        assert local.connections == 2
        server.close()


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"220 smtp.example ESMTP\r\n\r\n", "the response is not HTTP/1.0 or HTTP/1.1"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "the response is not HTTP/1.0 or HTTP/1.1"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "the local server responded with 101, which changes the protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "the content-length of the response is not a number"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "a chunk of the response has no size"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "a chunk of the response has no size"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 70_000,
            "a line of the response body is too long",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "the response ended before the end of its body"),
        (b"HTTP/1.1 200 OK\r\nContent-", "the response ended before the end of its headers, or is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "the response headers are longer than 65536 bytes"),
    ],
)
async def test_an_invalid_response_is_reported(raw: bytes, error: str) -> None:
    async with ScriptedServer([raw], then_close=True).serving() as local:
        response = await server_of(local).post({}, b"{}")
        assert (response.status_code, response.error) == (None, error)
        assert len(local.bodies) == 1


async def test_a_response_timeout_is_reported() -> None:
    async with ScriptedServer([b"HTTP/1.1 200 OK\r\n"]).serving() as local:
        server = server_of(local, seconds=0.1)
        response = await server.post({}, b"{}")
        assert (response.status_code, response.error) == (None, "no response within 0.1 seconds")
        assert response.duration_ms >= 99
        # A late response is not the response to the next request.
        assert (await server.post({}, b"{}")).status_code == 200
        assert local.connections == 2
        server.close()


async def test_extra_bytes_are_not_part_of_the_next_response() -> None:
    async with ScriptedServer([OK + b"and more"]).serving() as local:
        server = server_of(local)
        assert (await server.post({}, b"{}")).status_code == 200
        with pytest.raises(ConnectionLost):
            await server.post({}, b"{}")
        assert (await server.post({}, b"{}")).status_code == 200
        server.close()


async def test_a_closed_idle_connection_is_replaced_silently() -> None:
    progress = ProgressRecorder()
    async with ScriptedServer([OK], then_close=True).serving() as local:
        handover = new_handover(local, progress)
        await handover.take(Handing(EVENT))
        await asyncio.sleep(0.05)  # until the connection is closed
        handing = Handing(EVENT)
        response = await handover.take(handing)
        assert (response.status_code, handing.times, local.connections) == (200, 1, 2)
        assert local.header("x-uplift-redelivered") is None
        handover.close()


async def test_a_lost_connection_is_retried_a_few_times() -> None:
    async with ScriptedServer([None, OK]).serving() as local:
        handover = new_handover(local, ProgressRecorder())
        handing = Handing(EVENT)
        response = await handover.take(handing)
        handover.close()
        assert (response.status_code, handing.times) == (200, 2)
        assert [local.header("x-uplift-redelivered", number) for number in (0, 1)] == [None, "true"]
    async with ScriptedServer([None] * 9).serving() as local:
        handing = Handing(EVENT)
        response = await new_handover(local, ProgressRecorder()).take(handing)
        assert (response.status_code, handing.times, len(local.bodies)) == (
            None,
            LOST_MAX,
            LOST_MAX,
        )
        assert response.error == "the local server did not send a complete response: the connection was closed"


async def test_a_cancelled_request_counts_if_it_was_sent() -> None:
    async with ScriptedServer([b""]).serving() as local:
        handover, handing = new_handover(local, ProgressRecorder()), Handing(EVENT)
        task = asyncio.ensure_future(handover.take(handing))
        while not local.bodies:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert handing.times == 1
    unreachable, handing = new_handover(local, ProgressRecorder()), Handing(EVENT)
    task = asyncio.ensure_future(unreachable.take(handing))
    await asyncio.sleep(0.2)  # enough time for some connection attempts
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert handing.times == 0


async def test_forwarding_waits_for_an_unreachable_server_and_reports_it_once() -> None:
    progress = ProgressRecorder()
    async with ScriptedServer([]).serving() as local:
        pass
    handover = new_handover(local, progress)
    await handover.probe()
    handing = Handing(EVENT)
    task = asyncio.ensure_future(handover.take(handing))
    await asyncio.sleep(0.3)  # enough time for some connection attempts
    assert not task.done()
    async with local.serving(local.port):
        response = await task
        assert (response.status_code, handing.times) == (200, 1)
        assert local.header("x-uplift-redelivered") is None
        handover.close()
    assert progress.lines == ["away: connection refused", "back"]


async def test_the_wait_for_an_unreachable_server_is_bounded() -> None:
    progress = ProgressRecorder()
    async with ScriptedServer([]).serving() as local:
        pass
    handover = new_handover(local, progress, unreachable_seconds=0.3)
    for _ in range(2):
        handing = Handing(EVENT)
        response = await handover.take(handing)
        assert (response.status_code, handing.times) == (None, 0)
        assert response.error == "the local server is unreachable: connection refused"
        assert response.duration_ms < 3000
    assert progress.lines == ["away: connection refused"]


async def test_an_unknown_host_is_reported() -> None:
    progress = ProgressRecorder()
    server = LocalServer(read_target("http://no-such-host.invalid/x"), timeout_seconds=1)
    handover = Handover(server, SECRET, progress, docs_url="x", unreachable_seconds=0.05)
    response = await handover.take(Handing(EVENT))
    assert response.status_code is None
    assert progress.lines[0].startswith("away: ")


def test_statuses_that_count_as_delivered() -> None:
    statuses: Callable[[int | None], bool] = lambda status: LocalResponse(status, 0).delivered  # noqa: E731
    assert [statuses(each) for each in (200, 299, 199, 300, 500, None)] == [True, True, False, False, False, False]
    assert json.loads(BODY)["id"] == EVENT.event
