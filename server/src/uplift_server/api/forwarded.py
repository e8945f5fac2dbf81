"""ASGI middleware that determines client addresses behind trusted reverse proxies."""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from uplift_server.core.http.forwarding import Network, client_address

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADER = b"x-forwarded-for"


class Forwarded:
    """ASGI middleware that replaces a trusted proxy's address with the client's address.

    Requests to the ingest routes bypass this middleware, because these routes do not use the client's address.
    """

    def __init__(self, app: App, trusted: Sequence[Network]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Replace a trusted proxy's address with the client's address, then run the application."""
        peer = scope.get("client")
        if peer is not None:
            said = [value.decode("latin-1") for name, value in scope["headers"] if name == _HEADER]
            if said:
                scope["client"] = (client_address(peer[0], said, self._trusted), peer[1])
        await self._app(scope, receive, send)
