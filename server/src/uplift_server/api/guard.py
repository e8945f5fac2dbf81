"""ASGI middleware that limits the response time and turns exceptions into error responses."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from uplift_server.api.problems import ErrorResponse, error_response_of, problem, unavailable

ANSWER_SECONDS_MAX: Final = 4.5
"""Time limit for a response, in seconds. It is less than the public limit of 5 s, which includes network time."""
WAITED_S: Final = "uplift.waited_s"
"""Key in the ASGI scope: the number of seconds that a request waited before it reached this middleware.

These seconds count toward the time limit.
"""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI middleware that limits the duration of HTTP requests, and converts exceptions to error responses."""

    def __init__(self, app: App, seconds_max: float = ANSWER_SECONDS_MAX) -> None:
        self._app = app
        self._seconds_max = seconds_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application. Send an error response if the application fails or takes too long."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        complete = False

        async def reading() -> Message:
            nonlocal complete
            message = await receive()
            complete = not message.get("more_body", False)
            return message

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            async with asyncio.timeout(self._seconds_max - scope.get(WAITED_S, 0.0)) as timeout:
                await self._app(scope, reading, noting)
        except Exception as error:
            if started:
                if timeout.expired():
                    return  # The client is not reading. The server closes the connection without logging an error.
                raise
            if not timeout.expired():
                error_response = error_response_of(error)
            elif complete or not _has_body(scope):
                error_response = unavailable()
            else:
                error_response = self._too_slow()
            await send_error(send, error_response)

    def _too_slow(self) -> ErrorResponse:
        """Return the response to a request whose body did not arrive in time. The response closes the connection."""
        return problem(
            "request_timeout",
            f"The request body did not arrive within {self._seconds_max:g} seconds, so the server did not process"
            " the request. Send a smaller body or use a faster connection.",
            headers=[(b"connection", b"close")],
        )


def _has_body(scope: Scope) -> bool:
    return any(name in {b"content-length", b"transfer-encoding"} and value != b"0" for name, value in scope["headers"])


async def send_error(send: Send, error_response: ErrorResponse, *, handshake: bool = False) -> None:
    """Send an error response. If `handshake` is true, respond to the handshake of a websocket."""
    of = "websocket.http" if handshake else "http"
    headers = [*error_response.headers, (b"content-length", str(len(error_response.body)).encode())]
    await send({"type": f"{of}.response.start", "status": error_response.status, "headers": headers})
    await send({"type": f"{of}.response.body", "body": error_response.body})
