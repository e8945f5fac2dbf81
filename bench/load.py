"""The load generator: a process that posts events and records the events that were accepted with 202.

The generator shares the CPU with the server, so it does little work. Requests are rendered in advance, except for a
sequence number and a timestamp. Each connection writes its next request in the callback that ends the previous one.

    python -m bench.load PLAN.json        prints one JSON line at the end
"""

import asyncio
import contextlib
import json
import signal
import sys
import time
from array import array
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import httptools
import uvloop

from bench.latency import Latencies
from bench.pace import Pace

FIRST_SEQ: Final = 1_000_000_000
"""The first sequence number. All numbers have ten digits, so that all requests have the same length."""
TYPE: Final = "movement.analytics.created"
_REFUSED_PAUSE_S: Final = 0.02
_RECONNECT_S: Final = 0.02
_FINISH_S: Final = 30.0


@dataclass(frozen=True)
class Plan:
    """The load to generate."""

    ports: list[int]
    """Ports of the servers on 127.0.0.1. New connections use the ports in turn."""
    key: str
    accounts: list[str]
    """Account IDs. The event with the number N belongs to the account at index N modulo the number of accounts."""
    secs: float
    """Duration of the load, in seconds. 0 means until SIGTERM."""
    connections: int = 64
    """Number of connections in a closed loop, or maximum number of connections in an open loop."""
    rate: float = 0.0
    """Events per second in an open loop. 0 means a closed loop."""
    batch: int = 1
    first_seq: int = FIRST_SEQ
    body_bytes: int = 1024
    """Size of an event's JSON without its ordering key, in bytes."""
    keys: int = 0
    """Number of ordering keys. 0 means that events have no ordering key."""
    accepted_file: str = ""
    """Path of the file for the sequence numbers of accepted events, in eight bytes each. Empty for no file."""


@dataclass
class Result:
    """The result of a load."""

    sent: int = 0
    accepted: int = 0
    began_at: int = 0
    """Time of the first request, in Unix nanoseconds."""
    secs: float = 0.0
    codes: dict[str, int] = field(default_factory=dict)
    """Number of requests for each status code. The key `0` counts requests whose connection was lost."""
    accept_ms: dict[str, float] = field(default_factory=dict)
    late_ms: dict[str, float] = field(default_factory=dict)
    """Percentiles in ms, only in an open loop: how long after their scheduled time the generator sent requests.

    Requests that waited for a free connection are not included.
    """
    refusal: str = ""
    """Up to 500 characters of the body of the last response that was not a 202, or an empty string."""


