"""ASGI middleware that limits the HTTP API of a worker process to health checks and metrics."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from starlette.responses import Response

from uplift_server.api.problems import problem

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})


class VitalSigns:
    """Middleware that passes requests for PATHS to the API and rejects all other requests."""

    def __init__(self, api: App) -> None:
        self._api = api

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Pass a health check or a request for metrics to the API. Reject any other request."""
        if scope["type"] == "http" and scope["path"] in PATHS:
            await self._api(scope, receive, send)
            return
        detail = "This process is a worker without the API. Send the request to a process with `--role api` or `all`."
        error_response = problem("misdirected", detail)
        response = Response(error_response.body, error_response.status)
        response.raw_headers.extend(error_response.headers)
        await response(scope, receive, send)
