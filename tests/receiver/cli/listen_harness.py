"""A scripted server for listeners, a fake local server, and a listener with short waits."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from uplift_webhooks.cli.listening.frames import EventFrame, LocalResponse
from uplift_webhooks.cli.listening.handover import Handing
from uplift_webhooks.cli.listening.listener import Listener, Timing
from uplift_webhooks.cli.listening.stream import Address

Script = Callable[["ListenServer", ServerConnection], Coroutine[Any, Any, None]]


WITHIN_SECONDS = 15.0


async def wait_until(condition: Callable[[], object]) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def frame(number: int, *, test: bool = False) -> bytes:
    """Return the frame of an event."""
    header = {
        "kind": "event",
        "place": f"test-{number}" if test else f"p{number:04}",
        "event": f"e{number}",
        "type": "test.numbered",
        "created_at": "2026-01-01T00:00:00.000Z",
        "delivery": f"dlv_{number}",
        "test": test,
    }
    return json.dumps(header).encode() + b"\n" + b'{"n":%d}' % number


@dataclass
class ListenServer:
    """A server that sends the events after the requested position and records the responses."""

    events: list[int]
    scripts: list[Script] = field(default_factory=list)
    """The behavior of each connection, in order. Later connections are normal."""
    positions: list[str | None] = field(default_factory=list)
    """The position that each connection requested."""
    responses: list[dict[str, Any]] = field(default_factory=list)
    status: int | None = None
    """The status code that rejects the handshake, or None to accept it."""
    url: str = ""
    port: int = 0
    behind: int = -1
    """The number of the last event with a response."""

    async def receive_response(self, socket: ServerConnection) -> dict[str, Any]:
        response: dict[str, Any] = json.loads(await socket.recv())
        assert response["kind"] == "answer"
        self.responses.append(response)
        return response

    async def send_events(self, socket: ServerConnection, start: int) -> None:
        await socket.send(json.dumps({"kind": "ready", "session": "lsn_1"}))
        for number in self.events[start:]:
            await socket.send(frame(number))
        while True:
            await self.receive_response(socket)

    async def handle(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        assert socket.request.headers["authorization"] == "Bearer sk_1"
        [after] = parse_qs(urlsplit(socket.request.path).query).get("after", [None])
        self.positions.append(after)
        with suppress(ConnectionClosed):
            if self.scripts:
                await self.scripts.pop(0)(self, socket)
            else:
                await self.send_events(socket, 0 if after is None else self.events.index(int(after[1:])) + 1)

    def reject_handshake(self, socket: ServerConnection, _: Request) -> Response | None:
        if self.status is None:
            return None
        response = socket.respond(self.status, json.dumps({"detail": "No."}))
        del response.headers["content-type"]
        response.headers["content-type"] = "application/problem+json"
        return response

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["ListenServer"]:
        async with serve(
            self.handle,
            "127.0.0.1",
            0,
            process_request=self.reject_handshake,
            ping_interval=None,
            close_timeout=0.1,
            ssl=tls,
        ) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            self.url = f"http://127.0.0.1:{self.port}"
            yield self


@dataclass
class FakeLocalServer:
    """A local server that accepts every event after a delay."""

    numbers: list[int] = field(default_factory=list)
    seconds: float = 0.0
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    """The server accepts nothing before this event is set."""
    closed: bool = False

    async def take(self, handing: Handing) -> LocalResponse:
        await self.opened.wait()
        handing.times += 1
        await asyncio.sleep(self.seconds)
        self.numbers.append(json.loads(handing.event.body)["n"])
        return LocalResponse(200, 1, body="ok")

    def close(self) -> None:
        self.closed = True


@dataclass
class ProgressRecorder:
    """Records progress, in order."""

    lines: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def ready(self) -> None:
        self.lines.append("ready")

    def reconnecting(self, why: str, wait_seconds: float) -> None:
        self.lines.append("reconnecting")
        self.reasons.append(why)

    def reconnected(self) -> None:
        self.lines.append("reconnected")

    def delivery(self, event: EventFrame, receive_response: LocalResponse, *, again: bool, comes_again: bool) -> None:
        assert not comes_again
        self.lines.append(f"{event.event} again" if again else event.event)


@asynccontextmanager
async def listening(
    server: ListenServer, *, seconds: float = 0.0, opened: bool = True, **timing: Any
) -> AsyncIterator[tuple[FakeLocalServer, ProgressRecorder, "asyncio.Task[None]"]]:
    """Run a listener until the end of the block."""
    quick = {"first_wait_seconds": 0.01, "longest_wait_seconds": 0.05, "clock_look_seconds": 0.02}
    local, progress = FakeLocalServer(seconds=seconds), ProgressRecorder()
    if opened:
        local.opened.set()
    address = Address(server.url, "lsn_1", {"authorization": "Bearer sk_1"})
    listener = Listener(address, local, progress, timing=Timing(**{**quick, **timing}))
    task = asyncio.ensure_future(listener.run())
    try:
        yield local, progress, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert local.closed
