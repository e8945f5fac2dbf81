"""Clients that hang, flood or send invalid data: the server keeps serving other clients."""

import contextlib
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from .harness import OPERATOR_KEY, TYPE, Api, Server
from .receiving import Receiver

pytestmark = pytest.mark.timing


HEAD = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OPERATOR_KEY}\r\n"
JSON = "Content-Type: application/json\r\n"
MIB = 1024 * 1024


@contextlib.contextmanager
def clients(server: Server, count: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """Open connections, and send `first` on each. Close them at the end of the block."""
    opened = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(count)]
    try:
        for each in opened:
            each.sendall(first)
        yield opened
    finally:
        for each in opened:
            each.close()


def _check_other_clients(api: Api) -> None:
    """Check that well-behaved clients are not affected."""
    for number in range(5):
        for got in (api.send(number), api("GET", "/v1/events"), api("GET", "/readyz")):
            assert got.status in {200, 202}
            assert got.seconds < 1


def _response_to(server: Server, *parts: bytes) -> bytes:
    """Return the response to these bytes, or nothing if the connection ends without a response."""
    with clients(server, 1) as [client]:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                client.sendall(part)
        client.settimeout(2)
        with contextlib.suppress(ConnectionResetError, TimeoutError):
            return client.recv(65_536)
    return b""


def test_incomplete_requests_and_idle_connections_do_not_block_others(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    api.endpoint(receiver.url("/hook"))
    half_head = f"{HEAD}Uplift-Account: {account}\r\nX-Unfinished: ".encode()
    half_body = f'{HEAD}Uplift-Account: {account}\r\n{JSON}Content-Length: 1000\r\n\r\n{{"type"'.encode()
    with clients(server, 300), clients(server, 50, half_head), clients(server, 50, half_body):
        _check_other_clients(api)
    _check_other_clients(api)
    receiver.wait("/hook", 10)
    # Truncated requests created no event.
    assert len(api.list_all(f"/v1/events?type={TYPE}")) == 10


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00\xff\x80" * 1000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzzzz\r\n",
        b"\r\n" * 10_000,
    ],
    ids=["bytes", "tls", "version", "negative-length", "smuggling", "chunk-size", "empty-lines"],
)
def test_invalid_requests_are_rejected(server: Server, nonsense: bytes) -> None:
    _, api = server.account()
    with clients(server, 20, nonsense):
        _check_other_clients(api)
    response = _response_to(server, nonsense, b"\r\n\r\n")
    assert response == b"" or response.split(b" ")[1][:1] == b"4", response[:200]
    assert not any("Traceback" in line for line in server.log)


def test_endless_headers_use_no_memory(server: Server) -> None:
    _, api = server.account()
    before = server.resident_mib()
    line = b"X-Filler: " + b"y" * 1000 + b"\r\n"
    for filler in (line * 1000, b"z" * MIB):  # many headers, and one without an end
        with clients(server, 4, b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ") as opened:
            for client in opened:
                with contextlib.suppress(OSError):
                    for _ in range(16):
                        client.sendall(filler)
            _check_other_clients(api)
            assert server.resident_mib() - before < 30
    # Headers of usual size in many small pieces are accepted.
    pieces = [b"GET /healthz HTTP/1.1\r\nHost: x\r\n", *[b"X-%d: " % n + b"v" * 200 + b"\r\n" for n in range(50)]]
    assert _response_to(server, *pieces, b"\r\n").startswith(b"HTTP/1.1 200")


def test_oversized_bodies_are_rejected_before_they_are_read(server: Server) -> None:
    account, api = server.account()
    head = f"{HEAD}Uplift-Account: {account}\r\n{JSON}"
    before = server.resident_mib()
    declared = _response_to(server, f"{head}Content-Length: {10 * MIB}\r\n\r\n".encode(), b"x" * 1000)
    assert declared.startswith(b"HTTP/1.1 413"), declared[:100]
    chunk = b"100000\r\n" + b"x" * MIB + b"\r\n"
    chunked = _response_to(server, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), *[chunk] * 64)
    assert chunked == b"" or chunked.startswith(b"HTTP/1.1 413"), chunked[:100]
    deep = api("POST", "/v1/events", b'{"type":"' + TYPE.encode() + b'","data":{"a":' + b"[" * 100_000)
    assert deep.status in {400, 422}
    assert server.resident_mib() - before < 30
    _check_other_clients(api)


