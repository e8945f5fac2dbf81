"""Around every request: an answer in time, and never a traceback. Pure ASGI, which costs next to nothing."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from uplift_server.api.problems import Refusal, refusal_of, unavailable

ANSWER_SECONDS_MAX: Final = 4.5
"""Every answer comes within 5 s; the rest is for what stands between the caller and us."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """The middleware."""

    def __init__(self, app: App, seconds_max: float = ANSWER_SECONDS_MAX) -> None:
        self._app = app
        self._seconds_max = seconds_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and answer in place of what fails or takes too long."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            async with asyncio.timeout(self._seconds_max) as timeout:
                await self._app(scope, receive, noting)
        except Exception as error:
            if started:
                raise
            await answer(send, unavailable() if timeout.expired() else refusal_of(error))


async def answer(send: Send, refusal: Refusal) -> None:
    """Send a refusal."""
    headers = [*refusal.headers, (b"content-length", str(len(refusal.body)).encode())]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": refusal.body})
