"""Three receivers on one local port: one is healthy, one fails at first, and one fails for minutes at a time.

Each receiver verifies the signatures in `webhook-signature` and `x-uplift-signature-256` with the receiver library. The
port also serves links that redirect to the dashboard.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from uplift_webhooks import Webhook, WebhookVerificationError
from uplift_webhooks.cli.kit.errors import CliError

STEADY: Final = "steady"
SHAKY: Final = "shaky"
DOWN: Final = "down"
HEAD_BYTES_MAX: Final = 64 * 1024
BODY_BYTES_MAX: Final = 1024 * 1024
UPLIFT_SIGNATURE: Final = "x-uplift-signature-256"

FIRST_FAILURES: Final = 8
"""Number of initial events whose first attempt fails at the shaky receiver. The number is too small to open the circuit
breaker."""
SECOND_FAILURES: Final = 2
"""Number of initial events whose first and second attempts fail at the shaky receiver."""
RELAPSE_EVERY: Final = 60
"""After the first FIRST_FAILURES events, one in every RELAPSE_EVERY first attempts fails at the shaky receiver."""

DOWN_SECONDS: Final = 600.0
"""Duration of each outage of the down receiver, in seconds.

This is long enough to look at the dashboard.
"""
UP_SECONDS: Final = 300.0
"""Duration of each healthy period of the down receiver, in seconds."""
_LINK_TOKEN_BYTES: Final = 12

_REASONS: Final = {
    204: "No Content",
    302: "Found",
    303: "See Other",
    400: "Bad Request",
    404: "Not Found",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that arrived at one of the demo's receivers."""

    receiver: str
    at: float
    """When the request was complete, as a value of `time.perf_counter()`."""
    event: str
    type: str
    attempt: int
    status: int
    problem: str | None
    """The verification error, or None if both signatures are valid."""


class ShakyRule:
    """Selects the shaky receiver's responses. Failures depend only on the order of the requests."""

    def __init__(self) -> None:
        self._firsts = 0
        self._failed: set[str] = set()
        self._seconds = 0

    def status(self, event: str, attempt: int) -> int:
        """Return the status code for an attempt. Some first and second attempts fail."""
        if attempt == 1:
            self._firsts += 1
            if self._firsts <= FIRST_FAILURES or self._firsts % RELAPSE_EVERY == 0:
                self._failed.add(event)
                # Typical failures: a crashed program, and a redirect to a login page.
                return 302 if self._firsts % 3 == 0 else 500
        if event in self._failed and attempt == 2:
            self._failed.discard(event)
            self._seconds += 1
            if self._seconds <= SECOND_FAILURES:
                return 500
        return 204


class DownRule:
    """Selects the down receiver's responses: failures for DOWN_SECONDS, then successes for UP_SECONDS, and so on."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began = now()

    def status(self) -> int:
        """Return the current status code: 503 during an outage, otherwise 204."""
        return 503 if (self._now() - self._began) % (DOWN_SECONDS + UP_SECONDS) < DOWN_SECONDS else 204


class Receivers:
    """An HTTP server that has one path for each receiver and for each link."""

    def __init__(self, tokens: Mapping[str, str], on_arrival: Callable[[Arrival], None]) -> None:
        self._standard = {name: Webhook(token) for name, token in tokens.items()}
        self._uplift = {name: Webhook(token, allow_uplift_signature=True) for name, token in tokens.items()}
        self._on_arrival = on_arrival
        self._shaky = ShakyRule()
        self._down = DownRule()
        self._links: dict[str, Callable[[], Awaitable[str]]] = {}
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen on a free port of the loopback address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_BYTES_MAX)

    async def stop(self) -> None:
        """Stop listening and close all connections."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._connections):
                writer.close()
            await self._server.wait_closed()

    def url(self, receiver: str) -> str:
        """Return the URL at which a receiver accepts requests."""
        assert self._server is not None, "not started"
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/{receiver}"

    def add_link(self, name: str, target: Callable[[], Awaitable[str]]) -> str:
        """Add a link and return its URL, which contains a random token.

        For each request to the link, the server calls `target` and redirects the client to the returned URL.
        """
        path = f"{name}/{secrets.token_urlsafe(_LINK_TOKEN_BYTES)}"
        self._links[path] = target
        return self.url(path)

    def remove_links(self) -> None:
        """Remove all links."""
        self._links.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
            pass  # the client disconnected or did not send HTTP
        finally:
            self._connections.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Handle one request. Return whether to keep the connection open."""
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if colon:
                headers[name.strip().lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        if not 0 <= length <= BODY_BYTES_MAX:
            return False
        body = await reader.readexactly(length)
        path = lines[0].split(" ")[1].strip("/")
        if path in self._links:
            status, location = await self._redirect(path)
        else:
            status = self._respond(path, headers, body)
            location = "/login" if status == 302 else None
        header = f"location: {location}\r\ncache-control: no-store\r\n" if location else ""
        writer.write(f"HTTP/1.1 {status} {_REASONS[status]}\r\n{header}content-length: 0\r\n\r\n".encode())
        await writer.drain()
        return headers.get("connection", "").lower() != "close"

    async def _redirect(self, path: str) -> tuple[int, str | None]:
        try:
            return 303, await self._links[path]()
        except CliError:
            return 503, None

    def _respond(self, receiver: str, headers: dict[str, str], body: bytes) -> int:
        at = time.perf_counter()
        if receiver not in self._standard:
            return 404
        attempt = int(headers.get("x-uplift-attempt", "0"))
        event_id, event_type, problem = headers.get("webhook-id", ""), headers.get("x-uplift-event", ""), None
        try:
            event = self._standard[receiver].unwrap(body, headers)
            self._uplift[receiver].unwrap(body, {UPLIFT_SIGNATURE: headers.get(UPLIFT_SIGNATURE, "")})
            event_id, event_type = event.id, event.type
        except WebhookVerificationError as error:
            problem = error.cause
        if problem is not None:
            status = 400
        elif receiver == STEADY or event_type == "webhook.created":
            status = 204
        elif receiver == SHAKY:
            status = self._shaky.status(event_id, attempt)
        else:
            status = self._down.status()
        self._on_arrival(Arrival(receiver, at, event_id, event_type, attempt, status, problem))
        return status
