"""Programs to the API, people to the dashboard.

A server whose pages nobody looks at should not carry them in memory: the first visit loads them, in a thread.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

API: Final = frozenset({"v1", "docs", "healthz", "readyz", "metrics", "openapi.json"})
"""How the paths begin that are the API's."""


class Pages(Protocol):
    """The dashboard, loaded."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""

    def close(self) -> None:
        """End what visitors watch."""


class Gate:
    """Sends every request where it belongs."""

    def __init__(self, api: App, load: Callable[[], Pages]) -> None:
        self._api = api
        self._load = load
        self._pages: Pages | None = None
        self._loading = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        # Without a slash is the path of `OPTIONS *`, which is none.
        if scope["type"] != "http" or scope["path"].removeprefix("/").partition("/")[0] in API:
            await self._api(scope, receive, send)
            return
        if self._pages is None:
            async with self._loading:
                if self._pages is None:
                    self._pages = await asyncio.to_thread(self._load)
        await self._pages(scope, receive, send)

    def close(self) -> None:
        """Let the open pages go, so that the server can stop."""
        if self._pages is not None:
            self._pages.close()
