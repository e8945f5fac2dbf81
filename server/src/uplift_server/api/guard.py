"""Around every request: an answer in time, and never a traceback. Pure ASGI, which costs next to nothing."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from uplift_server.api.problems import Refusal, problem, refusal_of, unavailable

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
            async with asyncio.timeout(self._seconds_max) as timeout:
                await self._app(scope, reading, noting)
        except Exception as error:
            if started:
                if timeout.expired():
                    return  # The caller does not read. The server ends the connection, and need not tell of a defect.
                raise
            if not timeout.expired():
                refusal = refusal_of(error)
            elif complete or not _has_body(scope):
                refusal = unavailable()
            else:
                refusal = self._too_slow()
            await answer(send, refusal)

    def _too_slow(self) -> Refusal:
        """The answer to a caller whose body has not come: the delay is theirs, and so is the connection's end."""
        return problem(
            "request_timeout",
            f"The request's body did not come within {self._seconds_max:g} s, so nothing was done. Send it faster, or"
            " less at once.",
            headers=[(b"connection", b"close")],
        )


def _has_body(scope: Scope) -> bool:
    return any(name in {b"content-length", b"transfer-encoding"} and value != b"0" for name, value in scope["headers"])


async def answer(send: Send, refusal: Refusal, *, handshake: bool = False) -> None:
    """Send a refusal; also to who asks for a websocket, whose `handshake` is answered as any other request is."""
    of = "websocket.http" if handshake else "http"
    headers = [*refusal.headers, (b"content-length", str(len(refusal.body)).encode())]
    await send({"type": f"{of}.response.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{of}.response.body", "body": refusal.body})
