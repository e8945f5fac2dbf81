"""Routing of requests to the API or the dashboard.

A thread loads the dashboard on the first request for a page. Therefore, a server without visitors uses less memory.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

API: Final = frozenset({"v1", "docs", "packages", "healthz", "readyz", "metrics", "openapi.json"})
"""The first segments of API paths."""


class Pages(Protocol):
    """The interface of the dashboard, which is loaded on the first request for a page."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request."""

    def close(self) -> None:
        """Close all live streams."""


class Gate:
    """The ASGI application that routes each request to the API or the dashboard."""

    def __init__(self, api: App, load: Callable[[], Pages]) -> None:
        self._api = api
        self._load = load
        self._pages: Pages | None = None
        self._loading = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route a request to the API or the dashboard."""
        # Use `removeprefix`, because the path of `OPTIONS *` does not begin with a slash.
        if scope["type"] != "http" or scope["path"].removeprefix("/").partition("/")[0] in API:
            await self._api(scope, receive, send)
            return
        if self._pages is None:
            async with self._loading:
                if self._pages is None:
                    self._pages = await asyncio.to_thread(self._load)
        await self._pages(scope, receive, send)

    def close(self) -> None:
        """Close all live streams, so that the server can stop."""
        if self._pages is not None:
            self._pages.close()
