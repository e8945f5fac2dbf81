"""Listen streams whose client sends too many frames or does not read: they end, and other clients do not wait."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import TYPE, Api, Server, serving, wait_for

PING, CONTINUED, TEXT = 9, 0, 1
RESPONSE_WITHIN_S = 2.0
FLOOD_S = 4.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as server:
        yield server


def frame(kind: int, payload: bytes = b"", *, last: bool = True) -> bytes:
    """Return a client frame (RFC 6455 5.2), masked with zeros."""
    assert len(payload) < 126
    return struct.pack("!BBI", (0x80 if last else 0) | kind, 0x80 | len(payload), 0) + payload


@contextlib.contextmanager
def stream(server: Server, session: str, key: str) -> Iterator[socket.socket]:
    """Open a stream on a socket with a small receive buffer."""
    with socket.socket() as raw:
        _open(raw, server, session, key)
        yield raw


def _open(raw: socket.socket, server: Server, session: str, key: str) -> None:
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(10)
    raw.connect(("127.0.0.1", server.port))
    raw.sendall(
        f"GET /v1/listen-sessions/{session}/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert raw.recv(12) == b"HTTP/1.1 101"


def developer(server: Server) -> tuple[Api, Api, str, str]:
    """Create an account. Return clients of its operator and a developer, the developer's key, and a listen session."""
    account, sender = server.account()
    key = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "ana"})["key"]
    developer_api = server.api(key)
    return sender, developer_api, key, developer_api.ok("POST", "/v1/listen-sessions")["id"]


@pytest.mark.parametrize(
    ("first", "flood"),
    [(b"", frame(PING, b"p" * 125)), (frame(TEXT, last=False), frame(CONTINUED, last=False))],
    ids=["pings", "fragments"],
)
@pytest.mark.timing
def test_a_flood_of_frames_ends_the_stream_without_delays(server: Server, first: bytes, flood: bytes) -> None:
    sender, developer_api, key, session = developer(server)
    with stream(server, session, key) as raw:
        raw.sendall(first)
        cut = threading.Event()

        def flood_stream() -> None:
            until = time.monotonic() + FLOOD_S
            try:
                while time.monotonic() < until:
                    raw.sendall(flood * 1000)
            except OSError:
                cut.set()

        flooding = threading.Thread(target=flood_stream)
        flooding.start()
        slowest = 0.0
        while flooding.is_alive():
            began = time.monotonic()
            sender.send(1)
            slowest = max(slowest, time.monotonic() - began)
    assert cut.is_set()
    assert slowest < RESPONSE_WITHIN_S
    wait_for(lambda: not developer_api.ok("GET", f"/v1/listen-sessions/{session}")["connected"], "the stream is closed")
    assert not any("Traceback" in line for line in server.log), server.log


def test_an_unread_stream_ends_with_its_session(server: Server) -> None:
    sender, developer_api, key, session = developer(server)
    with stream(server, session, key) as raw:
        for _ in range(64):
            sender.ok("POST", "/v1/events", {"type": TYPE, "data": {"pad": "x" * 200_000}})
        # The buffers are full: further data waits in the server.
        time.sleep(1)
        developer_api.ok("DELETE", f"/v1/listen-sessions/{session}")

        def is_reset() -> bool:
            """Whether the other end has reset the connection, detected by a write."""
            try:
                raw.sendall(frame(PING))
            except OSError:
                return True
            return False

        wait_for(is_reset, "the connection is reset", 8)
    assert server.stop() == 0
    assert not any("Traceback" in line for line in server.log), server.log
