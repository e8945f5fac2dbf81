"""The header `traceparent` of requests, for those that trace what they serve. In front only where traces are on."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from uplift_server.service.traced_ingest import TRACEPARENT

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Traceparents:
    """The middleware."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, its header remembered for as long as it is served."""
        if scope["type"] == "http":
            # A request is served by a task of its own, so nobody else's is touched.
            found = [value for name, value in scope["headers"] if name == b"traceparent"]
            TRACEPARENT.set(found[0].decode("latin-1") if len(found) == 1 else None)
        await self._app(scope, receive, send)
