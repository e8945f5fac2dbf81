"""Behind proxies: requests get the address they come from, as far as trusted proxies tell it."""

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
    """In front of everything that asks where a request comes from, which accepting events does not."""

    def __init__(self, app: App, trusted: Sequence[Network]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        peer = scope.get("client")
        if peer is not None:
            said = [value.decode("latin-1") for name, value in scope["headers"] if name == _HEADER]
            if said:
                scope["client"] = (client_address(peer[0], said, self._trusted), peer[1])
        await self._app(scope, receive, send)
