"""Interface between the engine and the sender: the engine passes a request and receives an exchange."""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from uplift_server.core.http.exchange import Exchange
from uplift_server.core.limits import RESPONSE_BODY_BYTES_STORED_MAX
from uplift_server.delivery.targets import Target


class Request(msgspec.Struct, frozen=True):
    """A request to a receiver or a token URL."""

    target: Target
    head: bytes
    """The request line and the headers, with the empty line at their end."""
    body: bytes
    context: Any
    """An object for the caller's `done`. The sender ignores it."""
    timeout_ms: int | None = None
    """The timeout of the attempt, in ms. None means the timeout in the sender's settings."""
    response_bytes_max: int = RESPONSE_BODY_BYTES_STORED_MAX
    """The maximum number of bytes of the response body in the exchange."""


Done = Callable[[Request, Exchange], None]
"""A callback for a request. The sender calls it once, on the event loop, after `send` has returned."""


class RequestSender(Protocol):
    """The port that sends requests."""

    def send(self, request: Request, done: Done) -> None:
        """Send a request. Call `done` once with its exchange."""
