"""ASGI middleware for the `traceparent` header. The server installs this middleware only if tracing is enabled."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from uplift_server.core.http.trace_context import without_extensions
from uplift_server.observe.trace_records import TRACEPARENT

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Traceparents:
    """ASGI middleware that stores the valid `traceparent` header of each request in TRACEPARENT."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with TRACEPARENT set to the request's `traceparent` header."""
        if scope["type"] == "http":
            # Each request has its own task, so the value does not affect other requests.
            found = [value for name, value in scope["headers"] if name == b"traceparent"]
            TRACEPARENT.set(without_extensions(found[0].decode("latin-1")) if len(found) == 1 else None)
        await self._app(scope, receive, send)
