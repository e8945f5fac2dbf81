"""A receiver on real sockets that records every request. Each path can have a scripted or faulty response."""

import contextlib
import hashlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from uplift_webhooks import Webhook, WebhookVerificationError

from .harness import Server, wait_for

BLOCK = b"x" * 65_536


@dataclass
class Received:
    """A received request."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float
    """Unix seconds."""
    peer: str

    @cached_property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)

    @property
    def digest(self) -> bytes:
        """The digest of the body."""
        return hashlib.sha256(self.body).digest()


class Connection:
    """A connection from the server, for use in a response action."""

    def __init__(self, sock: socket.socket, closing: threading.Event) -> None:
        self.sock = sock
        self.closing = closing

    def write(self, data: bytes) -> None:
        """Write bytes. A closed connection ends the action."""
        self.sock.sendall(data)

    def wait_until_closed(self, within: float) -> bool:
        """Wait until the client closes the connection, at most `within` seconds."""
        deadline = time.monotonic() + within
        self.sock.settimeout(0.1)
        while time.monotonic() < deadline and not self.closing.is_set():
            with contextlib.suppress(TimeoutError):
                return not self.sock.recv(1)
        return False


Action = Callable[[Connection, Received], bool]
"""A response action. Returns whether to keep the connection."""


def respond(status: int = 200, body: bytes = b"ok", after: float = 0, **headers: str) -> Action:
    """Send a valid response, optionally after a delay."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    whole = "\r\n".join([*lines, "", ""]).encode() + body

    def act(connection: Connection, _: Received) -> bool:
        if after:
            connection.closing.wait(after)
        connection.write(whole)
        return True

    return act


def verify(secret: str) -> Action:
    """Respond with 204 to a request with a valid signature, and with 401 to others."""
    webhook, accept, reject = Webhook(secret), respond(204, b""), respond(401, b"")

    def act(connection: Connection, received: Received) -> bool:
        try:
            webhook.verify(received.body, received.headers)
        except WebhookVerificationError:
            return reject(connection, received)
        return accept(connection, received)

    return act


def hang(connection: Connection, _: Received) -> bool:
    """Send no response until the client closes the connection."""
    connection.wait_until_closed(60)
    return False


def drip(connection: Connection, _: Received) -> bool:
    """Send an endless response, one byte at a time."""
    connection.write(b"HTTP/1.1 200 OK\r\n")
    while not connection.closing.wait(0.05):
        connection.write(b"x")
    return False


def close(_: Connection, __: Received) -> bool:
    """Close the connection without a response."""
    return False


def once_per_connection() -> Action:
    """Respond to the first request of a connection. Read the second one, and close without a response."""
    seen: set[object] = set()
    good = respond()

    def act(connection: Connection, received: Received) -> bool:
        peer = connection.sock.getpeername()
        if peer in seen:
            return False
        seen.add(peer)
        return good(connection, received)

    return act


def reset(connection: Connection, _: Received) -> bool:
    """Send half a response, then reset the connection."""
    connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
    time.sleep(0.05)
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def garbage(connection: Connection, _: Received) -> bool:
    """Send bytes that are not HTTP."""
    connection.write(b"\x00\xff220 smtp.example ESMTP\r\n" * 20)
    return False


def huge(length: int, sent: list[int], status: int = 200) -> Action:
    """Send a body of this size. Record the number of sent bytes in `sent`."""

    def act(connection: Connection, _: Received) -> bool:
        sent.append(0)
        at = len(sent) - 1
        connection.write(f"HTTP/1.1 {status} OK\r\nContent-Length: {length}\r\n\r\n".encode())
        while sent[at] < length:
            connection.write(BLOCK)
            sent[at] += len(BLOCK)
        return True

    return act


def endless(connection: Connection, _: Received) -> bool:
    """Send an endless chunked body."""
    connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not connection.closing.is_set():
        connection.write(b"10000\r\n" + BLOCK + b"\r\n")
    return False


def after_failing(times: int, status: int = 500) -> Action:
    """Fail the first `times` attempts of each event, then accept it."""
    seen: Counter[str] = Counter()
    good, bad = respond(), respond(status)

    def act(connection: Connection, received: Received) -> bool:
        event = received.headers["webhook-id"]
        seen[event] += 1
        return (bad if seen[event] <= times else good)(connection, received)

    return act


class Receiver:
    """Listens on 127.0.0.1. Every path responds with 200 by default."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self._actions: dict[str, Action] = {}
        self._default = respond()
        self._closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def url(self, path: str, action: Action | None = None) -> str:
        """Return the URL of a path, and set its action."""
        if action is not None:
            self._actions[path] = action
        return f"http://127.0.0.1:{self.port}{path}"

    def on(self, path: str) -> list[Received]:
        """Return the requests to a path, except for registration events."""
        return [r for r in list(self.requests) if r.path == path and r.headers["x-uplift-event"] != "webhook.created"]

    def count(self, path: str) -> int:
        """Count all requests to a path."""
        return sum(r.path == path for r in list(self.requests))

    def numbers(self, path: str) -> Counter[int]:
        """Count the requests to a path by event number."""
        return Counter(int(r.json["data"]["number"]) for r in self.on(path))

    def wait(self, path: str, count: int, within: float = 20) -> list[Received]:
        """Wait until a path has received this many requests."""
        wait_for(lambda: len(self.on(path)) >= count, f"{count} requests at {path}", within)
        return self.on(path)

    def close(self) -> None:
        """Stop, and close all connections."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._connections):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                sock, address = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(sock, address[0]), daemon=True).start()

    def _serve(self, sock: socket.socket, peer: str) -> None:
        self._connections.add(sock)
        try:
            with sock, sock.makefile("rb") as incoming, contextlib.suppress(OSError):
                while (received := _read(incoming, peer)) is not None:
                    self.requests.append(received)
                    sock.settimeout(None)
                    if not self._actions.get(received.path, self._default)(Connection(sock, self._closing), received):
                        break
        finally:
            self._connections.discard(sock)


def _read(incoming: Any, peer: str) -> Received | None:
    line = incoming.readline()
    if not line:
        return None
    path = line.split(b" ")[1].decode()
    headers: dict[str, str] = {}
    while (line := incoming.readline().decode("latin-1").rstrip("\r\n")) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = incoming.read(int(headers.get("content-length", "0")))
    if len(body) < int(headers.get("content-length", "0")):
        return None
    return Received(path, headers, body, time.time(), peer)


def sent_unsettled(server: Server, receiver: Receiver, path: str) -> int:
    """Count the requests to a path whose deliveries are still pending in the database of the killed server."""
    counts = [-1, len(receiver.requests)]
    while counts[-1] != counts[-2]:  # Requests may still be in the socket buffers.
        time.sleep(0.1)
        counts.append(len(receiver.requests))
    query = "SELECT e.id FROM deliveries d JOIN events e ON e.seq = d.event_seq WHERE d.status = 0"
    in_flight = {event.hex() for (event,) in server.place.query(query)}
    arrived = Counter(r.headers["webhook-id"].replace("-", "") for r in receiver.on(path))
    return sum(arrived[event] for event in in_flight)
