"""A receiver on real sockets that records every request and does what it was told for the path, however rude."""

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

from .harness import Server, wait_for

BLOCK = b"x" * 65_536


@dataclass
class Received:
    """One request as it came."""

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
        """Of the body's bytes."""
        return hashlib.sha256(self.body).digest()


class Connection:
    """What an action may do with the connection; `left` are numbers of bytes that did get through."""

    def __init__(self, sock: socket.socket, closing: threading.Event) -> None:
        self.sock = sock
        self.closing = closing

    def write(self, data: bytes) -> None:
        """Send; a broken connection ends the action."""
        self.sock.sendall(data)

    def gone(self, within: float) -> bool:
        """Wait until the client closes, at most so long."""
        deadline = time.monotonic() + within
        self.sock.settimeout(0.1)
        while time.monotonic() < deadline and not self.closing.is_set():
            with contextlib.suppress(TimeoutError):
                return not self.sock.recv(1)
        return False


Action = Callable[[Connection, Received], bool]
"""Answers a request; whether the connection is kept."""


def answer(status: int = 200, body: bytes = b"ok", after: float = 0, **headers: str) -> Action:
    """A proper answer, perhaps after a while."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    whole = "\r\n".join([*lines, "", ""]).encode() + body

    def act(connection: Connection, _: Received) -> bool:
        if after:
            connection.closing.wait(after)
        connection.write(whole)
        return True

    return act


def hang(connection: Connection, _: Received) -> bool:
    """Answer nothing until the client gives up."""
    connection.gone(60)
    return False


def drip(connection: Connection, _: Received) -> bool:
    """An answer that never ends, a byte at a time."""
    connection.write(b"HTTP/1.1 200 OK\r\n")
    while not connection.closing.wait(0.05):
        connection.write(b"x")
    return False


def close(_: Connection, __: Received) -> bool:
    """Close without an answer."""
    return False


def once_per_connection() -> Action:
    """Respond to the first request of a connection; read the second one and close without a response."""
    seen: set[object] = set()
    good = answer()

    def act(connection: Connection, received: Received) -> bool:
        peer = connection.sock.getpeername()
        if peer in seen:
            return False
        seen.add(peer)
        return good(connection, received)

    return act


def reset(connection: Connection, _: Received) -> bool:
    """Half an answer, then a reset."""
    connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
    time.sleep(0.05)
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def garbage(connection: Connection, _: Received) -> bool:
    """No HTTP at all."""
    connection.write(b"\x00\xff220 smtp.example ESMTP\r\n" * 20)
    return False


def huge(length: int, sent: list[int], status: int = 200) -> Action:
    """A body of so many bytes; how many went out is noted in `sent`."""

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
    """A chunked body without an end."""
    connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not connection.closing.is_set():
        connection.write(b"10000\r\n" + BLOCK + b"\r\n")
    return False


def after_failing(times: int, status: int = 500) -> Action:
    """Fail each event's first attempts, then accept it."""
    seen: Counter[str] = Counter()
    good, bad = answer(), answer(status)

    def act(connection: Connection, received: Received) -> bool:
        event = received.headers["webhook-id"]
        seen[event] += 1
        return (bad if seen[event] <= times else good)(connection, received)

    return act


class Receiver:
    """Listens on 127.0.0.1; every path answers 200 until told otherwise."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self._actions: dict[str, Action] = {}
        self._default = answer()
        self._closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def url(self, path: str, action: Action | None = None) -> str:
        """The URL of a path, which from now on does this."""
        if action is not None:
            self._actions[path] = action
        return f"http://127.0.0.1:{self.port}{path}"

    def on(self, path: str) -> list[Received]:
        """What came to a path, the greeting of new endpoints left out."""
        return [r for r in list(self.requests) if r.path == path and r.headers["x-uplift-event"] != "webhook.created"]

    def count(self, path: str) -> int:
        """How many requests came to a path, all of them."""
        return sum(r.path == path for r in list(self.requests))

    def numbers(self, path: str) -> Counter[int]:
        """How often each numbered event came to a path."""
        return Counter(int(r.json["data"]["number"]) for r in self.on(path))

    def wait(self, path: str, count: int, within: float = 20) -> list[Received]:
        """Until so many requests came to a path."""
        wait_for(lambda: len(self.on(path)) >= count, f"{count} requests at {path}", within)
        return self.on(path)

    def close(self) -> None:
        """Stop, and drop every connection."""
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
    """How often something had reached a path whose outcome had not reached the database when the server died."""
    counts = [-1, len(receiver.requests)]
    while counts[-1] != counts[-2]:  # requests still in the sockets' buffers are on their way
        time.sleep(0.1)
        counts.append(len(receiver.requests))
    query = "SELECT e.id FROM deliveries d JOIN events e ON e.seq = d.event_seq WHERE d.status = 0"
    in_hand = {event.hex() for (event,) in server.place.look(query)}
    came = Counter(r.headers["webhook-id"].replace("-", "") for r in receiver.on(path))
    return sum(came[event] for event in in_hand)
