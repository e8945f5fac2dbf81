"""The receiver: a separate process that accepts and counts deliveries.

The path `/ok/N` responds immediately, `/slow/MS/N` responds after MS milliseconds, `/hang/N` never responds, and
`/fail/CODE/N` responds with the status code CODE. N is any text that gives each endpoint its own path. `"seq"` in the
body identifies an event. The latency of an event is the time from `"t"` in the body (the event's scheduled time, in
Unix nanoseconds) to the arrival of the event.

    python -m bench.receiver       prints its two ports, exits when standard input closes

The control port responds to `GET /counts` (cheap), `GET /statistics`, `GET /seen` (sequence numbers in eight bytes
each) and `GET /reset`.
"""

import asyncio
import gc
import json
import re
import sys
import time
from array import array
from collections.abc import Callable
from typing import Final, cast

import httptools
import uvloop

from bench.latency import Latencies

_SEQ: Final = re.compile(rb'"seq":\s*(\d+)')
_INSTANT: Final = re.compile(rb'"t":\s*(\d+)')
_BACKLOG: Final = 4096
_OK: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
REQUEST_BYTES_MAX: Final = 1024 * 1024


class Route:
    """One path: its response and its deliveries."""

    __slots__ = ("answer", "answers", "delay", "duplicates", "kind", "requests", "seen")

    def __init__(self, path: str) -> None:
        parts = path.strip("/").split("/")
        self.kind = parts[0]
        self.delay = int(parts[1]) / 1000 if self.kind == "slow" else 0.0
        self.answers = self.kind != "hang"
        self.answer = _OK
        if self.kind == "fail":
            self.answer = b"HTTP/1.1 %d Failed\r\ncontent-length: 0\r\n\r\n" % int(parts[1])
        self.seen: set[int] = set()
        self.duplicates = 0
        self.requests = 0


class Tally:
    """All deliveries since the last reset."""

    def __init__(self) -> None:
        self.routes: dict[bytes, Route] = {}
        self.reset()

    def reset(self) -> bytes:
        """Reset the counts but not the routes."""
        self.latencies: dict[str, Latencies] = {}
        self.first_at = self.last_at = 0
        for route in self.routes.values():
            route.seen, route.duplicates, route.requests = set(), 0, 0
        return b""

    def route(self, url: bytes) -> Route:
        """Return the route of a path; the first call creates it."""
        found = self.routes.get(url)
        if found is None:
            found = self.routes[url] = Route(url.decode())
        return found

    def take(self, route: Route, body: bytes) -> None:
        """Count one request."""
        now = time.time_ns()
        route.requests += 1
        match = _SEQ.search(body)
        if match is None:  # an endpoint's `webhook.created`
            return
        seq = int(match[1])
        if seq in route.seen:
            route.duplicates += 1
            return
        route.seen.add(seq)
        self.last_at = now
        self.first_at = self.first_at or now
        instant = _INSTANT.search(body)
        if instant is not None:
            latencies = self.latencies.get(route.kind)
            if latencies is None:
                latencies = self.latencies[route.kind] = Latencies()
            latencies.add(now - int(instant[1]))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return requests, unique events and duplicates by kind of path."""
        counts: dict[str, dict[str, int]] = {}
        for route in self.routes.values():
            kind = counts.setdefault(route.kind, {"requests": 0, "unique": 0, "duplicates": 0})
            kind["requests"] += route.requests
            kind["unique"] += len(route.seen)
            kind["duplicates"] += route.duplicates
        return counts

    def statistics(self) -> dict[str, object]:
        """Return the counts, the latencies, and the times of the first and last delivery."""
        return {
            "counts": self.counts(),
            "latency_ms": {kind: found.summary() for kind, found in self.latencies.items()},
            "first_at": self.first_at,
            "last_at": self.last_at,
        }

    def seen(self) -> bytes:
        """Return the sequence numbers received on paths that respond."""
        numbers = array("q")
        for route in self.routes.values():
            if route.answers:
                numbers.extend(route.seen)
        return numbers.tobytes()


class Delivery(asyncio.Protocol):
    """A connection with deliveries."""

    __slots__ = ("_body", "_parser", "_route", "_tally", "_transport")

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Create the parser."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_url(self, url: bytes) -> None:
        """Find the route. Over loopback, a request line arrives in one piece."""
        self._route = self._tally.route(url)

    def on_body(self, body: bytes) -> None:
        """Append a part of the body, usually all of it."""
        self._body = self._body + body if self._body else body
        if len(self._body) > REQUEST_BYTES_MAX:
            self._transport.close()

    def on_message_complete(self) -> None:
        """Count the request and send the response of its path."""
        body, self._body = self._body, b""
        route = self._route
        self._tally.take(route, body)
        if route.delay:
            asyncio.get_running_loop().call_later(route.delay, self._answer, route)
        elif route.answers:
            self._transport.write(route.answer)

    def _answer(self, route: Route) -> None:
        if not self._transport.is_closing():
            self._transport.write(route.answer)


class Control(asyncio.Protocol):
    """A connection to the control port."""

    def __init__(self, tally: Tally) -> None:
        self._answers: dict[bytes, Callable[[], bytes]] = {
            b"/counts": lambda: json.dumps(tally.counts()).encode(),
            b"/statistics": lambda: json.dumps(tally.statistics()).encode(),
            b"/seen": tally.seen,
            b"/reset": tally.reset,
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Create the parser."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Respond immediately, because these requests have no bodies."""
        body = self._answers[url]()
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        self._transport.close()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    tally = Tally()
    deliveries = await loop.create_server(lambda: Delivery(tally), "127.0.0.1", 0, backlog=_BACKLOG)
    control = await loop.create_server(lambda: Control(tally), "127.0.0.1", 0)
    print(json.dumps([server.sockets[0].getsockname()[1] for server in (deliveries, control)]), flush=True)
    ended = asyncio.Event()
    # Standard input ends when the parent process ends.
    loop.add_reader(sys.stdin, ended.set)
    await ended.wait()


if __name__ == "__main__":
    # This process creates no reference cycles, and the garbage collector would scan millions of numbers repeatedly.
    gc.disable()
    uvloop.run(_main())
