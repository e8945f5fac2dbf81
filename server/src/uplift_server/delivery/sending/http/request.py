"""Interface between the engine and the sender: the engine passes a request and gets an exchange back."""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from uplift_server.core.http.exchange import Exchange
from uplift_server.core.limits import RESPONSE_BODY_BYTES_STORED_MAX
from uplift_server.delivery.targets import Target


class Request(msgspec.Struct, frozen=True):
    """A request."""

    target: Target
    head: bytes
    """Request line and headers, with the empty line at their end."""
    body: bytes
    context: Any
    """Value for the caller's `done`. The sender ignores it."""
    timeout_ms: int | None = None
    """Timeout of the attempt. None: the sender's."""
    response_bytes_max: int = RESPONSE_BODY_BYTES_STORED_MAX
    """The exchange has at most this many bytes of the response's body."""


Done = Callable[[Request, Exchange], None]
"""Called once for each request, on the event loop, after `send` has returned."""


class RequestSender(Protocol):
    """Sends requests."""

    def send(self, request: Request, done: Done) -> None:
        """Send a request, and call `done` once with its exchange."""
