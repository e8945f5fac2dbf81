"""ASGI middleware that responds with 503 to pending requests when the server stops, instead of uvicorn's plain 500."""

import asyncio
from contextlib import suppress
from typing import Final

from uplift_server.api.guard import App, Receive, Scope, Send, send_error
from uplift_server.api.problems import problem

LAST_ANSWER_SECONDS_MAX: Final = 0.5
"""Time limit, in seconds, for sending the response with status code 503.

Sending waits only for a client that has not read earlier data.
"""
_CLOSE: Final = ((b"connection", b"close"),)
"""A header that closes the connection.

Without this header, uvicorn would start the next pipelined request, but would not cancel that request.
"""


class LastAnswer:
    """ASGI middleware that responds to the requests that the server's shutdown cancels."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application. If the server's shutdown cancels the request, respond with 503."""
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                raise
            detail = "The server is stopping and may not have completed the request. Try again in a moment."
            error_response = problem("unavailable", detail, retry_after_s=1, headers=_CLOSE)
            # If a response has begun, uvicorn rejects a second response and closes the connection.
            sending = send_error(send, error_response, handshake=scope["type"] == "websocket")
            with suppress(RuntimeError, TimeoutError):
                # Before Python 3.11.3, `asyncio.timeout` is not reliable in a cancelled task, so use `wait_for`.
                await asyncio.wait_for(sending, LAST_ANSWER_SECONDS_MAX)