def test_a_chunked_body_in_many_pieces_is_accepted(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    api.endpoint(receiver.url("/hook"))
    body = json.dumps({"type": TYPE, "data": {"number": 7, "text": "é" * 3000}}, ensure_ascii=False).encode()
    head = f"{HEAD}Uplift-Account: {account}\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n".encode()
    pieces = [b"%x\r\n%b\r\n" % (len(body[at : at + 501]), body[at : at + 501]) for at in range(0, len(body), 501)]
    response = _response_to(server, head, *pieces, b"0\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 202"), response
    [request] = receiver.wait("/hook", 1)
    assert request.json["data"] == {"number": 7, "text": "é" * 3000}


def test_callers_that_disconnect_early_do_not_affect_others(server: Server) -> None:
    account, api = server.account()
    body = json.dumps({"type": TYPE, "data": {"number": 1}}).encode()
    whole = f"{HEAD}Uplift-Account: {account}\r\n{JSON}Content-Length: {len(body)}\r\n\r\n".encode() + body
    for _ in range(100):
        with clients(server, 1, whole):
            pass
    began = time.monotonic()
    _check_other_clients(api)
    assert time.monotonic() - began < 5
    # Pipelined requests get their responses in order.
    response = b""
    with clients(server, 1, whole * 3) as [client]:
        while response.count(b"HTTP/1.1 202") < 3:
            part = client.recv(65_536)
            assert part, response
            response += part
    assert not any("Traceback" in line for line in server.log)


def test_garbage_after_a_complete_request_does_not_prevent_its_response(server: Server) -> None:
    account, api = server.account()
    before = len(api.list_all("/v1/events"))
    body = json.dumps({"type": TYPE, "data": {"number": 1}}).encode()
    whole = f"{HEAD}Uplift-Account: {account}\r\n{JSON}Content-Length: {len(body)}\r\n\r\n".encode() + body
    for garbage in (b"\x00\xff garbage\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        for _ in range(10):
            with clients(server, 1, whole + garbage) as [client]:
                assert _read_all(client).startswith(b"HTTP/1.1 202")
    for _ in range(20):  # these clients close the connection before the response
        with clients(server, 1, whole + b"\x00"):
            pass
    _check_other_clients(api)
    assert len(api.list_all("/v1/events")) >= before + 20
    assert not any("Traceback" in line for line in server.log)


def test_ordinary_clients_get_413_for_an_oversized_body(server: Server) -> None:
    """`urllib` sends the whole body before it reads, and requests `Connection: close`."""
    account, api = server.account()
    headers = {"authorization": f"Bearer {OPERATOR_KEY}", "uplift-account": account, "content-type": "application/json"}
    for path in ("/v1/events", "/v1/endpoints"):
        for size in (2, 8):
            for _ in range(5):
                sent = Request(server.url + path, b" " * size * MIB, headers)
                with pytest.raises(HTTPError) as caught:
                    urlopen(sent, timeout=20)
                assert caught.value.code == 413
                assert json.load(caught.value)["code"] == "payload_too_large"
    _check_other_clients(api)


def test_bodies_of_keys_without_the_scope_are_not_read(server: Server) -> None:
    account, api = server.account()
    key = api.ok("POST", f"/v1/accounts/{account}/keys", {"name": "reads", "scopes": ["events:read"]})["key"]
    before = server.resident_mib()
    head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n{JSON}Content-Length: 270000\r\n\r\n"
    with clients(server, 400, head.encode() + b" " * 200_000) as opened:
        for client in opened:
            assert client.recv(65_536).startswith(b"HTTP/1.1 403")
        _check_other_clients(api)
        assert server.resident_mib() - before < 40
        # The server closes the connections, although the clients never send the rest of their bodies.
        for client in opened:
            client.settimeout(20)
            with contextlib.suppress(ConnectionResetError):
                assert _read_all(client) is not None


def test_unfinished_bodies_are_limited_in_bytes_and_time(server: Server) -> None:
    account, api = server.account()
    key = api.ok("POST", f"/v1/accounts/{account}/keys", {"name": "writes", "scopes": ["events:write"]})["key"]
    before = server.resident_mib()
    head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n{JSON}"
    announced = f"{head}Content-Length: 270000\r\n\r\n".encode()
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n40000\r\n".encode()
    with (
        clients(server, 100, announced + b" " * 200_000) as some,
        clients(server, 100, chunked + b" " * 200_000) as more,
    ):
        _check_other_clients(api)
        began = time.monotonic()
        statuses = Counter(_read_all(client)[9:12] for client in (*some, *more))
        assert statuses.keys() == {b"408", b"429"}
        assert time.monotonic() - began < 25
        assert server.resident_mib() - before < 40
    # The server has released the memory that it reserved for the unfinished bodies.
    assert Api(server.url, key)("POST", "/v1/events", {"type": TYPE, "data": {"number": 1}}).status == 202
    body = json.dumps({"type": TYPE, "data": {"number": 1, "text": "x" * 200_000}}).encode()
    with clients(server, 1, f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()) as [client]:
        client.sendall(body)
        assert _read_all(client).startswith(b"HTTP/1.1 202")


def _read_all(client: socket.socket) -> bytes:
    """Return all bytes until the connection ends."""
    client.settimeout(20)
    received = b""
    while part := client.recv(65_536):
        received += part
    return received
