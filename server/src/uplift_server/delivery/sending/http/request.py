"""Interface between the engine and the sender: the engine passes a request and gets an exchange back."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from uplift_server.core.http.exchange import Exchange
from uplift_server.delivery.targets import Target


class Request(NamedTuple):
    """A POST request. It is a tuple because creating a frozen dataclass for every attempt takes three times as long."""

    target: Target
    head: bytes
    """Request line and headers, with the empty line at their end."""
    body: bytes
    context: Any
    """Value for the caller's `done`. The sender ignores it."""
    timeout_ms: int | None = None
    """Timeout of the attempt. None: the sender's."""


Done = Callable[[Request, Exchange], None]
"""Called once for each request, on the event loop, after `send` has returned."""


class RequestSender(Protocol):
    """Sends requests."""

    def send(self, request: Request, done: Done) -> None:
        """Send a request, and call `done` once with its exchange."""
