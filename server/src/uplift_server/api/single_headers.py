"""Rejects requests that repeat certain headers, because a proxy and the server could each use a different value."""

from collections.abc import Sequence
from typing import Final

from uplift_server.api.guard import App, Receive, Scope, Send, send_error
from uplift_server.api.problems import error_response_of
from uplift_server.service.errors import DuplicateHeader

_SINGLE: Final = {b"authorization": "Authorization", b"uplift-account": "Uplift-Account", b"host": "Host"}


def check_single(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raise DuplicateHeader if `headers` contains one of the headers in _SINGLE more than once.

    The names in `headers` are in lower case.
    """
    names = [name for name, _ in headers]
    for name, text in _SINGLE.items():
        if names.count(name) > 1:
            raise DuplicateHeader(f"The request repeats the header `{text}`. Send it once.")


class SingleHeaders:
    """ASGI middleware that rejects requests with repeated headers."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject a request that repeats a header. Run the application for all other requests."""
        try:
            check_single(scope["headers"])
        except DuplicateHeader as error:
            await send_error(send, error_response_of(error), handshake=scope["type"] == "websocket")
            return
        await self._app(scope, receive, send)