class Writer:
    """Renderer of requests. It prepares everything in advance except the sequence number and the timestamp."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._accounts = plan.accounts
        if plan.batch > 1:
            self._starts = [b'{"account":"%b",' % a.encode() for a in plan.accounts]
        else:
            self._starts = [b"{"] * len(plan.accounts)
        # Each event is about a different object, so the server indexes every object ID.
        start = b'"type":"%b","data":{"object":{"id":"' % TYPE.encode()
        # The object ID and `seq` have 10 digits each, and the timestamp has 19 digits.
        room = plan.body_bytes - len(self._starts[0] + start + b'","seq":,"t":,"pad":""}}}') - 2 * 10 - 19
        self._starts = [head + start for head in self._starts]
        end = b',"pad":"%b"}}' % (b"x" * max(0, room))
        self._ends = [end + b',"ordering_key":"%04d"}' % key for key in range(plan.keys)] or [end + b"}"]
        length = len(self._starts[0]) + 10 + len(b'","seq":') + 10 + len(b',"t":') + 19 + len(self._ends[0])
        assert len({len(head) for head in self._starts}) == 1, "account IDs have different lengths"
        if plan.batch > 1:
            length = len(b'{"events":[]}') + plan.batch * length + plan.batch - 1
        path = "/v1/events/batch" if plan.batch > 1 else "/v1/events"
        self._heads = [self._head(path, account, length) for account in plan.accounts]

    def _head(self, path: str, account: str, length: int) -> bytes:
        lines = [
            f"POST {path} HTTP/1.1",
            f"host: 127.0.0.1:{self._plan.ports[0]}",
            f"authorization: Bearer {self._plan.key}",
        ]
        if self._plan.batch == 1:
            lines.append(f"uplift-account: {account}")
        lines += ["content-type: application/json", f"content-length: {length}", "", ""]
        return "\r\n".join(lines).encode()

    def request(self, seq: int, sent_at: int) -> bytes:
        """Return the request with the event `seq`, or with a batch that begins with this event."""
        count = len(self._accounts)
        if self._plan.batch == 1:
            index = seq % count
            return b'%b%b%d","seq":%d,"t":%d%b' % (
                self._heads[index],
                self._starts[index],
                seq,
                seq,
                sent_at,
                self._ends[seq % len(self._ends)],
            )
        events = [
            b'%b%d","seq":%d,"t":%d%b'
            % (self._starts[number % count], number, number, sent_at, self._ends[number % len(self._ends)])
            for number in range(seq, seq + self._plan.batch)
        ]
        return b'%b{"events":[%b]}' % (self._heads[0], b",".join(events))


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request in flight."""

    __slots__ = ("_body", "_load", "_parser", "_transport", "began", "seq")

    def __init__(self, load: "Load") -> None:
        self._load = load
        self.seq = 0
        self.began = 0
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Report that the connection is ready."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self._load.connected(self)

    def send(self, request: bytes, seq: int, began: int) -> None:
        """Write a request; its latency counts from `began`."""
        self.seq = seq
        self.began = began
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Keep the last bytes, which may explain a rejection."""
        self._body = body

    def on_message_complete(self) -> None:
        """Report the response."""
        code = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self._transport.close()
        self._load.answered(self, code, self._body)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """Report the lost connection, so that the load reconnects."""
        self._load.lost(self)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


class Load:
    """A closed loop (each connection sends as soon as possible) or an open loop (at a fixed rate)."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.result = Result()
        self._writer = Writer(plan)
        self._seq = plan.first_seq
        self._accepted = array("q")
        self._accepts, self._late = Latencies(), Latencies()
        self._codes: dict[int, int] = {}
        self._idle: deque[Connection] = deque()
        self._due: deque[int] = deque()
        self._open: set[Connection] = set()
        self._connecting = 0
        self._connections = 0
        """Number of connections that the load has begun to open, which determines the port of the next connection."""
        self._under_way = 0
        self._running = False
        self._stop = asyncio.Event()
        self._quiet = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        # The difference of the clocks: latencies use the monotonic clock, and the receiver uses the wall clock.
        self._wall = time.time_ns() - time.monotonic_ns()

    async def run(self) -> Result:
        """Send for the planned time, then wait for missing responses."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        closed = not self.plan.rate
        await asyncio.gather(*(self._connect() for _ in range(self.plan.connections if closed else 8)))
        self._running, began = True, time.monotonic()
        self.result.began_at = time.time_ns()
        pace = None if closed else Pace(self.plan.rate / self.plan.batch, self._tick)
        if closed:
            while self._idle:
                self._next(self._idle.popleft(), time.monotonic_ns())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), self.plan.secs or None)
        self._running = False
        if pace is not None:
            pace.stop()
        self.result.secs = round(time.monotonic() - began, 3)
        if self._under_way:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), _FINISH_S)
        for connection in list(self._open):
            connection.close()
        return self._summary()

    def _summary(self) -> Result:
        result = self.result
        result.sent = self._seq - self.plan.first_seq
        result.accepted = len(self._accepted)
        result.codes = {str(code): count for code, count in sorted(self._codes.items())}
        result.accept_ms, result.late_ms = self._accepts.summary(), self._late.summary()
        if self.plan.accepted_file:
            Path(self.plan.accepted_file).write_bytes(self._accepted.tobytes())
        return result

    # ---- events of connections

    def connected(self, connection: Connection) -> None:
        """Use a new connection."""
        self._open.add(connection)
        self._free(connection)

    def answered(self, connection: Connection, code: int, body: bytes) -> None:
        """Handle a response."""
        now = time.monotonic_ns()
        self._accepts.add(now - connection.began)
        seq, connection.seq = connection.seq, 0
        self._ended(code)
        if code == 202:
            self._accepted.extend(range(seq, seq + self.plan.batch))
            self._free(connection)
        else:
            self.result.refusal = body.decode("utf-8", "replace")[:500]
            asyncio.get_running_loop().call_later(_REFUSED_PAUSE_S, self._free, connection)

    def lost(self, connection: Connection) -> None:
        """Handle a lost connection. Its request may have been accepted."""
        self._open.discard(connection)
        if connection.seq:
            self._ended(0)
        if self._running and not self.plan.rate:
            task = asyncio.get_running_loop().create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _ended(self, code: int) -> None:
        self._codes[code] = self._codes.get(code, 0) + 1
        self._under_way -= 1
        if not self._under_way and not self._running:
            self._quiet.set()

    # ---- sending

    def _free(self, connection: Connection) -> None:
        if connection not in self._open:
            return
        if self.plan.rate:
            if self._due and self._running:
                self._next(connection, self._due.popleft())
            else:
                self._idle.append(connection)
        elif self._running:
            self._next(connection, time.monotonic_ns())
        else:
            self._idle.append(connection)

    def _next(self, connection: Connection, began: int) -> None:
        seq = self._seq
        self._seq += self.plan.batch
        self._under_way += 1
        connection.send(self._writer.request(seq, began + self._wall), seq, began)

    def _tick(self, intended: int) -> None:
        """Send the next event of the open loop."""
        idle = self._idle
        while idle:
            # Reuse the most recent connection, so that extra connections become idle after a slow period.
            connection = idle.pop()
            if connection in self._open:
                self._late.add(time.monotonic_ns() - intended)
                self._next(connection, intended)
                return
        self._due.append(intended)
        if len(self._open) + self._connecting < self.plan.connections:
            task = asyncio.get_running_loop().create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        port = self.plan.ports[self._connections % len(self.plan.ports)]
        self._connections += 1
        self._connecting += 1
        try:
            while not self._stop.is_set():
                try:
                    await loop.create_connection(lambda: Connection(self), "127.0.0.1", port)
                    return
                except OSError:
                    await asyncio.sleep(_RECONNECT_S)
        finally:
            self._connecting -= 1


async def _main(plan: Plan) -> dict[str, Any]:
    return asdict(await Load(plan).run())


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_main(Plan(**json.loads(Path(sys.argv[1]).read_text()))))))
