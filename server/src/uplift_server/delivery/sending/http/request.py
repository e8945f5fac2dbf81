"""The interface between the engine and the sender: the engine passes a request, and receives an exchange."""

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
    """The request line and the headers, including the empty line after the headers."""
    body: bytes
    context: Any
    """Any object that `done` needs. The sender does not use it."""
    timeout_ms: int | None = None
    """The timeout of the attempt, in ms. If None, the timeout in the sender's settings applies."""
    response_bytes_max: int = RESPONSE_BODY_BYTES_STORED_MAX
    """The maximum size of the response body that the exchange contains, in bytes."""


Done = Callable[[Request, Exchange], None]
"""A callback for the exchange of a request.

The sender calls it exactly once, on the event loop, after `send` has returned.
"""


class RequestSender(Protocol):
    """The interface that sends requests."""

    def send(self, request: Request, done: Done) -> None:
        """Send a request. `done` is called exactly once with the exchange."""
