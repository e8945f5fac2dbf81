"""Arbitrary response bytes in arbitrary pieces raise no exception, and every attempt ends exactly once."""

import asyncio
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.deliveries.outcomes import Outcome, classify
from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.delivery.sending.http import Request, Target
from uplift_server.delivery.sending.http.attempt import Attempt, Opening
from uplift_server.delivery.sending.http.connection import BufferedConnection, Connection, ConnectionOwner

TARGET = Target("127.0.0.1", 80, False)


class Transport(asyncio.Transport):
    """A transport that accepts all writes, and records its close."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = False

    def write(self, data: Any) -> None:
        assert not self.ended

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True


class Watcher(ConnectionOwner):
    """Counts the callbacks of a connection."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.stale_attempts = 0

    def opened(self, connection: Connection) -> None:
        pass

    def finished(self, connection: Connection, attempt: Attempt, exchange: Exchange, now: float) -> None:
        self.exchanges.append(exchange)

    def stale(self, attempt: Attempt) -> None:
        self.stale_attempts += 1

    def ended(self, connection: Connection) -> None:
        pass

    def lost(self, connection: Connection) -> None:
        pass


def attempt() -> Attempt:
    return Attempt(Request(TARGET, b"POST / HTTP/1.1\r\n\r\n", b"", None), lambda *_: None, 0, time.monotonic(), 15_000)


def feed(connection: Connection, piece: bytes) -> None:
    if isinstance(connection, BufferedConnection):
        while piece:
            buffer = connection.get_buffer(-1)
            size = min(len(buffer), len(piece))
            buffer[:size] = piece[:size]
            connection.buffer_updated(size)
            piece = piece[size:]
    else:
        connection.data_received(piece)


lines = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.0 503 No\r\n",
        b"HTTP/1.1 204 Nothing\r\n",
        b"HTTP/1.1 101 Switch\r\n",
        b"Content-Length: 3\r\n",
        b"content-length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Retry-After: 5\r\n",
        b"Location: /x\r\n",
        b"\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"abc",
        b"\n",
        b"\0",
        b"X: " + b"y" * 40_000 + b"\r\n",
        b"z" * 70_000,
    ]
)
responses = st.lists(lines | st.binary(max_size=20), max_size=12).map(b"".join) | st.binary(max_size=200)
endings = st.sampled_from([None, "eof", ConnectionResetError(104, "reset"), OSError("odd")])


@pytest.mark.parametrize("kind", [Connection, BufferedConnection])
@given(response=responses, cuts=st.lists(st.integers(0, 400), max_size=6), ending=endings, reused=st.booleans())
def test_any_response_bytes_end_the_attempt(
    kind: type[Connection], response: bytes, cuts: list[int], ending: Any, reused: bool
) -> None:
    watcher, transport = Watcher(), Transport()
    connection = kind(watcher, TARGET, Opening(), time.monotonic() + 60, time.monotonic)
    connection.connection_made(transport)
    connection.start(attempt(), reused=reused)
    edges = [0, *sorted(cuts), len(response)]
    for start, end in pairwise(edges):
        if response[start:end] and not transport.ended:
            feed(connection, response[start:end])
    if ending == "eof" and not transport.ended:
        connection.eof_received()
        assert transport.ended
    connection.connection_lost(ending if isinstance(ending, Exception) else None)
    assert len(watcher.exchanges) + watcher.stale_attempts == 1
    if watcher.stale_attempts:
        assert reused
        assert not response
    for exchange in watcher.exchanges:
        assert exchange.failure in (None, Failure.PROTOCOL)
        assert (exchange.error is None) == (exchange.failure is None)
        assert len(exchange.response_body) <= 4096
        assert len(exchange.response_head) <= 4096
        assert exchange.status_code is None or 200 <= exchange.status_code <= 999
        if classify(exchange) is Outcome.DELIVERED:
            assert exchange.response_head.startswith(b"HTTP/1.")
            assert b"\r\n\r\n" in exchange.response_head or len(exchange.response_head) == 4096


@given(body=st.binary(max_size=3000), sizes=st.lists(st.integers(1, 500), min_size=1, max_size=30), data=st.data())
def test_a_chunked_body_is_decoded(body: bytes, sizes: list[int], data: st.DataObject) -> None:
    rest, chunks = body, []
    for size in sizes:
        chunks.append(rest[:size])
        rest = rest[size:]
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for chunk in filter(None, [*chunks, rest]):
        wire += b"%x\r\n%b\r\n" % (len(chunk), chunk)
    wire += b"0\r\n\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(1, len(wire) - 1), max_size=8)))
    watcher = Watcher()
    connection = Connection(watcher, TARGET, Opening(), time.monotonic() + 60, time.monotonic)
    connection.connection_made(Transport())
    # Repeat on the same connection, because it keeps its parser.
    for _ in range(2):
        connection.start(attempt(), reused=True)
        for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            if start < end:
                connection.data_received(wire[start:end])
    assert [(exchange.failure, exchange.response_body) for exchange in watcher.exchanges] == [(None, body)] * 2
    assert connection.is_open
