"""Each request gets one response within the time limit."""

import asyncio
import socket
import time
from typing import Any

import pytest

from uplift_server.api.guard import ANSWER_SECONDS_MAX as DEFAULT_SECONDS_MAX
from uplift_server.api.guard import Guard

ANSWER_SECONDS_MAX = 0.5
"""The response time limit of the server in this module's tests, in seconds."""
REPEATS_MAX = 5
"""Maximum number of tries of a read, which can exceed the time limit on a busy machine."""


def test_the_limit_leaves_time_for_the_network() -> None:
    """Responses must arrive within 5 s."""
    assert DEFAULT_SECONDS_MAX <= 4.5


def test_every_response_arrives_in_time(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the database hangs, the response is 503. A change that commits later still updates the cache."""
    account = server.account()
    key = server.operator.post(f"/v1/accounts/{account}/keys", {"name": "x"}).json
    write = server.database.write
    released = asyncio.Event()

    async def hang(body: Any) -> Any:
        await released.wait()
        return await write(body)

    with monkeypatch.context() as patched:
        patched.setattr(server.database, "write", hang)
        began = time.monotonic()
        response = server.operator.delete(f"/v1/accounts/{account}/keys/{key['id']}")
        assert time.monotonic() - began < ANSWER_SECONDS_MAX + 1
        assert (response.status, response.code) == (503, "unavailable")
        statuses = (server.client(key["key"]).get("/v1/endpoints").status for _ in range(REPEATS_MAX))
        assert next(status for status in statuses if status != 503) == 200
        server.loop.call_soon_threadsafe(released.set)
        server.run(server.services.context.finish)
    assert server.client(key["key"]).get("/v1/endpoints").code == "unauthorized"


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"],
    ids=["content length", "chunked"],
)
def test_an_incomplete_body_gets_408_with_its_cause(server: Any, body: bytes) -> None:
    """A slow client cannot keep a connection open, and the error does not mention the database."""
    with socket.create_connection(("127.0.0.1", server.pool.port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/accounts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer " + server.operator_key.encode() + b"\r\n" + body
        )
        began = time.monotonic()
        response = b""
        while part := connection.recv(65536):
            response += part
        assert time.monotonic() - began < ANSWER_SECONDS_MAX + 1
    assert response.startswith(b"HTTP/1.1 408")
    assert b'"code": "request_timeout"' in response
    assert b"database" not in response


async def test_a_failure_during_the_response_ends_the_connection() -> None:
    """The server cannot send a second response. The exception reaches uvicorn, which closes the connection."""
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ZeroDivisionError):
        await Guard(app)({"type": "http"}, None, send)  # type: ignore[arg-type]
    assert [message["type"] for message in sent] == ["http.response.start"]


async def test_a_client_that_does_not_read_causes_no_error() -> None:
    """uvicorn closes the connection without a traceback in the log."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    async def send(_message: Any) -> None: ...

    await Guard(app, 0.01)({"type": "http"}, None, send)  # type: ignore[arg-type]
