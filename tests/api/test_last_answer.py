"""When the server stops, each pending request gets one response, and none delays the stop."""

import asyncio
import time
from typing import Any

import pytest

from uplift_server.api.last_answer import LAST_ANSWER_SECONDS_MAX, LastAnswer

HTTP = {"type": "http"}


async def serve_and_stop(app: Any, send: Any, scope: Any = HTTP) -> None:
    """Start a request, and stop the server before the response."""
    task = asyncio.create_task(LastAnswer(app)(scope, None, send))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    await task


async def hang(_scope: Any, _receive: Any, _send: Any) -> None:
    await asyncio.Event().wait()


async def test_a_pending_request_gets_503() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await serve_and_stop(hang, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 503
    assert {(b"retry-after", b"1"), (b"connection", b"close")} <= set(sent[0]["headers"])
    assert b'"code": "unavailable"' in sent[1]["body"]
    assert b"The server is stopping" in sent[1]["body"]


async def test_a_pending_websocket_handshake_gets_503() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await serve_and_stop(hang, send, {"type": "websocket"})
    assert [message["type"] for message in sent] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert sent[0]["status"] == 503


async def test_a_started_response_gets_no_second_one() -> None:
    async def send(_message: Any) -> None:
        raise RuntimeError("Unexpected ASGI message")  # uvicorn's message

    await serve_and_stop(hang, send)


async def test_a_client_that_does_not_read_does_not_delay_the_stop() -> None:
    async def send(_message: Any) -> None:
        await asyncio.Event().wait()

    began = time.monotonic()
    await serve_and_stop(hang, send)
    assert time.monotonic() - began < 10 * LAST_ANSWER_SECONDS_MAX


async def test_another_cancellation_is_raised() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await LastAnswer(app)(HTTP, None, None)  # type: ignore[arg-type]
