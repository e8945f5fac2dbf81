"""ASGI: an application that receives webhooks, for any ASGI server or framework.

>>> app = WebhookApplication(Webhook(), handle)                              # doctest: +SKIP
>>> routes = [Route("/webhook", WebhookApplication(Webhook(), handle))]      # doctest: +SKIP
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from uplift_webhooks.deduplication import EventInProgress
from uplift_webhooks.errors import WebhookVerificationError
from uplift_webhooks.events import AnyEvent
from uplift_webhooks.frameworks.rejections import (
    BODY_BYTES_MAX,
    CONTENT_TYPE,
    WRONG_METHOD,
    Rejected,
    Rejection,
    in_progress,
    too_large,
    unverified,
)
from uplift_webhooks.webhook import Webhook

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[[AnyEvent], Awaitable[None] | None]


class WebhookApplication:
    """Verifies POST requests at any path, passes each event to a handler, and responds with 204."""

    def __init__(self, webhook: Webhook, handler: Handler, *, body_bytes_max: int = BODY_BYTES_MAX) -> None:
        """`handler` is a coroutine function, or a plain function, which runs in another thread."""
        self._webhook: Final = webhook
        self._handler: Final = handler
        self._body_bytes_max: Final = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the server's lifespan events."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            rejection = await self._serve(scope, receive)
            await _answer(send, rejection)

    async def _serve(self, scope: Scope, receive: Receive) -> Rejection | None:
        if scope["method"] != "POST":
            return WRONG_METHOD
        try:
            event = self._webhook.unwrap(await _body(receive, self._body_bytes_max), scope["headers"])
        except Rejected as error:
            return error.rejection
        except WebhookVerificationError as error:
            return unverified(error)
        try:
            if inspect.iscoroutinefunction(self._handler) or inspect.iscoroutinefunction(type(self._handler).__call__):
                pending: object = self._handler(event)
            else:
                pending = await asyncio.to_thread(self._handler, event)
            # A handler that is not a coroutine function may also return an awaitable.
            if inspect.isawaitable(pending):
                await pending
        except EventInProgress as error:
            return in_progress(error)
        return None


async def _body(receive: Receive, body_bytes_max: int) -> bytes:
    """Return the complete body, or the received part of it if the client disconnects.

    Raises Rejected if the body is too large.
    """
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > body_bytes_max:
            raise Rejected(too_large(body_bytes_max))
    return bytes(body)


async def _answer(send: Send, rejection: Rejection | None) -> None:
    status, content, headers = 204, b"", []
    if rejection is not None:
        status, content = rejection.status, rejection.content
        fields = {"content-type": CONTENT_TYPE, "content-length": str(len(content)), **rejection.headers}
        headers = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _live(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": f"{message['type']}.complete"})
