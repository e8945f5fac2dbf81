"""Scripted receivers, name servers and proxies on real loopback sockets."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from msgspec.structs import replace

from uplift_server.core.http.exchange import Exchange
from uplift_server.delivery.sending.http import Request, Resolver, Sender, Target

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """The receiver's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.is_closed = False

    async def request(self) -> bytes:
        """Read a complete request with a content-length. Raises IncompleteReadError at the end of the connection."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        return head + await self.reader.readexactly(length)

    async def send(self, *pieces: bytes) -> None:
        """Send each piece as a separate segment, as far as the kernel allows."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            if len(pieces) > 1:
                await asyncio.sleep(0)

    async def respond(self, response: bytes = OK) -> bytes:
        request = await self.request()
        await self.send(response)
        return request

    def reset(self) -> None:
        """Reset the connection."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()

    async def wait_closed(self) -> None:
        """Wait until the other side closes the connection."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


Script = Callable[[Peer], Awaitable[None]]


class Receiver:
    """A server that runs `script` on each connection, and then closes the connection."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.accepted = 0
        self.peers: list[Peer] = []
        self.peer_names: list[Any] = []
        self.port = 0
        self.host = ""
        self.server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        self.peer_names.append(writer.get_extra_info("peername"))
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await self.script(peer)
        finally:
            self._tasks.discard(task)
            peer.is_closed = True
            writer.close()

    def target(self, host: str | None = None, *, encrypted: bool = False) -> Target:
        return Target(host or self.host, self.port, encrypted)

    async def close(self) -> None:
        assert self.server is not None
        self.server.close()
        for task in list(self._tasks):
            task.cancel()
        for peer in self.peers:
            # Python 3.11.2 does not abort a TLS connection that is already closed.
            with suppress(AttributeError):
                peer.writer.transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)


Listen = Callable[..., Awaitable[Receiver]]


async def serve_ok(peer: Peer) -> None:
    while True:
        await peer.respond()


def request_to(target: Target, body: bytes = b"body") -> Request:
    head = f"POST /hook HTTP/1.1\r\nHost: {target.host}\r\nContent-Length: {len(body)}\r\n\r\n"
    return Request(target, head.encode(), body, None)


class Client:
    """A sender that checks that each request calls `done` once."""

    def __init__(self, sender: Sender, resolver: Resolver) -> None:
        self.sender = sender
        self.resolver = resolver
        self.calls: list[list[Exchange]] = []

    def send(self, target: Target, body: bytes = b"body", *, timeout_ms: int | None = None) -> asyncio.Future[Exchange]:
        """Send a request, and return a future of its exchange."""
        future: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        calls: list[Exchange] = []
        self.calls.append(calls)
        request = replace(request_to(target, body), timeout_ms=timeout_ms)

        def done(answered: Request, exchange: Exchange) -> None:
            assert answered is request
            calls.append(exchange)
            if not future.done():
                future.set_result(exchange)

        self.sender.send(request, done)
        assert not calls, "send called done directly"
        return future

    async def post(self, target: Target, body: bytes = b"body") -> Exchange:
        return await self.send(target, body)

    async def close(self) -> None:
        await self.sender.close()
        await self.resolver.close()
        for _ in range(3):
            await asyncio.sleep(0)
        assert self.sender.in_flight == 0
        assert all(len(calls) == 1 for calls in self.calls)


Connect = Callable[..., Awaitable[Client]]


class Clock:
    """A monotonic clock in seconds that only tests advance."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


A, AAAA = 1, 28


def parse_query(query: bytes) -> tuple[str, int, int]:
    """Return the name, the record type and the end of the question in a DNS query."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += query[at] + 1
    return ".".join(labels).lower(), int.from_bytes(query[at + 1 : at + 3]), at + 5


class NameServer(asyncio.DatagramProtocol):
    """Responds to A and AAAA queries. `zone` maps names to addresses, an RCODE, or None for no response."""

    def __init__(self) -> None:
        self.zone: dict[str, list[str] | int | None] = {}
        self.ttl = 0
        self.queries: list[tuple[str, int]] = []
        self.address = ""
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        host, port = transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, addr: Any) -> None:
        name, kind, end = parse_query(data)
        question = data[12:end]
        self.queries.append((name, kind))
        found = self.zone.get(name, 3)
        if found is None:
            return
        records = []
        if isinstance(found, list):
            for address in map(ip_address, found):
                if kind == (A if address.version == 4 else AAAA):
                    packed = address.packed
                    records.append(struct.pack(">HHHIH", 0xC00C, kind, 1, self.ttl, len(packed)) + packed)
        code = found if isinstance(found, int) else 0
        head = data[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(records), 0, 0)
        self.transport.sendto(head + question + b"".join(records), addr)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until the condition becomes true in the event loop."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)
